//! Whether the commits of a server end, and whether another server has taken its place. Must not contain the statements
//! that are committed.

use std::time::Duration;

use tokio::time::timeout;

use super::{ANSWER_TIMEOUT_MS, Client, ConnectError, last_row, session::Session};

/// A commit of this database that has waited for a synchronous standby for 3 s. A role sees its own sessions, and as a
/// member of `pg_read_all_stats` all of them. Statements are far shorter, so the time since one began is that of its
/// commit.
const WAITING: &str = "select from pg_stat_activity where wait_event_type = 'IPC' and wait_event = 'SyncRep' \
     and datname = current_database() and state_change < clock_timestamp() - interval '3 s' limit 1";

/// The number of the server's timeline, which grows with each promotion, as eight digits.
const TIMELINE: &str = "select left(pg_walfile_name(pg_current_wal_lsn()), 8)";

/// Returns whether commits end, as far as the server's sessions show: whether none waits.
///
/// Such a wait ends neither at `statement_timeout` nor when the client leaves. So each attempt that is given up and
/// made again would keep one more of the server's connections, until none is left to read with.
pub(super) async fn end(client: &Session) -> Result<bool, ConnectError> {
    Ok(last_row(&client.simple_query(WAITING).await?).is_none())
}

/// Returns the timeline of a server that accepts writes.
pub(super) async fn timeline(client: &Session) -> Result<String, ConnectError> {
    let answers = client.simple_query(TIMELINE).await?;
    let number = last_row(&answers).and_then(|row| row.get(0));
    number.map(str::to_owned).ok_or_else(|| ConnectError::new("the server tells no timeline"))
}

/// Returns a connection for a write, if commits end. Otherwise it goes back to its pool, for reads.
///
/// # Errors
/// Commits wait for a synchronous standby, or there is no answer in time.
pub async fn fit_to_commit(mut client: Client) -> Result<Client, ConnectError> {
    let limit = Duration::from_millis(ANSWER_TIMEOUT_MS);
    loop {
        let why = match timeout(limit, end(&client)).await {
            Ok(Ok(true)) => return Ok(client),
            Ok(Ok(false)) => {
                // This ends, because a pool looks for another server only once in some seconds. The large future is
                // rarely needed.
                client = Box::pin(elsewhere(client))
                    .await
                    .ok_or_else(|| ConnectError::new("commits wait for a synchronous standby"))?;
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => {
                client.give_up();
                ConnectError::new(format!("no answer within {ANSWER_TIMEOUT_MS} ms"))
            }
        };
        drop(Client::take(client));
        return Err(why);
    }
}

/// Returns a connection to the server that has taken the place of this one, if there is one among the hosts.
pub(super) async fn elsewhere(client: Client) -> Option<Client> {
    let pool = Client::pool(&client)?;
    if !pool.manager().leave(&client).await {
        return None;
    }
    drop(client);
    pool.get().await.ok()
}
