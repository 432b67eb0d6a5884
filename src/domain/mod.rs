//! The rules of points, and the one service that applies them. Must not contain HTTP, AMQP or a wire format.

mod number;
mod trace;
mod partitions;
mod delta;
mod entry;
mod decide;
mod service;
mod apply;
mod patience;
mod error;
mod read;
mod store;
mod audit;
mod installation;

pub use audit::{AuditError, AuditLimits, AuditReport, Finding, audit, audit_within};
pub use delta::{
    Action, Delta, IdempotencyKey, Invalid, KEY_MAX_BYTES, POINTS_MAX, Points, REASON_MAX_CHARS, Reason,
    RequestId, UserId,
};
pub use entry::{Balance, Entry, Outcome, Rejection, Status};
pub use error::{Obstacle, ServiceError};
pub use installation::{Installation, InstallationError, InstallationId};
pub use number::whole_number;
pub use partitions::Partitions;
pub use patience::Patience;
pub use read::{HistoryQuery, PAGE_MAX, Page};
pub use service::{APART_MAX, APPLY_BATCH_MAX, ApartTurn, PointService};
pub use trace::TraceParent;
