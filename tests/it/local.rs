//! The private servers: what they keep, and that they end with the process that started them.

use std::{net::TcpStream, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{client::Client, system::eventually};

/// A `point-system dev` on a folder, and the ports of its servers.
struct Dev {
    process: Child,
    client: Client,
    ports: Vec<u16>,
}

impl Dev {
    async fn start(folder: &std::path::Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_point-system"))
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the executable");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let (mut url, mut ports) = (String::new(), Vec::new());
        while let Some(line) = lines.next_line().await.expect("output") {
            if let Some(ready) = line.strip_prefix("point-system is ready at ") {
                ready.clone_into(&mut url);
            }
            if line.starts_with("PostgreSQL ") || line.starts_with("RabbitMQ ") {
                let url = url::Url::parse(line.split_whitespace().last().expect("a URL")).expect("a URL");
                ports.push(url.port().expect("a port"));
            }
            if line.starts_with("stop with") {
                break;
            }
        }
        assert_eq!(ports.len(), 2, "the URLs of both servers are printed");
        Self { process, client: Client::new(&url), ports }
    }

    /// Sends a signal and waits until nobody listens any more.
    async fn end(mut self, signal: &str) -> Option<i32> {
        let pid = self.process.id().expect("running").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.expect("kill").success());
        let status = self.process.wait().await.expect("an end");
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
    let folder = tempfile::Builder::new().prefix("point-system-dev-").tempdir().expect("a folder");
    let path = folder.path().join("data");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("open");
    let dev = Dev::start(&path, &[]).await;
    dev.client.queue("add", 1, 1000).await;
    eventually("the points are there", async || dev.client.balance(1).await == 1000).await;
    assert_eq!(dev.end("-INT").await, Some(0));

    let dev = Dev::start(&path, &[]).await;
    assert_eq!(dev.client.balance(1).await, 1000, "after a clean end");
    assert_eq!(dev.end("-KILL").await, None);

    let dev = Dev::start(&path, &[]).await;
    assert_eq!(dev.client.balance(1).await, 1000, "after a kill");
    assert_eq!(dev.end("-INT").await, Some(0));

    let dev = Dev::start(&path, &["--fresh"]).await;
    assert_eq!(dev.client.balance(1).await, 0, "--fresh forgets");
    assert_eq!(dev.end("-INT").await, Some(0));
}
