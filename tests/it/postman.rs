//! The Postman collection, run by newman where node is present.

use tokio::process::Command;

use crate::system::System;

#[tokio::test(flavor = "multi_thread")]
async fn the_postman_collection_passes() {
    let newman = |arguments: &[&str]| {
        let mut command = Command::new("npx");
        command.args(["--yes", "newman@6"]).args(arguments);
        command
    };
    if !newman(&["--version"]).output().await.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: node's npx can't run newman here");
        return;
    }
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let collection = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/postman_collection.json");
    let url = format!("PS_URL={}", client.base());
    let run = newman(&["run", collection, "--env-var", &url, "--delay-request", "100", "--color", "off"]);
    let output = { run }.output().await.expect("newman");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    system.drain(4).await;
    system.finish().await;
}
