//! How containers and supervisors learn that a node is well: `point-system health`, and the protocol of systemd.

use std::{io::ErrorKind, net::TcpListener, os::unix::net::UnixDatagram, time::Duration};

use crate::support::{
    process::Process,
    system::{System, eventually},
};

/// Asks with these variables in the environment. Returns the exit code and what was printed.
async fn health(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let asking = Process::start("health", arguments, |command| {
        command.envs(variables.iter().copied());
    });
    let (status, printed) = asking.ends().await;
    (status.code(), printed)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_of_each_role_whether_it_is_ready() {
    let system = System::new().await;
    // As in a container, whose health check has the environment of its role and no arguments.
    let serve = system.process("serve", &["--listen", "127.0.0.1:0", "--drain-delay", "20s"]);
    let served = format!("127.0.0.1:{}", serve.says("server listen at :").await);
    let work = system.process("work", &["--metrics-listen", "0.0.0.0:0"]);
    let worked = work.says("metrics listen at ").await;
    assert!(worked.starts_with("0.0.0.0:"), "{worked}");
    for variables in [[("POINT_SYSTEM_LISTEN", &*served)], [("POINT_SYSTEM_METRICS_LISTEN", &*worked)]] {
        let ready = (Some(0), "ready: everything is up".to_owned());
        eventually("it is ready", async || health(&variables, &[]).await == ready).await;
        assert_eq!(health(&variables, &["--live"]).await, (Some(0), "live".to_owned()));
    }
    let both = [("POINT_SYSTEM_LISTEN", "127.0.0.1:1"), ("POINT_SYSTEM_METRICS_LISTEN", &*worked)];
    assert_eq!(health(&both, &[]).await.0, Some(0), "the metrics listener comes first");

    serve.signal("-TERM").await;
    let drains = async || {
        let (code, printed) = health(&[], &["--listen", &served]).await;
        code == Some(1) && printed.contains("stopping: draining: the node still answers")
    };
    eventually("it drains", drains).await;
    assert_eq!(health(&[], &["--listen", &served, "--live"]).await.0, Some(0), "it is alive");
    assert_eq!(serve.end("-TERM").await.code(), Some(130));
    let (code, printed) = health(&[], &["--listen", &served]).await;
    assert!(code == Some(1) && printed.contains("Connection refused"), "{printed}");
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_waits_no_longer_than_it_is_told() {
    // It accepts connections in the kernel, and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = mute.local_addr().expect("bound").to_string();
    let (code, printed) = health(&[], &["--listen", &address, "--timeout", "200ms"]).await;
    let why = format!("asking http://{address}/readyz: no answer within 200 ms (--timeout)");
    assert!(code == Some(1) && printed.contains(&why), "{printed}");
}

/// The next messages of a node to its supervisor, until one has this line. Returns all of their lines.
fn told(supervisor: &UnixDatagram, line: &str) -> Vec<String> {
    let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
    while !lines.iter().any(|told| told == line) {
        let length = match supervisor.recv(&mut buffer) {
            Ok(length) => length,
            // A child process of another test has ended.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => panic!("{error}: no {line} in {lines:?}"),
        };
        lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_learns_when_a_node_is_ready_and_when_it_stops() {
    let system = System::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let serve = &["--listen", "127.0.0.1:0", "--drain-delay", "1s"][..];
    // Without RabbitMQ, `serve` starts as well.
    let nowhere = "amqp://127.0.0.1:1";
    for (index, (role, arguments, broker)) in
        [("serve", serve, None), ("work", &[], None), ("serve", serve, Some(nowhere))].into_iter().enumerate()
    {
        let socket = folder.path().join(index.to_string());
        let supervisor = UnixDatagram::bind(&socket).expect("a socket");
        supervisor.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let node = Process::start(role, arguments, |command| {
            system.set_up(command, "info");
            command.env("NOTIFY_SOCKET", &socket);
            if let Some(url) = broker {
                command.env("AMQP_URL", url);
            }
        });
        let started = told(&supervisor, "READY=1");
        assert_eq!(
            started.first().map(String::as_str),
            Some("STATUS=waiting for RabbitMQ, PostgreSQL and its migrations")
        );
        assert_eq!(started.iter().filter(|line| *line == "READY=1").count(), 1, "{started:?}");
        node.says(if role == "serve" { "server listen at :" } else { "working on" }).await;
        node.signal("-TERM").await;
        let stopped = told(&supervisor, "STOPPING=1");
        assert!(!stopped.contains(&"READY=1".to_owned()), "{stopped:?}");
        let status = if role == "serve" { "STATUS=draining: " } else { "STATUS=the node takes no new work" };
        assert!(stopped.iter().any(|line| line.starts_with(status)), "{stopped:?}");
        assert!(node.ends().await.0.success());
    }
    system.finish().await;
}
