//! The faults of a cluster, and their turns.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillNode,
    StopNode,
    CutNode,
    RollNodes,
    KillPrimary,
    StopPrimary,
    KillStandby,
}

impl Fault {
    /// The faults without an end: a node and the primary are killed twice before each of the others.
    pub fn by_turns() -> impl Iterator<Item = Self> {
        let others = [Self::CutNode, Self::StopPrimary, Self::StopNode, Self::KillStandby, Self::RollNodes];
        let kills = [Self::KillNode, Self::KillPrimary];
        others.into_iter().cycle().flat_map(move |other| kills.into_iter().chain(kills).chain([other]))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KillNode => "a node of RabbitMQ that leads a partition killed (SIGKILL) and started",
            Self::StopNode => "a node of RabbitMQ that leads a partition stopped and started",
            Self::CutNode => "a node of RabbitMQ that leads a partition cut off from the others for 10 s",
            Self::RollNodes => "every node of RabbitMQ stopped and started, one after the other",
            Self::KillPrimary => "PostgreSQL's primary killed (SIGKILL), a standby promoted",
            Self::StopPrimary => "PostgreSQL's primary stopped, a standby promoted",
            Self::KillStandby => "a standby of PostgreSQL killed (SIGKILL) and started",
        })
    }
}
