//! The bodies of requests and answers about points, with their schemas. Must not contain handlers.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use super::schema;
use crate::domain::{
    Action, Actor, Balance, Entry, Holds, Lot, Metadata, Object, Reason, Rejection, RequestId, UserId,
};

/// The most moments at which a balance says what expires.
const EXPIRES_MAX: usize = 10;

/// A change of a user's points, of any kind.
pub(super) struct ChangeRequest;

impl Object for ChangeRequest {
    const MEMBERS: &'static [&'static str] =
        &["user_id", "to", "point", "expires_at", "request", "hold", "partial", "reason", "metadata"];
}

/// Describes the changes of each kind: the members that they take.
macro_rules! changes {
    ($($body:ident $action:ident $name:literal)*) => {$(
        pub(super) struct $body;

        impl PartialSchema for $body {
            fn schema() -> RefOr<Schema> {
                schema::change::<ChangeRequest>(Action::$action, &["user_id"]).into()
            }
        }

        impl ToSchema for $body {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )*};
}

changes! {
    AddRequest      Add      "Add"
    SubtractRequest Subtract "Subtract"
    ReverseRequest  Reverse  "Reverse"
    TransferRequest Transfer "Transfer"
    HoldRequest     Hold     "Hold"
    CaptureRequest  Capture  "Capture"
    ReleaseRequest  Release  "Release"
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
    /// The request that the entry is about. Of a reversal, it is the reversed request; of a capture or a release, the
    /// hold. For `key_reused`, it is the request that had the key before. For `already_reversed`, it is the first
    /// reversal, and for `hold_over`, what ended the hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) r#ref: Option<Uuid>,
    #[schema(schema_with = schema::user_id)]
    pub(super) user_id: &'a str,
    #[schema(schema_with = schema::known_action)]
    pub(super) action: &'a str,
    /// The other user of a transfer: to whom the points go, or from whom they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) counterparty: Option<&'a str>,
    #[schema(schema_with = schema::asked)]
    pub(super) point: i64,
    /// Present if a part of the points was enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::only_true)]
    pub(super) partial: Option<bool>,
    #[schema(schema_with = schema::done)]
    pub(super) change: i64,
    /// For an add, when its points expire, if they do. For `expire`, when they expired. For a hold, when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) expires_at: Option<Timestamp>,
    /// The expiring points among those that the change took or gave back. For a capture, those among the captured
    /// points.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) lots: Vec<LotResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::actor)]
    pub(super) actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::reason)]
    pub(super) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::metadata)]
    pub(super) metadata: Option<&'a RawValue>,
    /// The trace of the request, from its `traceparent` (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{32}$", example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    pub(super) trace_id: Option<String>,
    #[schema(schema_with = schema::seq)]
    pub(super) seq: i64,
    /// The user's points after this entry.
    #[schema(schema_with = schema::balance)]
    pub(super) balance: i64,
    /// When the request was accepted, by the clock of the node that accepted it. For `expire` and
    /// what ends by time, when the entry was written.
    pub(super) requested_at: Timestamp,
    /// When the change was decided, by the clock of the database. For `expire`, when the points left the balance.
    pub(super) created_at: Timestamp,
}

impl<'a> From<&'a Entry> for EntryResponse<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            request_id: entry.request_id.get(),
            status: entry.status().as_str(),
            reject_reason: entry.rejection.as_ref().map(Rejection::as_str),
            r#ref: entry.reference.map(RequestId::get),
            user_id: entry.user_id.as_str(),
            action: &entry.action,
            counterparty: entry.counterparty.as_ref().map(UserId::as_str),
            point: entry.point,
            partial: entry.partial.then_some(true),
            change: entry.change,
            expires_at: entry.expires_at,
            lots: entry.lots.as_slice().iter().map(LotResponse::from).collect(),
            actor: entry.actor.as_ref().map(Actor::as_str),
            reason: entry.reason.as_ref().map(Reason::as_str),
            metadata: entry.metadata.as_ref().map(Metadata::as_json),
            trace_id: entry.trace_id.map(|id| id.to_string()),
            seq: entry.seq,
            balance: entry.balance,
            requested_at: entry.requested_at,
            created_at: entry.created_at,
        }
    }
}

/// Points that expire at one moment.
#[derive(Serialize, ToSchema)]
#[schema(as = Lot)]
pub(super) struct LotResponse {
    /// When they expire.
    pub(super) at: Timestamp,
    #[schema(schema_with = schema::point)]
    pub(super) point: i64,
}

impl From<&Lot> for LotResponse {
    fn from(Lot { at, point }: &Lot) -> Self {
        Self { at: *at, point: *point }
    }
}

/// A user's points.
#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
pub(super) struct BalanceResponse<'a> {
    #[schema(schema_with = schema::user_id)]
    pub(super) user_id: &'a str,
    #[schema(schema_with = schema::balance)]
    pub(super) point: i64,
    #[schema(schema_with = schema::seq)]
    pub(super) seq: i64,
    /// When the last entry was written, by the clock of the database.
    pub(super) updated_at: Timestamp,
    /// The points in `point` that expire next, for at most 10 times. Absent if no points expire, and with `at`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, max_items = 10)]
    pub(super) expires: Vec<LotResponse>,
    /// The held points, which `point` does not include. Absent with `at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::held)]
    pub(super) held: Option<i64>,
}

impl<'a> From<&'a Balance> for BalanceResponse<'a> {
    fn from(Balance { user_id, point, seq, updated_at, expires, holds }: &'a Balance) -> Self {
        let expires = expires.as_slice().iter().take(EXPIRES_MAX).map(LotResponse::from).collect();
        let held = holds.as_ref().map(Holds::point);
        Self { user_id: user_id.as_str(), point: *point, seq: *seq, updated_at: *updated_at, expires, held }
    }
}
