//! A server that poses as the broker: it learns nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    certificates::{Authority, Identity},
    rabbitmq::listen,
};
use crate::support::{
    client::answer,
    servers::{OwnServers, open_folder},
    system::{System, eventually},
};

/// Stands between the nodes and the broker. While it is honest, it passes everything on; otherwise it answers itself.
#[derive(Clone, Default)]
struct Impostor {
    is_honest: Arc<AtomicBool>,
    /// How many connections it has answered itself.
    answered: Arc<AtomicUsize>,
    /// What it has read, decrypted.
    learned: Arc<Mutex<Vec<u8>>>,
    /// Ends the connections.
    cut: Arc<Mutex<CancellationToken>>,
}

impl Impostor {
    /// Starts it in front of a port, with a certificate of its own. Returns its port.
    async fn start(&self, broker: u16, identity: &Identity) -> u16 {
        let certificate = CertificateDer::from_pem_file(&identity.certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate with its key");
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await);
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let impostor = self.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let (impostor, acceptor) = (impostor.clone(), acceptor.clone());
                let cut = impostor.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(async move {
                    cut.run_until_cancelled(impostor.serve(client, broker, acceptor)).await;
                });
            }
        });
        port
    }

    async fn serve(&self, mut client: TcpStream, broker: u16, acceptor: TlsAcceptor) {
        if self.is_honest.load(Ordering::Relaxed) {
            let mut server = TcpStream::connect(("127.0.0.1", broker)).await.expect("the broker");
            copy_bidirectional(&mut client, &mut server).await.ok();
            return;
        }
        if let Ok(mut stream) = acceptor.accept(client).await {
            let mut read = Vec::new();
            timeout(Duration::from_secs(1), stream.read_to_end(&mut read)).await.ok();
            self.learned.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn learned(&self) -> Vec<u8> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whether it is honest, and ends all connections.
    fn turn(&self, is_honest: bool) {
        self.is_honest.store(is_honest, Ordering::Relaxed);
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *cut).cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_wrong_certificate_never_gets_a_byte_of_a_delta() {
    let folder = open_folder();
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let [theirs, others] = ["theirs", "others"].map(|name| Authority::new(folder.path(), name));
    let us = theirs.certify("us", &["us"]);
    let broker = listen(&servers, &theirs.certify("server", &["127.0.0.1"]), &theirs, "tlsv1.3").await;
    let impostor = Impostor::default();
    impostor.turn(true);
    let port = impostor.start(broker, &others.certify("impostor", &["127.0.0.1"])).await;
    system.node_amqp_url = Some(format!(
        "amqps://guest:guest@127.0.0.1:{port}/?cacertfile={}&certfile={}&keyfile={}",
        theirs.file, us.certificate, us.key
    ));
    let client = system.serve();
    system.work();
    client.queue("add", 7, 1).await;

    impostor.turn(false);
    let change = || client.change("add", 7, 10).header("Idempotency-Key", "once");
    eventually("the impostor is tried several times", async || {
        let (status, _) = answer(change()).await;
        assert_eq!(status, 503, "a change is not accepted without the broker's confirm");
        impostor.answered.load(Ordering::Relaxed) >= 6
    })
    .await;
    assert_eq!(impostor.learned(), b"", "neither a delta nor a password");

    let (answered, began) = (impostor.answered.load(Ordering::Relaxed), Instant::now());
    impostor.turn(true);
    eventually("the broker is back", async || answer(change()).await.0 == 202).await;
    let accepted = began.elapsed();
    eventually("applied", async || client.balance(7).await == 11).await;
    println!(
        "{answered} connections learned 0 bytes; after them a change was accepted in {:.2} s and applied in {:.2} s",
        accepted.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    // What this test would see: a client that trusts the impostor begins to talk.
    impostor.turn(false);
    let trusting = format!("amqps://guest:guest@127.0.0.1:{port}/?cacertfile={}", others.file);
    let link = point_system::queue::Link::start(trusting.parse().expect("valid"), system.names(), "test");
    eventually("it talks", async || impostor.learned().starts_with(b"AMQP")).await;
    link.close().await;
    impostor.turn(true);
    system.finish_drained().await;
    servers.stop().await;
}
