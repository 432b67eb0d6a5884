//! What a delta asks for, and the members of JSON that say it. Must not contain what a change does to a balance.

use jiff::Timestamp;
use strum::{EnumDiscriminants, EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

use super::{
    Invalid,
    delta::Points,
    members::{Members, Object},
    request_id::RequestId,
    user_id::UserId,
};

/// What a delta asks for.
#[derive(Clone, Debug, EnumDiscriminants, PartialEq, Eq)]
#[strum_discriminants(
    name(Action),
    derive(EnumIter, EnumString, IntoStaticStr),
    strum(serialize_all = "snake_case"),
    doc = "The kind of a [`Change`]. The names are those of the API, the queue and the log."
)]
pub enum Change {
    /// The balance grows.
    Add {
        /// By how much.
        point: Points,
        /// When what is left of these points expires, in whole microseconds, if they do.
        expires_at: Option<Timestamp>,
    },
    /// The balance shrinks.
    Subtract {
        /// By how much.
        point: Points,
        /// Whether to take the whole balance if it is smaller. Otherwise the delta is rejected.
        partial: bool,
    },
    /// Undoes an earlier change of the same user, once.
    Reverse {
        /// The request of the change to undo.
        request: RequestId,
        /// As for a subtract, if the change to undo is an add.
        partial: bool,
    },
    /// Points go to another user.
    Transfer {
        /// The other user.
        to: UserId,
        /// How many.
        point: Points,
    },
    /// Expired points leave the balance. That also happens before each change of the user. This variant is for users who
    /// have no changes; no request can ask for it.
    Expire,
}

impl Change {
    /// Reads the change of this kind from the members of an object, or every fault in them.
    ///
    /// # Errors
    /// At least one [`Invalid`].
    pub fn read<O: Object>(action: Action, members: &Members<O>) -> Result<Self, Vec<Invalid>> {
        let refused = |field| Invalid { field, rule: action.refusal::<O>() };
        let mut faults: Vec<Invalid> = action.strangers(members).map(refused).collect();
        let change = match action {
            Action::Add => {
                let point = note(&mut faults, members.required("point"));
                let expires_at = note(&mut faults, members.optional("expires_at"));
                point.zip(expires_at).map(|(point, expires_at)| Self::Add { point, expires_at })
            }
            Action::Subtract => {
                let point = note(&mut faults, members.required("point"));
                let partial = note(&mut faults, members.flag("partial"));
                point.zip(partial).map(|(point, partial)| Self::Subtract { point, partial })
            }
            Action::Reverse => {
                let request = note(&mut faults, members.required("request"));
                let partial = note(&mut faults, members.flag("partial"));
                request.zip(partial).map(|(request, partial)| Self::Reverse { request, partial })
            }
            Action::Transfer => {
                let to = note(&mut faults, members.required("to").and_then(|to| other_user(to, members)));
                let point = note(&mut faults, members.required("point"));
                to.zip(point).map(|(to, point)| Self::Transfer { to, point })
            }
            Action::Expire => {
                faults.push(Action::unknown());
                None
            }
        };
        change.filter(|_| faults.is_empty()).ok_or(faults)
    }

    /// Its kind.
    #[must_use]
    pub fn action(&self) -> Action {
        self.into()
    }

    /// How many points it asks for, if it says so itself.
    #[must_use]
    pub fn point(&self) -> Option<Points> {
        match self {
            Self::Add { point, .. } | Self::Subtract { point, .. } | Self::Transfer { point, .. } => {
                Some(*point)
            }
            Self::Reverse { .. } | Self::Expire => None,
        }
    }

    /// The other request of the same user that it refers to.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Add { .. } | Self::Subtract { .. } | Self::Transfer { .. } | Self::Expire => None,
            Self::Reverse { request, .. } => Some(*request),
        }
    }

    /// The other user that it names.
    #[must_use]
    pub fn to(&self) -> Option<&UserId> {
        match self {
            Self::Add { .. } | Self::Subtract { .. } | Self::Reverse { .. } | Self::Expire => None,
            Self::Transfer { to, .. } => Some(to),
        }
    }

    /// When the points that it adds expire.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Add { expires_at, .. } => *expires_at,
            Self::Subtract { .. } | Self::Reverse { .. } | Self::Transfer { .. } | Self::Expire => None,
        }
    }

    /// Checks that a request may ask for it at this time. The points may still expire while the change is in the queue.
    ///
    /// # Errors
    /// [`Invalid`] if the points have expired by then.
    pub fn in_time(self, now: Timestamp) -> Result<Self, Invalid> {
        if self.expires_at().is_some_and(|at| at <= now) {
            return Err(Invalid {
                field: "expires_at",
                rule: format!("must be later than now, which is {now}"),
            });
        }
        Ok(self)
    }

    /// Whether it accepts fewer points than it asks for.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self {
            Self::Add { .. } | Self::Transfer { .. } | Self::Expire => false,
            Self::Subtract { partial, .. } | Self::Reverse { partial, .. } => *partial,
        }
    }
}

/// Points can't be transferred to their owner.
fn other_user<O: Object>(to: UserId, members: &Members<O>) -> Result<UserId, Invalid> {
    if members.optional("user_id").is_ok_and(|user: Option<UserId>| user.as_ref() == Some(&to)) {
        return Err(Invalid { field: "to", rule: "must be another user than user_id".to_owned() });
    }
    Ok(to)
}

fn note<T>(faults: &mut Vec<Invalid>, parsed: Result<T, Invalid>) -> Option<T> {
    parsed.map_err(|invalid| faults.push(invalid)).ok()
}

impl Action {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be add, subtract, reverse or transfer";

    /// The action with this name that a request can ask for.
    ///
    /// # Errors
    /// [`Invalid`] if there is none.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        name.parse().ok().filter(|action: &Self| action.is_requested()).ok_or_else(Self::unknown)
    }

    fn unknown() -> Invalid {
        Invalid { field: "action", rule: Self::RULE.to_owned() }
    }

    /// The actions that a request can ask for.
    pub fn requested() -> impl Iterator<Item = Self> {
        Self::iter().filter(|action| action.is_requested())
    }

    fn is_requested(self) -> bool {
        match self {
            Self::Add | Self::Subtract | Self::Reverse | Self::Transfer => true,
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
            Self::Add => (&["point"], &["expires_at"]),
            Self::Subtract => (&["point"], &["partial"]),
            Self::Reverse => (&["request"], &["partial"]),
            Self::Transfer => (&["to", "point"], &[]),
            Self::Expire => (&[], &[]),
        }
    }

    /// Returns whether an applied change of this kind can be undone.
    pub(super) fn is_reversible(self) -> bool {
        match self {
            Self::Add | Self::Subtract | Self::Transfer => true,
            Self::Reverse | Self::Expire => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member of any change.
    struct All;

    impl Object for All {
        const MEMBERS: &'static [&'static str] =
            &["user_id", "to", "point", "expires_at", "partial", "request"];
    }

    #[test]
    fn a_change_has_the_members_that_its_action_takes_and_no_other() {
        assert!(Action::requested().all(|action| Action::RULE.contains(action.as_str())));
        for action in Action::requested() {
            let (needed, optional) = action.members();
            let own = |names: &[&str]| {
                let members = names.iter().map(|name| match *name {
                    "to" => r#""to":"2""#,
                    "point" => r#""point":5"#,
                    "expires_at" => r#""expires_at":"2026-12-01T00:00:00Z""#,
                    "partial" => r#""partial":true"#,
                    "request" => r#""request":"01890a5d-ac96-774b-bcce-b302099a8057""#,
                    other => unreachable!("{other}"),
                });
                format!(r#"{{"user_id":"1",{}}}"#, members.collect::<Vec<_>>().join(","))
            };
            let read = |json: &str| {
                Change::read(action, &Members::<All>::read(json.as_bytes()).expect("an object"))
                    .map_err(|faults| faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>())
            };
            for names in [needed.to_vec(), [needed, optional].concat()] {
                assert_eq!(read(&own(&names)).expect("a change").action(), action);
            }
            assert_eq!(read("{}"), Err(needed.to_vec()));
            let others = All::MEMBERS.iter().copied().filter(|name| !action.allows(name));
            for other in others {
                assert_eq!(read(&own(&[needed, &[other]].concat())), Err(vec![other]));
            }
        }
    }

    #[test]
    fn points_go_to_another_user() {
        let read = |json: &str| {
            Change::read(Action::Transfer, &Members::<All>::read(json.as_bytes()).expect("an object"))
        };
        let to = read(r#"{"user_id":1,"to":"2","point":5}"#).expect("a change").to().cloned();
        assert_eq!(to, UserId::new("to", "2").ok());
        let own = read(r#"{"user_id":1,"to":"1","point":5}"#).expect_err("the same user");
        assert_eq!(own.into_iter().map(|fault| fault.field).collect::<Vec<_>>(), ["to"]);
    }
}
