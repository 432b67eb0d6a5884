//! The commands `completions` and `man`: the command line described for shells and for `man`. Must not contain the
//! description of a flag.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Flags of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell that the script is for.
    pub shell: Shell,
}

/// Flags of `man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Print the page of this role, such as "serve" or "dead-letters redrive".
    #[arg(value_name = "ROLE")]
    pub role: Vec<String>,
}

/// The name of the executable.
const NAME: &str = "point-system";

/// Prints a completion script.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), NAME, &mut script);
    io::stdout().write_all(&script).context("standard output")
}

/// Prints the manual page of the executable or of a role.
///
/// # Errors
/// There is no such role, or standard output can't be written.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut whole = command();
    // Gives each role its full name and the global flags.
    whole.build();
    let mut page = &whole;
    for name in &args.role {
        page = page.find_subcommand(name).with_context(|| format!("there is no role {name:?}"))?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page.clone()).render(&mut text)?;
    io::stdout().write_all(&text).context("standard output")
}

fn command() -> Command {
    Cli::command().name(NAME)
}
