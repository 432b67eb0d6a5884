//! A change that went to the queue or the database and may count, and what its sender learns. Must not contain rules of
//! the ledger.

use super::error::ApiError;
use crate::{
    domain::{RequestId, ServiceError, UserId},
    queue::PublishError,
};

/// A change that may count: the ids that a request for its outcome needs.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The user.
    pub user_id: UserId,
    /// The id of the change.
    pub request_id: RequestId,
}

impl Sent {
    /// The path of the outcome.
    pub(super) fn location(self) -> String {
        let Self { user_id, request_id } = self;
        format!("/v1/point/request/{request_id}?id={user_id}")
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
