//! Tells a message that a newer version wrote from one that is malformed. Must not contain a list of what is known.

use super::{Received, VERSION_MIN};
use crate::domain::{Action, Members, Object, text};

/// The most characters of an unknown name that are shown.
const NAME_MAX_CHARS: usize = 64;

/// Why a message can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Unread {
    /// No version can apply it, for this reason.
    Malformed(String),
    /// A newer version may apply it: it has something that this version does not know.
    NotUnderstood(String),
}

/// A message as a whole.
struct Envelope;

impl Object for Envelope {
    const MEMBERS: &'static [&'static str] = &["version", "deltas"];
}

/// Names the first thing in a message that a worker limited to `understands` does not know: its version, a member, an
/// action, or a member of an action that does not take it: a newer version may. Returns `None` if everything is known, or
/// if it is not a message of ours.
///
/// Parses a refused message again, so that messages that are understood need no such check.
pub(super) fn unknown(body: &[u8], understands: u64) -> Option<String> {
    let message = Members::<Envelope>::read(body).ok()?;
    let version: u64 = serde_json::from_str(message.get("version")?.get()).ok()?;
    if version > understands {
        return Some(format!("unknown version {version}"));
    }
    if version < VERSION_MIN {
        return None;
    }
    message.unknown().map(member).or_else(|| {
        let deltas: Vec<Members<Received>> = serde_json::from_str(message.get("deltas")?.get()).ok()?;
        deltas.iter().find_map(|delta| delta.unknown().map(member).or_else(|| of_action(delta)))
    })
}

fn member(name: &str) -> String {
    format!("unknown member {}", shown(name))
}

fn of_action(delta: &Members<Received>) -> Option<String> {
    let name = text(delta.get("action")?.get())?;
    match Action::new(&name) {
        Ok(action) => action.strangers(delta).next().map(|stranger| member(&format!("{stranger} of {name}"))),
        Err(_) => Some(format!("unknown action {}", shown(&name))),
    }
}

fn shown(name: &str) -> String {
    name.escape_debug().take(NAME_MAX_CHARS).collect()
}
