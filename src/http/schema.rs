//! The schemas of values that several bodies share, with the limits of the domain. Must not contain handlers.

use serde_json::json;
use strum::IntoEnumIterator;
use utoipa::openapi::{
    ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
    schema::{AdditionalProperties, Array, Object, SchemaType},
};

use super::{
    batch::{OPERATIONS_MAX, OperationRequest},
    catalogue::Kind,
    pages::FILES,
};
use crate::{
    domain::{
        self, ACTOR_MAX_BYTES, Action, HOLD_DEFAULT_MINUTES, HOLD_MAX_DAYS, IdempotencyKey, KEY_MAX_BYTES,
        METADATA_MAX_BYTES, PAGE_MAX, POINTS_MAX, REASON_MAX_CHARS, Rejection, Status,
    },
    ops::health::Duty,
};

mod user_ids;

use user_ids::requested_user_id;
pub(super) use user_ids::{unknown_users, user_id, user_id_prefix, user_ids};

/// An object whose members are all described in this module.
pub(super) fn object<O: domain::Object>(required: &[&str]) -> Object {
    let members = O::MEMBERS.iter().map(|name| (*name, member(name)));
    object_of(members, required)
}

/// An object that asks for a change of this kind. `required` are the members that every kind needs.
pub(super) fn change<O: domain::Object>(action: Action, required: &[&str]) -> Object {
    let members = O::MEMBERS.iter().filter(|name| action.allows(name)).map(|name| match *name {
        "action" => (*name, constant(action.as_str()).into()),
        "expires_at" if action == Action::Hold => (*name, optional(expires_at(hold_ends())).into()),
        "point" if action == Action::Capture => (*name, optional(captured()).into()),
        name => (name, member(name)),
    });
    object_of(members, &[required, action.members().0].concat())
}

fn object_of(members: impl Iterator<Item = (&'static str, Schema)>, required: &[&str]) -> Object {
    let object = members.fold(ObjectBuilder::new(), |object, (name, schema)| object.property(name, schema));
    let object = required.iter().fold(object, |object, name| object.required(*name));
    object.additional_properties(Some(AdditionalProperties::FreeForm(false))).build()
}

/// A member of a request.
fn member(name: &str) -> Schema {
    match name {
        "user_id" => requested_user_id("The user", "1").into(),
        "to" => requested_user_id("The other user, to whom the points go", "2").into(),
        "point" => point().into(),
        "expires_at" => {
            let words = "When the points expire, a time in the future. Without it, they never expire.";
            optional(expires_at(words.to_owned())).into()
        }
        "request" => request_id().into(),
        "hold" => hold().into(),
        "partial" => optional(partial()).into(),
        "reason" => optional(reason()).into(),
        "metadata" => optional(metadata()).into(),
        "key" => optional(idempotency_key()).into(),
        "operations" => operations().into(),
        other => unreachable!("{other} is a member of no request"),
    }
}

pub(super) fn done() -> Object {
    whole_number(
        "By how many points the balance changed; 0 if the change was rejected.",
        -POINTS_MAX,
        POINTS_MAX,
        1000,
    )
}

pub(super) fn actor() -> Object {
    text("The name of the API key that asked. Absent for anonymous callers.", "shop")
        .min_length(Some(1))
        .max_length(Some(ACTOR_MAX_BYTES))
        .build()
}

/// The length of a JSON text can't be described.
pub(super) fn metadata() -> Object {
    ObjectBuilder::new()
        .description(Some(format!(
            "Your own data: a JSON object of at most {METADATA_MAX_BYTES} bytes and 127 levels, returned as you sent \
             it. The character NUL and numbers that exceed a 64-bit float are not allowed in it."
        )))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .examples([json!({"order": 7})])
        .build()
}

/// Without an example: it would be in the past some day.
fn expires_at(description: String) -> Object {
    let mut schema = time();
    schema.description = Some(description);
    schema
}

fn hold() -> Object {
    let mut schema = request_id();
    schema.description = Some("The request of the hold.".to_owned());
    schema
}

pub(super) fn held() -> Object {
    whole_number("The held points, which `point` does not include.", 0, POINTS_MAX, 300)
}

fn hold_ends() -> String {
    format!(
        "When the points return to the balance, a time in the future, at most {HOLD_MAX_DAYS} days ahead. Without it, \
         they return {HOLD_DEFAULT_MINUTES} minutes after the decision."
    )
}

fn captured() -> Object {
    whole_number("How many points to capture. Without it, all that are held.", 1, POINTS_MAX, 300)
}

pub(super) fn point() -> Object {
    whole_number("How many points.", 1, POINTS_MAX, 1000)
}

pub(super) fn asked() -> Object {
    whole_number(
        "How many points were asked for. For a reversal: how many the reversed change added, took or captured. For a \
         release: how many were held. 0 if there is no such change or hold.",
        0,
        POINTS_MAX,
        1000,
    )
}

fn partial() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .description(Some(
            "Whether to take the whole balance if it is smaller than the points to take. The default is false.",
        ))
        .examples([json!(true)])
        .build()
}

pub(super) fn only_true() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).build()
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
        .pattern(Some(IdempotencyKey::PATTERN))
        .build()
}

/// A constant text.
pub(super) fn constant(value: &'static str) -> Object {
    one_of([value])
}

/// Not an enum: newer versions may add actions.
pub(super) fn known_action() -> Object {
    let known: Vec<&str> = Action::iter().map(Action::as_str).collect();
    let description = format!("One of {}. Newer versions may add actions.", known.join(", "));
    text(&description, known[0]).build()
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

/// A value or null.
fn optional(mut value: Object) -> Object {
    let of = match value.schema_type {
        SchemaType::Type(of) => of,
        SchemaType::Array(_) | SchemaType::AnyValue => unreachable!("members have one type"),
    };
    value.schema_type = [of, Type::Null].into_iter().collect();
    value
}

/// The path of a request's outcome.
pub(super) fn location() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^/v1/point/request/[0-9a-f-]{36}[?]id=[!-~]+$"))
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

/// The operations of a batch: each is of one kind.
pub(super) fn operations() -> Array {
    let kinds = Action::requested().map(|action| change::<OperationRequest>(action, &["action", "user_id"]));
    let operation = kinds.fold(OneOfBuilder::new(), OneOfBuilder::item);
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
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(description))
        .minimum(Some(limit_of(min)))
        .maximum(Some(limit_of(max)))
        .examples([json!(example)])
        .build()
}

fn limit_of(value: i64) -> isize {
    isize::try_from(value).expect("a platform of 64 bits")
}

fn text(description: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).examples([json!(example)])
}
