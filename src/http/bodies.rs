//! The bodies of requests and answers about points, with their schemas. Must not contain handlers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::schema;
use crate::domain::{Entry, Reason, Rejection, RequestId};

/// A change of a user's points.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Change)]
pub(super) struct ChangeRequest<'a> {
    // Raw, because a number that is read as a double may lose its fraction.
    #[serde(borrow)]
    #[schema(schema_with = schema::user_id, required)]
    pub(super) user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schema(schema_with = schema::point, required)]
    pub(super) point: Option<&'a RawValue>,
    #[schema(schema_with = schema::optional_reason)]
    pub(super) reason: Option<String>,
}

/// A change that is in the queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Pending)]
pub(super) struct PendingResponse {
    /// Identifies the request.
    pub(super) request_id: Uuid,
    #[schema(schema_with = schema::pending)]
    pub(super) status: &'static str,
}

impl From<RequestId> for PendingResponse {
    fn from(request_id: RequestId) -> Self {
        Self { request_id: request_id.get(), status: "pending" }
    }
}

/// An entry in the user's log.
#[derive(Serialize, ToSchema)]
#[schema(as = Entry)]
pub(super) struct EntryResponse<'a> {
    pub(super) request_id: Uuid,
    #[schema(schema_with = schema::status)]
    pub(super) status: &'static str,
    /// Why the change was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::reject_reason)]
    pub(super) reject_reason: Option<&'a str>,
    #[schema(schema_with = schema::user_id)]
    pub(super) user_id: i64,
    #[schema(schema_with = schema::action)]
    pub(super) action: &'static str,
    #[schema(schema_with = schema::point)]
    pub(super) point: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::reason)]
    pub(super) reason: Option<&'a str>,
    #[schema(schema_with = schema::seq)]
    pub(super) seq: i64,
    /// The user's points after this entry.
    #[schema(schema_with = schema::balance)]
    pub(super) balance: i64,
    /// When the request was accepted, by the clock of the node that accepted it.
    pub(super) requested_at: Timestamp,
    /// When the change was decided, by the clock of the database.
    pub(super) created_at: Timestamp,
}

impl<'a> From<&'a Entry> for EntryResponse<'a> {
    fn from(entry: &'a Entry) -> Self {
        let Entry { delta, seq, rejection, balance, created_at } = entry;
        Self {
            request_id: delta.request_id.get(),
            status: entry.status().as_str(),
            reject_reason: rejection.as_ref().map(Rejection::as_str),
            user_id: delta.user_id.get(),
            action: delta.action.as_str(),
            point: delta.point.get(),
            reason: delta.reason.as_ref().map(Reason::as_str),
            seq: *seq,
            balance: *balance,
            requested_at: delta.requested_at,
            created_at: *created_at,
        }
    }
}

/// A user's points.
#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
pub(super) struct BalanceResponse {
    #[schema(schema_with = schema::user_id)]
    pub(super) user_id: i64,
    #[schema(schema_with = schema::balance)]
    pub(super) point: i64,
    #[schema(schema_with = schema::seq)]
    pub(super) seq: i64,
    /// When the last entry was written, by the clock of the database.
    pub(super) updated_at: Timestamp,
}
