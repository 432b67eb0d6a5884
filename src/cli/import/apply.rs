//! Applies the rows of a file, a user's rows in the order of the file. Must not contain how a file says a row, or a
//! rule of the ledger.

use std::{
    fs::File,
    mem,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::{JoinSet, spawn_blocking},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{rows::read, tally::Tally};
use crate::{
    cli::progress::Progress,
    domain::{Delta, Import, Obstacle, Outcome, Partitions, PointService, ServiceError},
};

/// The rows that a lane looks up and applies at once.
const BATCH_ROWS: usize = 1_000;

/// The batches that wait for a lane.
const WAITING_BATCHES: usize = 1;

/// The bounds of the pause between two attempts for users who have an obstacle, and how long they wait before the log
/// names one of them.
const PAUSE_MIN_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 1_000;
const REPORT_AFTER_MS: u64 = 1_000;

/// Rows with their lines, in the order of the file.
type Batch = Vec<(u64, Delta)>;

/// What the lanes share.
#[derive(Clone)]
pub(super) struct Applying {
    pub(super) service: Arc<PointService>,
    pub(super) stop: CancellationToken,
    pub(super) progress: Arc<Progress>,
    pub(super) tally: Arc<Mutex<Tally>>,
}

impl Applying {
    /// Applies the first row alone, so that the log has it if it has any row. Then applies the others in `lanes` lanes at
    /// once, until the end of the file or until `stop` is cancelled. Each user has one lane.
    pub(super) async fn all(
        &self,
        file: &Arc<File>,
        import: &Import,
        first: (u64, Delta),
        lanes: u16,
    ) -> anyhow::Result<()> {
        let begins_at = first.0;
        self.apply(vec![first]).await;
        let (mut senders, mut tasks) = (Vec::new(), JoinSet::new());
        for _ in 0..lanes {
            let (sender, batches) = mpsc::channel(WAITING_BATCHES);
            senders.push((Vec::with_capacity(BATCH_ROWS), sender));
            tasks.spawn(self.clone().lane(batches));
        }
        let (file, import) = (Arc::clone(file), import.clone());
        let reading = spawn_blocking(move || {
            read(&file, |line, row| match row {
                Ok(_) if line == begins_at => ControlFlow::Continue(()),
                Ok(row) => hand_over((line, import.delta(row)), &mut senders),
                // The check has read the same file without a fault. The count of rows tells that it changed.
                Err(_) => ControlFlow::Break(()),
            })?;
            for (batch, sender) in &mut senders {
                let _ = sender.blocking_send(mem::take(batch));
            }
            Ok::<_, std::io::Error>(())
        });
        reading.await?.context("reading the file again")?;
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn lane(self, mut batches: Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            if self.stop.is_cancelled() {
                break;
            }
            self.apply(batch).await;
        }
    }

    /// Applies a batch, unless `stop` is cancelled while that is not possible.
    async fn apply(&self, batch: Batch) {
        let Some(mut batch) = self.leave_out_known(batch).await else { return };
        let (began, mut pause, mut is_reported) =
            (Instant::now(), Duration::from_millis(PAUSE_MIN_MS), false);
        while !batch.is_empty() {
            let deltas: Vec<Delta> = batch.iter().map(|(_, delta)| delta.clone()).collect();
            let results = self.service.apply_deltas(deltas).await;
            let results = results.unwrap_or_else(|error| vec![Err(error); batch.len()]);
            let (rest, why) = self.note(batch, results);
            batch = rest;
            let goes_on = match why {
                None => continue,
                Some((_, Wait::Outage(why))) => self.outlast(&why).await,
                Some((user, Wait::Obstacle(why))) => {
                    if !is_reported && began.elapsed() > Duration::from_millis(REPORT_AFTER_MS) {
                        is_reported = true;
                        log::warn!(user_id:% = user; "rows wait: {why}");
                    }
                    let paused = self.stop.run_until_cancelled(sleep(pause)).await.is_some();
                    pause = (2 * pause).min(Duration::from_millis(PAUSE_MAX_MS));
                    paused
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Notes the rows that the log has, and returns the others. The ledger would find them too, but it would lock their
    /// users, and write an entry for each row that has changed.
    async fn leave_out_known(&self, batch: Batch) -> Option<Batch> {
        let deltas: Vec<Delta> = batch.iter().map(|(_, delta)| delta.clone()).collect();
        let known = loop {
            match self.service.known(&deltas).await {
                Ok(known) => break known,
                Err(why) if self.outlast(&why).await => {}
                Err(_) => return None,
            }
        };
        let mut rest = Vec::with_capacity(batch.len());
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for ((line, delta), entry) in batch.into_iter().zip(known) {
            match entry {
                Some(entry) => {
                    tally.note_entry(line, &delta, &entry);
                    self.progress.advance(1);
                }
                None => rest.push((line, delta)),
            }
        }
        Some(rest)
    }

    /// Notes the rows that have a final result. Returns the others, and why the last of them has none.
    fn note(
        &self,
        batch: Batch,
        results: Vec<Result<Outcome, ServiceError>>,
    ) -> (Batch, Option<(String, Wait)>) {
        let (mut rest, mut why) = (Vec::new(), None);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for ((line, delta), result) in batch.into_iter().zip(results) {
            match result.map_err(Wait::of) {
                Ok(outcome) => tally.note_outcome(line, &delta, &outcome),
                Err(Err(failure)) => tally.note_failure(line, &delta, &failure),
                Err(Ok(wait)) => {
                    why = Some((delta.user_id.to_string(), wait));
                    rest.push((line, delta));
                    continue;
                }
            }
            self.progress.advance(1);
        }
        (rest, why)
    }

    /// Waits until PostgreSQL can apply changes. Returns false if `stop` is cancelled before.
    async fn outlast(&self, why: &ServiceError) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        log::warn!("{why}; the import waits for PostgreSQL");
        self.stop.run_until_cancelled(self.service.can_apply()).await.is_some()
    }
}

/// Why a row is tried again.
enum Wait {
    /// PostgreSQL does not answer, or not in time.
    Outage(ServiceError),
    /// PostgreSQL is available, but not for this user now.
    Obstacle(Obstacle),
}

impl Wait {
    /// Whether to try again, or whether that would change nothing.
    fn of(error: ServiceError) -> Result<Self, ServiceError> {
        match error {
            ServiceError::Unavailable(_) | ServiceError::Overloaded => Ok(Self::Outage(error)),
            ServiceError::Blocked(obstacle @ (Obstacle::Locked | Obstacle::Failing(_) | Obstacle::Slow)) => {
                Ok(Self::Obstacle(obstacle))
            }
            ServiceError::Blocked(Obstacle::Unreadable(_) | Obstacle::Newer(_))
            | ServiceError::Refused(_)
            | ServiceError::NotUnderstood(_) => Err(error),
        }
    }
}

/// Puts a row into the batch of its user's lane, and sends the batch once it is full. It waits while the lane is busy,
/// and breaks if the lane has ended.
fn hand_over(row: (u64, Delta), senders: &mut [(Batch, Sender<Batch>)]) -> ControlFlow<()> {
    let lane = usize::from(row.1.user_id.partition(Partitions::MAX)) % senders.len();
    let (batch, sender) = &mut senders[lane];
    batch.push(row);
    if batch.len() < BATCH_ROWS {
        return ControlFlow::Continue(());
    }
    match sender.blocking_send(mem::replace(batch, Vec::with_capacity(BATCH_ROWS))) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
