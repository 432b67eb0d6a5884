//! The proof that every balance is what its log comes to. It reads one snapshot, writes nothing and locks
//! nothing, so it may run beside the service, or on a replica.

use std::{fmt, pin::pin};

use deadpool_postgres::{Client, Pool};
use futures_util::TryStreamExt;
use tokio_postgres::{Row, types::ToSql};

/// How much of the log is summed between two reports of progress: 128 MiB of 8 KiB blocks.
const STEP_BLOCKS: i64 = 16_384;

/// How many broken users are fetched at a time.
const FETCH_USERS: i32 = 1_000;

/// What was checked, and how many users are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries in the log.
    pub entries: i64,
    /// Rows of balances.
    pub users: i64,
    /// Findings, at most a few for each broken user.
    pub findings: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose ledger.
    pub user_id: i64,
    /// At which entry; `None` for the balance itself.
    pub seq: Option<i64>,
    /// The column at fault.
    pub column: &'static str,
    /// What the entries before it come to.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user_id, seq, column, expected, found } = self;
        match seq {
            Some(seq) => {
                write!(f, "user {user_id}: log entry {seq}: {column} is {found}, expected {expected}")
            }
            None => write!(f, "user {user_id}: user_point: {column} is {found}, expected {expected}"),
        }
    }
}

/// Why the audit could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No connection.
    #[error(transparent)]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A query failed.
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
}

/// Audits everything: `progress` hears how many of how many blocks of the log are read, `find` hears each
/// finding.
///
/// An entry takes its user from (`seq` − 1, balance before) to (`seq`, `balance`). The sum over all entries of
/// hash(after) − hash(before) telescopes: what is left of an intact log is hash(last) − hash(nothing) of each
/// user, which is what the balances themselves must add up to. One pass of plain addition so checks every
/// chain, gap and balance at once, in constant memory; the hash has 64 bits, so damage goes unseen with a
/// chance of 2^-64. Only where the sums differ are the users looked at one by one.
///
/// # Errors
/// [`AuditError`]; on a replica also where recovery cancels a long query.
pub async fn audit(
    pool: &Pool,
    mut progress: impl FnMut(i64, i64),
    mut find: impl FnMut(Finding),
) -> Result<AuditReport, AuditError> {
    let client = pool.get().await?;
    // The limits and the preference for indexes are for the service: this reads whole tables.
    client.batch_execute("reset all; begin isolation level repeatable read, read only").await?;
    let mut findings = 0;
    let mut count = |finding| {
        findings += 1;
        find(finding);
    };
    let log = sum_log(&client, &mut progress).await?;
    let balances = client.query_one(SUM_BALANCES, &[]).await?;
    if log.sum != sum(&balances, 0)? || log.negative {
        examine_broken(&client, &mut count).await?;
    }
    if client.query_opt(UNIQUE_REQUEST_ID, &[]).await?.is_none() {
        examine_request_ids(&client, &mut count).await?;
    }
    client.batch_execute("rollback").await?;
    Ok(AuditReport { entries: log.entries, users: balances.try_get(1)?, findings })
}

/// The hash of where a user's ledger stands. Only ever compared within one run.
macro_rules! hash {
    ($point:literal, $seq:literal) => {
        concat!("hashint8extended(", $point, ", hashint8extended(", $seq, ", user_id))")
    };
}

/// What an entry changes.
macro_rules! change {
    () => {
        "(case when status = 'rejected' then 0 when action = 'add' then point else -point end)"
    };
}

/// The telescoping sum of entries. Two sums, as a difference of two hashes may not fit in a bigint.
macro_rules! sum_entries {
    () => {
        concat!(
            "sum(",
            hash!("balance", "seq"),
            ") \
             - sum(hashint8extended(balance - ",
            change!(),
            ", hashint8extended(seq - 1, user_id)))"
        )
    };
}

const LOG_BLOCKS: &str = "select pg_relation_size('log') / current_setting('block_size')::bigint";

const SUM_LOG: &str = concat!(
    "select (",
    sum_entries!(),
    ")::text, count(*), coalesce(min(balance) < 0, false) \
     from log where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid"
);

const SUM_BALANCES: &str = concat!(
    "select (sum(",
    hash!("point", "seq"),
    ") - sum(",
    hash!("0", "0"),
    "))::text, count(*) from user_point"
);

struct LogSum {
    sum: i128,
    entries: i64,
    negative: bool,
}

async fn sum_log(client: &Client, progress: &mut impl FnMut(i64, i64)) -> Result<LogSum, AuditError> {
    let blocks: i64 = client.query_one(LOG_BLOCKS, &[]).await?.try_get(0)?;
    let mut total = LogSum { sum: 0, entries: 0, negative: false };
    let mut first = 0;
    // The last step has no end: entries that are written meanwhile are not of our snapshot.
    while first <= blocks {
        let next = if first + STEP_BLOCKS > blocks { i64::from(u32::MAX) } else { first + STEP_BLOCKS };
        let row = client.query_one(SUM_LOG, &[&first, &next]).await?;
        total.sum += sum(&row, 0)?;
        total.entries += row.try_get::<_, i64>(1)?;
        total.negative |= row.try_get::<_, bool>(2)?;
        progress(next.min(blocks), blocks);
        first = next;
    }
    Ok(total)
}

/// A numeric that SQL gives as text; nothing, for no rows, is 0. 10^18 entries of 64 bits fit.
fn sum(row: &Row, column: usize) -> Result<i128, AuditError> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.map_or(0, |digits| digits.parse().expect("a sum of whole numbers")))
}

const BROKEN: &str = concat!(
    "declare broken no scroll cursor for \
     select user_id, u.point, u.seq from user_point u full join ( \
         select user_id, ",
    sum_entries!(),
    " as entries, min(balance) as least from log group by user_id \
     ) l using (user_id) \
     where coalesce(least < 0, false) or coalesce(entries, 0) \
         is distinct from ",
    hash!("u.point", "u.seq"),
    "::numeric - ",
    hash!("0", "0")
);

const ENTRIES: &str =
    concat!("select seq, ", change!(), ", balance from log where user_id = $1 order by seq");

/// Names what is broken, user by user.
async fn examine_broken(client: &Client, find: &mut impl FnMut(Finding)) -> Result<(), AuditError> {
    client.batch_execute(BROKEN).await?;
    let fetch = format!("fetch {FETCH_USERS} from broken");
    loop {
        let users = client.query(&fetch, &[]).await?;
        if users.is_empty() {
            return Ok(());
        }
        for user in users {
            examine_user(client, &user, find).await?;
        }
    }
}

async fn examine_user(client: &Client, user: &Row, find: &mut impl FnMut(Finding)) -> Result<(), AuditError> {
    let user_id: i64 = user.try_get(0)?;
    let mut chain = Chain { user_id, seq: 0, balance: 0 };
    let parameters: [&(dyn ToSql + Sync); 1] = [&user_id];
    let mut entries = pin!(client.query_raw(ENTRIES, parameters).await?);
    while let Some(entry) = entries.try_next().await? {
        chain.entry(entry.try_get(0)?, entry.try_get(1)?, entry.try_get(2)?, find);
    }
    chain.end(user.try_get(1)?, user.try_get(2)?, find);
    Ok(())
}

const UNIQUE_REQUEST_ID: &str = "select 1 from pg_constraint \
     where conrelid = 'log'::regclass and contype = 'u' and convalidated \
         and pg_get_constraintdef(oid) = 'UNIQUE (user_id, request_id)'";

const REPEATED: &str = "select user_id, request_id::text, max(seq), count(*) from log \
     group by user_id, request_id having count(*) > 1";

/// The constraint is the proof that a request id is there once; without it, they are counted.
async fn examine_request_ids(client: &Client, find: &mut impl FnMut(Finding)) -> Result<(), AuditError> {
    let no_parameters: [&(dyn ToSql + Sync); 0] = [];
    let mut repeated = pin!(client.query_raw(REPEATED, no_parameters).await?);
    while let Some(row) = repeated.try_next().await? {
        let (request_id, times): (&str, i64) = (row.try_get(1)?, row.try_get(3)?);
        find(Finding {
            user_id: row.try_get(0)?,
            seq: Some(row.try_get(2)?),
            column: "request_id",
            expected: "one entry of its id".to_owned(),
            found: format!("{request_id}, in {times} entries"),
        });
    }
    Ok(())
}

/// One user's entries, followed in their order. After a finding it goes on from what is there.
struct Chain {
    user_id: i64,
    seq: i64,
    balance: i64,
}

impl Chain {
    fn entry(&mut self, seq: i64, change: i64, balance: i64, find: &mut impl FnMut(Finding)) {
        let mut check = |column, expected: i64, found: i64| {
            if expected != found {
                let (expected, found) = (expected.to_string(), found.to_string());
                find(Finding { user_id: self.user_id, seq: Some(seq), column, expected, found });
            }
        };
        check("seq", self.seq + 1, seq);
        check("balance", self.balance + change, balance);
        if balance < 0 {
            let (expected, found) = ("0 or more".to_owned(), balance.to_string());
            find(Finding { user_id: self.user_id, seq: Some(seq), column: "balance", expected, found });
        }
        (self.seq, self.balance) = (seq, balance);
    }

    fn end(self, point: Option<i64>, seq: Option<i64>, find: &mut impl FnMut(Finding)) {
        for (column, expected, found) in [("point", self.balance, point), ("seq", self.seq, seq)] {
            if found != Some(expected) {
                let found = found.map_or("missing".to_owned(), |number| number.to_string());
                let expected = expected.to_string();
                find(Finding { user_id: self.user_id, seq: None, column, expected, found });
            }
        }
    }
}
