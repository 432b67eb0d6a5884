//! Parses the command line, starts the log, runs the role. Must not contain logic.

use std::{mem, process::ExitCode};

use clap::Parser;
use point_system::{config::Cli, logging, roles};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    let runtime = Runtime::new().expect("the threads and timers of a process");
    let ended = runtime.block_on(roles::run(cli.role));
    // Its tasks end with the process. A runtime that is dropped ends them one by one, and those of amqprs panic where the
    // one that they answer to has gone before.
    mem::forget(runtime);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
