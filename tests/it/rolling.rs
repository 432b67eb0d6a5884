//! A deploy under load, with this version as the old and the new one; `just rolling` takes any old one.

use std::time::Duration;

use crate::support::{
    process::EXECUTABLE,
    rolling::{Rolling, run},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deploy_and_the_way_back_fail_no_request_and_lose_nothing() {
    let (old, pause, drain_delay) = (EXECUTABLE.into(), Duration::from_secs(1), "1s".to_owned());
    let report = run(Rolling { old, pause, clients: 3, drain_delay }).await;
    println!("{report}");
    report.assert_unnoticed();
}
