//! Faults between the nodes and their servers, each under load, and what must be true after every fault.

use std::time::{Duration, Instant};

use point_system::domain::UserId;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{
    client::{Client, Promises, answer},
    load::Load,
    proxy::{Proxy, detour},
    system::{PARTITIONS, PATIENCE, System, eventually},
};

mod amqp;
mod broken_queues;
mod fate;
mod postgres;
mod refusals;
mod shutdown;

/// A light load, so that the tests do not measure each other. It has no end: it goes on until the fault is over.
const LOAD: Load = Load { users: 24, changes_per_user: i64::MAX, connections: 8 };

/// A request that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(20);

/// The first of the users that the load does not use.
const PROBE: i64 = 1_000_000;

/// The first of the users whose changes are queued last.
const LAST: i64 = 2_000_000;

/// An installation whose nodes reach their servers through proxies, and the load on it.
struct Rig {
    system: System,
    client: Client,
    postgres: Proxy,
    broker: Proxy,
    enough: CancellationToken,
    loading: Option<JoinHandle<Promises>>,
}

impl Rig {
    /// Starts `serve`, a worker and a load, and waits until the load runs.
    async fn start() -> Self {
        Self::start_on(System::new().await, None).await
    }

    /// As `start`, on `system`. The nodes connect to the database as `user`, whose password is the name.
    async fn start_on(mut system: System, user: Option<&str>) -> Self {
        let (postgres, mut database_url) = detour(&system.database.url).await;
        let (broker, amqp_url) = detour(&system.amqp_url).await;
        if let Some(user) = user {
            database_url.set_username(user).expect("a user");
            database_url.set_password(Some(user)).expect("a password");
        }
        system.node_database_url = Some(database_url.into());
        system.node_amqp_url = Some(amqp_url.into());
        let client = system.serve();
        system.work();
        let enough = CancellationToken::new();
        let loading = {
            let (client, enough) = (client.clone(), enough.clone());
            Some(tokio::spawn(async move { LOAD.run_until(&client, &enough).await }))
        };
        let rig = Self { system, client, postgres, broker, enough, loading };
        rig.progresses("the load is under way").await;
        rig
    }

    /// Waits until more deltas are applied than now.
    async fn progresses(&self, what: &str) {
        let count = async || self.system.count("select count(*) from log").await;
        let now = count().await;
        eventually(what, async || count().await >= now + 100).await;
    }

    /// Waits until more deltas are applied, and prints how long it took.
    async fn recovers(&self, what: &str) {
        let started = Instant::now();
        self.progresses(what).await;
        eprintln!("{what}: after {:?}", started.elapsed());
    }

    /// Ends the load and waits until all acknowledged changes are applied. Checks that nothing else is applied, that
    /// the order holds, and that every balance equals its log.
    ///
    /// Each connection of the load waits for a user's 202 before it sends that user's next change, and a retry keeps
    /// its request's id. So an earlier copy, from an attempt that ended in a 503, is queued after the previous 202 and
    /// before or beside its own 202. It changes neither what is applied nor the order.
    async fn keeps_its_promises(mut self) {
        self.enough.cancel();
        let loading = self.loading.take().expect("once");
        let promises = timeout(PATIENCE, loading).await.expect("an end of the load").expect("no panic");
        self.reaches_the_end_of_the_queues().await;
        // The changes of locked users may come later.
        let expected = promises.values().map(Vec::len).sum::<usize>();
        let logged = format!("select count(*) from log where user_id::bigint < {PROBE}");
        let is_there = |count: i64| usize::try_from(count).is_ok_and(|count| count >= expected);
        eventually("all is applied", async || is_there(self.system.count(&logged).await)).await;
        let mut ledger = self.system.ledger().await;
        ledger.retain(|user, _| *user < PROBE);
        for user in ledger.keys().chain(promises.keys()) {
            assert_eq!(ledger.get(user), promises.get(user), "user {user}");
        }
        assert_eq!(self.system.queues().await.dead().await, 0, "an outage makes no dead letters");
        self.system.finish().await;
    }

    /// Queues one more change on each partition. Once these are applied, so are all earlier changes, except those of
    /// users whose rows were locked.
    async fn reaches_the_end_of_the_queues(&self) {
        let users = PARTITIONS.all().filter_map(|partition| {
            (LAST..LAST + 1_000).find(|user| {
                UserId::new("user_id", &user.to_string())
                    .is_ok_and(|user| user.partition(PARTITIONS) == partition)
            })
        });
        for user in users {
            self.client.queue("add", user, 1).await;
        }
        let last = format!("select count(*) from log where user_id::bigint >= {LAST}");
        eventually("all is applied", async || {
            self.system.count(&last).await == i64::from(PARTITIONS.count())
        })
        .await;
    }
}

/// Queues a change of a user. Returns the status of the answer, and the time until it came.
async fn queued(client: &Client, user: i64) -> (u16, Duration) {
    timed(client.change("add", user, 1)).await
}

/// Sends a request. Returns the status of the answer, and the time until it came.
async fn timed(request: reqwest::RequestBuilder) -> (u16, Duration) {
    let started = Instant::now();
    let (status, _) = timeout(HANG, answer(request)).await.expect("an answer rather than a hang");
    (status.as_u16(), started.elapsed())
}
