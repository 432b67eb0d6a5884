//! The parameters of every endpoint, as the API's description has them. Must not contain handlers.

use serde_json::{Value, json};
use utoipa::{
    IntoParams,
    openapi::{
        RefOr, Required, Schema, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::Object,
    },
};

use super::schema;

/// A set of parameters: the name of each, its place, its schema, its description, and an example unless a request with
/// it takes long.
macro_rules! parameters {
    ($(#[$doc:meta])* $set:ident: $(($name:literal, $place:expr, $schema:expr, $description:literal $(, $example:tt)?))*) => {
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
    /// The headers of a change.
    ChangeHeaders:
    ("Idempotency-Key", HEADER, schema::idempotency_key(), "A request that is sent again with the same key counts \
        once. Keys are separate for each API key name and each user. A request with a known key is answered with the \
        original outcome and `Idempotency-Replayed: true`; another change with a known key gets `422`. `order-7` and \
        `\"order-7\"` are the same key.", "order-7")
    ("Prefer", HEADER, Object::with_type(Type::String), "`wait` (RFC 7240 §4.3): skip the queue, apply the \
        change before answering, and return the outcome. Other preferences change nothing.", "wait")
}

parameters! {
    /// The headers of a batch.
    BatchHeaders:
    ("Idempotency-Key", HEADER, schema::idempotency_key(), "Makes the batch safe to send again: an operation \
        without its own `key` is identified by this key and its place among the operations of its user.", "payday-11")
}

parameters! {
    /// The query of a balance.
    BalanceQuery:
    ("id", QUERY, schema::user_id(), "The user.", "1")
    ("at", OPTION, schema::time(), "Returns the balance at this time.", "2026-11-23T03:00:00Z")
}

parameters! {
    /// The query of a user's holds.
    HoldsQuery:
    ("id", QUERY, schema::user_id(), "The user.", "1")
}

parameters! {
    /// The query of many balances. Only `id` has an example: the other parameters must not be sent with it.
    BalancesQuery:
    ("id", OPTION, schema::user_ids(), "The users: `id=1&id=2`, at most 100, each once. Required, unless there is a \
        `prefix`.", ["1", "2"])
    ("prefix", OPTION, schema::user_id_prefix(), "A page of the users whose ids begin with this, in the order of the \
        ids, byte by byte: `prefix=alice/`. Every id begins with the empty prefix. Not together with `id`.")
    ("after", OPTION, schema::user_id(), "With `prefix`: only users whose ids come after this one.")
    ("limit", OPTION, schema::limit(), "With `prefix`: the maximum number of balances to return, 50 by default.")
}

parameters! {
    /// The query of a page of the log.
    LogQuery:
    ("id", QUERY, schema::user_id(), "The user.", "1")
    ("limit", OPTION, schema::limit(), "The maximum number of entries to return.", 50)
    ("before", OPTION, schema::seq(), "Only entries with a smaller `seq`.", 51)
    ("from", OPTION, schema::time(), "Only entries decided at this time or later.", "2026-11-01T00:00:00Z")
    ("to", OPTION, schema::time(), "Only entries decided before this time.", "2026-12-01T00:00:00Z")
    ("status", OPTION, schema::status(), "Only entries with this status.", "rejected")
}

parameters! {
    /// The parameters of the outcome of a request.
    OutcomePath:
    ("request_id", PATH, schema::request_id(), "The request id from the response.",
        "01935b5a-4c00-7000-8000-000000000001")
    ("id", QUERY, schema::user_id(), "The user.", "1")
    ("Prefer", HEADER, Object::with_type(Type::String), "`wait=SECONDS` (RFC 7240 §4.3): answer as soon as \
        the request is decided, or after this time, at most 30 seconds. Example: `wait=10`.")
}

parameters! {
    /// The path of a file that the pages need.
    FilePath:
    ("file", PATH, schema::file(), "The name of the file.", "docs.js")
}

parameters! {
    /// The path of the page of a problem.
    KindPath:
    ("kind", PATH, schema::slug(), "The last part of a problem's `type`.", "insufficient-points")
}

/// The place of a parameter, and whether it is required.
type Place = (ParameterIn, Required);

const HEADER: Place = (ParameterIn::Header, Required::False);
const QUERY: Place = (ParameterIn::Query, Required::True);
const OPTION: Place = (ParameterIn::Query, Required::False);
const PATH: Place = (ParameterIn::Path, Required::True);

fn parameter(
    name: &str,
    (place, required): Place,
    schema: impl Into<RefOr<Schema>>,
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
