//! What the ledger has: log entries, balances, and what became of a delta. Must not contain a decision.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::{
    account::{Account, Held, Moved},
    actor::Actor,
    change::{Action, Change},
    delta::{Delta, Fingerprint, Reason},
    holds::{Hold, Holds},
    lots::{Lot, Lots},
    metadata::Metadata,
    request_id::RequestId,
    trace::{TraceId, TraceParent},
    user_id::UserId,
};

/// The result of a delta. The names are those of the log and the API.
#[derive(Clone, Copy, Debug, EnumIter, EnumString, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// The balance changed.
    Applied,
    /// The balance did not change, and never will for this request id.
    Rejected,
}

impl Status {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a delta was rejected. The names are those of the log and the API.
#[derive(Clone, Debug, EnumIter, EnumString, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// The balance is smaller than the points to subtract.
    InsufficientPoints,
    /// The balance would exceed [`POINTS_MAX`](super::POINTS_MAX).
    BalanceLimit,
    /// Another change had the same request id before.
    KeyReused,
    /// The user has no entry of the request to reverse.
    UnknownRequest,
    /// The request to reverse was rejected, or is itself a reversal.
    NotReversible,
    /// The request to reverse was reversed before.
    AlreadyReversed,
    /// The points to add expired before the change was decided.
    Expired,
    /// The user would have more than [`LOTS_MAX`](super::LOTS_MAX) lots.
    LotLimit,
    /// The user would have more than [`HOLDS_MAX`](super::HOLDS_MAX) open holds.
    HoldLimit,
    /// The user has no entry of the hold.
    UnknownHold,
    /// The hold was captured or released before.
    HoldOver,
    /// The hold has fewer points than are to be captured.
    HoldTooSmall,
    /// A reason that this version does not know: a newer version wrote the entry.
    #[strum(disabled)]
    Unknown(String),
}

impl Rejection {
    /// The rejection with this name.
    pub(super) fn named(name: &str) -> Self {
        name.parse().unwrap_or_else(|_| Self::Unknown(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(name) => name,
            Self::InsufficientPoints
            | Self::BalanceLimit
            | Self::KeyReused
            | Self::UnknownRequest
            | Self::NotReversible
            | Self::AlreadyReversed
            | Self::Expired
            | Self::LotLimit
            | Self::HoldLimit
            | Self::UnknownHold
            | Self::HoldOver
            | Self::HoldTooSmall => self.into(),
        }
    }
}

/// The result of deciding a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The points asked for. For a reversal, those that the reversed change added, subtracted or captured. For the end of
    /// a hold, those of the hold unless it names fewer.
    pub point: i64,
    /// The other request that it refers to, if any.
    pub reference: Option<RequestId>,
    /// How the balance moves, or why it does not.
    pub change: Result<Moved, Rejection>,
}

/// One row of the log: what was requested, and the final result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The request. For [`Rejection::KeyReused`] an id of its own.
    pub request_id: RequestId,
    /// Whose points.
    pub user_id: UserId,
    /// Its place in the user's log, 1, 2, 3, … without gaps.
    pub seq: i64,
    /// The name of an [`Action`], or of an action that a newer version knows.
    pub action: Cow<'static, str>,
    /// The other user, to whom the points go or from whom they come, if there is one.
    pub counterparty: Option<UserId>,
    /// How many points were asked for, from 1 to [`POINTS_MAX`](super::POINTS_MAX). Of a reversal, how many the reversed
    /// change added, subtracted or captured. Of a capture, how many it captures, and of a release, how many were held. 0
    /// if there is no such change or hold.
    pub point: i64,
    /// Whether fewer points were acceptable.
    pub partial: bool,
    /// By how many points the balance changed. 0 if the request was rejected.
    pub change: i64,
    /// For an add, when its points expire, if they do. For expired points, when they expired. For a hold, when it ends.
    pub expires_at: Option<Timestamp>,
    /// What a subtract, a transfer, a hold, a reversal or a release took from the user's lots or gave to them. For a
    /// capture, the lots of the captured points.
    pub lots: Lots,
    /// The user's balance after this entry.
    pub balance: i64,
    /// Who asked. Anonymous callers have no name.
    pub actor: Option<Actor>,
    /// The other request that this entry refers to, if any: for [`Rejection::KeyReused`] the first with the
    /// same id, for [`Rejection::AlreadyReversed`] the first reversal, and for other reversals the reversed request; for
    /// [`Rejection::HoldOver`] what ended the hold, and for other captures and releases the hold.
    pub reference: Option<RequestId>,
    /// Tells the requested change from another.
    pub fingerprint: Fingerprint,
    /// `None` if it was applied.
    pub rejection: Option<Rejection>,
    /// Why, in the customer's words.
    pub reason: Option<Reason>,
    /// What the customer keeps with it.
    pub metadata: Option<Metadata>,
    /// The trace of the request, if its caller sent one.
    pub trace_id: Option<TraceId>,
    /// When the request was accepted, by the clock of the node that accepted it. For expired points, when the entry was
    /// written, by the database's clock.
    pub requested_at: Timestamp,
    /// When it was decided, by the database's clock. For expired points, when they expired or, if that is later, when the
    /// previous entry was written.
    pub created_at: Timestamp,
}

impl Entry {
    /// The entry of a delta with this verdict.
    pub(crate) fn of(
        delta: &Delta,
        Verdict { point, reference, change }: Verdict,
        (seq, balance): (i64, i64),
        created_at: Timestamp,
    ) -> Self {
        let (moved, rejection) = match change {
            Ok(moved) => (moved, None),
            Err(why) => (Moved::default(), Some(why)),
        };
        let expires_at = match &moved.held {
            Held::Opens(hold) => Some(hold.at),
            Held::Nothing | Held::Ends { .. } => delta.change.expires_at(),
        };
        // The lot of an add is its change and its time.
        let is_add = delta.change.action() == Action::Add;
        Self {
            request_id: delta.request_id,
            user_id: delta.user_id.clone(),
            seq,
            action: delta.change.action().as_str().into(),
            counterparty: delta.change.to().cloned(),
            point,
            partial: delta.change.is_partial(),
            change: moved.change,
            lots: if is_add { Lots::default() } else { moved.lots },
            expires_at,
            balance,
            actor: delta.actor.clone(),
            reference,
            fingerprint: delta.fingerprint(),
            rejection,
            reason: delta.reason.clone(),
            metadata: delta.metadata.clone(),
            trace_id: delta.traceparent.as_ref().map(TraceParent::trace_id),
            requested_at: delta.requested_at,
            created_at,
        }
    }

    /// The entry of a user's expired points. It is written at the time `now`, and says when they expired.
    pub(super) fn of_expiry(user_id: &UserId, lot: Lot, account: &Account, now: Timestamp) -> Self {
        let verdict = Verdict { point: lot.point, reference: None, change: Ok(Moved::lasting(-lot.point)) };
        let entry = Self::by_time(user_id, Change::Expire, verdict, account, now);
        Self { expires_at: Some(lot.at), ..entry }
    }

    /// The entry of a hold whose time has come. It is written at the time `now`.
    pub(super) fn of_end(user_id: &UserId, hold: &Hold, account: &Account, now: Timestamp) -> Self {
        let change = Ok(Moved::release(hold));
        let verdict = Verdict { point: hold.point, reference: Some(hold.request), change };
        Self::by_time(user_id, Change::Release { hold: hold.request }, verdict, account, now)
    }

    /// An entry that no request asked for.
    fn by_time(
        user_id: &UserId,
        change: Change,
        verdict: Verdict,
        account: &Account,
        now: Timestamp,
    ) -> Self {
        let delta = Delta {
            request_id: RequestId::of_expiry(user_id, account.seq),
            requested_at: now,
            change,
            ..Delta::expiry(user_id.clone())
        };
        Self::of(&delta, verdict, (account.seq, account.point), account.updated_at)
    }

    /// The entry of the other user of a transfer or of its reversal.
    pub(super) fn mirrored(&self, user_id: &UserId, account: &Account) -> Self {
        Self {
            user_id: user_id.clone(),
            counterparty: Some(self.user_id.clone()),
            seq: account.seq,
            change: -self.change,
            balance: account.point,
            ..self.clone()
        }
    }

    /// What became of the request.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.rejection.is_some() { Status::Rejected } else { Status::Applied }
    }

    /// Its action, or `None` if only a newer version knows it.
    pub(super) fn known_action(&self) -> Option<Action> {
        self.action.parse().ok()
    }

    /// Whether the user of this entry can undo it. A transfer is undone by the user who sent the points.
    #[must_use]
    pub fn is_reversible(&self) -> bool {
        let is_received = self.counterparty.is_some() && self.change > 0;
        self.rejection.is_none() && !is_received && self.known_action().is_some_and(Action::is_reversible)
    }

    /// The request that this entry has reversed, or whose hold it has ended.
    pub(super) fn ended(&self) -> Option<RequestId> {
        let request = self.reference.filter(|_| self.rejection.is_none())?;
        self.known_action().is_some_and(Action::is_ending).then_some(request)
    }
}

/// The outcome of a delta that was decided now or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The log entry of this delta. If the request id is known with the same change, this is the original entry. If it
    /// is known with another change, this is a rejected entry ([`Rejection::KeyReused`]).
    pub entry: Arc<Entry>,
    /// Whether the entry was there already: this delta changed nothing.
    pub replayed: bool,
    /// The entry of another change that had the request id before.
    pub first: Option<Arc<Entry>>,
}

/// A user's points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub user_id: UserId,
    /// How many, from 0 to [`POINTS_MAX`](super::POINTS_MAX).
    pub point: i64,
    /// The number of the user's log entries.
    pub seq: i64,
    /// When the last entry was written, by the database's clock.
    pub updated_at: Timestamp,
    /// The points that expire. Empty for a past balance.
    pub expires: Lots,
    /// The open holds. `None` for a past balance.
    pub holds: Option<Holds>,
}
