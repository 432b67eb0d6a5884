//! That nothing is there twice. Where a constraint says so, that is the proof.

use std::pin::pin;

use deadpool_postgres::Client;
use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::{AuditError, Finding};

const NO_PARAMETERS: [&(dyn ToSql + Sync); 0] = [];

const CONSTRAINT: &str = "select 1 from pg_constraint c join pg_index i on i.indexrelid = c.conindid \
     where c.conrelid = $1::text::regclass and c.convalidated and i.indisvalid \
         and pg_get_constraintdef(c.oid) = $2";

const REPEATED_REQUESTS: &str = "select user_id, max(seq), \
         request_id::text || ', in ' || count(*) || ' entries' \
     from log group by user_id, request_id having count(*) > 1";

const REPEATED_USERS: &str = "select user_id, null::bigint, 'in ' || count(*) || ' rows' \
     from user_point group by user_id having count(*) > 1";

/// Names what is there more than once.
pub(super) async fn examine(client: &Client, find: &mut impl FnMut(Finding)) -> Result<(), AuditError> {
    for (table, constraint, column, expected, repeated) in [
        ("log", "UNIQUE (user_id, request_id)", "request_id", "one entry of its id", REPEATED_REQUESTS),
        ("user_point", "PRIMARY KEY (user_id)", "user_id", "in one row", REPEATED_USERS),
    ] {
        if client.query_opt(CONSTRAINT, &[&table, &constraint]).await?.is_some() {
            continue;
        }
        let mut rows = pin!(client.query_raw(repeated, NO_PARAMETERS).await?);
        while let Some(row) = rows.try_next().await? {
            let (user_id, seq, found) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            find(Finding { user_id, seq, column, expected: expected.to_owned(), found });
        }
    }
    Ok(())
}
