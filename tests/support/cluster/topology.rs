//! The policies of the queues, and what a broker says of the members of its queues.

use point_system::local::LocalRabbitMq;
use serde_json::Value;
use tokio::process::Command;

use crate::support::system::System;

/// Sets the policies that `point-system topology --policies` prints. A shell splits its commands into words.
pub async fn set_policies(system: &System, node: &LocalRabbitMq) {
    let (status, script) = system.process_with_log("topology", &["--policies"], "warn").ends().await;
    assert!(status.success(), "{script}");
    let shell = format!("rabbitmqctl() {{ printf '%s\\n' \"$@\"; }}\n{script}");
    let words = Command::new("sh").args(["-c", &shell]).output().await.expect("sh");
    let words = String::from_utf8(words.stdout).expect("text");
    let words: Vec<&str> = words.lines().collect();
    node.control(&words).await.expect("a policy");
}

/// The queues of a broker, as `rabbitmqctl` lists them.
pub struct Members {
    /// The list itself.
    pub json: String,
    queues: Value,
}

impl Members {
    pub async fn of(node: &LocalRabbitMq) -> Self {
        let list = ["list_queues", "--quiet", "--formatter", "json", "name", "leader", "members", "online"];
        let json = node.control(&list).await.expect("a list of queues");
        let queues = serde_json::from_str(&json).expect("JSON");
        Self { json, queues }
    }

    fn queue(&self, name: &str) -> &Value {
        let mut queues = self.queues.as_array().expect("a list").iter();
        queues.find(|queue| queue["name"] == name).expect(name)
    }

    pub fn leader(&self, queue: &str) -> String {
        self.queue(queue)["leader"].as_str().expect("a leader").to_owned()
    }

    pub fn count(&self, queue: &str) -> usize {
        self.queue(queue)["members"].as_array().expect("members").len()
    }
}
