//! The parameters of every operation, as the API's description has them. No handler may enter.

use serde_json::{Value, json};
use utoipa::{
    IntoParams,
    openapi::{
        Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::Object,
    },
};

use super::schema;

/// A set of parameters: the name of each, where it is, its schema, what it is for, an example unless trying it
/// takes long.
macro_rules! parameters {
    ($(#[$doc:meta])* $set:ident: $(($name:literal, $place:expr, $schema:expr, $description:literal $(, $example:literal)?))*) => {
        $(#[$doc])*
        pub(super) struct $set;

        impl IntoParams for $set {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$(parameter($name, $place, $schema, $description, None$(.or(Some(json!($example))))?)),*]
            }
        }
    };
}

parameters! {
    /// Of a change.
    ChangeHeaders:
    ("Idempotency-Key", HEADER, schema::idempotency_key(), "Whatever is sent again with the same key counts once. \
        A key belongs to its user and stands for one change; with `Prefer: wait`, another change under it is \
        refused with `422`.", "order-7")
    ("Prefer", HEADER, Object::with_type(Type::String), "`wait` (RFC 7240 §4.3): apply the change before the \
        answer, past the queue, and say what came of it. Other preferences change nothing.", "wait")
}

parameters! {
    /// Of a batch.
    BatchHeaders:
    ("Idempotency-Key", HEADER, schema::idempotency_key(), "With it the batch may be sent again: an operation \
        without a `key` of its own counts once by its place in the batch.", "payday-11")
}

parameters! {
    /// Of a read.
    BalanceQuery:
    ("id", QUERY, schema::user_id(), "The user.", 1)
    ("at", OPTION, schema::time(), "When: the balance as it was then.", "2026-11-23T03:00:00Z")
}

parameters! {
    /// Of a page of the log.
    LogQuery:
    ("id", QUERY, schema::user_id(), "The user.", 1)
    ("limit", OPTION, schema::limit(), "How many entries at most.", 50)
    ("before", OPTION, schema::seq(), "Only entries with a smaller `seq`.", 51)
    ("from", OPTION, schema::time(), "Only entries from this time on.", "2026-11-01T00:00:00Z")
    ("to", OPTION, schema::time(), "Only entries before this time.", "2026-12-01T00:00:00Z")
    ("status", OPTION, schema::status(), "Only entries that came to this.", "rejected")
}

parameters! {
    /// Of the outcome of a request.
    OutcomePath:
    ("request_id", PATH, schema::request_id(), "The id that the request was answered with.",
        "01935b5a-4c00-7000-8000-000000000001")
    ("id", QUERY, schema::user_id(), "The user.", 1)
    ("Prefer", HEADER, Object::with_type(Type::String), "`wait=SECONDS` (RFC 7240 §4.3): answer when it is \
        decided, or after that long, at most 30: `wait=10`.")
}

parameters! {
    /// Of a page's file.
    FilePath:
    ("file", PATH, schema::file(), "The name of the file.", "docs.js")
}

parameters! {
    /// Of a problem's page.
    KindPath:
    ("kind", PATH, schema::slug(), "The last part of a problem's `type`.", "insufficient-points")
}

/// Where a parameter is, and whether it must be there.
type Place = (ParameterIn, Required);

const HEADER: Place = (ParameterIn::Header, Required::False);
const QUERY: Place = (ParameterIn::Query, Required::True);
const OPTION: Place = (ParameterIn::Query, Required::False);
const PATH: Place = (ParameterIn::Path, Required::True);

fn parameter(
    name: &str,
    (place, required): Place,
    schema: Object,
    description: &str,
    example: Option<Value>,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .example(example)
        .build()
}
