//! The proof that every balance is what its log comes to. It reads one snapshot, writes nothing and locks
//! nothing, so it may run beside the service, or on a replica.

use std::fmt;

use deadpool_postgres::{Client, Pool};

use chains::{Chains, Standing};

mod chains;
mod examine;
mod moment;
mod scan;
mod uniqueness;

/// The most users whose entries are followed at the same time: some 180 MB of memory. With more users the
/// log is read several times, for some of the users each time.
const USERS_AT_A_TIME: usize = 3_600_000;

/// The most entries that are kept because they lie in the table before their predecessors: some 50 MB.
const EARLY_MAX: usize = 900_000;

/// What was checked, and what is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries in the log.
    pub entries: i64,
    /// Rows of balances.
    pub users: i64,
    /// Findings, at most a few for each broken entry.
    pub findings: u64,
}

/// How much an audit keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// The most users whose entries are followed at the same time, at least 2.
    pub users: usize,
    /// The most entries that are kept because they lie in the table before their predecessors.
    pub early: usize,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { users: USERS_AT_A_TIME, early: EARLY_MAX }
    }
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
    /// The rule, or what the entries before it come to.
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
    /// The table and its index have different entries.
    #[error(
        "user {0}: the tables hold damage that a look at this user alone does not show: \
         an index is corrupt, or the id is null (try `reindex table log` and `reindex table user_point`)"
    )]
    Hidden(i64),
}

/// Audits everything: `progress` hears how many of how many blocks of the log are read, `find` hears each
/// finding.
///
/// The log is read in the order of the table, which is nearly the order in which it was written. Of each user
/// the number, the balance and the time of the last entry so far are kept: the next entry must go on from
/// there. An entry that lies before its predecessor waits for it. So every chain, gap, time and balance is
/// compared, and none is only summed up. Where something does not fit, the user's entries are read once more,
/// in their order, to name it.
///
/// # Errors
/// [`AuditError`]; on a replica also where recovery cancels a long query.
pub async fn audit(
    pool: &Pool,
    progress: impl FnMut(i64, i64),
    find: impl FnMut(Finding),
) -> Result<AuditReport, AuditError> {
    audit_within(AuditLimits::default(), pool, progress, find).await
}

/// The same with other limits on what is kept in memory.
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
    // The limits and the preference for indexes are for the service: this reads whole tables.
    client.batch_execute("reset all; begin isolation level repeatable read, read only").await?;
    let mut findings = 0;
    let mut count = |finding| {
        findings += 1;
        find(finding);
    };
    let (mut users, mut passes, mut chains) = (0, 0, Chains::new(limits));
    loop {
        scan::read_log(&client, &mut chains, passes, &mut progress).await?;
        users += compare_balances(&client, &mut chains, &mut count).await?;
        passes += 1;
        match chains.next() {
            Some(next) => chains = next,
            None => break,
        }
    }
    uniqueness::examine(&client, &mut count).await?;
    let entries = scan::count_log(&client).await?;
    client.batch_execute("rollback").await?;
    Ok(AuditReport { entries, users, findings })
}

/// Compares each balance with where the user's entries end, and names what is broken; how many there are.
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
            name(client, balance.user_id, standing, find).await?;
        }
    }
    balances.close().await?;
    for (user_id, standing) in chains.left() {
        name(client, user_id, standing, find).await?;
    }
    Ok(users)
}

/// Names what is wrong with a user, if anything is.
async fn name(
    client: &Client,
    user_id: i64,
    standing: Standing,
    find: &mut impl FnMut(Finding),
) -> Result<(), AuditError> {
    match standing {
        Standing::Sound | Standing::Told => {}
        Standing::Unread => {
            examine::user(client, user_id, find).await?;
        }
        Standing::Broken => {
            if examine::user(client, user_id, find).await? == 0 {
                return Err(AuditError::Hidden(user_id));
            }
        }
    }
    Ok(())
}
