//! The rules of points, and the one service that applies them. Must not contain HTTP or AMQP.

mod number;
mod trace;
mod invalid;
mod user_id;
mod actor;
mod metadata;
mod request_id;
mod delta;
mod members;
mod entry;
mod decide;
mod service;
mod apply;
mod patience;
mod error;
mod read;
mod recall;
mod store;
mod audit;

pub use actor::{ACTOR_MAX_BYTES, Actor};
pub use audit::{AuditError, AuditLimits, AuditReport, Finding, audit, audit_within};
pub use delta::{
    Action, Change, Delta, Fingerprint, PARTITIONS, POINTS_MAX, Points, REASON_MAX_CHARS, Reason,
};
pub use entry::{Balance, Entry, Outcome, Rejection, Status};
pub use error::{Obstacle, ServiceError};
pub use invalid::Invalid;
pub use members::{Member, Members, Object, text};
pub use metadata::{METADATA_MAX_BYTES, Metadata};
pub use number::whole_number;
pub use patience::Patience;
pub use read::{HistoryQuery, PAGE_MAX, Page};
pub use request_id::{IdempotencyKey, KEY_MAX_BYTES, RequestId};
pub use service::{APPLY_BATCH_MAX, PointService};
pub use trace::TraceParent;
pub use user_id::{USER_ID_MAX_BYTES, UserId};
