//! The members of the queues, as a broker lists them in JSON. Must not contain the reading or printing of the list.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Deserialize;

use crate::queue::QueueNames;

/// A queue as `rabbitmqctl` and the management API describe it. A queue of another type may lack the members.
#[derive(Deserialize)]
struct Queue {
    name: String,
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    online: Vec<String>,
}

/// The queues of a broker.
pub(super) struct Listed(HashMap<String, Queue>);

/// The state of a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The queue has its members, and all are online.
    Sound { queue: String, members: usize },
    /// The broker does not list the queue.
    Missing { queue: String },
    /// The queue has too few members.
    Few { queue: String, members: Vec<String> },
    /// Some of its members are not online.
    Offline { queue: String, members: Vec<String> },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound { queue, members } => write!(f, "{queue}: {members} members"),
            Self::Missing { queue } => write!(f, "{queue}: missing; start serve or work, which declare it"),
            Self::Few { queue, members } => {
                write!(f, "{queue}: only on {}; add a member: rabbitmq-queues grow", members.join(", "))
            }
            Self::Offline { queue, members } => write!(f, "{queue}: not online on {}", members.join(", ")),
        }
    }
}

impl Listed {
    /// Parses a list.
    pub(super) fn parse(text: &str) -> serde_json::Result<Self> {
        let queues: Vec<Queue> = serde_json::from_str(text)?;
        Ok(Self(queues.into_iter().map(|queue| (queue.name.clone(), queue)).collect()))
    }

    /// The state of each queue of an installation.
    pub(super) fn findings(&self, names: &QueueNames, members: usize) -> Vec<Finding> {
        let finding = |queue: String| match self.0.get(&queue) {
            None => Finding::Missing { queue },
            Some(found) if found.members.len() < members => {
                Finding::Few { queue, members: found.members.clone() }
            }
            Some(found) => {
                let offline = found.members.iter().filter(|member| !found.online.contains(*member));
                let offline: Vec<String> = offline.cloned().collect();
                if offline.is_empty() {
                    Finding::Sound { queue, members: found.members.len() }
                } else {
                    Finding::Offline { queue, members: offline }
                }
            }
        };
        names.all().map(finding).collect()
    }

    /// How many queues of an installation each node leads.
    pub(super) fn leaders(&self, names: &QueueNames) -> BTreeMap<&str, usize> {
        let mut leaders = BTreeMap::new();
        let queues = names.all();
        for leader in queues.filter_map(|queue| self.0.get(&queue)?.leader.as_deref()) {
            *leaders.entry(leader).or_default() += 1;
        }
        leaders
    }
}
