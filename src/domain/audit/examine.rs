//! Examines one user's entries in order, and names what is wrong with each. Must not contain a read of other users.

use std::pin::pin;

use deadpool_postgres::Client;
use futures_util::TryStreamExt;
use tokio_postgres::{Row, types::ToSql};

use super::{AuditError, Finding, moment::Moment};
use crate::domain::{
    Rejection, Status,
    delta::{Action, POINTS_MAX, Points, REASON_MAX_CHARS},
};

/// The most characters of a text that a finding quotes.
const QUOTE_MAX_CHARS: usize = 40;

const ENTRIES: &str = "select coalesce(seq, 0) as seq, action, point, status, reject_reason, reason, balance, \
         requested_at, created_at \
     from log where user_id = $1 order by seq, ctid";

const BALANCES: &str = "select point, seq, updated_at from user_point where user_id = $1 order by ctid";

/// Reports everything that is wrong with a user, and returns the number of findings.
pub(super) async fn user(
    client: &Client,
    user_id: i64,
    find: &mut impl FnMut(Finding),
) -> Result<u64, AuditError> {
    let mut findings = 0;
    let mut count = |finding| {
        findings += 1;
        find(finding);
    };
    let mut ledger = Ledger { user_id, seq: 0, balance: 0, time: None, find: &mut count };
    let parameters: [&(dyn ToSql + Sync); 1] = [&user_id];
    let mut entries = pin!(client.query_raw(ENTRIES, parameters).await?);
    while let Some(entry) = entries.try_next().await? {
        ledger.entry(&entry)?;
    }
    let balances = client.query(BALANCES, &parameters).await?;
    if balances.is_empty() {
        ledger.end(None, None, None);
    }
    for row in balances {
        ledger.end(row.try_get("point")?, row.try_get("seq")?, row.try_get("updated_at")?);
    }
    Ok(findings)
}

/// The state after a user's last entry. After a finding it continues from the values in the table.
struct Ledger<'a, F> {
    user_id: i64,
    seq: i64,
    balance: i64,
    time: Option<Moment>,
    find: &'a mut F,
}

impl<F: FnMut(Finding)> Ledger<'_, F> {
    fn check(&mut self, seq: Option<i64>, column: &'static str, expected: &str, found: &str) {
        if expected != found {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            (self.find)(Finding { user_id: self.user_id, seq, column, expected, found });
        }
    }

    /// As `check`, for a rule instead of a single value.
    fn rule(&mut self, seq: Option<i64>, column: &'static str, holds: bool, rule: &str, found: &str) {
        if !holds {
            let (expected, found) = (rule.to_owned(), found.to_owned());
            (self.find)(Finding { user_id: self.user_id, seq, column, expected, found });
        }
    }

    fn entry(&mut self, row: &Row) -> Result<(), tokio_postgres::Error> {
        let number: i64 = row.try_get("seq")?;
        let seq = Some(number);
        self.rule(seq, "user_id", self.user_id >= 1, "1 or more", &self.user_id.to_string());
        self.check(seq, "seq", &(i128::from(self.seq) + 1).to_string(), &number.to_string());

        let (action, point): (Option<&str>, Option<i64>) = (row.try_get("action")?, row.try_get("point")?);
        let (status, balance): (Option<&str>, Option<i64>) =
            (row.try_get("status")?, row.try_get("balance")?);
        let known_action = action.and_then(|action| action.parse::<Action>().ok());
        self.rule(seq, "action", known_action.is_some(), "add or subtract", &quoted(action));
        let valid = point.is_some_and(|point| Points::new(point).is_ok());
        self.rule(seq, "point", valid, &format!("1 to {POINTS_MAX}"), &shown(point));
        let known_status = status.and_then(|status| status.parse::<Status>().ok());
        self.rule(seq, "status", known_status.is_some(), "applied or rejected", &quoted(status));
        let changed = self.changed(known_action, point);
        self.decision(
            number,
            known_status,
            known_action,
            changed.filter(|_| valid),
            row.try_get("reject_reason")?,
        );
        let expected = match known_status {
            Some(Status::Applied) => changed,
            Some(Status::Rejected) => Some(i128::from(self.balance)),
            None => None,
        };
        if let Some(expected) = expected {
            self.check(seq, "balance", &expected.to_string(), &shown(balance));
        }
        let in_range = balance.is_none_or(|balance| is_balance(balance.into()));
        self.rule(seq, "balance", in_range, &format!("0 to {POINTS_MAX}"), &shown(balance));
        self.reason(number, row.try_get("reason")?);
        self.times(number, row.try_get("requested_at")?, row.try_get("created_at")?);
        self.seq = number;
        self.balance = balance.unwrap_or(self.balance);
        Ok(())
    }

    /// The balance if the entry were applied.
    fn changed(&self, action: Option<Action>, point: Option<i64>) -> Option<i128> {
        let (balance, point) = (i128::from(self.balance), i128::from(point?));
        Some(match action? {
            Action::Add => balance + point,
            Action::Subtract => balance - point,
        })
    }

    /// An entry is rejected if the balance would leave its range. The reason says at which end.
    fn decision(
        &mut self,
        seq: i64,
        status: Option<Status>,
        action: Option<Action>,
        changed: Option<i128>,
        reason: Option<&str>,
    ) {
        let found = reason.map_or_else(|| "none".to_owned(), |reason| quoted(Some(reason)));
        let expected = match (status, action) {
            (None, _) => return,
            (Some(Status::Applied), _) => "none",
            (Some(Status::Rejected), Some(Action::Subtract)) => Rejection::InsufficientPoints.as_str(),
            (Some(Status::Rejected), Some(Action::Add)) => Rejection::BalanceLimit.as_str(),
            (Some(Status::Rejected), None) => {
                let known = reason.is_some_and(|reason| reason.parse::<Rejection>().is_ok());
                let rule = "insufficient_points or balance_limit";
                return self.rule(Some(seq), "reject_reason", known, rule, &found);
            }
        };
        self.check(Some(seq), "reject_reason", expected, &found);
        if status == Some(Status::Rejected) && changed.is_some_and(is_balance) {
            self.check(Some(seq), "status", Status::Applied.as_str(), Status::Rejected.as_str());
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
        self.rule(None, "user_id", self.user_id >= 1, "1 or more", &self.user_id.to_string());
        self.check(None, "point", &self.balance.to_string(), &shown(point));
        self.check(None, "seq", &self.seq.to_string(), &shown(seq));
        if let Some(time) = self.time {
            self.check(None, "updated_at", &time.to_string(), &shown(updated_at));
        }
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
