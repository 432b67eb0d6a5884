//! Parses the command line, starts the log and runs the role. Must not contain logic.

use std::{mem, process::ExitCode};

use clap::Parser;
use point_system::{
    cli::{self, Cli},
    infra::logging,
};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let line = Cli::parse();
    logging::start(line.log_format);
    let runtime = Runtime::new().expect("the system provides threads and timers");
    let ended = runtime.block_on(cli::run(line.role));
    // The tasks end with the process. Dropping the runtime would end them one by one, and a task of amqprs panics if
    // the task that it reports to has ended first.
    mem::forget(runtime);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
