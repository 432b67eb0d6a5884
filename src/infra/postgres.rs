//! Connections to PostgreSQL: pools, and whether the server accepts writes. Must not contain statements on our tables.

use std::{fmt, time::Duration};

use anyhow::{Context, ensure};
use deadpool::{Runtime, managed};
use tokio::time::timeout;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

mod commits;
mod fitness;
mod session;
mod settings;
mod url;

pub use commits::fit_to_commit;
pub use fitness::{Unfit, check};
pub use session::{ConnectError, Manager, Session};
pub use settings::{SNAPSHOT, STATEMENT_TIMEOUT_MS};
pub use url::DatabaseUrl;

use session::Need;

/// The longest wait for a free connection.
const WAIT_TIMEOUT_MS: u64 = 3_000;

/// The longest wait for the answer to a probe.
const ANSWER_TIMEOUT_MS: u64 = 2_000;

/// A pool of sessions.
pub type Pool = managed::Pool<Manager>;

/// A session of a pool, to which it returns unless it is taken.
pub type Client = managed::Object<Manager>;

/// Why a pool has no session to give.
pub type PoolError = managed::PoolError<ConnectError>;

/// Returns a pool of at most `size` connections that can write. It opens them on demand, on the host that accepts
/// writes. A server that is read-only (a standby, or `default_transaction_read_only`) is passed over.
///
/// # Errors
/// The URL asks for read-only sessions, or a certificate or key can't be read.
pub fn pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    ensure!(!url.is_read_only(), "target_session_attrs=read-only is for commands that only read");
    open(url, size, Need::Write)
}

/// Returns a pool for reads only, on any host, or on those that `target_session_attrs` allows.
///
/// # Errors
/// A certificate or key can't be read.
pub fn reading_pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    open(url, size, Need::Read)
}

fn open(url: &DatabaseUrl, size: usize, need: Need) -> anyhow::Result<Pool> {
    let limit = Some(Duration::from_millis(WAIT_TIMEOUT_MS));
    // The manager limits how long a connection may take to open. How long that is depends on the number of hosts.
    let pool = Pool::builder(Manager::new(url.clone(), need)?).max_size(size).runtime(Runtime::Tokio1);
    pool.wait_timeout(limit).build().context("building the pool")
}

/// Returns the last row of `answers`.
fn last_row(answers: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// Whether PostgreSQL accepts writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It accepts writes.
    Writable,
    /// It accepts only reads, as a standby does.
    ReadOnly,
    /// It accepts writes, but no synchronous standby confirms their commits.
    CommitsWait,
    /// It did not answer in time.
    Nothing,
}

/// Waits for a connection or an answer for at most `limit`. After an error the connection must not go back to its pool:
/// the statement may still run.
///
/// # Errors
/// PostgreSQL refused, or took longer.
pub async fn within<T, E: fmt::Display>(
    limit: Duration,
    asking: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(limit, asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("PostgreSQL did not answer within {} ms", limit.as_millis())),
    }
}

/// Asks PostgreSQL whether it accepts writes. A host that has a session but no answer, or only reads, is given up. One
/// whose commits wait is given up if another has taken its place.
pub async fn ask(pool: &Pool) -> Answer {
    let limit = Duration::from_millis(ANSWER_TIMEOUT_MS);
    // Nothing cuts this short: each host must have its time, or the first would be tried for ever.
    let client = match pool.get().await {
        Ok(client) => client,
        Err(PoolError::Backend(error)) if error.is_read_only() => return Answer::ReadOnly,
        Err(_) => return Answer::Nothing,
    };
    let asking = async {
        if !settings::set_up(&client, "").await? {
            return Ok(Answer::ReadOnly);
        }
        let end = commits::end(&client).await?;
        Ok::<_, ConnectError>(if end { Answer::Writable } else { Answer::CommitsWait })
    };
    let answer = match timeout(limit, asking).await {
        Ok(Ok(Answer::Writable)) => return Answer::Writable,
        Ok(Ok(Answer::CommitsWait)) => {
            Box::pin(commits::elsewhere(client)).await;
            return Answer::CommitsWait;
        }
        Ok(Ok(answer)) => {
            client.give_up();
            answer
        }
        Ok(Err(_)) => Answer::Nothing,
        Err(_) => {
            client.give_up();
            Answer::Nothing
        }
    };
    // Close a connection that can't do its work, and those that are idle.
    drop(Client::take(client));
    pool.retain(|_, _| false);
    answer
}
