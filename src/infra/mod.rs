//! The foundation of the service: lanes, hosts, TLS, PostgreSQL connections, migrations, metrics, logging. Must not contain points.

pub mod build;
pub mod hosts;
pub mod lane;
pub mod logging;
pub mod metrics;
pub mod migrate;
pub mod postgres;
pub mod server_url;
pub mod tls;
