//! The kinds of changes: their names, their members and what may be undone. Must not contain what a change does to a
//! balance.

use strum::IntoEnumIterator;

use super::{
    Invalid,
    change::Action,
    members::{Members, Object},
};

impl Action {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be add, subtract, reverse, transfer, hold, capture or release";

    /// The action with this name that a request can ask for.
    ///
    /// # Errors
    /// [`Invalid`] if there is none.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        name.parse().ok().filter(|action: &Self| action.is_requested()).ok_or_else(Self::unknown)
    }

    pub(super) fn unknown() -> Invalid {
        Invalid { field: "action", rule: Self::RULE.to_owned() }
    }

    /// The actions that a request can ask for.
    pub fn requested() -> impl Iterator<Item = Self> {
        Self::iter().filter(|action| action.is_requested())
    }

    fn is_requested(self) -> bool {
        match self {
            Self::Add
            | Self::Subtract
            | Self::Reverse
            | Self::Transfer
            | Self::Hold
            | Self::Capture
            | Self::Release => true,
            Self::Expire => false,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The members that are specific to this kind: the required ones, then the optional ones.
    #[must_use]
    pub fn members(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Add | Self::Hold => (&["point"], &["expires_at"]),
            Self::Subtract => (&["point"], &["partial"]),
            Self::Reverse => (&["request"], &["partial"]),
            Self::Transfer => (&["to", "point"], &[]),
            Self::Capture => (&["hold"], &["point"]),
            Self::Release => (&["hold"], &[]),
            Self::Expire => (&[], &[]),
        }
    }

    /// Returns whether an applied change of this kind can be undone.
    pub(super) fn is_reversible(self) -> bool {
        match self {
            Self::Add | Self::Subtract | Self::Transfer | Self::Capture => true,
            Self::Reverse | Self::Hold | Self::Release | Self::Expire => false,
        }
    }

    /// Returns whether it ends what an earlier request began: another such entry for the same request can't follow.
    pub(super) fn is_ending(self) -> bool {
        match self {
            Self::Reverse | Self::Capture | Self::Release => true,
            Self::Add | Self::Subtract | Self::Transfer | Self::Hold | Self::Expire => false,
        }
    }

    /// Returns whether this is one of [`Action::members`].
    #[must_use]
    pub fn takes(self, member: &str) -> bool {
        let (needed, optional) = self.members();
        needed.contains(&member) || optional.contains(&member)
    }

    /// Returns whether a change of this kind may have a member: a specific one, or one that every change may have.
    #[must_use]
    pub fn allows(self, member: &str) -> bool {
        self.takes(member) || !Self::iter().any(|other| other.takes(member))
    }

    /// The members that are present, but belong to other kinds.
    pub fn strangers<O: Object>(self, members: &Members<O>) -> impl Iterator<Item = &'static str> {
        members.names().filter(move |name| !self.allows(name))
    }

    /// The rule for a member of an object that this kind does not take, readable after its name.
    #[must_use]
    pub fn refusal<O: Object>(self) -> String {
        let taken: Vec<&str> = O::MEMBERS.iter().copied().filter(|name| self.allows(name)).collect();
        format!("is not a field of {}, which takes {}", self.as_str(), taken.join(", "))
    }
}
