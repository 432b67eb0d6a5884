//! Faults on the way to RabbitMQ.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{PROBE, Rig, queued, timed};
use crate::support::{proxy::Weather, system::eventually};

/// The longest that a client waits to learn that a change is not known to be queued.
const REFUSAL_LIMIT: Duration = Duration::from_secs(6);

/// The longest from the end of a fault to the next 202.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

impl Rig {
    /// Waits for a 202 after the end of a fault.
    async fn takes_changes_again(&self) {
        let ended = Instant::now();
        eventually("a 202", async || queued(&self.client, PROBE).await.0 == 202).await;
        eprintln!("a 202 after {:?}", ended.elapsed());
        assert!(ended.elapsed() < RECOVERY_LIMIT, "{:?}", ended.elapsed());
    }

    /// Checks that reads, and changes that do not use the queue, work without RabbitMQ.
    async fn does_without_the_queue(&self) {
        let (read, _) = timed(self.client.get("/v1/point?id=1")).await;
        let waited = self.client.change("add", PROBE, 1).header("Prefer", "wait");
        assert_eq!((read, timed(waited).await.0), (200, 200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_to_the_broker_lose_and_double_nothing() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        rig.broker.cut();
        rig.takes_changes_again().await;
        rig.recovers("applied after a cut").await;
    }
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_broker_that_break_anywhere_lose_and_double_nothing() {
    let rig = Rig::start().await;
    // From one byte of the handshake to some publishes, confirms and deliveries.
    for limit in [1, 500, 4_000, 12_000, 16_000, 24_000, 40_000] {
        let before = rig.broker.accepted();
        rig.broker.turn(Weather::CutAfter(limit));
        rig.broker.cut();
        eventually("some connections", async || rig.broker.accepted() >= before + 4).await;
    }
    rig.broker.turn(Weather::Fair);
    rig.takes_changes_again().await;
    rig.recovers("applied after the breaks").await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_broker_closes_are_opened_again() {
    let rig = Rig::start().await;
    let before = rig.broker.accepted();
    // RabbitMQ answers an invalid frame with connection.close, 501 FRAME_ERROR.
    rig.broker.turn(Weather::Garbled);
    eventually("both are closed and tried again", async || rig.broker.accepted() >= before + 2).await;
    rig.broker.turn(Weather::Fair);
    rig.takes_changes_again().await;
    rig.recovers("applied after the close").await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_costs_seconds_and_loses_nothing() {
    let rig = Rig::start().await;
    rig.broker.turn(Weather::Stalled);
    // Every partition, and later clients, after the first have given up.
    for _ in 0..2 {
        let probes = (0..32).map(|user| queued(&rig.client, PROBE + 1 + user));
        let answers = join_all(probes).await;
        eprintln!("stalled: {:?}", answers.iter().map(|answer| answer.1).max());
        assert!(
            answers.iter().all(|(status, after)| *status == 503 && *after < REFUSAL_LIMIT),
            "{answers:?}"
        );
        rig.does_without_the_queue().await;
    }
    rig.broker.turn(Weather::Fair);
    rig.takes_changes_again().await;
    rig.recovers("applied after the stall").await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_only_we_still_hold_is_given_up() {
    let rig = Rig::start().await;
    rig.broker.halve();
    let started = Instant::now();
    let (status, after) = queued(&rig.client, PROBE).await;
    assert!(status == 503 && after < REFUSAL_LIMIT, "{status} after {after:?}");
    rig.takes_changes_again().await;
    // The worker only listens: it learns from missed heartbeats.
    rig.recovers("applied after the half-open connections").await;
    eprintln!("half-open: {:?}", started.elapsed());
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_connections_is_tried_until_it_takes_them() {
    let rig = Rig::start().await;
    rig.broker.refuse();
    for _ in 0..5 {
        let (status, after) = queued(&rig.client, PROBE).await;
        assert!(status == 503 && after < Duration::from_secs(1), "{status} after {after:?}");
        rig.does_without_the_queue().await;
    }
    rig.broker.turn(Weather::Fair);
    rig.takes_changes_again().await;
    rig.recovers("applied after the refusals").await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_networks_make_larger_batches_and_no_errors() {
    let rig = Rig::start().await;
    rig.broker.turn(Weather::Slow(Duration::from_millis(40)));
    rig.postgres.turn(Weather::Slow(Duration::from_millis(40)));
    let answers = join_all((0..100).map(|user| queued(&rig.client, PROBE + 1 + user))).await;
    assert!(answers.iter().all(|(status, _)| *status == 202), "{answers:?}");
    rig.recovers("applied, slowly").await;
    rig.keeps_its_promises().await;
}
