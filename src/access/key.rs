//! An API key, its name and its scope, valid by construction. Must not contain I/O, except the random numbers of the
//! system.

use std::{
    convert::Infallible,
    fmt::{self, Write},
    hash::{Hash, Hasher},
    str::FromStr,
};

use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr};
use subtle::ConstantTimeEq;

use crate::domain::{Actor, name_rule};

/// The prefix of every key. Scanners that look for secrets in source code and logs can search for it.
const PREFIX: &str = "ps_";

/// The random part of a key: 256 bits.
const SECRET_BYTES: usize = 32;

/// The length of a key: the prefix, and the random part in hexadecimal digits.
const KEY_BYTES: usize = PREFIX.len() + 2 * SECRET_BYTES;

/// What a key may do. Each scope includes those before it.
#[derive(Clone, Copy, Debug, EnumString, IntoStaticStr, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub enum Scope {
    /// Read balances and logs.
    Read,
    /// Change balances.
    Write,
    /// Manage keys and dead letters in the console.
    Admin,
}

impl Scope {
    /// The name in the table, in responses and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The name of a key: any actor but the service itself. A name is never mistaken for the number of a key, and has no
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(Actor);

impl KeyName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<KeyName> for Actor {
    fn from(KeyName(actor): KeyName) -> Self {
        actor
    }
}

impl FromStr for KeyName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let actor = Actor::new(text).ok().filter(|actor| !actor.is_system());
        actor.map(Self).ok_or(concat!("must be ", name_rule!()))
    }
}

/// Identifies a key by its number or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichKey {
    /// The number that the key got when it was created.
    Id(i64),
    /// The name of an active key, if no other active key has that name.
    Name(String),
}

impl FromStr for WhichKey {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id))
    }
}

/// A key as its owner holds it. Only [`ApiKey::reveal`] gives access to its text.
pub struct ApiKey(String);

impl ApiKey {
    /// Creates a key of 256 random bits.
    pub(super) fn random() -> Self {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).expect("the system provides random numbers");
        let mut text = String::with_capacity(KEY_BYTES);
        text.push_str(PREFIX);
        for byte in secret {
            write!(text, "{byte:02x}").expect("writing to a String never fails");
        }
        Self(text)
    }

    /// The text of the key, to be shown once to the user who created it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn hash(&self) -> KeyHash {
        KeyHash::digest(self.0.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

/// The stored hash of a key. Two hashes are compared in constant time.
#[derive(Clone, Copy)]
pub(super) struct KeyHash([u8; 32]);

impl KeyHash {
    /// Returns the hash of the key that a client sent, or `None` if no key has that length.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        (text.len() == KEY_BYTES).then(|| Self::digest(text))
    }

    fn digest(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    pub(super) fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ACTOR_MAX_BYTES;

    #[test]
    fn a_key_is_what_scanners_look_for_and_never_printed() {
        let [one, other] = [ApiKey::random(), ApiKey::random()];
        for key in [&one, &other] {
            let secret = key.reveal().strip_prefix("ps_").expect("the prefix");
            assert_eq!(secret.len(), 64);
            assert!(secret.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
            assert_eq!(format!("{key:?}"), "ApiKey");
        }
        assert_ne!(one.reveal(), other.reveal());
        assert!(KeyHash::of(one.reveal().as_bytes()) == Some(one.hash()));
        assert!(KeyHash::of(other.reveal().as_bytes()) != Some(one.hash()));
        assert!(KeyHash::of(&one.reveal().as_bytes()[1..]).is_none());
    }

    #[test]
    fn a_name_is_an_actor_that_is_neither_a_number_nor_the_service_itself() {
        for good in ["a", "Shop-1", "eu.games_x", "system", &"x".repeat(ACTOR_MAX_BYTES)] {
            let name: KeyName = good.parse().expect(good);
            assert_eq!(name.as_str(), good);
            assert_eq!(Ok(Actor::from(name)), Actor::new(good));
        }
        for wrong in ["", "7", "7up", "a b", "system:", "system:expiry", &"x".repeat(ACTOR_MAX_BYTES + 1)] {
            assert!(wrong.parse::<KeyName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_scope_includes_those_before_it() {
        assert!(Scope::Admin > Scope::Write && Scope::Write > Scope::Read);
        for (name, scope) in [("read", Scope::Read), ("write", Scope::Write), ("admin", Scope::Admin)] {
            assert_eq!((scope.as_str(), name.parse()), (name, Ok(scope)));
        }
        assert!("root".parse::<Scope>().is_err());
    }
}
