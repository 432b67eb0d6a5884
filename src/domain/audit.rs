//! Proves that every balance equals the sum of its log. Must not contain a write or a lock: the audit reads one
//! snapshot, beside the service or on a replica.

use std::fmt;

use crate::infra::postgres::{Client, Pool, PoolError, SNAPSHOT};
use chains::{BalanceRow, Chains, Standing};

mod asked;
mod chains;
mod examine;
mod holdings;
mod lots;
mod moment;
mod references;
mod scan;
mod uniqueness;

/// The most users whose entries are followed at the same time: some 210 MB of memory. If there are more users, the log
/// is read several times, each time for some of the users.
const USERS_AT_A_TIME: usize = 3_600_000;

/// The most entries that are kept because they come before their predecessors in the table: some 50 MB.
const EARLY_MAX: usize = 900_000;

/// The most users without a balance that are looked up at once.
const USERS_AT_ONCE: usize = 100_000;

/// The counts of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// The number of entries in the log.
    pub entries: i64,
    /// The number of balances.
    pub users: i64,
    /// The number of findings, at most a few for each broken entry.
    pub findings: u64,
}

/// The limits on what an audit keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// The most users whose entries are followed at the same time, at least 2.
    pub users: usize,
    /// The most entries that are kept because they come before their predecessors in the table.
    pub early: usize,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { users: USERS_AT_A_TIME, early: EARLY_MAX }
    }
}

/// One value that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The user whose ledger it is in.
    pub user_id: String,
    /// The entry, or `None` for the balance itself.
    pub seq: Option<i64>,
    /// The column at fault.
    pub column: &'static str,
    /// The rule, or the value that follows from the entries before.
    pub expected: String,
    /// The value in the table.
    pub found: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user_id, seq, column, expected, found } = self;
        let user_id = user_id.escape_debug();
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
    /// There is no connection.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A query failed.
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    /// A table and its index have different rows.
    #[error(
        "user {}: the tables are damaged, but the rows of this user alone show no damage: \
         an index is corrupt, or the id is null (try `reindex table log` and `reindex table user_point`)",
        .0.as_deref().unwrap_or("without an id").escape_debug()
    )]
    Hidden(Option<String>),
}

/// Audits all users. It calls `progress` with the number of blocks of the log that are read and their total, and `find`
/// with each finding.
///
/// The audit reads the log in the order of the table, which is nearly the order in which it was written. For each user
/// it keeps the number, the balance and the time of the last entry so far: the next entry must continue from there. An
/// entry that comes before its predecessor waits for it. So the audit compares every chain, gap, time and balance, and
/// not only sums. Points that expire are the exception: their sums for each time must be those of the row. If something
/// does not fit, it reads the user's entries once more, in order, to name the error.
///
/// # Errors
/// [`AuditError`]. On a replica, recovery may also cancel a long query.
pub async fn audit(
    pool: &Pool,
    progress: impl FnMut(i64, i64),
    find: impl FnMut(Finding),
) -> Result<AuditReport, AuditError> {
    audit_within(AuditLimits::default(), pool, progress, find).await
}

/// As [`audit`], with other limits on what is kept in memory.
///
/// # Errors
/// As [`audit`].
pub async fn audit_within(
    limits: AuditLimits,
    pool: &Pool,
    mut progress: impl FnMut(i64, i64),
    mut find: impl FnMut(Finding),
) -> Result<AuditReport, AuditError> {
    let client = pool.get().await?;
    client.batch_execute(SNAPSHOT).await?;
    let mut findings = 0;
    let mut count = |finding| {
        findings += 1;
        find(finding);
    };
    let (mut users, mut passes, mut chains) = (0, 0, Chains::new(limits));
    let read = loop {
        let read = scan::read_log(&client, &mut chains, passes, &mut progress).await?;
        users += compare_balances(&client, &mut chains, &mut count).await?;
        passes += 1;
        match chains.next() {
            Some(next) => chains = next,
            None => break read,
        }
    };
    uniqueness::examine(&client, &mut count).await?;
    let entries = if passes == 1 { read } else { scan::count_log(&client).await? };
    client.batch_execute("rollback").await?;
    Ok(AuditReport { entries, users, findings })
}

/// Compares each balance with the user's last entry, and reports what is broken. Returns the number of balances.
async fn compare_balances(
    client: &Client,
    chains: &mut Chains,
    find: &mut impl FnMut(Finding),
) -> Result<i64, AuditError> {
    let mut balances = scan::Balances::open(client, chains.users()).await?;
    let mut users = 0;
    loop {
        let some = balances.next().await?;
        if some.is_empty() {
            break;
        }
        for balance in some {
            users += 1;
            let standing = chains.compare(&balance);
            report(client, &balance, standing, find).await?;
        }
    }
    balances.close().await?;
    let left: Vec<i64> = chains.without_balance().collect();
    for part in left.chunks(USERS_AT_ONCE) {
        let found = scan::users(client, part).await?;
        if found.len() < part.len() {
            return Err(AuditError::Hidden(None));
        }
        for user_id in found {
            examine::user(client, &user_id, find).await?;
        }
    }
    Ok(users)
}

/// Reports what is wrong with a user, if anything.
async fn report(
    client: &Client,
    row: &BalanceRow,
    standing: Standing,
    find: &mut impl FnMut(Finding),
) -> Result<(), AuditError> {
    if matches!(standing, Standing::Sound | Standing::Reported) {
        return Ok(());
    }
    let Some(user_id) = &row.user_id else { return Err(AuditError::Hidden(None)) };
    let findings = examine::user(client, user_id, find).await?;
    if standing == Standing::Unread || findings > 0 {
        return Ok(());
    }
    // Two users that share a number look like one broken user.
    let namesakes = scan::users(client, &[row.user]).await?;
    if namesakes.len() < 2 {
        return Err(AuditError::Hidden(Some(user_id.clone())));
    }
    for namesake in namesakes.iter().filter(|namesake| *namesake != user_id) {
        examine::user(client, namesake, find).await?;
    }
    Ok(())
}
