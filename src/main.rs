//! Parses the command line, starts the log, runs the role. No logic may enter.

use std::process::ExitCode;

use clap::Parser;
use point_system::{config::Cli, logging, roles};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    match roles::run(cli.role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
