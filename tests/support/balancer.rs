//! A load balancer of TCP connections that asks each backend whether it is ready, as the Service of a Kubernetes cluster
//! does. It retries nothing.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::interval,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{client::Client, system::eventually};

/// The pause between two probes of a backend. One that fails is enough.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// The longest that a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A running balancer. It ends, with its connections, when it is dropped.
pub struct Balancer {
    port: u16,
    backends: Backends,
    _end: DropGuard,
}

type Backends = Arc<Mutex<Vec<Backend>>>;

#[derive(Clone)]
struct Backend {
    port: u16,
    is_ready: bool,
    is_registered: bool,
    open: Arc<AtomicUsize>,
}

impl Balancer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (backends, end) = (Backends::default(), CancellationToken::new());
        let (balancing, ended) = (balance(listener, backends.clone()), end.clone());
        tokio::spawn(async move { ended.run_until_cancelled(balancing).await });
        let (probing, ended) = (probe(backends.clone()), end.clone());
        tokio::spawn(async move { ended.run_until_cancelled(probing).await });
        Self { port, backends, _end: end.drop_guard() }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds a backend, and waits until it is ready.
    pub async fn add(&self, port: u16) {
        let backend = Backend { port, is_ready: false, is_registered: true, open: Arc::default() };
        lock(&self.backends).push(backend);
        let is_ready = || lock(&self.backends).iter().any(|backend| backend.port == port && backend.is_ready);
        eventually("the backend is ready", async || is_ready()).await;
    }

    /// Gives a backend no new connections, and waits until it has none.
    pub async fn deregister(&self, port: u16) {
        let mut open = Arc::default();
        for backend in lock(&self.backends).iter_mut().filter(|backend| backend.port == port) {
            backend.is_registered = false;
            open = Arc::clone(&backend.open);
        }
        eventually("its connections are closed", async || open.load(Ordering::Relaxed) == 0).await;
    }

    /// Forgets a backend that has ended.
    pub fn remove(&self, port: u16) {
        lock(&self.backends).retain(|backend| backend.port != port);
    }
}

fn lock(backends: &Backends) -> MutexGuard<'_, Vec<Backend>> {
    backends.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn probe(backends: Backends) {
    let mut probes = interval(PROBE_PAUSE);
    loop {
        probes.tick().await;
        let ports: Vec<u16> = lock(&backends).iter().map(|backend| backend.port).collect();
        for port in ports {
            // A new client, so that each probe has its own connection.
            let probe =
                Client::new(&format!("http://127.0.0.1:{port}")).get("/readyz").timeout(PROBE_TIMEOUT);
            let is_ready = probe.send().await.is_ok_and(|answer| answer.status() == 200);
            for backend in lock(&backends).iter_mut().filter(|backend| backend.port == port) {
                backend.is_ready = is_ready;
            }
        }
    }
}

async fn balance(listener: TcpListener, backends: Backends) {
    for turn in 0.. {
        let (client, _) = listener.accept().await.expect("a connection");
        let usable: Vec<Backend> = {
            let backends = lock(&backends);
            backends.iter().filter(|backend| backend.is_ready && backend.is_registered).cloned().collect()
        };
        // Without a backend, the client's connection is closed.
        let Some(backend) = usable.get(turn % usable.len().max(1)).cloned() else { continue };
        backend.open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(carry(client, backend));
    }
}

async fn carry(mut client: TcpStream, backend: Backend) {
    if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, backend.port)).await {
        copy_bidirectional(&mut client, &mut server).await.ok();
    }
    backend.open.fetch_sub(1, Ordering::Relaxed);
}
