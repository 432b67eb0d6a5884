//! TLS to RabbitMQ.

use point_system::{
    local::free_port,
    queue::{Link, QueueNames},
};

use super::{
    VERSIONS,
    certificates::{Authority, Identity},
};
use crate::support::{
    servers::{OwnServers, open_folder},
    system::{System, eventually},
};

/// Starts a TLS listener of a running broker. It accepts one version, and asks for certificates of an authority.
pub async fn listen(servers: &OwnServers, server: &Identity, clients: &Authority, version: &str) -> u16 {
    let port = free_port().expect("a port");
    let options = format!(
        "[{{cacertfile, {:?}}}, {{certfile, {:?}}}, {{keyfile, {:?}}}, {{versions, ['{version}']}}, \
         {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}]",
        clients.file, server.certificate, server.key
    );
    let start = format!(
        "rabbit_networking:ensure_ssl(), \
         rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, {options}, 5)."
    );
    let printed = servers.broker.control(&["eval", &start]).await.expect("a listener");
    assert!(printed.contains("ok"), "{printed}");
    port
}

/// Connects. Returns why there is no connection, if there is none.
async fn connect(url: &str, names: QueueNames) -> Result<(), String> {
    let link = Link::start(url.parse().expect("a valid URL"), names, "test");
    let mut connected = Err(String::new());
    eventually("an attempt has ended", async || {
        connected = link.watch().ready(std::time::Duration::from_millis(50)).await;
        connected.as_ref().is_ok() || connected.as_ref().is_err_and(|why| !why.ends_with("not connected yet"))
    })
    .await;
    link.close().await;
    connected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_trusted_by_its_certificate_or_not_at_all() {
    let folder = open_folder();
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let [theirs, others] = ["theirs", "others"].map(|name| Authority::new(folder.path(), name));
    let us = theirs.certify("us", &["us"]);
    let server = theirs.certify("server", &["localhost", "127.0.0.1"]);
    let expired = theirs.certify_until("expired", &["localhost"], 2020);
    let stranger = others.certify("stranger", &["us"]);
    for (queued, (_, version)) in (1..).zip(VERSIONS) {
        let port = listen(&servers, &server, &theirs, version).await;
        let url = |authority: &Authority, identity: Option<&Identity>, port: u16| {
            let identity = identity.map(|own| format!("&certfile={}&keyfile={}", own.certificate, own.key));
            let identity = identity.unwrap_or_default();
            format!("amqps://guest:guest@127.0.0.1:{port}/?cacertfile={}{identity}", authority.file)
        };
        let right = url(&theirs, Some(&us), port);
        assert_eq!(connect(&right, system.names()).await, Ok(()), "{version}");
        let by_name = right.replace("127.0.0.1", "localhost");
        assert_eq!(connect(&by_name, system.names()).await, Ok(()), "{version}");
        let expired = listen(&servers, &expired, &theirs, version).await;
        for (wrong, why) in [
            (url(&others, Some(&us), port), "UnknownIssuer"),
            (format!("{right}&server_name_indication=other.example"), "not valid for name"),
            (url(&theirs, Some(&us), expired), "expired"),
            (url(&theirs, None, port), "check certfile and keyfile"),
            (url(&theirs, Some(&stranger), port), "check certfile and keyfile"),
        ] {
            let refused = connect(&wrong, system.names()).await.expect_err(why);
            assert!(refused.contains(why) && refused.contains("127.0.0.1"), "{version}, {why}: {refused}");
        }
        system.node_amqp_url = Some(right);
        let client = system.serve();
        system.work();
        client.queue("add", 7, 1).await;
        eventually("changes travel over TLS", async || client.balance(7).await == queued).await;
        system.stop().await;
    }
    system.finish().await;
    servers.stop().await;
}
