//! A dead letter on the command line: its name, its line for people, and its JSON. Must not contain I/O.

use std::{convert::Infallible, str::FromStr};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::{domain::Delta, queue::DeadLetter};

/// Maximum number of request ids per message in the list for people. `--json` has all of them.
const IDS_SHOWN: usize = 3;

/// The name of a dead letter on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterName {
    /// Its position in the list, from 1.
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
    pub(super) fn is_of(&self, letter: &DeadLetter) -> bool {
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

pub(super) fn label(name: &LetterName) -> String {
    match name {
        LetterName::Position(position) => position.to_string(),
        LetterName::MessageId(id) => printable(id),
    }
}

/// Escapes control characters: anybody may have chosen the message id, and it must not control the terminal.
pub(super) fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

/// A dead letter as one line for people.
pub(super) fn line(letter: &DeadLetter) -> String {
    let from = letter.partition.map_or_else(|| "elsewhere".to_owned(), |p| format!("partition {p}"));
    let age = age_s(letter).map_or_else(String::new, |s| format!(", {:#} ago", SignedDuration::from_secs(s)));
    let holds = contents(&letter.deltas, letter.message_id.as_deref(), letter.body.len());
    format!("{}  {from}{age}: {}; {holds}", letter.position, printable(&letter.death.to_string()))
}

/// What a message holds, without its body.
pub(super) fn contents(deltas: &[Delta], message_id: Option<&str>, bytes: usize) -> String {
    let mut ids: Vec<String> =
        deltas.iter().take(IDS_SHOWN).map(|delta| delta.request_id.to_string()).collect();
    let count = deltas.len();
    if count > IDS_SHOWN {
        ids.push(format!("and {} more", count - IDS_SHOWN));
    }
    match (count, message_id) {
        (0, None) => format!("{bytes} bytes"),
        (0, Some(id)) => format!("{bytes} bytes, message id {}", printable(id)),
        (1, _) => format!("1 delta: {}", ids.join(", ")),
        (_, _) => format!("{count} deltas: {}", ids.join(", ")),
    }
}

pub(super) fn json_line(letter: &DeadLetter) -> serde_json::Result<String> {
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
