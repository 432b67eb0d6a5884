//! A load of changes from many connections, and the record of the acknowledged ones.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::{task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

use crate::support::{
    changes,
    client::{Client, Promises, answer, text},
};

/// The pause between two attempts of one connection.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The size of a load.
#[derive(Clone, Copy)]
pub struct Load {
    pub users: i64,
    pub changes_per_user: i64,
    pub connections: i64,
}

impl Load {
    /// The number of changes.
    pub fn changes(self) -> usize {
        usize::try_from(self.users * self.changes_per_user).expect("a positive number")
    }

    /// Each connection has its own users, sends changes of every kind for them in turn, and records every promise. It
    /// retries after a 503 with the same key, as a client should.
    pub async fn run(self, client: &Client) -> Promises {
        self.run_until(client, &CancellationToken::new()).await
    }

    /// As `run`, until `enough` is cancelled.
    pub async fn run_until(self, client: &Client, enough: &CancellationToken) -> Promises {
        let mut connections = JoinSet::new();
        for connection in 0..self.connections {
            let (client, enough) = (client.clone(), enough.clone());
            connections.spawn(async move { self.connection(connection, &client, &enough).await });
        }
        connections.join_all().await.into_iter().flatten().collect()
    }

    async fn connection(self, connection: i64, client: &Client, enough: &CancellationToken) -> Promises {
        let mut promises = Promises::new();
        for change in (1..=self.changes_per_user).take_while(|_| !enough.is_cancelled()) {
            for user in (1..=self.users).filter(|user| user % self.connections == connection) {
                let id = promised(client, user, change, promises.get(&user)).await;
                promises.entry(user).or_default().push(id);
            }
        }
        promises
    }
}

/// Sends the same changes again, each user's in order. Each must get the request id that it had.
pub async fn send_again(client: &Client, promises: &Promises) {
    let mut users = JoinSet::new();
    for (user, ids) in promises.clone() {
        let client = client.clone();
        users.spawn(async move {
            let mut sent: Option<Vec<String>> = None;
            for (change, id) in (1..).zip(ids) {
                assert_eq!(promised(&client, user, change, sent.as_ref()).await, id);
                sent.get_or_insert_default().push(id);
            }
        });
    }
    users.join_all().await;
}

/// Sends a user's change until it is promised. Returns its request id.
async fn promised(client: &Client, user: i64, change: i64, sent: Option<&Vec<String>>) -> String {
    let (action, members) = changes::change(user, change, sent);
    let key = format!("{user}-{change}");
    let request = || client.send(action, &members).header("Idempotency-Key", &key);
    let mut tries = interval(RETRY_PAUSE);
    let mut answered = answer(request()).await;
    while answered.0 == StatusCode::SERVICE_UNAVAILABLE {
        tries.tick().await;
        answered = answer(request()).await;
    }
    // An earlier attempt that ended in a 503 may be decided by now.
    let answers = [StatusCode::ACCEPTED, StatusCode::OK, StatusCode::CONFLICT];
    assert!(answers.contains(&answered.0), "{}", answered.1);
    text(&answered.1["request_id"])
}
