//! The private servers: they keep their data, and they end with the process that started them.

use std::{net::TcpStream, path::Path};

use point_system::infra::postgres;

use crate::support::{client::Client, process::Process, servers::open_folder, system::eventually};

/// A `point-system dev` on a folder, and the ports of its servers.
struct Dev {
    process: Process,
    client: Client,
    ports: [u16; 2],
}

impl Dev {
    async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let own = ["--listen", "127.0.0.1:0", "--data-dir", folder.to_str().expect("UTF-8")];
        let process = Process::start("dev", &[&own, arguments].concat(), |_| {});
        let client = Client::new(&process.says("point-system is ready at ").await);
        let port = |url: &str| url::Url::parse(url.trim()).expect("a URL").port().expect("a port");
        let ports = [port(&process.says("PostgreSQL  ").await), port(&process.says("RabbitMQ    ").await)];
        Self { process, client, ports }
    }

    /// Sends a signal and waits until no server listens.
    async fn end(self, signal: &str) -> Option<i32> {
        let status = self.process.end(signal).await;
        let closed = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_err();
        if signal == "-INT" {
            assert!(self.ports.iter().all(closed), "a server outlives a clean end");
        }
        eventually("the servers have ended", async || self.ports.iter().all(closed)).await;
        status.code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_keeps_its_data_and_leaves_no_server_behind() {
    let folder = open_folder();
    let path = folder.path().join("data");
    let dev = Dev::start(&path, &[]).await;
    dev.client.queue("add", 1, 1000).await;
    eventually("the points are there", async || dev.client.balance(1).await == 1000).await;
    assert_eq!(dev.end("-INT").await, Some(0));

    let dev = Dev::start(&path, &[]).await;
    assert_eq!(dev.client.balance(1).await, 1000, "after a clean end");
    assert_eq!(dev.end("-KILL").await, None);

    let dev = Dev::start(&path, &[]).await;
    assert_eq!(dev.client.balance(1).await, 1000, "after a kill");
    // As if an earlier version had made the schema.
    let url = dev.process.says("PostgreSQL  ").await;
    let pool = postgres::pool(&url.trim().parse().expect("a URL"), 1).expect("a pool");
    let other = "update refinery_schema_history set checksum = '1'";
    pool.get().await.expect("a connection").batch_execute(other).await.expect("changed");
    assert_eq!(dev.end("-INT").await, Some(0));

    let own = ["--listen", "127.0.0.1:0", "--data-dir", path.to_str().expect("UTF-8")];
    let (status, printed) = Process::start("dev", &own, |_| {}).ends().await;
    assert_eq!(status.code(), Some(1), "{printed}");
    let named = format!(
        "the data in {} was written by another version of point-system: remove that folder",
        path.display()
    );
    assert!(printed.contains(&named) && printed.contains("--fresh"), "{printed}");

    let dev = Dev::start(&path, &["--fresh"]).await;
    assert_eq!(dev.client.balance(1).await, 0, "--fresh forgets");
    assert_eq!(dev.end("-INT").await, Some(0));
}
