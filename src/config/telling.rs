//! The flags of what a process tells of itself: its log, its metrics, its manual. No I/O may enter.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Where a node tells how it is.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct MetricsArgs {
    /// Address and port for operations alone: /metrics for Prometheus, /livez and /readyz. Off where not given.
    #[arg(id = "metrics-listen", long, env = "POINT_SYSTEM_METRICS_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
}

/// Flags of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: Shell,
}

/// Flags of `man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// The page of a role, such as "serve" or "dead-letters redrive", instead of that of the whole.
    #[arg(value_name = "ROLE")]
    pub role: Vec<String>,
}
