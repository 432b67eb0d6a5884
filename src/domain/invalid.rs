//! The error for a value that breaks a rule. Must not contain the rules.

/// A value that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct Invalid {
    /// The field's name, as the API spells it.
    pub field: &'static str,
    /// The rule, readable after the field's name: "must be …".
    pub rule: String,
}

impl Invalid {
    /// The first of at least one.
    #[must_use]
    pub fn first(faults: Vec<Self>) -> Self {
        faults.into_iter().next().expect("at least one")
    }
}
