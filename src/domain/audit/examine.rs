//! Examines one user's entries in order, and names what is wrong with each. Must not contain a read of other users.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Row, types::ToSql};

use super::{
    AuditError, Finding,
    asked::Asked,
    holdings::Holdings,
    lots::{Expiring, parsed},
    moment::Moment,
    references,
};
use crate::domain::{
    Rejection,
    actor::ACTOR_MAX_BYTES,
    change::Action,
    delta::{POINTS_MAX, REASON_MAX_CHARS},
    holds::Holds,
    metadata::METADATA_MAX_BYTES,
    user_id::UserId,
};
use crate::infra::postgres::Client;

/// The most characters of a text that a finding quotes.
const QUOTE_MAX_CHARS: usize = 40;

const USER_RULE: &str = "1 to 64 visible ASCII characters";

const ENTRIES: &str = "select coalesce(seq, 0) as seq, action, point, partial, change, balance, actor, \
         request_id, ref, fingerprint, reject_reason, reason, octet_length(metadata) as metadata_bytes, \
         requested_at, created_at, counterparty is not null as has_counterparty, expires_at, lots::text as lots \
     from log where user_id = $1 order by seq, ctid";

const BALANCES: &str = "select point, seq, format, updated_at, due_at, lots::text as lots, holds \
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
        Ledger { user_id, seq: 0, balance: 0, time: None, holdings: Holdings::default(), find: &mut count };
    let parameters: [&(dyn ToSql + Sync); 1] = [&user_id];
    let mut entries = pin!(client.query_raw(ENTRIES, parameters).await?);
    while let Some(entry) = entries.try_next().await? {
        ledger.entry(&entry)?;
    }
    let balances = client.query(BALANCES, &parameters).await?;
    if balances.is_empty() {
        ledger.end(None, None, None);
        ledger.end_of_holdings(None, None, None);
    }
    for row in balances {
        let format: Option<i16> = row.try_get("format")?;
        let least = ledger.holdings.format_min();
        let rule = if least > 0 { format!("{least} or more") } else { "a number".to_owned() };
        ledger.rule(
            None,
            "format",
            format.is_some_and(|format| format >= least || least == 0),
            &rule,
            &shown(format),
        );
        ledger.end(row.try_get("point")?, row.try_get("seq")?, row.try_get("updated_at")?);
        ledger.end_of_holdings(row.try_get("due_at")?, row.try_get("lots")?, row.try_get("holds")?);
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
    holdings: Holdings,
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
            held: self.holdings.held(),
        };
        let (reference, is_rejected) = (row.try_get("ref")?, reject_reason.is_some());
        let ends = matches!(asked.action, Some(Action::Capture | Action::Release)) && !is_rejected;
        let expiring = Expiring {
            action: asked.action,
            request: row.try_get("request_id")?,
            point: asked.point,
            change: row.try_get("change")?,
            is_rejected,
            created_at: asked.created_at,
            expires_at: asked.expires_at,
            lots: row.try_get("lots")?,
            ended: self.holdings.hold(reference).filter(|_| ends),
        };
        self.asked(seq, asked, action, &expiring);
        let (change, balance): (Option<i64>, Option<i64>) = (row.try_get("change")?, row.try_get("balance")?);
        self.decision(seq, asked, reject_reason, change, reference.is_some());
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
        self.expiring(number, &expiring);
        self.reason(number, row.try_get("reason")?);
        self.times(number, row.try_get("requested_at")?, row.try_get("created_at")?);
        self.seq = number;
        self.balance = balance.unwrap_or(self.balance);
        Ok(())
    }

    fn asked(&mut self, seq: Option<i64>, asked: Asked, action: Option<&str>, expiring: &Expiring) {
        if let Some(rule) = asked.wrong_counterparty() {
            let found = if asked.has_counterparty { "a user" } else { "none" };
            self.rule(seq, "counterparty", false, rule, found);
        }
        let is_rejected = expiring.is_rejected;
        self.rule(seq, "action", asked.action.is_some(), "a known action", &quoted(action));
        let of_hold = expiring.wrong_point();
        let rule = of_hold.map_or_else(
            || format!("{} to {POINTS_MAX}", asked.point_min(is_rejected)),
            |point| point.to_string(),
        );
        let holds = asked.has_valid_point(is_rejected) && of_hold.is_none();
        self.rule(seq, "point", holds, &rule, &shown(asked.point));
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
        let is_return = asked.action == Some(Action::Capture) && reason.is_none();
        let may_be = |change: i64| changes.is_empty() && !(is_return && change < 0);
        let may_be = |change| may_be(change) || reason.is_none() && asked.may_give_part(change);
        let holds = change.is_some_and(|change| may_be(change) || changes.contains(&change.into()));
        let expected: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let rule = match (expected.is_empty(), is_return) {
            (true, true) => "0 or more".to_owned(),
            (true, false) => "a number".to_owned(),
            (false, _) => expected.join(" or "),
        };
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
            let found = entry.lots.map_or("none".to_owned(), |lots| quoted(Some(lots)));
            self.rule(Some(seq), "lots", false, rule, &found);
        }
        self.holdings.follow(entry);
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

    fn end_of_holdings(&mut self, due_at: Option<Moment>, lots: Option<&str>, holds: Option<&str>) {
        let none = || "none".to_owned();
        let expected = self.holdings.lots_text().unwrap_or_else(none);
        let is_sound = lots.is_none_or(|lots| parsed(lots).is_some());
        let fits = is_sound && expected == lots.unwrap_or("none");
        self.rule(None, "lots", fits, &expected, &lots.map_or_else(none, |lots| quoted(Some(lots))));
        let open = self.holdings.open();
        let read = holds.map_or_else(|| Some(Holds::default()), Holds::from_text);
        let found = holds.map_or_else(none, |holds| quoted(Some(holds)));
        let fits = read.as_ref() == Some(&open);
        self.rule(None, "holds", fits, &open.to_text().unwrap_or_else(none), &found);
        let due = self.holdings.due().map_or_else(none, |due| due.to_string());
        self.check(None, "due_at", &due, &due_at.map_or_else(none, |at| at.to_string()));
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
