//! The scenes, one file for each question. Must not contain how load is made or how figures are reported.

use std::time::Duration;

use point_system::domain::Partitions;

use crate::traffic::{Closed, Kind, Users};

pub mod accept;
pub mod apply;
pub mod connections;
pub mod footprint;
pub mod growth;
pub mod ids;
pub mod latency;
pub mod nodes;
pub mod skew;
pub mod sustained;
pub mod waiting;
pub mod workers;

/// The number of users of a load that is not skewed.
pub const USERS: i64 = 10_000;

/// The number of connections of a busy service.
pub const MANY: u64 = 512;

/// The number of connections of a quieter service.
pub const FEW: u64 = 64;

/// The number of transactions at once, which is the default.
pub const LANES: u16 = 4;

/// The size of a measurement.
pub struct Size {
    /// The number of partitions.
    pub partitions: Partitions,
    /// How often each figure is measured. The median counts.
    pub runs: usize,
    /// How long a closed loop is measured.
    pub time: Duration,
    /// How long a rate must hold.
    pub hold: Duration,
    /// The number of deltas in a backlog.
    pub backlog: u64,
    /// The number of deltas in a long backlog.
    pub long_backlog: u64,
    /// The lengths of the log to compare.
    pub log_rows: Vec<u64>,
}

/// A closed loop over [`USERS`].
pub fn uniform(kind: Kind, connections: u64, time: Duration) -> Closed {
    Closed { kind, users: Users::Uniform(USERS), connections, time, at_most: u64::MAX }
}
