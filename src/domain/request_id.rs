//! Which request a change is: clients' idempotency keys, and the ids made from them. Must not contain I/O.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Invalid, actor::Actor, delta::Fingerprint, user_id::UserId};

/// The longest `Idempotency-Key`, in bytes.
pub const KEY_MAX_BYTES: usize = 255;

/// The namespace of request ids made from other values (UUID version 5, RFC 9562 §5.5).
const NAMESPACE: Uuid = Uuid::from_u128(0x7d3f_41a2_9c58_4e0b_b6a1_52f0_8c1e_6d94);

/// A client's name for a request, so that the request counts once however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey<'a>(Cow<'a, str>);

impl<'a> IdempotencyKey<'a> {
    /// A regular expression for the keys without outer spaces: a plain key, or a quoted one.
    pub const PATTERN: &'static str =
        r#"^([!#-~]([ -~]*[!-~])?|" *([!#-\[\]-~]|\\["\\])([ !#-\[\]-~]|\\["\\])*")$"#;

    /// A key of 1 to [`KEY_MAX_BYTES`] visible ASCII characters, with spaces between them. The plain spelling
    /// (`order-7`) and the quoted one (`"order-7"`, a String of RFC 9651 §3.3.3, as in
    /// draft-ietf-httpapi-idempotency-key-header) are one key, and outer spaces do not count.
    ///
    /// # Errors
    /// [`Invalid`] for any other text.
    pub fn new(text: &'a str) -> Result<Self, Invalid> {
        let rule = || {
            let is_quoted = text.trim_matches(' ').starts_with('"');
            let more = if is_quoted { "; a key that begins with \" must end with it" } else { "" };
            format!("must be 1 to {KEY_MAX_BYTES} visible ASCII characters{more}")
        };
        let key = unquoted(text.trim_matches(' '));
        let valid = key.as_deref().is_some_and(|key| {
            (1..=KEY_MAX_BYTES).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        key.filter(|_| valid).map(Self).ok_or_else(|| Invalid { field: "Idempotency-Key", rule: rule() })
    }
}

/// The value of a quoted key, or a plain key as it is. Returns `None` if the quoting is wrong.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = text.strip_prefix('"') else { return Some(text.into()) };
    let quoted = quoted.strip_suffix('"')?;
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            '"' => return None,
            plain => key.push(plain),
        }
    }
    Some(key.trim_matches(' ').to_owned().into())
}

/// Identifies a delta of a user. A request id is applied at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id for a request without an idempotency key: UUID version 7, ordered by time.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of an actor's idempotency key for a user, the same on every call.
    #[must_use]
    pub fn from_key(actor: Option<&Actor>, user_id: &UserId, key: &IdempotencyKey) -> Self {
        Self::named(&[name_of(actor), user_id.as_str().as_bytes(), key.0.as_bytes()])
    }

    /// The id of an operation in a batch that has a key as a whole: `nth` counts the operations of this user from 0.
    #[must_use]
    pub fn from_batch_key(actor: Option<&Actor>, user_id: &UserId, key: &IdempotencyKey, nth: usize) -> Self {
        let nth = (nth as u64).to_be_bytes();
        Self::named(&[name_of(actor), user_id.as_str().as_bytes(), key.0.as_bytes(), &nth])
    }

    /// The id of the entry that records a change with the request id of another change. Each change has one such entry.
    pub(super) fn of_reuse(self, fingerprint: Fingerprint) -> Self {
        Self::named(&[self.0.as_bytes(), &fingerprint.get().to_be_bytes()])
    }

    /// The id of the entry of expired points that has this place in its user's log.
    pub(super) fn of_expiry(user_id: &UserId, seq: i64) -> Self {
        Self::named(&[user_id.as_str().as_bytes(), b"expire", &seq.to_be_bytes()])
    }

    /// The id of a row without a key of an import: its parts differ in number from those of a key.
    pub(super) fn of_row(
        actor: &Actor,
        import: &str,
        user_id: &UserId,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let time = expires_at.map(|time| time.as_microsecond().to_be_bytes());
        let time: &[u8] = time.as_ref().map_or(&[], |time| time);
        Self::named(&[
            actor.as_str().as_bytes(),
            b"import",
            import.as_bytes(),
            user_id.as_str().as_bytes(),
            time,
        ])
    }

    /// UUID version 5 of the parts, each with its length before it in 4 big-endian bytes: other parts give another id.
    fn named(parts: &[&[u8]]) -> Self {
        let mut name = Vec::with_capacity(parts.iter().map(|part| size_of::<u32>() + part.len()).sum());
        for part in parts {
            name.extend(u32::try_from(part.len()).expect("short").to_be_bytes());
            name.extend_from_slice(part);
        }
        Self(Uuid::new_v5(&NAMESPACE, &name))
    }

    /// The UUID itself.
    #[must_use]
    pub fn get(self) -> Uuid {
        self.0
    }
}

/// A name is never empty, so anonymous callers are one actor of their own.
fn name_of(actor: Option<&Actor>) -> &[u8] {
    actor.map_or(&[], |actor| actor.as_str().as_bytes())
}

impl From<Uuid> for RequestId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn key(text: &str) -> IdempotencyKey<'_> {
        IdempotencyKey::new(text).expect(text)
    }

    #[test]
    fn a_key_is_one_request_id_for_each_actor_and_user() {
        let user = |id| UserId::new("user_id", id).expect("valid");
        let [shop, game] = ["shop", "game"].map(|name| Actor::new(name).expect("valid"));
        let ids = [
            RequestId::from_key(None, &user("a"), &key("aa")),
            RequestId::from_key(None, &user("aa"), &key("a")),
            RequestId::from_key(None, &user("shop"), &key("a")),
            RequestId::from_key(Some(&shop), &user("a"), &key("aa")),
            RequestId::from_key(Some(&game), &user("a"), &key("aa")),
            RequestId::from_batch_key(None, &user("a"), &key("aa"), 0),
            RequestId::from_batch_key(None, &user("a"), &key("aa"), 1),
            RequestId::from_batch_key(Some(&shop), &user("a"), &key("aa"), 1),
        ];
        assert_eq!(HashSet::from(ids).len(), ids.len(), "{ids:?}");
        assert_eq!(ids[0], RequestId::from_key(None, &user("a"), &key("aa")));
        assert_eq!(
            ids[0].to_string(),
            "ae43f822-c1a7-5c24-8d66-73131cb731f2",
            "it is written in logs for ever"
        );
    }

    #[test]
    fn quoted_and_plain_keys_are_one_key() {
        for spelling in ["order-7", " order-7 ", r#""order-7""#, r#" " order-7 " "#] {
            assert_eq!(key(spelling), key("order-7"), "{spelling}");
        }
        assert_eq!(key(r#""a\"b\\c d""#), key(r#"a"b\c d"#));
        assert_eq!(key(r#"7""#).0, r#"7""#);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(KEY_MAX_BYTES + 1);
        for wrong in
            ["", " ", "\n", "é", &long, r#""""#, r#"" ""#, r#"""#, r#""a"#, r#""a"b""#, r#""a\b""#, r#""a\""#]
        {
            assert!(IdempotencyKey::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(IdempotencyKey::new(&long[1..]).is_ok());
    }

    proptest! {
        #[test]
        fn the_pattern_matches_the_keys_and_nothing_else(text in r#"["\\ a~]{1,8}|[ -~]{1,8}"#) {
            let (text, pattern) = (text.trim(), Regex::new(IdempotencyKey::PATTERN).expect("valid"));
            prop_assert_eq!(pattern.is_match(text), IdempotencyKey::new(text).is_ok(), "{}", text);
        }
    }
}
