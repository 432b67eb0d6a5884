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
    lots::Lots,
    metadata::Metadata,
    request_id::RequestId,
    trace::TraceId,
    user_id::UserId,
};

/// `unnest` in a select list is faster than in `from`, where PostgreSQL stores the values of each array as a table first.
pub(super) const WRITE: &str = concat!(
    "with moved as ( \
         update user_point set point = new.point, seq = new.seq, updated_at = new.updated_at, \
             format = case when new.holds is not null then 2 when new.lots is not null then 1 else 0 end, \
             due_at = new.due_at, lots = new.lots::bigint[], holds = new.holds \
         from (select unnest($1::text[]) as user_id, unnest($2::bigint[]) as point, unnest($3::bigint[]) as seq, \
             unnest($4::timestamptz[]) as updated_at, unnest($5::timestamptz[]) as due_at, \
             unnest($6::text[]) as lots, unnest($25::text[]) as holds) as new \
         where user_point.user_id = new.user_id) \
     insert into log (",
    entry_columns!(),
    ") \
     select unnest($7::text[]), unnest($8::bigint[]), unnest($9::uuid[]), unnest($10::text[]), unnest($11::bigint[]), \
         unnest($12::bigint[]), unnest($13::bigint[]), unnest($14::text[]), unnest($15::uuid[]), \
         unnest($16::bigint[]), unnest($17::text[]), unnest($18::text[]), unnest($19::text[]), \
         unnest($20::timestamptz[]), unnest($21::timestamptz[]), unnest($22::boolean[]), \
         unnest($23::timestamptz[]), unnest($24::text[])::bigint[], \
         unnest($26::text[]), unnest($27::uuid[])"
);

/// The columns of a [`WRITE`]: the accounts after the batch, and the new entries. A column of `Option`s ends with the
/// last row that has a value: `unnest` fills the shorter arrays up with nulls. Lots are sent as texts, since an array
/// of arrays would need arrays of one length.
#[derive(Default)]
pub(super) struct Rows<'a> {
    users: Vec<&'a str>,
    points: Vec<i64>,
    seqs: Vec<i64>,
    updated_ats: Vec<Timestamp>,
    due_ats: Vec<Option<Timestamp>>,
    lots: Vec<Option<String>>,
    holds: Vec<Option<String>>,
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
    partials: Vec<Option<bool>>,
    expires_ats: Vec<Option<Timestamp>>,
    entry_lots: Vec<Option<String>>,
    counterparties: Vec<Option<&'a str>>,
    trace_ids: Vec<Option<Uuid>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(accounts: &'a Accounts, entries: &[&'a Entry]) -> Self {
        let mut rows = Self::default();
        for (index, (user, account)) in accounts.iter().enumerate() {
            rows.users.push(user.as_str());
            rows.points.push(account.point);
            rows.seqs.push(account.seq);
            rows.updated_ats.push(account.updated_at);
            put(&mut rows.due_ats, index, account.due());
            put(&mut rows.lots, index, array(&account.lots));
            put(&mut rows.holds, index, account.holds.to_text());
        }
        for (index, entry) in entries.iter().enumerate() {
            rows.user_ids.push(entry.user_id.as_str());
            rows.entry_seqs.push(entry.seq);
            rows.request_ids.push(entry.request_id.get());
            rows.actions.push(&entry.action);
            rows.asked_points.push(entry.point);
            rows.changes.push(entry.change);
            rows.balances.push(entry.balance);
            put(&mut rows.actors, index, entry.actor.as_ref().map(Actor::as_str));
            put(&mut rows.references, index, entry.reference.map(RequestId::get));
            rows.fingerprints.push(entry.fingerprint.get());
            put(&mut rows.reject_reasons, index, entry.rejection.as_ref().map(Rejection::as_str));
            put(&mut rows.reasons, index, entry.reason.as_ref().map(Reason::as_str));
            put(&mut rows.metadata, index, entry.metadata.as_ref().map(Metadata::as_str));
            rows.requested_ats.push(entry.requested_at);
            rows.created_ats.push(entry.created_at);
            put(&mut rows.partials, index, entry.partial.then_some(true));
            put(&mut rows.expires_ats, index, entry.expires_at);
            put(&mut rows.entry_lots, index, array(&entry.lots));
            put(&mut rows.counterparties, index, entry.counterparty.as_ref().map(UserId::as_str));
            put(&mut rows.trace_ids, index, entry.trace_id.map(TraceId::get));
        }
        rows
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 27] {
        [
            &self.users,
            &self.points,
            &self.seqs,
            &self.updated_ats,
            &self.due_ats,
            &self.lots,
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
            &self.expires_ats,
            &self.entry_lots,
            &self.holds,
            &self.counterparties,
            &self.trace_ids,
        ]
    }
}

/// Lots as the text of an array, if there are any.
fn array(lots: &Lots) -> Option<String> {
    let numbers = lots.to_numbers();
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{{}}}", texts.join(",")))
}

/// Puts the value of a row, if there is one, at the index of the row.
fn put<T: Clone>(column: &mut Vec<Option<T>>, index: usize, value: Option<T>) {
    if value.is_some() {
        column.resize(index, None);
        column.push(value);
    }
}
