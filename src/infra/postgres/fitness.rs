//! Whether a database suits us at all, which is asked once at the start. Must not contain what may pass, such as
//! an outage.

use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::Client;
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT_MS, DatabaseUrl, builder, last_row};

/// How often two connections are compared. Behind a pooler that is idle once is enough, as it hands out the session
/// that came back last; behind a busy one each round is a chance.
const ROUNDS: u32 = 8;

/// Why a database can never be used as it is. No wait changes that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its texts can't hold every reason that a client may give.
    #[error("the encoding of the database is {0}: it must be UTF8 (create database … encoding 'UTF8')")]
    Encoding(String),
    /// What one connection sets, another would get.
    #[error(
        "its connections share the server's sessions, as in PgBouncer's transaction pooling: use session \
         pooling (pool_mode = session)"
    )]
    SharedSessions,
}

/// Whether each connection has a session of its own, and the texts are UTF-8. The connections that it opens are
/// left as the server made them.
///
/// # Errors
/// [`Unfit`]; anything else is an outage.
pub async fn check(url: &DatabaseUrl) -> anyhow::Result<()> {
    let pool = builder(url, 2)?.build().context("building the pool")?;
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

/// As one statement without parameters, which any pooler passes on. A process id may come twice on two servers.
const SESSION: &str = "select pid || ' since ' || backend_start, current_setting('server_encoding') \
     from pg_stat_activity where pid = pg_backend_pid()";

/// Which session of the server answers, and the encoding of its database.
async fn session(client: &Client) -> anyhow::Result<(String, String)> {
    let asking = timeout(Duration::from_millis(ANSWER_TIMEOUT_MS), client.simple_query(SESSION));
    let answers = asking.await.context("no answer to a statement")??;
    let row = last_row(&answers).context("the session is not in pg_stat_activity")?;
    let text = |column: usize| row.get(column).unwrap_or_default().to_owned();
    Ok((text(0), text(1)))
}
