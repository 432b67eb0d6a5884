//! The statements that write balances and the log as CSV. Must not contain a file, or a rule of the ledger.

use std::io;

use futures_util::{TryStreamExt, pin_mut};

use crate::infra::postgres::{Client, Pool, PoolError, SNAPSHOT};

/// A part of the ledger. The names are those of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Export {
    /// What each user has now, as `import` reads it: a row for the points that do not expire, and a row for each time at
    /// which others do.
    Balances,
    /// Every entry of the log, with what the API shows of it.
    Log,
}

/// Why there is no export, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no connection.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A statement failed.
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    /// Rows of balances can't say what some users have.
    #[error("user {first}{} {why}", others(*.users))]
    Unsayable {
        /// How many users.
        users: i64,
        /// The first of them.
        first: String,
        /// What they have, readable after the user.
        why: &'static str,
    },
    /// The rows can't be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

fn others(users: i64) -> String {
    if users > 1 { format!(" (the first of {users} users)") } else { String::new() }
}

/// What users may have that rows of balances can't say: a query for the number of such users and the first of them, and
/// what to tell about them. A row with a `format` above 2 is of a newer version (`FORMAT_MAX`).
const UNSAYABLE: [(&str, &str); 2] = [
    (
        "select count(*) as users, min(user_id) as first from user_point where format > 2",
        "has a row that a newer version wrote: use the `point-system` of that version",
    ),
    (
        "select count(*) as users, min(user_id) as first from user_point where holds is not null",
        "has open holds: release or capture them first",
    ),
];

/// A time in RFC 3339, in UTC.
macro_rules! utc {
    ($time:expr) => {
        concat!("to_char(", $time, ", 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
}

/// The time of a lot, from microseconds since 1970. Whole days are separate: an interval is multiplied as a
/// floating-point number, which has not enough digits for the microseconds of centuries.
macro_rules! lot_time {
    () => {
        "timestamp '1970-01-01' + lots[2 * lot - 1] / 86400000000 * interval '1 day' \
             + lots[2 * lot - 1] % 86400000000 * interval '1 microsecond'"
    };
}

/// Lots that have expired by the snapshot are left out, whether or not the log has an entry for them. So are users
/// without points. A row of the snapshot has its lots in the order of their times.
const BALANCES: &str = concat!(
    "copy (select user_id, part.point, part.expires_at from user_point cross join lateral ( \
         select point - coalesce((select sum(lots[2 * lot]) from generate_series(1, cardinality(lots) / 2) as lot), 0) \
             as point, null as expires_at \
         union all \
         select lots[2 * lot], ",
    utc!(lot_time!()),
    " from generate_series(1, cardinality(lots) / 2) as lot where ",
    lot_time!(),
    " > now() at time zone 'UTC') as part where part.point <> 0) to stdout with (format csv, header)"
);

const LOG: &str = concat!(
    "copy (select user_id, seq, request_id, case when reject_reason is null then 'applied' else 'rejected' end as status, \
         reject_reason, ref, action, counterparty, point, partial, change, ",
    utc!("expires_at at time zone 'UTC'"),
    " as expires_at, (select json_agg(json_build_object('at', ",
    utc!(lot_time!()),
    ", 'point', lots[2 * lot]) order by lot) from generate_series(1, cardinality(lots) / 2) as lot) as lots, \
         actor, reason, metadata, replace(trace_id::text, '-', '') as trace_id, balance, ",
    utc!("requested_at at time zone 'UTC'"),
    " as requested_at, ",
    utc!("created_at at time zone 'UTC'"),
    " as created_at from log) to stdout with (format csv, header)"
);

/// Writes a part of the ledger as CSV, from one snapshot. It calls `write` with each row, the header first: the whole is
/// never in memory. Returns the number of rows without the header.
///
/// # Errors
/// [`ExportError`]. On a replica, recovery may also cancel a long query.
pub async fn export(
    pool: &Pool,
    what: Export,
    write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, ExportError> {
    let client = pool.get().await?;
    let exported = copy(&client, what, write).await;
    // The session has lost its settings.
    drop(Client::take(client));
    exported
}

async fn copy(
    client: &Client,
    what: Export,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, ExportError> {
    client.batch_execute(SNAPSHOT).await?;
    let statement = match what {
        Export::Log => LOG,
        Export::Balances => {
            can_say(client).await?;
            BALANCES
        }
    };
    let rows = client.copy_out(statement).await?;
    pin_mut!(rows);
    let mut count = 0;
    // PostgreSQL sends each row in a message of its own.
    while let Some(row) = rows.try_next().await? {
        write(&row)?;
        count += 1;
    }
    Ok(u64::saturating_sub(count, 1))
}

async fn can_say(client: &Client) -> Result<(), ExportError> {
    for (query, why) in UNSAYABLE {
        let row = client.query_one(query, &[]).await?;
        let users: i64 = row.try_get("users")?;
        if users > 0 {
            return Err(ExportError::Unsayable { users, first: row.try_get("first")?, why });
        }
    }
    Ok(())
}
