//! The Postman collection, which newman runs if node is installed.

use point_system::{access::Anonymous, cli::AccessArgs};
use tokio::process::Command;

use crate::{keys::create, support::system::System};

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
    let key = create(&system, "postman", "write").await;
    let [anyone, somebody] = [Anonymous::Everyone, Anonymous::default()]
        .map(|allow_anonymous| AccessArgs { allow_anonymous, rate_limit: None });
    let (open, closed) = (system.serve_with(anyone), system.serve_with(somebody));
    system.work();
    let collection = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/postman_collection.json");
    for (client, key) in [(open, ""), (closed, key.as_str())] {
        let variables = [format!("PS_URL={}", client.base()), format!("PS_KEY={key}")];
        let [url, key] = variables.each_ref().map(|variable| ["--env-var", variable.as_str()]);
        let run =
            [&["run", collection, "--delay-request", "100", "--color", "off"], &url[..], &key[..]].concat();
        let output = newman(&run).output().await.expect("newman");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}");
    }
    system.drain(22).await;
    system.finish().await;
}
