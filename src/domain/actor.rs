//! Who asked for a change. Must not contain keys or scopes.

use std::fmt;

use smol_str::SmolStr;

use super::Invalid;

/// The longest name of an actor, in bytes.
pub const ACTOR_MAX_BYTES: usize = 63;

/// Who asked for a change: the name of an API key, which belongs to one actor for ever. Anonymous callers have none.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor(SmolStr);

impl Actor {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str =
        "must be a letter, followed by up to 62 letters, digits, dots, hyphens and underscores";

    /// The actor with this name.
    ///
    /// # Errors
    /// [`Invalid`] if the name breaks [`Actor::RULE`].
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !begins || name.len() > ACTOR_MAX_BYTES || !name.bytes().all(plain) {
            return Err(Invalid { field: "actor", rule: Self::RULE.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
