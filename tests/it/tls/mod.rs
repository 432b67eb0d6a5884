//! TLS to both servers: which servers are trusted, who we are to them, and what an impostor learns.

mod certificates;
mod impostor;
mod postgres;
mod rabbitmq;

/// The versions of TLS, as PostgreSQL and as RabbitMQ name them.
const VERSIONS: [(&str, &str); 2] = [("TLSv1.2", "tlsv1.2"), ("TLSv1.3", "tlsv1.3")];

/// A port that nobody listens on, for a listener of a server.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
