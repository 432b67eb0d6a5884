//! Deltas → JSON. Must not contain a connection.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{DeltasMessage, MESSAGE_VERSION};
use crate::domain::{Actor, Delta, Metadata, Points, Reason, RequestId, TraceParent, UserId};

/// A delta in a message that we write.
#[derive(Serialize)]
struct DeltaMessage<'a> {
    request_id: Uuid,
    user_id: &'a str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    point: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    requested_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

/// Encodes `deltas`, which belong to one partition, as a message.
pub(in crate::queue) fn encode(deltas: &[Delta]) -> Vec<u8> {
    let deltas = deltas.iter().map(|delta| DeltaMessage {
        request_id: delta.request_id.get(),
        user_id: delta.user_id.as_str(),
        action: delta.change.action().as_str(),
        point: delta.change.point().map(Points::get),
        expires_at: delta.change.expires_at(),
        request: delta.change.request().map(RequestId::get),
        hold: delta.change.hold().map(RequestId::get),
        to: delta.change.to().map(UserId::as_str),
        partial: delta.change.is_partial().then_some(true),
        actor: delta.actor.as_ref().map(Actor::as_str),
        reason: delta.reason.as_ref().map(Reason::as_str),
        metadata: delta.metadata.as_ref().map(Metadata::as_json),
        requested_at: delta.requested_at,
        traceparent: delta.traceparent.as_ref().map(TraceParent::as_str),
    });
    let message = DeltasMessage { version: MESSAGE_VERSION, deltas: deltas.collect() };
    serde_json::to_vec(&message).expect("numbers, texts and times are always JSON")
}
