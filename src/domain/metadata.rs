//! What a customer keeps with a change. Must not contain a rule of the ledger.

use serde_json::{Value, value::RawValue};

use super::Invalid;

/// The longest metadata, in bytes.
pub const METADATA_MAX_BYTES: usize = 1_024;

/// What the customer keeps with a change: a JSON object, stored and returned as it was sent. Its limits let common JSON
/// parsers read it: they nest at most 128 levels, and read numbers as 64-bit floats.
#[derive(Clone, Debug)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be a JSON object of at most 1024 bytes and 127 levels, without the character NUL and \
                            without numbers that exceed a 64-bit float";

    /// Metadata from its JSON text.
    ///
    /// # Errors
    /// [`Invalid`] if the text breaks [`Metadata::RULE`], or has half of a surrogate pair (RFC 8259 §8.2).
    pub fn new(json: String) -> Result<Self, Invalid> {
        let is_object = || serde_json::from_str(&json).is_ok_and(|value: Value| value.is_object());
        if json.len() > METADATA_MAX_BYTES || !is_object() || has_nul(&json) {
            return Err(Invalid { field: "metadata", rule: Self::RULE.to_owned() });
        }
        Ok(Self(RawValue::from_string(json).expect("JSON")))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The text as JSON.
    #[must_use]
    pub fn as_json(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for Metadata {
    /// Compares the JSON values: the order of the members and the spelling do not count.
    fn eq(&self, other: &Self) -> bool {
        let value = |metadata: &Self| serde_json::from_str::<Value>(metadata.as_str()).expect("JSON");
        self.as_str() == other.as_str() || value(self) == value(other)
    }
}

impl Eq for Metadata {}

/// Whether a string of the JSON contains NUL, which JSON can only write as an escape. A parsed value would not show each
/// string: of members with the same name, it has the last one.
fn has_nul(json: &str) -> bool {
    // The parts between escaped backslashes.
    json.split(r"\\").any(|part| part.contains(r"\u0000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_kept_as_it_was_sent() {
        let longest = format!(r#"{{"a":"{}"}}"#, "b".repeat(METADATA_MAX_BYTES - 8));
        let nested =
            |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        let (deepest, too_deep) = (nested(127), nested(128));
        for json in [
            "{}",
            r#"{ "b" : 1.50, "a" : [null, "\u00e9 \ud83d\ude00"] }"#,
            r#"{"a":"\\u0000","b":1e308}"#,
            &longest,
            &deepest,
        ] {
            assert_eq!(Metadata::new(json.to_owned()).expect(json).as_str(), json);
        }
        for json in [
            "",
            "1",
            "[]",
            "null",
            "{",
            r#"{"a":"\u0000"}"#,
            r#"{"a":"\\\u0000"}"#,
            r#"{"a":"\u0000","a":1}"#,
            r#"{"a":"\ud800","a":1}"#,
            r#"{"a":1e400}"#,
            &too_deep,
            r#"{"\u0000":1}"#,
            r#"{"a":["\ud800"]}"#,
            r#"{"a":"\udc00"}"#,
            &longest.replace(':', ": "),
        ] {
            assert!(Metadata::new(json.to_owned()).is_err(), "{json}");
        }
        assert!(Metadata::RULE.contains(&format!("at most {METADATA_MAX_BYTES} bytes and 127 levels")));
    }

    #[test]
    fn metadata_is_compared_as_json() {
        let [one, other, third] = [r#"{"a":1,"b":"é"}"#, r#"{ "b":"\u00e9", "a":1 }"#, r#"{"a":2}"#]
            .map(|json| Metadata::new(json.to_owned()).expect(json));
        assert!(one == other && one != third);
    }
}
