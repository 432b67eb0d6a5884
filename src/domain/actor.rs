//! Who asks for changes. Must not contain I/O or a wire format.

use std::fmt;

use smol_str::SmolStr;

use super::Invalid;

/// The longest name of an actor, in bytes.
pub const ACTOR_MAX_BYTES: usize = 63;

/// The rule for the name of an API key, with `$more` before the limit. A literal, so that constants can contain it.
macro_rules! name_rule {
    ($($more:literal)?) => {
        concat!(
            "a letter, then letters, digits, \".\", \"_\" or \"-\"",
            $($more,)?
            "; at most 63 characters"
        )
    };
}
pub(crate) use name_rule;

/// The prefix of the actors that are the service itself. No API key can have such a name.
const SYSTEM: &str = "system:";

/// Who asks for a change: the name of an API key, or `system:` and a word for the service's own changes. A clone is
/// cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor(SmolStr);

impl Actor {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = concat!("must be ", name_rule!(", perhaps after \"system:\""), " in all");

    /// The actor with this name.
    ///
    /// # Errors
    /// [`Invalid`] if the name breaks [`Actor::RULE`].
    pub fn new(name: &str) -> Result<Self, Invalid> {
        let mut word = name.strip_prefix(SYSTEM).unwrap_or(name).bytes();
        let begins_well = word.next().is_some_and(|byte| byte.is_ascii_alphabetic());
        let mut follows = word.map(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if begins_well && follows.all(|fits| fits) && name.len() <= ACTOR_MAX_BYTES {
            Ok(Self(name.into()))
        } else {
            Err(Invalid { field: "actor", rule: Self::RULE.to_owned() })
        }
    }

    /// The service, where it lets points expire.
    pub(super) fn expiry() -> Self {
        Self(SmolStr::new_static("system:expiry"))
    }

    /// The service, where an operator imports points.
    pub(super) fn import() -> Self {
        Self(SmolStr::new_static("system:import"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the actor is the service itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with(SYSTEM)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_a_word_or_the_service_itself() {
        for name in [
            "a",
            "Shop-1",
            "eu.games_x",
            "system",
            "system:expiry",
            &"x".repeat(ACTOR_MAX_BYTES),
            &format!("system:{}", "x".repeat(ACTOR_MAX_BYTES - SYSTEM.len())),
        ] {
            let actor = Actor::new(name).expect(name);
            assert_eq!((actor.as_str(), actor.to_string().as_str()), (name, name));
            assert_eq!(actor.is_system(), name.starts_with("system:"), "{name}");
        }
        assert_eq!(Actor::new("system:expiry"), Ok(Actor::expiry()));
        assert_eq!(Actor::new("system:import"), Ok(Actor::import()));
        for wrong in [
            "",
            "7",
            "7up",
            "-a",
            "a b",
            "a\n",
            "é",
            "a/b",
            "shop:a",
            "system:",
            "system:7",
            "system:a:b",
            "System:a",
            "system:system:a",
            &"x".repeat(ACTOR_MAX_BYTES + 1),
            &format!("system:{}", "x".repeat(ACTOR_MAX_BYTES)),
        ] {
            assert!(Actor::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(Actor::RULE.contains(&ACTOR_MAX_BYTES.to_string()));
    }
}
