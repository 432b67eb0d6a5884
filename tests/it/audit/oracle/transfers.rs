//! The rules of transfers: the entries of both users, and their reversals.

use std::collections::BTreeMap;

use super::{ACTIONS, Entry, is_one_of};

/// Whether an entry names another user if it must, and only if it may.
pub fn has_whom_it_needs(entry: &Entry) -> bool {
    let is_known = is_one_of(entry, &ACTIONS);
    !is_known
        || is_one_of(entry, &["reverse"])
        || is_one_of(entry, &["transfer"]) == entry.counterparty.is_some()
}

/// Whether it is the transfer of another user.
pub fn is_received(entry: &Entry) -> bool {
    is_one_of(entry, &["transfer"]) && entry.change.is_some_and(|change| change > 0)
}

/// Whether it is about a transfer that its user undoes.
pub fn is_undone(entry: &Entry) -> bool {
    is_one_of(entry, &["reverse"]) && entry.counterparty.is_some()
}

/// Whether an undone transfer may have given so much back, where a part is enough.
pub fn may_give_part(entry: &Entry, change: i128) -> bool {
    is_undone(entry)
        && entry.partial == Some(true)
        && change > 0
        && entry.point.is_some_and(|all| change <= all)
}

/// The column at fault if the other user has no such entry with the opposite change.
pub fn unmatched(entry: &Entry, users: &BTreeMap<String, Vec<Entry>>) -> Option<&'static str> {
    let other = entry.counterparty.as_ref().filter(|_| entry.reject_reason.is_none())?;
    let is_match = |found: &Entry| {
        found.counterparty.as_ref() == Some(&entry.user)
            && found.request == entry.request
            && found.action.is_some()
            && found.action == entry.action
            && found.reject_reason.is_none()
            && found.point.is_some()
            && found.point == entry.point
            && found.change.is_some()
            && found.change == entry.change.map(|change| -change)
            && found.reference == entry.reference
            && found.lots == entry.lots
    };
    let is_matched = users.get(other).is_some_and(|log| log.iter().any(is_match));
    (!is_matched).then_some("counterparty")
}
