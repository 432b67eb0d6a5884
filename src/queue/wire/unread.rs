//! Tells a message that a newer version wrote from one that is malformed. Must not contain a list of what is known.

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor, value},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use super::{DeltaMessage, DeltasMessage, MESSAGE_VERSION};
use crate::domain::Action;

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

type Members<'a> = BTreeMap<String, &'a RawValue>;

/// What a message has that is not known to a worker that understands versions up to `understands`: its version, an
/// action or a member. Returns `None` if everything is known, or if it is not a message of ours.
///
/// It reads a message that was refused once more, so that reading one that is understood takes no longer.
pub(super) fn unknown(body: &[u8], understands: u64) -> Option<String> {
    let message: Members = serde_json::from_slice(body).ok()?;
    let version: u64 = serde_json::from_str(message.get("version")?.get()).ok()?;
    if version > understands {
        return Some(format!("unknown version {version}"));
    }
    if version < MESSAGE_VERSION {
        return None;
    }
    unknown_member(&message, names::<DeltasMessage>()).or_else(|| {
        let deltas: Vec<Members> = serde_json::from_str(message.get("deltas")?.get()).ok()?;
        let known = names::<DeltaMessage>();
        deltas.iter().find_map(|delta| unknown_member(delta, known).or_else(|| unknown_action(delta)))
    })
}

fn unknown_member(members: &Members, known: &[&str]) -> Option<String> {
    let stranger = members.keys().find(|name| !known.contains(&name.as_str()))?;
    Some(format!("unknown member {}", shown(stranger)))
}

fn unknown_action(delta: &Members) -> Option<String> {
    let name: String = serde_json::from_str(delta.get("action")?.get()).ok()?;
    Action::new(&name).is_err().then(|| format!("unknown action {}", shown(&name)))
}

fn shown(name: &str) -> String {
    name.escape_debug().take(NAME_MAX_CHARS).collect()
}

/// The names of the members of `T`, which its derived implementation tells its deserializer.
fn names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names = Names(&[]);
    T::deserialize(&mut names).err();
    names.0
}

/// Notes the names of a struct's members, and deserializes nothing.
struct Names(&'static [&'static str]);

impl<'de> Deserializer<'de> for &mut Names {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        self.0 = names;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("there is no value"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
