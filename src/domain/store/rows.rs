//! The statement that writes accounts and entries, and its parameters. Must not contain a rule of the ledger.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::entry_columns;
use crate::domain::{
    actor::Actor,
    decide::Accounts,
    delta::Reason,
    entry::{Entry, Rejection},
    metadata::Metadata,
    request_id::RequestId,
};

pub(super) const WRITE: &str = concat!(
    "with moved as ( \
         update user_point set point = new.point, seq = new.seq, updated_at = new.updated_at \
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::timestamptz[]) \
             as new (user_id, point, seq, updated_at) \
         where user_point.user_id = new.user_id) \
     insert into log (",
    entry_columns!(),
    ") \
     select * from unnest($5::text[], $6::bigint[], $7::uuid[], $8::text[], $9::bigint[], $10::bigint[], \
         $11::bigint[], $12::text[], $13::uuid[], $14::bigint[], $15::text[], $16::text[], $17::text[], \
         $18::timestamptz[], $19::timestamptz[], $20::boolean[])"
);

/// The columns of a [`WRITE`]: the accounts after the batch, and the new entries.
#[derive(Default)]
pub(super) struct Rows<'a> {
    users: Vec<&'a str>,
    points: Vec<i64>,
    seqs: Vec<i64>,
    updated_ats: Vec<Timestamp>,
    user_ids: Vec<&'a str>,
    entry_seqs: Vec<i64>,
    request_ids: Vec<Uuid>,
    actions: Vec<&'a str>,
    asked_points: Vec<i64>,
    changes: Vec<i64>,
    balances: Vec<i64>,
    actors: Vec<Option<&'a str>>,
    references: Vec<Option<Uuid>>,
    fingerprints: Vec<i64>,
    reject_reasons: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
    metadata: Vec<Option<&'a str>>,
    requested_ats: Vec<Timestamp>,
    created_ats: Vec<Timestamp>,
    /// Ends with the last entry that has a value: `unnest` fills the shorter arrays up with nulls.
    partials: Vec<Option<bool>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(accounts: &'a Accounts, entries: &[&'a Entry]) -> Self {
        let mut rows = Self::default();
        for (user, account) in accounts {
            rows.users.push(user.as_str());
            rows.points.push(account.point);
            rows.seqs.push(account.seq);
            rows.updated_ats.push(account.updated_at);
        }
        for (index, entry) in entries.iter().enumerate() {
            rows.user_ids.push(entry.user_id.as_str());
            rows.entry_seqs.push(entry.seq);
            rows.request_ids.push(entry.request_id.get());
            rows.actions.push(&entry.action);
            rows.asked_points.push(entry.point);
            rows.changes.push(entry.change);
            rows.balances.push(entry.balance);
            rows.actors.push(entry.actor.as_ref().map(Actor::as_str));
            rows.references.push(entry.reference.map(RequestId::get));
            rows.fingerprints.push(entry.fingerprint.get());
            rows.reject_reasons.push(entry.rejection.as_ref().map(Rejection::as_str));
            rows.reasons.push(entry.reason.as_ref().map(Reason::as_str));
            rows.metadata.push(entry.metadata.as_ref().map(Metadata::as_str));
            rows.requested_ats.push(entry.requested_at);
            rows.created_ats.push(entry.created_at);
            if entry.partial {
                rows.partials.resize(index, None);
                rows.partials.push(Some(true));
            }
        }
        rows
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 20] {
        [
            &self.users,
            &self.points,
            &self.seqs,
            &self.updated_ats,
            &self.user_ids,
            &self.entry_seqs,
            &self.request_ids,
            &self.actions,
            &self.asked_points,
            &self.changes,
            &self.balances,
            &self.actors,
            &self.references,
            &self.fingerprints,
            &self.reject_reasons,
            &self.reasons,
            &self.metadata,
            &self.requested_ats,
            &self.created_ats,
            &self.partials,
        ]
    }
}
