//! The settings of a session, and whether its answers are ours. Must not contain hosts or pools.

use tokio_postgres::Client;
use uuid::Uuid;

use super::{last_row, session::ConnectError};

/// The longest that a statement of a session may take.
pub const STATEMENT_TIMEOUT_MS: u64 = 5_000;

/// The settings of every session.
///
/// The third timeout is a second longer than the store's limit for a transaction. A client that leaves a transaction
/// open for longer has abandoned it or is gone, and its users are locked meanwhile.
///
/// Each of our statements on users and entries looks up an index, whatever its parameters. So a plan is made once and
/// kept. The planner settings make it use the index and its order. Otherwise, a plan that was made while a table was
/// small or had no statistics would read the whole table, or sort thousands of a user's entries for each page. Before
/// PostgreSQL 18, a plan without an index, even of a table of a few rows, then costs more than
/// `jit_optimize_above_cost`, and would be compiled at every execution, for about 0.1 s. So nothing is compiled.
///
/// The last settings override what a role or a database may set and we rely on: READ COMMITTED, and commits that
/// survive a crash and, if the server has synchronous standbys, a failover. `remote_write` and `remote_apply` survive
/// as much, so they stay.
pub(super) const SETTINGS: &str = "set statement_timeout = '5s'; set lock_timeout = '500ms'; \
     set idle_in_transaction_session_timeout = '7s'; \
     set plan_cache_mode = force_generic_plan; \
     set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
     set jit = off; \
     set default_transaction_isolation = 'read committed'; \
     select set_config('synchronous_commit', 'on', false) \
         where current_setting('synchronous_commit') in ('off', 'local'); ";

/// Begins a transaction that reads whole tables from one snapshot. The session's limits and its preference for indexes
/// are for the service. The audit runs many short statements, and compiling each takes longer than running it.
pub const SNAPSHOT: &str = "reset all; begin isolation level repeatable read, read only; set local jit = off; \
     set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0";

/// Ends a session on the server, whatever else it is to do. Without this, a pooler would give it to its next client.
const END: &str = "select pg_terminate_backend(pg_backend_pid())";

/// Runs `settings`. Returns whether the session can write.
///
/// The last statement returns a word that no other client knows, so its answer is ours and the next ones are, too. A
/// pooler may give us a session while it still answers another client that is gone: PgBouncer before 1.21 does if that
/// client left after the first of several answers. Then each of our statements would get the answer to an earlier one.
///
/// # Errors
/// A statement is refused, or the answer is to another client. The session is ended.
pub(super) async fn set_up(client: &Client, settings: &str) -> Result<bool, ConnectError> {
    let word = Uuid::now_v7().to_string();
    let asking = format!("{settings}select '{word}', current_setting('transaction_read_only')");
    let error = match client.simple_query(&asking).await {
        Ok(answers) => match last_row(&answers) {
            Some(row) if row.get(0) == Some(&word) => return Ok(row.get(1) == Some("off")),
            _ => ConnectError::new("the pooler's session answers another client (PgBouncer before 1.21?)"),
        },
        Err(error) => error.into(),
    };
    client.simple_query(END).await.ok();
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_statement_is_as_long_as_a_session_allows() {
        let setting = format!("statement_timeout = '{}s'", STATEMENT_TIMEOUT_MS / 1_000);
        assert!(SETTINGS.contains(&setting), "{SETTINGS}");
    }
}
