//! Parses the command line, starts the log, runs the role. Must not contain logic.

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
    let runtime = Runtime::new().expect("the threads and timers of a process");
    let ended = runtime.block_on(cli::run(line.role));
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
