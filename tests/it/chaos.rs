//! Half a minute of chaos in every test run; `just chaos` runs it for as long as you like.

use std::time::Duration;

use crate::support::{
    chaos::{Chaos, Verdict, run},
    system::PARTITIONS,
};

#[tokio::test(flavor = "multi_thread")]
async fn half_a_minute_of_chaos_breaks_no_promise() {
    let time = Duration::from_secs(30);
    let chaos = Chaos { time, seed: 350, connections: 8, users: 64, partitions: PARTITIONS };
    let report = run(chaos).await;
    println!("{report}");
    assert_eq!(report.verdict, Verdict::default(), "{report}");
    assert!(report.expired > 0, "{report}");
}
