//! TLS to both servers: which servers are trusted, who we are to them, and what an impostor learns.

mod certificates;
mod impostor;
mod postgres;
mod rabbitmq;

/// The versions of TLS, as PostgreSQL and as RabbitMQ name them.
const VERSIONS: [(&str, &str); 2] = [("TLSv1.2", "tlsv1.2"), ("TLSv1.3", "tlsv1.3")];
