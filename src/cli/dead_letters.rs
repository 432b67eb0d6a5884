//! The command `dead-letters`: lists, shows, redrives and drops dead letters, and moves a message that blocks its
//! partition there. Must not contain the reasons why a message is dead-lettered.

use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    BrokerArgs, DatabaseArgs,
    args::parse_time,
    start::{Deadline, connected, installed},
};
use crate::{
    infra::postgres,
    queue::{DeadLetters, Death, Link, LinkWatch},
};
use letter::{LetterName, json_line, label, line};
use wanted::Wanted;

mod letter;
mod set_aside;
mod wanted;

/// What to do with the dead letters. Only one such command runs at a time.
#[derive(Debug, Subcommand)]
pub enum DeadLettersRole {
    /// List them, oldest first, with the reason for each. Changes nothing.
    List {
        /// The servers, and how long to wait for them.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Print the body of a message to standard output, and what is known about it to standard error.
    Show {
        /// The servers, and how long to wait for them.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// Its number in the current list, or its message id.
        name: LetterName,
    },
    /// Put each change back into the queue of its user's partition. Changes that have already been applied have no
    /// effect; messages that can't be read stay. Exits with 1 if a message stays or was not found.
    Redrive {
        /// The servers, and how long to wait for them.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// The messages.
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Remove messages for good. Exits with 1 if a message was not found.
    Drop {
        /// The servers, and how long to wait for them.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// The messages.
        #[command(flatten)]
        which: WhichArgs,
        /// Do not ask for confirmation. Required when standard input is not a terminal.
        #[arg(long)]
        yes: bool,
    },
    /// Move the first message of a partition to the dead letters, so that the messages behind it are applied. Meant for
    /// a message that no worker understands, but it moves any message. Changes nothing and exits with 1 while a worker
    /// takes the partition's messages.
    SetAside {
        /// The servers, and how long to wait for them.
        #[command(flatten)]
        queue: DeadLettersArgs,
        /// The partition, as /readyz and the metrics of the workers number it.
        partition: u16,
    },
}

/// The broker of the dead letters, the database that names the installation, and how long to wait for both.
#[derive(Args, Debug)]
pub struct DeadLettersArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// How long to wait at startup until PostgreSQL, its migrations and RabbitMQ are ready.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
}

/// Some dead letters, or all of them.
#[derive(Args, Clone, Debug)]
pub struct WhichArgs {
    /// Numbers in the current list, or message ids. Numbers may shift after a redrive, a drop or an interrupted
    /// command.
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub names: Vec<LetterName>,
    /// Act on all messages that are in the dead letters now.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

/// Runs `role`.
///
/// # Errors
/// The dead letters can't be reached, or the command did not do all that was asked.
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
            DeadLettersRole::SetAside { queue, partition } => {
                let url = &queue.database.url;
                linked(&queue, async |link| set_aside::run(&link, url, partition).await).await
            }
        }
    };
    stop.run_until_cancelled(running).await.unwrap_or_else(|| bail!("interrupted"))
}

/// Opens the dead letters, runs `work`, and returns to the queue what `work` left.
async fn opened(
    args: &DeadLettersArgs,
    work: impl AsyncFnOnce(&mut DeadLetters) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    linked(args, async |link| {
        let mut letters = DeadLetters::open(&link).await?;
        let worked = work(&mut letters).await;
        let closed = letters.close().await;
        worked.and(closed.map_err(Into::into))
    })
    .await
}

/// Connects to the broker of the installation, and runs `work`.
async fn linked(
    args: &DeadLettersArgs,
    work: impl AsyncFnOnce(LinkWatch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let deadline = Deadline::after(args.startup_timeout);
    let pool = postgres::reading_pool(&args.database.url, 1)?;
    let installation = installed(&pool, &args.database, deadline).await?;
    pool.close();
    let link = Link::start(args.broker.url.clone(), args.broker.names(&installation), "dead-letters");
    let result = async {
        connected(&link, deadline).await?;
        work(link.watch()).await
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
    let (mut redriven, mut malformed, mut newer) = (0, 0, 0);
    while let Some(letter) = letters.next().await? {
        if !wanted.has(&letter) {
            continue;
        }
        let line = line(&letter);
        if letter.death.is_redrivable() {
            letters
                .redrive(letter)
                .await
                .with_context(|| format!("{redriven} redriven, failed at {line}"))?;
            redriven += 1;
            writeln!(io::stdout(), "redriven {line}")?;
        } else {
            let is_newer = matches!(letter.death, Death::NotUnderstood(_));
            *(if is_newer { &mut newer } else { &mut malformed }) += 1;
            writeln!(io::stdout(), "left     {line}")?;
        }
    }
    writeln!(io::stdout(), "{redriven} redriven, {} left", malformed + newer)?;
    tell_the_rest(letters);
    wanted.all_found()?;
    let why_left = [
        (newer, "are of a newer version: redrive them with the `point-system` of that version"),
        (malformed, "can't be redriven: `drop` removes them"),
    ];
    let why_left = why_left.iter().filter(|(count, _)| *count > 0);
    let why_left: Vec<String> = why_left.map(|(count, why)| format!("{count} dead letters {why}")).collect();
    if !why_left.is_empty() {
        bail!(why_left.join("; "));
    }
    Ok(())
}

async fn drop_letters(letters: &mut DeadLetters, which: &WhichArgs) -> anyhow::Result<()> {
    let mut wanted = Wanted::new(which);
    let mut dropped = 0;
    while let Some(letter) = letters.next().await? {
        if wanted.has(&letter) {
            let line = line(&letter);
            letters.remove(letter).await.with_context(|| format!("{dropped} dropped, failed at {line}"))?;
            dropped += 1;
            writeln!(io::stdout(), "dropped {line}")?;
        }
    }
    writeln!(io::stdout(), "{dropped} dropped")?;
    tell_the_rest(letters);
    wanted.all_found()
}

/// Asks the user to confirm the drop.
async fn confirmed(which: &WhichArgs) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("dropped messages are gone for good: pass --yes, or run this in a terminal to confirm");
    }
    let names = which.names.iter().map(label).collect::<Vec<_>>().join(", ");
    let what = if which.all { "all dead letters" } else { &names };
    eprint!("Drop {what} for good? [y/N] ");
    // A separate thread: a read from a terminal can't be cancelled.
    let (answer, heard) = oneshot::channel();
    thread::spawn(move || {
        let mut line = String::new();
        answer.send(io::stdin().read_line(&mut line).map(|_| line)).ok();
    });
    match heard.await??.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was dropped"),
    }
}

fn tell_the_rest(letters: &DeadLetters) {
    let rest = letters.out_of_reach();
    if rest > 0 {
        log::warn!("{rest} more messages follow: redrive or drop some first");
    }
}
