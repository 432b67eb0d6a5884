//! Checks at startup whether the service can use a database at all. Must not contain conditions that may pass, such as
//! an outage.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT_MS, Client, DatabaseUrl, last_row, open, session::Need};

/// How often two connections are compared. An idle pooler hands out the session that was returned last, so one round is
/// enough. A busy pooler may hand out the same session by chance, so more rounds find more.
const ROUNDS: u32 = 8;

/// Why the service can't use a database as it is. Waiting does not change that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its text columns can't store every `reason` that a client may send.
    #[error("the encoding of the database is {0}: it must be UTF8 (create database … encoding 'UTF8')")]
    Encoding(String),
    /// A setting of one connection would reach another.
    #[error(
        "its connections share the server's sessions, as in PgBouncer's transaction pooling: use session \
         pooling (pool_mode = session)"
    )]
    SharedSessions,
}

/// Checks that each connection has its own session, and that the encoding is UTF-8. Changes no setting of the sessions.
///
/// # Errors
/// [`Unfit`]; any other error is an outage.
pub async fn check(url: &DatabaseUrl) -> anyhow::Result<()> {
    let pool = open(url, 2, Need::Bare)?;
    let (one, other) = (pool.get().await?, pool.get().await?);
    let (own, encoding) = session(&one).await?;
    if encoding != "UTF8" {
        return Err(Unfit::Encoding(encoding).into());
    }
    for _ in 0..ROUNDS {
        if session(&other).await?.0 == own || session(&one).await?.0 != own {
            return Err(Unfit::SharedSessions.into());
        }
    }
    Ok(())
}

/// One statement without parameters, because every pooler passes that on. Two servers may use the same process id, so
/// the start time is part of the answer.
const SESSION: &str = "select pid || ' since ' || backend_start, current_setting('server_encoding') \
     from pg_stat_activity where pid = pg_backend_pid()";

/// Returns the session that answers, and the encoding of its database.
async fn session(client: &Client) -> anyhow::Result<(String, String)> {
    let asking = timeout(Duration::from_millis(ANSWER_TIMEOUT_MS), client.simple_query(SESSION));
    let answers = asking.await.context("no answer to a statement")??;
    let row = last_row(&answers).context("the session is not in pg_stat_activity")?;
    let text = |column: usize| row.get(column).unwrap_or_default().to_owned();
    Ok((text(0), text(1)))
}
