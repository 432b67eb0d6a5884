//! The command `dead-letters`: what is in them, listed, redriven or dropped. Must not contain what makes a message one.

use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{BrokerArgs, args::parse_time, start::gave_up};
use crate::queue::{DeadLetter, DeadLetters, Link};
use letter::{LetterName, json_line, label, line};

mod letter;

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

/// Does what `role` says.
///
/// # Errors
/// Where the dead letters can't be reached, or what was asked for could not be done in full.
pub(super) async fn run(role: DeadLettersRole, stop: CancellationToken) -> anyhow::Result<()> {
    let running = async {
        match role {
            DeadLettersRole::List { queue, json } => {
                opened(&queue, async |letters| list(letters, json).await).await
            }
            DeadLettersRole::Show { queue, name } => {
                opened(&queue, async |letters| show(letters, &name).await).await
            }
            DeadLettersRole::Redrive { queue, which } => {
                opened(&queue, async |letters| redrive(letters, &which).await).await
            }
            DeadLettersRole::Drop { queue, which, yes } => {
                if !yes {
                    confirmed(&which).await?;
                }
                opened(&queue, async |letters| drop_letters(letters, &which).await).await
            }
        }
    };
    stop.run_until_cancelled(running).await.unwrap_or_else(|| bail!("interrupted"))
}

/// Opens the dead letters, does the work, and returns what it left.
async fn opened(
    args: &DeadLettersArgs,
    work: impl AsyncFnOnce(&mut DeadLetters) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limit = args.startup_timeout;
    let link = Link::start(args.broker.url.clone(), args.broker.names.clone(), "dead-letters");
    let result = async {
        let mut watch = link.watch();
        watch.ready(limit).await.map_err(anyhow::Error::msg).with_context(|| gave_up(limit))?;
        let mut letters = DeadLetters::open(&watch).await?;
        let worked = work(&mut letters).await;
        let closed = letters.close().await;
        worked.and(closed.map_err(Into::into))
    }
    .await;
    link.close().await;
    result
}

async fn list(letters: &mut DeadLetters, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let mut count = 0;
    while let Some(letter) = letters.next().await? {
        let line = if json { json_line(&letter)? } else { line(&letter) };
        writeln!(out, "{line}")?;
        count += 1;
    }
    if count == 0 && !json {
        writeln!(out, "no dead letters")?;
    }
    tell_the_rest(letters);
    Ok(())
}

async fn show(letters: &mut DeadLetters, name: &LetterName) -> anyhow::Result<()> {
    while let Some(letter) = letters.next().await? {
        if name.is_of(&letter) {
            eprintln!("{}", line(&letter));
            let mut out = io::stdout();
            out.write_all(&letter.body)?;
            if out.is_terminal() {
                writeln!(out)?;
            }
            return Ok(out.flush()?);
        }
    }
    tell_the_rest(letters);
    bail!("not found: {}", label(name))
}

async fn redrive(letters: &mut DeadLetters, which: &WhichArgs) -> anyhow::Result<()> {
    let mut wanted = Wanted::new(which);
    let (mut redriven, mut left) = (0, 0);
    while let Some(letter) = letters.next().await? {
        if !wanted.has(&letter) {
            continue;
        }
        let line = line(&letter);
        if letter.death.is_redrivable() {
            letters.redrive(letter).await.with_context(|| format!("{redriven} redriven, then at {line}"))?;
            redriven += 1;
            println!("redriven {line}");
        } else {
            left += 1;
            println!("left     {line}");
        }
    }
    println!("{redriven} redriven, {left} left");
    tell_the_rest(letters);
    wanted.all_found()?;
    if left > 0 {
        bail!("{left} dead letters can't be redriven: `drop` removes them");
    }
    Ok(())
}

async fn drop_letters(letters: &mut DeadLetters, which: &WhichArgs) -> anyhow::Result<()> {
    let mut wanted = Wanted::new(which);
    let mut dropped = 0;
    while let Some(letter) = letters.next().await? {
        if wanted.has(&letter) {
            let line = line(&letter);
            letters.remove(letter).await.with_context(|| format!("{dropped} dropped, then at {line}"))?;
            dropped += 1;
            println!("dropped {line}");
        }
    }
    println!("{dropped} dropped");
    tell_the_rest(letters);
    wanted.all_found()
}

/// Asks whether to drop them.
async fn confirmed(which: &WhichArgs) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("dropped messages are gone for good: say --yes, or answer on a terminal");
    }
    let names = which.names.iter().map(label).collect::<Vec<_>>().join(", ");
    let what = if which.all { "all dead letters" } else { &names };
    eprint!("Drop {what} for good? [y/N] ");
    // A thread of its own: a read from a terminal can't be ended, and would keep the process from ending.
    let (answer, heard) = oneshot::channel();
    thread::spawn(move || {
        let mut line = String::new();
        answer.send(io::stdin().read_line(&mut line).map(|_| line)).ok();
    });
    match heard.await??.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing is dropped"),
    }
}

/// What was named, and what of it was seen.
struct Wanted<'a> {
    which: &'a WhichArgs,
    seen: Vec<bool>,
}

impl<'a> Wanted<'a> {
    fn new(which: &'a WhichArgs) -> Self {
        Self { which, seen: vec![false; which.names.len()] }
    }

    fn has(&mut self, letter: &DeadLetter) -> bool {
        let mut has = self.which.all;
        for (name, seen) in self.which.names.iter().zip(&mut self.seen) {
            let named = name.is_of(letter);
            *seen |= named;
            has |= named;
        }
        has
    }

    fn all_found(&self) -> anyhow::Result<()> {
        let names = self.which.names.iter().zip(&self.seen);
        let missing: Vec<String> = names.filter(|(_, seen)| !**seen).map(|(name, _)| label(name)).collect();
        if !missing.is_empty() {
            bail!("not found: {}", missing.join(", "));
        }
        Ok(())
    }
}

fn tell_the_rest(letters: &DeadLetters) {
    let rest = letters.out_of_reach();
    if rest > 0 {
        log::warn!("{rest} more are behind these: redrive or drop some of these first");
    }
}
