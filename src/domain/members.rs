//! Reads the members of a change from JSON: one reader for a request, an operation of a batch and a message. Must not
//! contain what its callers do with a fault.

use std::{borrow::Cow, fmt, marker::PhantomData};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Invalid,
    change::Action,
    delta::{POINTS_MAX, Points, Reason},
    metadata::Metadata,
    number::whole_number,
    request_id::RequestId,
    user_id::UserId,
};

/// The most members that an object may name.
const MEMBERS_MAX: usize = 16;

/// A kind of JSON object.
pub trait Object {
    /// The names of its members, at most 16.
    const MEMBERS: &'static [&'static str];
}

/// The members of a JSON object, as they were sent. A member that is null counts as absent. No member may occur twice.
#[derive(Debug)]
pub struct Members<'a, O> {
    values: [Option<&'a RawValue>; MEMBERS_MAX],
    unknown: Option<String>,
    of: PhantomData<O>,
}

impl<O> Default for Members<'_, O> {
    fn default() -> Self {
        Self { values: [None; MEMBERS_MAX], unknown: None, of: PhantomData }
    }
}

impl<'a, O: Object> Members<'a, O> {
    /// Reads an object. The error says what is wrong, and where.
    ///
    /// # Errors
    /// The text is not a JSON object, or a member occurs twice.
    pub fn read(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        parse(json)
    }

    /// The first name, in the order of the alphabet, that is none of [`Object::MEMBERS`].
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// The names of the known members that are there.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let known = O::MEMBERS.iter().zip(&self.values);
        known.filter_map(|(name, value)| value.map(|_| *name))
    }

    /// A member, unless it is absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.values[O::MEMBERS.iter().position(|known| *known == name).expect("one of the object's members")]
    }

    /// Parses a member, unless it is absent.
    ///
    /// # Errors
    /// [`Invalid`] names the member.
    pub fn optional<T: Member>(&self, name: &'static str) -> Result<Option<T>, Invalid> {
        let invalid = |rule: &str| Invalid { field: name, rule: rule.to_owned() };
        self.get(name).map(|value| T::parse(value.get()).map_err(invalid)).transpose()
    }

    /// Parses a member.
    ///
    /// # Errors
    /// [`Invalid`] names the member.
    pub fn required<T: Member>(&self, name: &'static str) -> Result<T, Invalid> {
        self.optional(name)?.ok_or_else(|| Invalid { field: name, rule: "is required".to_owned() })
    }

    /// Parses a member that is true or false, and false if it is absent.
    ///
    /// # Errors
    /// [`Invalid`] names the member.
    pub fn flag(&self, name: &'static str) -> Result<bool, Invalid> {
        Ok(self.optional(name)?.unwrap_or_default())
    }
}

impl<'de, O: Object> Deserialize<'de> for Members<'de, O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, O: Object> Visitor<'de> for Members<'de, O> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        const { assert!(O::MEMBERS.len() <= MEMBERS_MAX) };
        let mut seen = [false; MEMBERS_MAX];
        while let Some((Name(name), value)) = members.next_entry::<Name<'de>, &RawValue>()? {
            let Some(place) = O::MEMBERS.iter().position(|known| *known == name) else {
                self.unknown = Some(match self.unknown {
                    Some(other) if *other <= *name => other,
                    _ => name.into_owned(),
                });
                continue;
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            self.values[place] = Some(value).filter(|value| value.get() != "null");
        }
        Ok(self)
    }
}

/// A value that a member may have.
pub trait Member: Sized {
    /// Parses the JSON text of a value.
    ///
    /// # Errors
    /// The rule that it breaks, readable after the member's name.
    fn parse(json: &str) -> Result<Self, &'static str>;
}

impl Member for UserId {
    /// A string, or a whole number up to 2^53 − 1, which means its digits.
    fn parse(json: &str) -> Result<Self, &'static str> {
        if json.starts_with('"') {
            return Self::new("", &text(json).ok_or(Self::RULE)?).map_err(|_| Self::RULE);
        }
        match whole_number(json) {
            Some(number @ 0..=POINTS_MAX) => Ok(Self::new("", &number.to_string()).expect("digits")),
            Some(number) if number > POINTS_MAX => Err(ROUNDED_RULE),
            None if is_large(json) => Err(ROUNDED_RULE),
            Some(_) | None => Err(Self::RULE),
        }
    }
}

/// The rule for user ids that are sent as numbers.
const ROUNDED_RULE: &str =
    "must be sent as a string, because JSON clients round numbers above 9007199254740991";

/// Whether a JSON value is a whole number of more digits than an `i64` has.
fn is_large(json: &str) -> bool {
    !json.is_empty() && json.bytes().all(|byte| byte.is_ascii_digit())
}

impl Member for Points {
    fn parse(json: &str) -> Result<Self, &'static str> {
        whole_number(json).and_then(|point| Self::new(point).ok()).ok_or(Self::RULE)
    }
}

impl Member for bool {
    fn parse(json: &str) -> Result<Self, &'static str> {
        json.parse().map_err(|_| "must be true or false")
    }
}

impl Member for Timestamp {
    fn parse(json: &str) -> Result<Self, &'static str> {
        time(&text(json).unwrap_or_default())
    }
}

impl Member for RequestId {
    fn parse(json: &str) -> Result<Self, &'static str> {
        let id = text(json).and_then(|id| Uuid::try_parse(&id).ok());
        id.map(Self::from).ok_or("must be the id of a request: a UUID")
    }
}

impl Member for Action {
    fn parse(json: &str) -> Result<Self, &'static str> {
        text(json).and_then(|name| Self::new(&name).ok()).ok_or(Self::RULE)
    }
}

impl Member for Reason {
    fn parse(json: &str) -> Result<Self, &'static str> {
        text(json).and_then(|words| Self::new(words.into_owned()).ok()).ok_or(Self::RULE)
    }
}

impl Member for Metadata {
    fn parse(json: &str) -> Result<Self, &'static str> {
        Self::new(json.to_owned()).map_err(|_| Self::RULE)
    }
}

/// Parses JSON. The text is checked for UTF-8 once, and not again at each value of it.
///
/// # Errors
/// It is not JSON, or not of this shape.
pub fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    // The parser of bytes says where the text is not UTF-8.
    std::str::from_utf8(json).map_or_else(|_| serde_json::from_slice(json), serde_json::from_str)
}

/// Parses a time, and rounds it down to a whole microsecond, as the log keeps it. Years have four digits, so every time
/// is within PostgreSQL's range.
///
/// # Errors
/// The rule that it breaks, readable after the name of the time.
pub fn time(text: &str) -> Result<Timestamp, &'static str> {
    let begins_well = text.starts_with(|first: char| first.is_ascii_digit());
    let time = text.parse::<Timestamp>().ok().filter(|_| begins_well);
    let down = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::Floor);
    time.and_then(|time| time.round(down).ok()).ok_or("must be an RFC 3339 time such as 2026-12-01T00:00:00Z")
}

/// The value of a JSON string.
#[must_use]
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    let plain = json.strip_prefix('"')?.strip_suffix('"')?;
    if plain.bytes().all(|byte| byte != b'\\') { Some(plain.into()) } else { serde_json::from_str(json).ok() }
}
