//! Searches for repeated requests and users. A valid constraint is proof enough. Must not contain a rule of the ledger.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::{AuditError, Finding};
use crate::infra::postgres::Client;

const NO_PARAMETERS: [&(dyn ToSql + Sync); 0] = [];

const CONSTRAINT: &str = "select 1 from pg_constraint c join pg_index i on i.indexrelid = c.conindid \
     where c.conrelid = $1::text::regclass and c.convalidated and i.indisvalid \
         and pg_get_constraintdef(c.oid) = $2";

const REPEATED_REQUESTS: &str = "select user_id, max(seq) as seq, \
         request_id::text || ', in ' || count(*) || ' entries' as found \
     from log where user_id is not null group by user_id, request_id having count(*) > 1";

const REPEATED_USERS: &str = "select user_id, null::bigint as seq, 'in ' || count(*) || ' rows' as found \
     from user_point where user_id is not null group by user_id having count(*) > 1";

/// Reports every request and user that occurs more than once.
pub(super) async fn examine(client: &Client, find: &mut impl FnMut(Finding)) -> Result<(), AuditError> {
    for (table, constraint, column, expected, repeated) in [
        ("log", "UNIQUE (user_id, request_id)", "request_id", "in one entry", REPEATED_REQUESTS),
        ("user_point", "PRIMARY KEY (user_id)", "user_id", "in one row", REPEATED_USERS),
    ] {
        if client.query_opt(CONSTRAINT, &[&table, &constraint]).await?.is_some() {
            continue;
        }
        let mut rows = pin!(client.query_raw(repeated, NO_PARAMETERS).await?);
        while let Some(row) = rows.try_next().await? {
            let (user_id, seq, found) = (row.try_get("user_id")?, row.try_get("seq")?, row.try_get("found")?);
            find(Finding { user_id, seq, column, expected: expected.to_owned(), found });
        }
    }
    Ok(())
}
