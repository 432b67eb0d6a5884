//! What a delta asks for, and the members of JSON that say it. Must not contain what a change does to a balance.

use jiff::{SignedDuration, Timestamp};
use strum::{EnumDiscriminants, EnumIter, EnumString, IntoStaticStr};

use super::{
    Invalid,
    delta::Points,
    members::{Members, Object},
    request_id::RequestId,
    user_id::UserId,
};

/// The longest time until a hold ends, when it is requested.
pub const HOLD_MAX_DAYS: i64 = 30;

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
        /// When the remaining points expire, in whole microseconds, if they do.
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
    /// Takes points out of the balance until they are captured or released.
    Hold {
        /// How many.
        point: Points,
        /// When they return to the balance, in whole microseconds, unless the default applies.
        expires_at: Option<Timestamp>,
    },
    /// Takes the points of an open hold for good. Those that it does not take return to the balance.
    Capture {
        /// The request of the hold.
        hold: RequestId,
        /// How many points, unless it takes all.
        point: Option<Points>,
    },
    /// Returns the points of an open hold to the balance.
    Release {
        /// The request of the hold.
        hold: RequestId,
    },
    /// Expired points leave the balance, and holds whose time has come end. That also happens before each change of the
    /// user. This variant is for users who have no changes; no request can ask for it.
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
            Action::Hold => {
                let point = note(&mut faults, members.required("point"));
                let expires_at = note(&mut faults, members.optional("expires_at"));
                point.zip(expires_at).map(|(point, expires_at)| Self::Hold { point, expires_at })
            }
            Action::Capture => {
                let hold = note(&mut faults, members.required("hold"));
                let point = note(&mut faults, members.optional("point"));
                hold.zip(point).map(|(hold, point)| Self::Capture { hold, point })
            }
            Action::Release => note(&mut faults, members.required("hold")).map(|hold| Self::Release { hold }),
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
            Self::Add { point, .. }
            | Self::Subtract { point, .. }
            | Self::Transfer { point, .. }
            | Self::Hold { point, .. } => Some(*point),
            Self::Capture { point, .. } => *point,
            Self::Reverse { .. } | Self::Release { .. } | Self::Expire => None,
        }
    }

    /// The request that it undoes.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Reverse { request, .. } => Some(*request),
            Self::Add { .. }
            | Self::Subtract { .. }
            | Self::Transfer { .. }
            | Self::Hold { .. }
            | Self::Capture { .. }
            | Self::Release { .. }
            | Self::Expire => None,
        }
    }

    /// The request of the hold that it ends.
    #[must_use]
    pub fn hold(&self) -> Option<RequestId> {
        match self {
            Self::Capture { hold, .. } | Self::Release { hold } => Some(*hold),
            Self::Add { .. }
            | Self::Subtract { .. }
            | Self::Reverse { .. }
            | Self::Transfer { .. }
            | Self::Hold { .. }
            | Self::Expire => None,
        }
    }

    /// The other request of the same user that it refers to.
    #[must_use]
    pub fn about(&self) -> Option<RequestId> {
        self.request().or(self.hold())
    }

    /// The other user that it names.
    #[must_use]
    pub fn to(&self) -> Option<&UserId> {
        match self {
            Self::Transfer { to, .. } => Some(to),
            Self::Add { .. }
            | Self::Subtract { .. }
            | Self::Reverse { .. }
            | Self::Hold { .. }
            | Self::Capture { .. }
            | Self::Release { .. }
            | Self::Expire => None,
        }
    }

    /// When the points that it adds expire, or when those that it holds return.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Add { expires_at, .. } | Self::Hold { expires_at, .. } => *expires_at,
            Self::Subtract { .. }
            | Self::Reverse { .. }
            | Self::Transfer { .. }
            | Self::Capture { .. }
            | Self::Release { .. }
            | Self::Expire => None,
        }
    }

    /// Checks that a request may ask for it at this time. Its own time may still come while it is in the queue.
    ///
    /// # Errors
    /// [`Invalid`] if its time has come, or is too far ahead for a hold.
    pub fn in_time(self, now: Timestamp) -> Result<Self, Invalid> {
        let invalid = |rule| Invalid { field: "expires_at", rule };
        let Some(at) = self.expires_at() else { return Ok(self) };
        if at <= now {
            return Err(invalid(format!("must be later than now, which is {now}")));
        }
        let is_hold = self.action() == Action::Hold;
        if is_hold && at.duration_since(now) > SignedDuration::from_hours(24 * HOLD_MAX_DAYS) {
            return Err(invalid(format!("must be at most {HOLD_MAX_DAYS} days from now, which is {now}")));
        }
        Ok(self)
    }

    /// Whether it accepts fewer points than it asks for.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self {
            Self::Add { .. }
            | Self::Transfer { .. }
            | Self::Hold { .. }
            | Self::Capture { .. }
            | Self::Release { .. }
            | Self::Expire => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member of any change.
    struct All;

    impl Object for All {
        const MEMBERS: &'static [&'static str] =
            &["user_id", "to", "point", "expires_at", "partial", "request", "hold"];
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
                    "hold" => r#""hold":"01890a5d-ac96-774b-bcce-b302099a8057""#,
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
}
