//! Lists of hosts: a node leaves a host that does not do its work, and finds one that does.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use point_system::{infra::postgres, queue::Link};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    client::{Client, answer},
    frames::Tampering,
    proxy::{Weather, through},
    system::{PATIENCE, System, eventually},
};

/// The longest start with a host that drops packets and one that is silent, for both servers: 2 s and 8 s by themselves.
const START_LIMIT: Duration = Duration::from_secs(25);

/// How long it takes to connect behind a host that drops packets.
const GONE_COST: RangeInclusive<Duration> = Duration::from_millis(900)..=Duration::from_secs(2);

/// Enough to open and set up a session, but not for a transaction.
const SESSION_BYTES: usize = 1_200;

/// A port where nothing listens.
const CLOSED: u16 = 1;

/// A port whose new connections get no answer, as those to a host that is gone.
struct Gone {
    port: u16,
    _waiting: Vec<TcpStream>,
    _listener: tokio::net::TcpListener,
}

impl Gone {
    /// Fills the queue of a listener that accepts nothing. Linux then drops what asks for more.
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let listener = socket.listen(1).expect("listening");
        let address = listener.local_addr().expect("bound");
        let mut waiting = Vec::new();
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            waiting.push(connected.expect("in the queue"));
        }
        Self { port: address.port(), _waiting: waiting, _listener: listener }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_refuse_drop_or_keep_silent_are_left_for_one_that_answers() {
    let mut system = System::new().await;
    let gone = Gone::start().await;
    let mut urls = Vec::new();
    let mut silent = Vec::new();
    for url in [&system.database.url, &system.amqp_url] {
        let (proxy, list) = through(url, 1).await;
        proxy[0].turn(Weather::Stalled);
        // A refused port, one that gets no answer, one that is silent, and the server itself.
        let itself = url::Url::parse(url).expect("a valid URL").port().expect("a port");
        let (port, hosts) = (proxy[0].port(), [CLOSED, gone.port, proxy[0].port(), itself]);
        let hosts = hosts.map(|port| format!("127.0.0.1:{port}")).join(",");
        urls.push(list.replace(&format!("127.0.0.1:{port}"), &hosts));
        silent.extend(proxy);
    }
    (system.node_database_url, system.node_amqp_url) = (Some(urls.remove(0)), Some(urls.remove(0)));
    let began = Instant::now();
    let serve = system.process("serve", &["--listen", "127.0.0.1:0"]);
    let port = serve.says("server listen at :").await;
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    eprintln!("ready after {:?}", began.elapsed());
    assert!(began.elapsed() < START_LIMIT, "{:?}: {}", began.elapsed(), serve.printed());
    assert!(silent.iter().all(|proxy| proxy.accepted() > 0), "each was tried: {}", serve.printed());
    let printed = serve.printed();
    for port in [gone.port, silent[0].port(), silent[1].port()] {
        assert!(printed.contains(&format!(" at 127.0.0.1:{port}: ")), "{port} is named: {printed}");
    }
    client.queue("add", 1, 1).await;
    let tried = silent[0].accepted();
    let ours = "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()";
    system.execute(ours).await;
    let change = || client.change("add", 1, 1).header("Prefer", "wait").header("Idempotency-Key", "once");
    eventually("there are new sessions", async || answer(change()).await.0 == 200).await;
    assert_eq!(silent[0].accepted(), tried, "a host that failed is not tried while another works");
    assert_eq!(serve.end("-TERM").await.code(), Some(0));
    system.work();
    system.drain(2).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_gone_costs_about_a_second() {
    let mut system = System::new().await;
    let client = system.serve();
    client.queue("add", 1, 1).await;
    let gone = Gone::start().await;
    let behind = |url: &str| {
        let itself = url::Url::parse(url).expect("a valid URL").port().expect("a port");
        url.replace(&format!(":{itself}"), &format!(":{},127.0.0.1:{itself}", gone.port))
    };
    // Each attempt knows nothing of the ones before it. A busy machine may delay one of them.
    let (mut of_postgresql, mut of_rabbitmq) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let began = Instant::now();
        let url = behind(&system.database.url).parse().expect("a valid URL");
        drop(postgres::pool(&url, 1).expect("a pool").get().await.expect("a session"));
        of_postgresql = of_postgresql.min(began.elapsed());
        let began = Instant::now();
        let url = behind(&system.amqp_url).parse().expect("a valid URL");
        let link = Link::start(url, system.names(), "test");
        link.watch().ready(PATIENCE).await.expect("a connection");
        of_rabbitmq = of_rabbitmq.min(began.elapsed());
        link.close().await;
    }
    for took in [of_postgresql, of_rabbitmq] {
        assert!(GONE_COST.contains(&took), "{of_postgresql:?} {of_rabbitmq:?}");
    }
    system.work();
    system.drain(1).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_confirms_nothing_is_left_for_another() {
    let mut system = System::new().await;
    let (proxies, url) = through(&system.amqp_url, 2).await;
    let [mute, other] = &proxies[..] else { panic!("two proxies") };
    mute.turn(Weather::Tampered(Tampering::NoConfirms));
    system.node_amqp_url = Some(url);
    let client = system.serve();
    let change = || client.change("add", 7, 1).header("Idempotency-Key", "once");
    eventually("it serves", async || answer(client.get("/readyz")).await.0 == 200).await;
    assert!(mute.accepted() > 0 && other.accepted() == 0, "in the order of the list");
    let tried = mute.accepted();
    assert_eq!(answer(change()).await.0, 503, "no confirm, no 202");
    eventually("a 202", async || answer(change()).await.0 == 202).await;
    assert!(mute.accepted() == tried && other.accepted() > 0);
    system.work();
    system.drain(1).await;
    // Both messages may be in the queue; the request counts once.
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_sessions_but_ends_no_transaction_is_left_for_another() {
    let mut system = System::new().await;
    let (proxies, url) = through(&system.database.url, 2).await;
    let [stalled, other] = &proxies[..] else { panic!("two proxies") };
    system.node_database_url = Some(url);
    let client = system.serve();
    system.work();
    client.queue("add", 7, 1).await;
    system.drain(1).await;
    assert!(stalled.accepted() > 0 && other.accepted() == 0, "in the order of the list");

    stalled.turn(Weather::StalledAfter(SESSION_BYTES));
    let began = Instant::now();
    client.queue("add", 7, 10).await;
    system.drain(2).await;
    eprintln!("applied through the other host after {:?}", began.elapsed());
    assert!(other.accepted() > 0);
    eventually("reads as well", async || {
        answer(client.get("/v1/point?id=7")).await.1["point"].as_i64() == Some(11)
    })
    .await;
    // Nothing needs the first host any more.
    stalled.refuse();
    client.queue("add", 7, 100).await;
    system.drain(3).await;
    system.finish().await;
}
