//! A change that went to the queue or the database and may count, and what its sender learns. Must not contain rules of
//! the ledger.

use super::error::ApiError;
use crate::{
    domain::{Delta, RequestId, ServiceError, UserId},
    queue::PublishError,
};

/// A change that may count: the ids that a request for its outcome needs.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The user.
    pub user_id: UserId,
    /// The id of the change.
    pub request_id: RequestId,
}

impl From<&Delta> for Sent {
    fn from(delta: &Delta) -> Self {
        Self { user_id: delta.user_id.clone(), request_id: delta.request_id }
    }
}

impl Sent {
    /// The path of the outcome.
    pub(super) fn location(&self) -> String {
        let user_id: String =
            url::form_urlencoded::byte_serialize(self.user_id.as_str().as_bytes()).collect();
        format!("/v1/point/request/{}?id={user_id}", self.request_id)
    }

    /// The error for a change that is not known to be queued.
    pub(super) fn not_queued(self, error: &PublishError) -> ApiError {
        match error {
            PublishError::Unavailable(_) => ApiError::QueueUnavailable(self),
            PublishError::Full { retry_after } => ApiError::Overloaded { retry_after: *retry_after },
        }
    }

    /// The error for a change with `Prefer: wait` that is not known to be applied.
    pub(super) fn not_applied(self, error: ServiceError) -> ApiError {
        match ApiError::from(error) {
            ApiError::DatabaseUnavailable(_) => ApiError::DatabaseUnavailable(Some(self)),
            ApiError::UserBlocked(obstacle, _) => ApiError::UserBlocked(obstacle, Some(self)),
            ApiError::NewerVersion(_) => ApiError::NewerVersion(Some(self)),
            other => other,
        }
    }
}
