//! Parses the command line, starts the log, runs the role. No logic may enter.

use std::process::ExitCode;

use clap::Parser;
use point_system::{config::Cli, roles};

/// What is logged where `RUST_LOG` does not say: ours, and what worries the libraries.
const DEFAULT_LOG: &str = "warn,point_system=info";

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = env_logger::Env::default().default_filter_or(DEFAULT_LOG);
    env_logger::Builder::from_env(level).init();
    match roles::run(cli.role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
