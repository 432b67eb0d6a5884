//! Why the domain has no answer. Must not contain how PostgreSQL says so.

use strum::IntoStaticStr;

use crate::infra::lane::LaneError;

/// Why the service has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// PostgreSQL is unavailable. The delta may or may not be applied: send it again with its id.
    #[error("{0}")]
    Unavailable(String),
    /// Too many requests are waiting; nothing was done.
    #[error("too many requests are waiting")]
    Overloaded,
    /// PostgreSQL refuses this delta for good; nothing was done.
    #[error("{0}")]
    Refused(String),
    /// PostgreSQL is available, but not for this user now. An earlier attempt may have been applied without an answer:
    /// send the delta again with its id.
    #[error("{0}")]
    Blocked(Obstacle),
    /// A newer version must decide this delta: it meets something that this version does not know. An earlier attempt
    /// may have been applied without an answer: send the delta again with its id.
    #[error("{0}")]
    NotUnderstood(String),
}

impl From<LaneError> for ServiceError {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Full => Self::Overloaded,
            LaneError::Ended => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<Obstacle> for ServiceError {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Newer(_) => Self::NotUnderstood(obstacle.to_string()),
            Obstacle::Locked | Obstacle::Unreadable(_) | Obstacle::Failing(_) | Obstacle::Slow => {
                Self::Blocked(obstacle)
            }
        }
    }
}

/// Why nothing can be done for a user, while other users are served. The names are those of the metrics.
#[derive(Clone, Debug, IntoStaticStr, PartialEq, Eq, thiserror::Error)]
#[strum(serialize_all = "snake_case")]
pub enum Obstacle {
    /// Another session holds a lock on the user's row.
    #[error("the row of the user, or of the other user of a transfer, is locked by another session")]
    Locked,
    /// A row of the user breaks the rules of its table, and which rule.
    #[error("{0}")]
    Unreadable(String),
    /// PostgreSQL fails when it reads or writes the user's rows, with this SQLSTATE: a page is damaged, or a trigger
    /// fails.
    #[error("PostgreSQL can't read or write the rows of the user (SQLSTATE {0}): its log says why")]
    Failing(String),
    /// A newer version wrote this about the user.
    #[error("{0}, which a newer version wrote and this version does not understand")]
    Newer(String),
    /// PostgreSQL takes too long for this one delta.
    #[error("PostgreSQL takes too long for this change alone")]
    Slow,
}

impl Obstacle {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.into()
    }
}
