//! Examines one user's entries in order, and names what is wrong with each. Must not contain a read of other users.

use std::{collections::BTreeMap, pin::pin};

use deadpool_postgres::Client;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};

use super::{
    AuditError, Finding,
    asked::Asked,
    lots::{Expiring, parsed},
    moment::Moment,
    references,
};
use crate::domain::{
    Rejection,
    actor::ACTOR_MAX_BYTES,
    delta::{POINTS_MAX, REASON_MAX_CHARS},
    metadata::METADATA_MAX_BYTES,
    user_id::UserId,
};

/// The most characters of a text that a finding quotes.
const QUOTE_MAX_CHARS: usize = 40;

const USER_RULE: &str = "1 to 64 visible ASCII characters";

const ENTRIES: &str = "select coalesce(seq, 0) as seq, action, point, partial, change, balance, actor, \
         ref is not null as has_ref, counterparty is not null as has_counterparty, fingerprint, reject_reason, reason, octet_length(metadata) as metadata_bytes, \
         requested_at, created_at, expires_at, lots::text as lots \
     from log where user_id = $1 order by seq, ctid";

const BALANCES: &str = "select point, seq, format, updated_at, expires_at, lots::text as lots \
     from user_point where user_id = $1 order by ctid";

/// Reports everything that is wrong with a user, and returns the number of findings.
pub(super) async fn user(
    client: &Client,
    user_id: &str,
    find: &mut impl FnMut(Finding),
) -> Result<u64, AuditError> {
    let mut findings = 0;
    let mut count = |finding| {
        findings += 1;
        find(finding);
    };
    let mut ledger =
        Ledger { user_id, seq: 0, balance: 0, time: None, lots: BTreeMap::new(), find: &mut count };
    let parameters: [&(dyn ToSql + Sync); 1] = [&user_id];
    let mut entries = pin!(client.query_raw(ENTRIES, parameters).await?);
    while let Some(entry) = entries.try_next().await? {
        ledger.entry(&entry)?;
    }
    let balances = client.query(BALANCES, &parameters).await?;
    if balances.is_empty() {
        ledger.end(None, None, None);
        ledger.end_of_lots(None, None);
    }
    for row in balances {
        let format: Option<i16> = row.try_get("format")?;
        let least = i16::from(!ledger.left_lots().is_empty());
        let rule = if least > 0 { "1 or more" } else { "a number" };
        ledger.rule(
            None,
            "format",
            format.is_some_and(|format| format >= least || least == 0),
            rule,
            &shown(format),
        );
        ledger.end(row.try_get("point")?, row.try_get("seq")?, row.try_get("updated_at")?);
        ledger.end_of_lots(row.try_get("expires_at")?, row.try_get("lots")?);
    }
    references::user(client, user_id, &mut count).await?;
    Ok(findings)
}

/// The state after a user's last entry. After a finding it continues from the values in the table.
struct Ledger<'a, F> {
    user_id: &'a str,
    seq: i64,
    balance: i64,
    time: Option<Moment>,
    /// How many points expire at each time, in microseconds since 1970.
    lots: BTreeMap<i64, i128>,
    find: &'a mut F,
}

impl<F: FnMut(Finding)> Ledger<'_, F> {
    fn check(&mut self, seq: Option<i64>, column: &'static str, expected: &str, found: &str) {
        if expected != found {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            (self.find)(Finding { user_id: self.user_id.to_owned(), seq, column, expected, found });
        }
    }

    /// As `check`, for a rule instead of a single value.
    fn rule(&mut self, seq: Option<i64>, column: &'static str, holds: bool, rule: &str, found: &str) {
        if !holds {
            let (expected, found) = (rule.to_owned(), found.to_owned());
            (self.find)(Finding { user_id: self.user_id.to_owned(), seq, column, expected, found });
        }
    }

    fn entry(&mut self, row: &Row) -> Result<(), tokio_postgres::Error> {
        let number: i64 = row.try_get("seq")?;
        let seq = Some(number);
        self.rule(seq, "user_id", UserId::is_valid(self.user_id), USER_RULE, &quoted(Some(self.user_id)));
        self.check(seq, "seq", &(i128::from(self.seq) + 1).to_string(), &number.to_string());

        let (action, reject_reason): (Option<&str>, Option<&str>) =
            (row.try_get("action")?, row.try_get("reject_reason")?);
        let asked = Asked {
            action: action.and_then(|action| action.parse().ok()),
            point: row.try_get("point")?,
            partial: row.try_get("partial")?,
            expires_at: row.try_get("expires_at")?,
            created_at: row.try_get("created_at")?,
            has_counterparty: row.try_get("has_counterparty")?,
        };
        self.asked(seq, asked, action, reject_reason.is_some());
        let (change, balance): (Option<i64>, Option<i64>) = (row.try_get("change")?, row.try_get("balance")?);
        self.decision(seq, asked, reject_reason, change, row.try_get("has_ref")?);
        let expected = change.map(|change| i128::from(self.balance) + i128::from(change));
        if let Some(expected) = expected {
            self.check(seq, "balance", &expected.to_string(), &shown(balance));
        }
        let in_range = balance.is_none_or(|balance| is_balance(balance.into()));
        self.rule(seq, "balance", in_range, &format!("0 to {POINTS_MAX}"), &shown(balance));
        let fingerprint: Option<i64> = row.try_get("fingerprint")?;
        self.rule(seq, "fingerprint", fingerprint.is_some(), "a number", &shown(fingerprint));
        if let Some(actor) = row.try_get::<_, Option<&str>>("actor")? {
            let holds = (1..=ACTOR_MAX_BYTES).contains(&actor.len());
            let (rule, found) = (format!("1 to {ACTOR_MAX_BYTES} bytes"), format!("{} bytes", actor.len()));
            self.rule(seq, "actor", holds, &rule, &found);
        }
        if let Some(bytes) = row.try_get::<_, Option<i32>>("metadata_bytes")? {
            let holds = usize::try_from(bytes).is_ok_and(|bytes| (2..=METADATA_MAX_BYTES).contains(&bytes));
            self.rule(
                seq,
                "metadata",
                holds,
                &format!("2 to {METADATA_MAX_BYTES} bytes"),
                &format!("{bytes} bytes"),
            );
        }
        self.expiring(
            number,
            &Expiring {
                action: asked.action,
                change,
                is_rejected: reject_reason.is_some(),
                created_at: asked.created_at,
                expires_at: asked.expires_at,
                lots: row.try_get("lots")?,
            },
        );
        self.reason(number, row.try_get("reason")?);
        self.times(number, row.try_get("requested_at")?, row.try_get("created_at")?);
        self.seq = number;
        self.balance = balance.unwrap_or(self.balance);
        Ok(())
    }

    fn asked(&mut self, seq: Option<i64>, asked: Asked, action: Option<&str>, is_rejected: bool) {
        if let Some(rule) = asked.wrong_counterparty() {
            let found = if asked.has_counterparty { "a user" } else { "none" };
            self.rule(seq, "counterparty", false, rule, found);
        }
        self.rule(
            seq,
            "action",
            asked.action.is_some(),
            "add, subtract, reverse, transfer or expire",
            &quoted(action),
        );
        let rule = format!("{} to {POINTS_MAX}", asked.point_min(is_rejected));
        self.rule(seq, "point", asked.has_valid_point(is_rejected), &rule, &shown(asked.point));
        let takes_partial = asked.takes_partial();
        let holds = asked.partial.is_none_or(|partial| partial && takes_partial);
        let rule = if takes_partial { "true or none" } else { "none" };
        let found = asked.partial.map_or("none".to_owned(), |partial| partial.to_string());
        self.rule(seq, "partial", holds, rule, &found);
    }

    /// An applied entry must have done what was asked for. A rejected entry must have done nothing, for a valid reason.
    fn decision(
        &mut self,
        seq: Option<i64>,
        asked: Asked,
        reason: Option<&str>,
        change: Option<i64>,
        has_ref: bool,
    ) {
        let changes = if reason.is_none() { asked.changes(self.balance) } else { vec![0] };
        let may =
            |change| if reason.is_none() { asked.may_change(self.balance, change) } else { change == 0 };
        let holds = change.is_some_and(may);
        let expected: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let rule = if changes.is_empty() { "a number".to_owned() } else { expected.join(" or ") };
        self.rule(seq, "change", holds, &rule, &shown(change));
        let rejection = reason.map(str::parse::<Rejection>);
        let known = rejection.as_ref().and_then(|rejection| rejection.as_ref().ok());
        let shown_ref = |has_ref| if has_ref { "a request" } else { "none" };
        self.check(seq, "ref", shown_ref(asked.has_reference(known)), shown_ref(has_ref));
        if reason.is_some() {
            let holds = known.is_some_and(|why| asked.may_be_rejected(why, self.balance));
            self.rule(seq, "reject_reason", holds, "a reason that holds", &quoted(reason));
        }
    }

    fn expiring(&mut self, seq: i64, entry: &Expiring) {
        if let Some(rule) = entry.wrong_time() {
            let found = entry.expires_at.map_or("none".to_owned(), |time| time.to_string());
            self.rule(Some(seq), "expires_at", false, rule, &found);
        }
        if let Some(rule) = entry.wrong_lots() {
            self.rule(Some(seq), "lots", false, rule, &quoted(entry.lots));
        }
        for (time, point) in entry.moves() {
            *self.lots.entry(time).or_default() += i128::from(point);
        }
    }

    fn reason(&mut self, seq: i64, reason: Option<&str>) {
        let Some(reason) = reason else { return };
        let length = reason.chars().count();
        let rule = format!("1 to {REASON_MAX_CHARS} characters");
        let holds = (1..=REASON_MAX_CHARS).contains(&length);
        self.rule(Some(seq), "reason", holds, &rule, &format!("{length} characters"));
        let plain = !reason.chars().any(char::is_control);
        self.rule(
            Some(seq),
            "reason",
            plain,
            "a text without control characters",
            "a text with control characters",
        );
    }

    fn times(&mut self, seq: i64, requested_at: Option<Moment>, created_at: Option<Moment>) {
        for (column, time) in [("requested_at", requested_at), ("created_at", created_at)] {
            let readable = time.and_then(Moment::readable).is_some();
            self.rule(Some(seq), column, readable, "a time before the year 10000", &shown(time));
        }
        if let (Some(last), Some(time)) = (self.time, created_at) {
            let rule = format!("{last} or later");
            self.rule(Some(seq), "created_at", time >= last, &rule, &time.to_string());
        }
        self.time = created_at.or(self.time);
    }

    fn end(&mut self, point: Option<i64>, seq: Option<i64>, updated_at: Option<Moment>) {
        self.rule(None, "user_id", UserId::is_valid(self.user_id), USER_RULE, &quoted(Some(self.user_id)));
        self.check(None, "point", &self.balance.to_string(), &shown(point));
        self.check(None, "seq", &self.seq.to_string(), &shown(seq));
        if let Some(time) = self.time {
            self.check(None, "updated_at", &time.to_string(), &shown(updated_at));
        }
    }

    /// The points that expire after the last entry, by their times.
    fn left_lots(&self) -> Vec<(i64, i128)> {
        self.lots.iter().filter(|(_, point)| **point != 0).map(|(time, point)| (*time, *point)).collect()
    }

    fn end_of_lots(&mut self, expires_at: Option<Moment>, lots: Option<&str>) {
        let left = self.left_lots();
        let numbers: Vec<String> =
            left.iter().flat_map(|(time, point)| [time.to_string(), point.to_string()]).collect();
        let expected = if left.is_empty() { "none".to_owned() } else { format!("{{{}}}", numbers.join(",")) };
        let is_sound = lots.is_none_or(|lots| parsed(lots).is_some());
        let holds = is_sound && expected == lots.unwrap_or("none");
        let found = lots.map_or("none".to_owned(), |lots| quoted(Some(lots)));
        self.rule(None, "lots", holds, &expected, &found);
        let first = left.first().and_then(|(time, _)| Timestamp::from_microsecond(*time).ok());
        let time = |time: Option<String>| time.unwrap_or_else(|| "none".to_owned());
        self.check(
            None,
            "expires_at",
            &time(first.map(|first| first.to_string())),
            &time(expires_at.map(|at| at.to_string())),
        );
    }
}

fn is_balance(point: i128) -> bool {
    (0..=i128::from(POINTS_MAX)).contains(&point)
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "missing".to_owned(), |value| value.to_string())
}

/// Quotes an arbitrary text, escaped so that it can't control a terminal.
fn quoted(text: Option<&str>) -> String {
    let start = |text: &str| text.chars().take(QUOTE_MAX_CHARS).collect::<String>();
    text.map_or_else(|| "missing".to_owned(), |text| start(text).escape_debug().to_string())
}
