//! The rules of the ledger in a second, slow form: it reads every row and checks every rule separately.

use std::collections::{BTreeMap, BTreeSet};

use point_system::domain::POINTS_MAX;

use crate::support::system::System;
use rows::{Account, Entry, accounts, entries};

mod lots;
mod references;
mod rows;
mod transfers;

/// The user, the entry, and the column at fault.
pub type Fault = (String, Option<i64>, String);

/// The latest second that the service can read, in microseconds since 1970.
const TIME_MAX_US: i128 = 253_402_207_200_999_999;

/// Everything that is wrong, in order.
pub async fn faults(system: &System) -> Vec<Fault> {
    let (users, accounts) = (entries(system).await, accounts(system).await);
    let mut faults = Vec::new();
    for log in users.values() {
        for (index, entry) in log.iter().enumerate() {
            let columns = alone(entry).into_iter().chain(after(&log[..index], entry));
            let columns = columns.chain(transfers::unmatched(entry, &users));
            faults.extend(columns.map(|column| (entry.user.clone(), Some(entry.seq), column.to_owned())));
        }
        faults.extend(repeated(log));
    }
    for account in &accounts {
        let log = users.get(&account.user).map_or(&[][..], Vec::as_slice);
        faults.extend(account_faults(account, log));
    }
    let with_account: BTreeSet<&String> = accounts.iter().map(|account| &account.user).collect();
    for (user, log) in users.iter().filter(|(user, _)| !with_account.contains(user)) {
        let none = Account {
            user: user.clone(),
            point: None,
            seq: None,
            format: Some(i16::MAX),
            updated_at: None,
            due_at: None,
            lots: None,
            holds: None,
        };
        faults.extend(account_faults(&none, log));
    }
    for user in with_account {
        if accounts.iter().filter(|account| account.user == *user).count() > 1 {
            faults.push((user.clone(), None, "user_id".to_owned()));
        }
    }
    faults.sort();
    faults
}

const ACTIONS: [&str; 8] = ["add", "subtract", "reverse", "transfer", "expire", "hold", "capture", "release"];

/// The faults of an entry by itself.
fn alone(entry: &Entry) -> Vec<&'static str> {
    let maximum = i128::from(POINTS_MAX);
    let is_one_of = |text: &Option<String>, names: &[&str]| {
        text.as_ref().is_some_and(|text| names.iter().any(|name| name == text))
    };
    let is_time = |time: Option<i128>| time.is_some_and(|time| time > i128::MIN && time <= TIME_MAX_US);
    let mut columns = Vec::new();
    let mut must = |column, holds: bool| {
        if !holds {
            columns.push(column);
        }
    };
    must("user_id", is_user(&entry.user));
    let refers = is_one_of(&entry.action, &["reverse", "capture", "release"]);
    must("action", is_one_of(&entry.action, &ACTIONS));
    let may_be_none = refers && entry.reject_reason.is_some();
    let is_some = |point: i128| point >= 1 && point <= maximum;
    must("point", entry.point.is_some_and(|point| is_some(point) || point == 0 && may_be_none));
    let must_not_be = is_one_of(&entry.action, &["add", "expire", "transfer", "hold", "capture", "release"]);
    must("partial", entry.partial.is_none() || entry.partial == Some(true) && !must_not_be);
    must("balance", entry.balance.is_none_or(|balance| balance >= 0 && balance <= maximum));
    must("requested_at", is_time(entry.requested_at));
    must("created_at", is_time(entry.created_at));
    must("fingerprint", entry.fingerprint.is_some());
    must("actor", entry.actor.as_ref().is_none_or(|actor| !actor.is_empty() && actor.len() < 64));
    must("metadata", entry.metadata.as_ref().is_none_or(|json| json.len() > 1 && json.len() < 1025));
    let is_reuse = entry.reject_reason.as_deref() == Some("key_reused");
    must("ref", (is_reuse || refers) == entry.reference.is_some());
    must("counterparty", transfers::has_whom_it_needs(entry));
    if let Some(reason) = &entry.reason {
        let length = reason.chars().count();
        must("reason", length > 0 && length < 201);
        must("reason", !reason.chars().any(|c| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c)));
    }
    columns
}

fn is_user(id: &str) -> bool {
    !id.is_empty() && id.len() < 65 && id.chars().all(|c| c > ' ' && c < '\u{7f}')
}

fn is_one_of(entry: &Entry, actions: &[&str]) -> bool {
    entry.action.as_deref().is_some_and(|action| actions.contains(&action))
}

/// The faults of an entry after the entries before it.
fn after(before: &[Entry], entry: &Entry) -> Vec<&'static str> {
    let ended = lots::ended(before, entry);
    let mut columns = lots::of_entry(entry, ended.as_ref());
    let held: i128 = lots::open(before).iter().map(|hold| hold.point).sum();
    let balance = before.iter().rev().find_map(|entry| entry.balance).unwrap_or(0);
    let last_seq = before.last().map_or(0, |entry| i128::from(entry.seq));
    if i128::from(entry.seq) - last_seq != 1 {
        columns.push("seq");
    }
    let last_time = before.iter().rev().find_map(|entry| entry.created_at);
    if entry.created_at.is_some_and(|time| last_time.is_some_and(|last| time < last)) {
        columns.push("created_at");
    }
    // All there is, if that is less but not nothing.
    let taken = entry
        .point
        .map(|point| if entry.partial == Some(true) && balance > 0 { -point.min(balance) } else { -point });
    let (given, taken) = match entry.action.as_deref() {
        Some("add" | "release") => (entry.point, None),
        Some("subtract") => (None, taken),
        Some("reverse") => (entry.point, taken),
        Some("transfer") => (entry.point, entry.point.map(|point| -point)),
        Some("expire" | "hold") => (None, entry.point.map(|point| -point)),
        _ => (None, None),
    };
    let is_capture = is_one_of(entry, &["capture"]);
    let is_unclear = entry.point.is_none() || !is_one_of(entry, &ACTIONS);
    let did = |change| match &entry.reject_reason {
        Some(_) => change == 0,
        None if is_capture => change >= 0,
        None => {
            let is_part = || transfers::may_give_part(entry, change);
            is_unclear || given == Some(change) || taken == Some(change) || is_part()
        }
    };
    if let Some(ended) = ended {
        let returned = if is_capture { entry.change } else { Some(0) };
        let is_size = |point| (1..=i128::from(POINTS_MAX)).contains(point);
        let is_wrong = returned.is_some_and(|returned| entry.point != Some(ended.point - returned));
        if is_wrong && entry.point.as_ref().is_some_and(is_size) {
            columns.push("point");
        }
    }
    if !entry.change.is_some_and(did) {
        columns.push("change");
    }
    if entry.change.is_some_and(|change| entry.balance != Some(balance + change)) {
        columns.push("balance");
    }
    if !may_be_rejected(entry, (balance, held), (given, taken)) {
        columns.push("reject_reason");
    }
    columns.extend((!references::refers_well(before, entry)).then_some("ref"));
    columns
}

/// Whether the reason for which it was rejected, if it was, may hold with what the user had.
fn may_be_rejected(
    entry: &Entry,
    (balance, held): (i128, i128),
    (given, taken): (Option<i128>, Option<i128>),
) -> bool {
    let is_unclear = entry.point.is_none() || !is_one_of(entry, &ACTIONS);
    // Of an unknown action nothing more is said.
    let is_known = is_one_of(entry, &ACTIONS);
    let may_be = |actions: &[&str]| !is_known || is_one_of(entry, actions);
    let is_reversal = may_be(&["reverse"]);
    let is_about_nothing = entry.point.unwrap_or(0) == 0;
    match entry.reject_reason.as_deref() {
        None => true,
        Some(_) if is_one_of(entry, &["expire"]) => false,
        Some("key_reused") => !is_one_of(entry, &["reverse", "release"]) || is_about_nothing,
        Some("insufficient_points") => {
            is_unclear || transfers::is_undone(entry) || taken.is_some_and(|taken| balance + taken < 0)
        }
        Some("balance_limit") => {
            let exceeds = |given| balance + held + given > i128::from(POINTS_MAX);
            let is_transfer = is_one_of(entry, &["transfer"]);
            is_unclear || is_transfer || is_one_of(entry, &["add", "reverse"]) && given.is_some_and(exceeds)
        }
        Some("unknown_request") => is_reversal && is_about_nothing,
        Some("not_reversible" | "already_reversed") => is_reversal,
        Some("expired") => {
            let is_late = entry.expires_at.zip(entry.created_at).is_some_and(|(end, now)| end <= now);
            !is_known || is_one_of(entry, &["add", "hold"]) && is_late
        }
        Some("lot_limit") => {
            is_reversal
                || is_one_of(entry, &["transfer"])
                || is_one_of(entry, &["add"]) && entry.expires_at.is_some()
        }
        Some("hold_limit") => may_be(&["hold"]),
        Some("unknown_hold") => may_be(&["capture"]) || is_one_of(entry, &["release"]) && is_about_nothing,
        Some("hold_over") => may_be(&["capture", "release"]),
        Some("hold_too_small") => may_be(&["capture"]),
        Some(_) => false,
    }
}

/// The repeated request ids of a user, at the last entry of each.
fn repeated(log: &[Entry]) -> Vec<Fault> {
    let mut requests: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for entry in log {
        requests.entry(&entry.request).or_default().push(entry.seq);
    }
    let twice = requests.into_values().filter(|seqs| seqs.len() > 1);
    twice.map(|seqs| (log[0].user.clone(), seqs.into_iter().max(), "request_id".to_owned())).collect()
}

fn account_faults(account: &Account, log: &[Entry]) -> Vec<Fault> {
    let balance = log.iter().rev().find_map(|entry| entry.balance).unwrap_or(0);
    let seq = log.last().map_or(0, |entry| i128::from(entry.seq));
    let time = log.iter().rev().find_map(|entry| entry.created_at);
    let (left, mut open) = (lots::after(log), lots::open(log));
    open.sort();
    let least = if open.is_empty() { i16::from(!left.is_empty()) } else { 2 };
    let faults = [
        ("user_id", is_user(&account.user)),
        ("format", account.format.is_some_and(|format| least == 0 || format >= least)),
        ("point", account.point == Some(balance)),
        ("seq", account.seq == Some(seq)),
        ("updated_at", time.is_none() || account.updated_at == time),
        ("lots", lots::of_text(account.lots.as_deref()).as_ref() == Some(&left)),
        ("holds", lots::holds_of_text(account.holds.as_deref()).as_ref() == Some(&open)),
        ("due_at", account.due_at == lots::due(log)),
    ];
    let wrong = faults.into_iter().filter(|(_, holds)| !holds);
    wrong.map(|(column, _)| (account.user.clone(), None, column.to_owned())).collect()
}
