//! The schemas of values that several bodies share, with the limits of the domain. Must not contain handlers.

use serde_json::json;
use strum::IntoEnumIterator;
use utoipa::openapi::{
    ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
    schema::{AdditionalProperties, Array, Object},
};

use super::{batch::OPERATIONS_MAX, catalogue::Kind, pages::FILES};
use crate::{
    domain::{Action, KEY_MAX_BYTES, PAGE_MAX, POINTS_MAX, REASON_MAX_CHARS, Rejection, Status},
    ops::health::Duty,
};

pub(super) fn user_id() -> Object {
    whole_number("The user.", 1, i64::MAX, 1)
}

pub(super) fn point() -> Object {
    whole_number("How many points.", 1, POINTS_MAX, 1000)
}

pub(super) fn balance() -> Object {
    whole_number("How many points the user has.", 0, POINTS_MAX, 700)
}

pub(super) fn seq() -> Object {
    whole_number("The place in the user's log: 1, 2, 3, ... without gaps.", 1, i64::MAX, 2)
}

pub(super) fn reason() -> Object {
    text("Your reason, without control characters.", "welcome")
        .min_length(Some(1))
        .max_length(Some(REASON_MAX_CHARS))
        .pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]*$"))
        .build()
}

pub(super) fn idempotency_key() -> Object {
    text("Visible ASCII characters, with spaces allowed between them.", "order-7")
        .min_length(Some(1))
        .max_length(Some(KEY_MAX_BYTES))
        .pattern(Some("^[!-~]([ -~]*[!-~])?$"))
        .build()
}

/// A reason that may be absent or null.
pub(super) fn optional_reason() -> Object {
    optional(reason())
}

/// A constant text.
pub(super) fn constant(value: &'static str) -> Object {
    one_of([value])
}

pub(super) fn action() -> Object {
    one_of(Action::iter().map(Action::as_str))
}

pub(super) fn pending() -> Object {
    constant("pending")
}

pub(super) fn status() -> Object {
    one_of(Status::iter().map(Status::as_str))
}

/// Not an enum: newer versions may add reasons.
pub(super) fn reject_reason() -> Object {
    let known: Vec<&str> = Rejection::iter().map(|known| <&str>::from(&known)).collect();
    let description = format!("One of {}. Newer versions may add reasons.", known.join(", "));
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .examples([json!(known[0])])
        .build()
}

/// A text or null.
fn optional(mut text: Object) -> Object {
    text.schema_type = [Type::String, Type::Null].into_iter().collect();
    text
}

/// The path of a request's outcome.
pub(super) fn location() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^/v1/point/request/[0-9a-f-]{36}[?]id=[0-9]+$"))
        .build()
}

/// The value of Retry-After (RFC 9110 §10.2.3).
pub(super) fn seconds() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build()
}

/// The name of a file that the pages need.
pub(super) fn file() -> Object {
    one_of(FILES.map(|(name, _)| name))
}

/// The last part of the type of a problem.
pub(super) fn slug() -> Object {
    one_of(Kind::ALL.iter().map(|kind| kind.row().slug))
}

/// The operations of a batch.
pub(super) fn operations() -> Array {
    let key = optional(idempotency_key());
    let operation = ObjectBuilder::new()
        .property("action", action())
        .property("user_id", user_id())
        .property("point", point())
        .property("reason", optional(reason()))
        .property("key", key)
        .required("action")
        .required("user_id")
        .required("point")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    ArrayBuilder::new().items(operation).min_items(Some(1)).max_items(Some(OPERATIONS_MAX)).build()
}

pub(super) fn role() -> Object {
    one_of(Duty::iter().map(Duty::as_str))
}

/// The number of entries of a page.
pub(super) fn limit() -> Object {
    whole_number("The maximum number of entries to return.", 1, PAGE_MAX.into(), 50)
}

pub(super) fn time() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .build()
}

pub(super) fn request_id() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .build()
}

fn one_of(values: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

fn whole_number(description: &str, min: i64, max: i64, example: i64) -> Object {
    let limit = |value: i64| isize::try_from(value).expect("a platform of 64 bits");
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(description))
        .minimum(Some(limit(min)))
        .maximum(Some(limit(max)))
        .examples([json!(example)])
        .build()
}

fn text(description: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).examples([json!(example)])
}
