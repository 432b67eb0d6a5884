//! The schemas of user ids. Must not contain handlers.

use utoipa::openapi::{
    ArrayBuilder, ObjectBuilder, Type,
    schema::{Array, Object},
};

use super::{limit_of, text};
use crate::domain::{BALANCES_MAX, POINTS_MAX, USER_ID_MAX_BYTES};

pub(in crate::http) fn user_id() -> Object {
    text("The user: your own id, in visible ASCII characters.", "1")
        .min_length(Some(1))
        .max_length(Some(USER_ID_MAX_BYTES))
        .pattern(Some("^[!-~]*$"))
        .build()
}

/// The users of a request for many balances.
pub(in crate::http) fn user_ids() -> Array {
    users().min_items(Some(1)).max_items(Some(BALANCES_MAX)).build()
}

/// The requested users without a balance.
pub(in crate::http) fn unknown_users() -> Array {
    users().max_items(Some(BALANCES_MAX)).description(Some("The ids without log entries.")).build()
}

fn users() -> ArrayBuilder {
    ArrayBuilder::new().items(user_id()).unique_items(true)
}

/// What user ids begin with. It has no example, so that a request with the example of `id` does not send it too.
pub(in crate::http) fn user_id_prefix() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(USER_ID_MAX_BYTES))
        .pattern(Some("^[!-~]*$"))
        .build()
}

/// A user id in a request may also be a number that every JSON client reads exactly.
pub(super) fn requested_user_id(who: &str, example: &str) -> Object {
    let mut schema = user_id();
    schema.schema_type = [Type::String, Type::Integer].into_iter().collect();
    schema.description = Some(format!(
        "{who}: your own id, in visible ASCII characters. A whole number up to 2^53 − 1 means its digits."
    ));
    schema.examples = vec![example.into()];
    schema.minimum = Some(limit_of(0).into());
    schema.maximum = Some(limit_of(POINTS_MAX).into());
    schema
}
