//! Parses the command line, starts the log, runs the role. No logic may enter.

use std::process::ExitCode;

use clap::Parser;
use point_system::{config::Cli, roles};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match roles::run(cli.role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
