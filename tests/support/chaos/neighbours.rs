//! Faults that concern only some users: a queue, a row, a permission; and those of a database that goes on: it is slow,
//! or its clock jumps.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use point_system::domain::Partitions;
use tokio::time::timeout;

use super::{clients::Clients, faults::Site, progress::Progress};
use crate::support::{clock, system::System};

/// How long a user's row is locked.
const LOCK: Duration = Duration::from_secs(20);

/// How long the database is slow, and how much longer each entry then takes: a transaction of a thousand entries takes
/// as long as a statement may.
const SLOWNESS: Duration = Duration::from_secs(15);
const PER_ENTRY_S: f64 = 0.005;

/// How far the database's clock is set back, and for how long. It jumps forth as far at the end.
const SET_BACK_S: i64 = 3_600;
const SET_BACK: Duration = Duration::from_secs(10);

/// How long the permission is missing.
const FORBIDDEN: Duration = Duration::from_secs(8);

/// Waits. As with a stall, the time is the fault itself.
async fn for_a_time(time: Duration) {
    timeout(time, pending::<()>()).await.ok();
}

impl Site {
    /// An operator deletes a queue and declares it again at once. Its messages are lost with it, so the clients
    /// pause first, until it is empty.
    pub async fn redeclare_queue(&mut self, partition: u16, system: &System, clients: &mut Clients) {
        let _stillness = clients.stand_still().await;
        clients.probe(system).await;
        let queues = system.queues().await;
        queues.delete_partition(partition).await;
        queues.declare_partition(partition).await;
        self.has_queues_on_disk(SystemTime::now()).await;
    }

    /// A session locks a user's row.
    pub async fn lock_row(&mut self, user: i64, system: &System, progress: &Progress) {
        progress.leave_out(user);
        let session = system.database.pool(1).get().await.expect("a connection");
        let lock = format!("reset all; begin; select from user_point where user_id = '{user}' for update");
        session.batch_execute(&lock).await.expect("locked");
        for_a_time(LOCK).await;
        session.batch_execute("rollback").await.expect("unlocked");
    }

    /// Each entry takes the database much longer.
    pub async fn slow_database(&mut self, system: &System) {
        let trigger = format!(
            "create or replace function crawl() returns trigger language plpgsql as $$ begin
                 perform pg_sleep({PER_ENTRY_S});
                 return new;
             end $$;
             create trigger crawl before insert on log for each row execute function crawl()"
        );
        system.execute(&trigger).await;
        for_a_time(SLOWNESS).await;
        system.execute("drop trigger crawl on log").await;
    }

    /// The database's clock jumps back, and forth again.
    pub async fn set_back_clock(&mut self, system: &System) {
        clock::shift(system, -SET_BACK_S).await;
        for_a_time(SET_BACK).await;
        clock::shift(system, 0).await;
    }

    /// The permission to read from one queue is missing while the workers subscribe again.
    pub async fn forbid_queue(&mut self, partition: u16, system: &System) {
        let (names, others) = (system.names(), system.partitions().all().filter(|other| *other != partition));
        let readable =
            others.map(|other| names.partition(other)).chain([format!("{}.*", names.dead_letters())]);
        let readable = format!("^({})$", readable.collect::<Vec<_>>().join("|"));
        self.permit_reading(&readable).await;
        self.to_broker.cut();
        for_a_time(FORBIDDEN).await;
        self.permit_reading(".*").await;
    }

    async fn permit_reading(&mut self, queues: &str) {
        let permissions = ["set_permissions", "guest", ".*", ".*", queues];
        self.servers.broker.control(&permissions).await.expect("permissions");
    }
}

/// A random partition.
pub fn any_partition(partitions: Partitions, rng: &mut fastrand::Rng) -> u16 {
    rng.u16(partitions.all())
}
