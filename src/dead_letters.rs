//! The role `dead-letters`: what is in them, printed; redriven or dropped as it is told. What makes a message
//! a dead letter is the queue's to say.

use std::{
    convert::Infallible,
    io::{self, IsTerminal, Write},
    str::FromStr,
    thread,
};

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{DeadLettersArgs, DeadLettersRole, WhichArgs},
    queue::{DeadLetter, DeadLetters, Link},
    roles,
};

/// The most request ids of a message in the list for people; `--json` has them all.
const IDS_SHOWN: usize = 3;

/// What a dead letter is called on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterName {
    /// Its place in the list, from 1.
    Position(u32),
    /// Its message id.
    MessageId(String),
}

impl FromStr for LetterName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::MessageId(text.to_owned()), Self::Position))
    }
}

impl LetterName {
    fn is_of(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::Position(position) => *position == letter.position,
            Self::MessageId(id) => letter.message_id.as_ref() == Some(id),
        }
    }
}

/// A line of `list --json`.
#[derive(Serialize)]
struct DeadLetterResponse<'a> {
    position: u32,
    message_id: Option<&'a str>,
    partition: Option<u16>,
    died_at: Option<Timestamp>,
    age_s: Option<i64>,
    bytes: usize,
    redrivable: bool,
    reason: String,
    deltas: usize,
    request_ids: Vec<Uuid>,
}

/// Does what `role` says.
///
/// # Errors
/// Where the dead letters can't be reached, or what was asked for could not be done in full.
pub async fn run(role: DeadLettersRole, stop: CancellationToken) -> anyhow::Result<()> {
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
        watch.ready(limit).await.map_err(anyhow::Error::msg).with_context(|| roles::gave_up(limit))?;
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

fn label(name: &LetterName) -> String {
    match name {
        LetterName::Position(position) => position.to_string(),
        LetterName::MessageId(id) => printable(id),
    }
}

/// A message id may be anybody's: nothing in it may steer the terminal.
fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

/// A dead letter in a line.
fn line(letter: &DeadLetter) -> String {
    let from = letter.partition.map_or_else(|| "elsewhere".to_owned(), |p| format!("partition {p}"));
    let age = age_s(letter).map_or_else(String::new, |s| format!(", {:#} ago", SignedDuration::from_secs(s)));
    let mut ids: Vec<String> =
        letter.deltas.iter().take(IDS_SHOWN).map(|delta| delta.request_id.to_string()).collect();
    let count = letter.deltas.len();
    if count > IDS_SHOWN {
        ids.push(format!("and {} more", count - IDS_SHOWN));
    }
    let holds = match (count, &letter.message_id) {
        (0, None) => format!("{} bytes", letter.body.len()),
        (0, Some(id)) => format!("{} bytes, message id {}", letter.body.len(), printable(id)),
        (1, _) => format!("1 delta: {}", ids.join(", ")),
        (_, _) => format!("{count} deltas: {}", ids.join(", ")),
    };
    format!("{}  {from}{age}: {}; {holds}", letter.position, printable(&letter.death.to_string()))
}

fn json_line(letter: &DeadLetter) -> serde_json::Result<String> {
    serde_json::to_string(&DeadLetterResponse {
        position: letter.position,
        message_id: letter.message_id.as_deref(),
        partition: letter.partition,
        died_at: letter.died_at,
        age_s: age_s(letter),
        bytes: letter.body.len(),
        redrivable: letter.death.is_redrivable(),
        reason: letter.death.to_string(),
        deltas: letter.deltas.len(),
        request_ids: letter.deltas.iter().map(|delta| delta.request_id.get()).collect(),
    })
}

fn age_s(letter: &DeadLetter) -> Option<i64> {
    Some(Timestamp::now().duration_since(letter.died_at?).as_secs().max(0))
}
