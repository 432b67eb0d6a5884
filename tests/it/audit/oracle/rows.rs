//! The rows of both tables, as the oracle reads them.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use crate::support::system::System;

pub struct Entry {
    pub user: String,
    pub seq: i64,
    pub request: String,
    pub action: Option<String>,
    pub point: Option<i128>,
    pub partial: Option<bool>,
    pub change: Option<i128>,
    pub actor: Option<String>,
    pub reference: Option<String>,
    pub fingerprint: Option<i128>,
    pub metadata: Option<String>,
    pub reject_reason: Option<String>,
    pub reason: Option<String>,
    pub balance: Option<i128>,
    pub requested_at: Option<i128>,
    pub created_at: Option<i128>,
    pub expires_at: Option<i128>,
    pub lots: Option<String>,
    pub counterparty: Option<String>,
}

pub struct Account {
    pub user: String,
    pub point: Option<i128>,
    pub seq: Option<i128>,
    pub format: Option<i16>,
    pub updated_at: Option<i128>,
    pub due_at: Option<i128>,
    pub lots: Option<String>,
    pub holds: Option<String>,
}

/// Converts a time in seconds, as SQL returns it, to microseconds.
fn time(row: &Row, column: &str) -> Option<i128> {
    Some(match row.get::<_, Option<&str>>(column)? {
        "Infinity" => i128::MAX,
        "-Infinity" => i128::MIN,
        seconds => {
            let (whole, part) = seconds.split_once('.').expect("six digits behind the point");
            assert_eq!(part.len(), 6);
            format!("{whole}{part}").parse().expect("a number")
        }
    })
}

fn number(row: &Row, column: &str) -> Option<i128> {
    row.get::<_, Option<i64>>(column).map(i128::from)
}

pub async fn entries(system: &System) -> BTreeMap<String, Vec<Entry>> {
    let rows = system.rows(
        "select user_id, seq, request_id::text, action, point, partial, change, balance, actor, ref::text, fingerprint,
             reject_reason, reason, metadata,
             extract(epoch from requested_at)::text as requested_at,
             extract(epoch from created_at)::text as created_at,
             extract(epoch from expires_at)::text as expires_at, lots::text as lots, counterparty
         from log order by ctid",
    );
    let mut users: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for row in rows.await {
        let entry = Entry {
            user: row.get("user_id"),
            seq: row.get("seq"),
            request: row.get("request_id"),
            action: row.get("action"),
            point: number(&row, "point"),
            partial: row.get("partial"),
            change: number(&row, "change"),
            actor: row.get("actor"),
            reference: row.get("ref"),
            fingerprint: number(&row, "fingerprint"),
            metadata: row.get("metadata"),
            reject_reason: row.get("reject_reason"),
            reason: row.get("reason"),
            balance: number(&row, "balance"),
            requested_at: time(&row, "requested_at"),
            created_at: time(&row, "created_at"),
            expires_at: time(&row, "expires_at"),
            lots: row.get("lots"),
            counterparty: row.get("counterparty"),
        };
        users.entry(entry.user.clone()).or_default().push(entry);
    }
    for log in users.values_mut() {
        log.sort_by_key(|entry| entry.seq);
    }
    users
}

pub async fn accounts(system: &System) -> Vec<Account> {
    let sql = "select user_id, point, seq, format, extract(epoch from updated_at)::text as updated_at,
             extract(epoch from due_at)::text as due_at, lots::text as lots, holds
         from user_point";
    let account = |row: &Row| Account {
        user: row.get("user_id"),
        point: number(row, "point"),
        seq: number(row, "seq"),
        format: row.get("format"),
        updated_at: time(row, "updated_at"),
        due_at: time(row, "due_at"),
        lots: row.get("lots"),
        holds: row.get("holds"),
    };
    system.rows(sql).await.iter().map(account).collect()
}
