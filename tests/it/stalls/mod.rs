//! Stalls of one user, statement, partition or worker, which must delay nothing else.

use point_system::domain::UserId;
use serde_json::json;

use crate::support::{
    client::{Client, answer},
    system::{PARTITIONS, System},
};

mod locked_users;
mod partitions;
mod silence;
mod slow_database;
mod turns;
mod workers;

/// The most operations in a batch.
const BATCH: i64 = 1_000;

/// Queues an add of one point for each of the users, in batches.
async fn queue_adds(client: &Client, users: impl IntoIterator<Item = i64>) {
    let operations: Vec<_> =
        users.into_iter().map(|user| json!({"action": "add", "user_id": user, "point": 1})).collect();
    for operations in operations.chunks(usize::try_from(BATCH).expect("a small number")) {
        let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
        let (status, problem) = answer(batch).await;
        assert_eq!(status, 202, "{problem}");
    }
}

/// Users of a partition, from `first` on.
fn users_of(partition: u16, first: i64) -> impl Iterator<Item = i64> {
    assert!(PARTITIONS.all().contains(&partition));
    (first..).filter(move |user| {
        UserId::new("user_id", &user.to_string()).is_ok_and(|user| user.partition(PARTITIONS) == partition)
    })
}

/// The number of log entries of these users.
async fn entries_of(system: &System, users: &str) -> i64 {
    system.count(&format!("select count(*) from log where {users}")).await
}
