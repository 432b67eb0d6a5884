//! The flags of the roles that an operator runs and that end by themselves. No I/O may enter.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{BrokerArgs, DatabaseArgs, parse_time};
use crate::dead_letters::LetterName;

/// Flags of `migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Change nothing: name what is pending, and exit with 1 where something is.
    #[arg(long)]
    pub check: bool,
    /// How long to wait for the database, for another process that is migrating, and for tables that are locked.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
}

/// Flags of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Print a JSON object a line: each finding, then the summary.
    #[arg(long)]
    pub json: bool,
}

/// What to do with the dead letters. One command at a time may look at them.
#[derive(Debug, Subcommand)]
pub enum DeadLettersRole {
    /// List them, oldest first, each with the reason why it is there. Nothing is changed.
    List {
        /// Where they are.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Print the body of one to standard output as it is, and what is known of it to standard error.
    Show {
        /// Where they are.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// Its number in the list of now, or its message id.
        name: LetterName,
    },
    /// Put each delta back into the queue of its user's partition. What was applied already changes nothing; what
    /// can't be read stays. Exits with 1 where something stays or was not found.
    Redrive {
        /// Where they are.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// Which ones.
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Remove them for good. Exits with 1 where something was not found.
    Drop {
        /// Where they are.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// Which ones.
        #[command(flatten)]
        which: WhichArgs,
        /// Don't ask. Without a terminal to ask on, nothing is removed without this.
        #[arg(long)]
        yes: bool,
    },
}

/// Where the dead letters are.
#[derive(Args, Debug)]
pub struct DeadLettersArgs {
    /// Where the broker is.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// How long to wait for a broker that is not there yet, such as "60s".
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
}

/// Some dead letters, or all.
#[derive(Args, Clone, Debug)]
pub struct WhichArgs {
    /// Numbers in the list of now, or message ids. A number is another's once one before it is redriven or
    /// dropped, or a command was interrupted.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub names: Vec<LetterName>,
    /// All that are there now.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}
