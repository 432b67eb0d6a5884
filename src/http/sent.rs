//! A change that was sent on and may count: what its sender is told. Must not contain a rule of the ledger.

use super::problem::ApiError;
use crate::{
    domain::{RequestId, ServiceError, UserId},
    queue::PublishError,
};

/// A change that may count, by what its outcome can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Whose points.
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

    /// What the sender is told where the change could not be queued.
    pub(super) fn not_queued(self, error: &PublishError) -> ApiError {
        match error {
            PublishError::Unavailable(_) => ApiError::QueueUnavailable(self),
            PublishError::Full { retry_after } => ApiError::Overloaded { retry_after: *retry_after },
        }
    }

    /// What the sender is told where the change was waited for and is not known to be applied.
    pub(super) fn not_applied(self, error: ServiceError) -> ApiError {
        match ApiError::from(error) {
            ApiError::DatabaseUnavailable(_) => ApiError::DatabaseUnavailable(Some(self)),
            ApiError::UserBlocked(obstacle, _) => ApiError::UserBlocked(obstacle, Some(self)),
            other => other,
        }
    }
}
