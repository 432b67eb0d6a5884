//! The statements that read whole tables, and their rows. What the rows come to may not enter.

use std::{ops::RangeInclusive, pin::pin};

use deadpool_postgres::Client;
use futures_util::TryStreamExt;

use super::{
    AuditError,
    chains::{BalanceRow, Chains, Step},
    copy::Rows,
    moment::Moment,
};

/// How much of the log is read between two reports of progress: 128 MiB of 8 KiB blocks.
const STEP_BLOCKS: i64 = 16_384;

/// How many balances are fetched at a time.
const FETCH_ROWS: u32 = 10_000;

const LOG_BLOCKS: &str = "select pg_relation_size('log') / current_setting('block_size')::bigint";

/// Reads the entries of the users that are wanted. Nobody else's are sent where it can be helped.
pub(super) async fn read_log(
    client: &Client,
    chains: &mut Chains,
    passes: i64,
    progress: &mut impl FnMut(i64, i64),
) -> Result<(), AuditError> {
    let blocks: i64 = client.query_one(LOG_BLOCKS, &[]).await?.try_get(0)?;
    let mut first = 0;
    // The last step has no end: entries that are written meanwhile are not of our snapshot.
    while first <= blocks {
        let next = if first + STEP_BLOCKS > blocks { i64::from(u32::MAX) } else { first + STEP_BLOCKS };
        read_blocks(client, chains, first, next).await?;
        progress(passes * blocks + next.min(blocks), (passes + 1) * blocks);
        first = next;
    }
    Ok(())
}

/// A copy, as it costs the client a third of what a query does; it takes no parameters. Of each entry there is
/// what it changes: null where it breaks a rule by itself, whatever comes before it.
async fn read_blocks(client: &Client, chains: &mut Chains, first: i64, next: i64) -> Result<(), AuditError> {
    let (from, to) = chains.users().into_inner();
    let copy = format!(
        "copy (select user_id, seq, balance, \
             case when point between 1 and 9007199254740991 and balance between 0 and 9007199254740991 \
                 and requested_at > '-infinity' and requested_at < '9999-12-30T22:00:01Z' \
                 and created_at > '-infinity' and created_at < '9999-12-30T22:00:01Z' \
                 and (reason is null \
                     or char_length(reason) between 1 and 200 and reason !~ '[\\x01-\\x1f\\x7f-\\x9f]') \
             then case \
                 when status = 'applied' and reject_reason is null \
                     then case action when 'add' then point when 'subtract' then -point end \
                 when status = 'rejected' and action = 'subtract' and balance < point \
                     and reject_reason = 'insufficient_points' then 0 \
                 when status = 'rejected' and action = 'add' and balance + point > 9007199254740991 \
                     and reject_reason = 'balance_limit' then 0 \
             end end, created_at \
         from log where ctid >= '({first},0)' and ctid < '({next},0)' \
             and (user_id between {from} and {to}) is not false) to stdout with (format binary)"
    );
    let mut pieces = pin!(client.copy_out(&copy).await?);
    let mut rows = Rows::default();
    while let Some(piece) = pieces.try_next().await? {
        rows.read(&piece, |[user_id, seq, balance, change, time]| {
            let step = match (balance, change, time) {
                (Some(after), Some(change), Some(time)) => Some(Step { before: after - change, after, time }),
                _ => None,
            };
            chains.entry(user_id.unwrap_or(0), seq.unwrap_or(0), step);
        })?;
    }
    Ok(())
}

/// How many entries the log has.
pub(super) async fn count_log(client: &Client) -> Result<i64, AuditError> {
    Ok(client.query_one("select count(*) from log", &[]).await?.try_get(0)?)
}

/// The balances of a range of users, read in parts.
pub(super) struct Balances<'a> {
    client: &'a Client,
    fetch: String,
}

impl<'a> Balances<'a> {
    pub(super) async fn open(client: &'a Client, users: RangeInclusive<i64>) -> Result<Self, AuditError> {
        let (from, to) = users.into_inner();
        let cursor = format!(
            "declare balances no scroll cursor for \
                 select coalesce(user_id, 0), seq, point, updated_at from user_point \
                 where (user_id between {from} and {to}) is not false"
        );
        client.batch_execute(&cursor).await?;
        Ok(Self { client, fetch: format!("fetch {FETCH_ROWS} from balances") })
    }

    /// Some more of them; none after the last.
    pub(super) async fn next(&mut self) -> Result<Vec<BalanceRow>, AuditError> {
        let rows = self.client.query(&self.fetch, &[]).await?;
        rows.iter()
            .map(|row| {
                let updated_at: Option<Moment> = row.try_get(3)?;
                Ok(BalanceRow {
                    user_id: row.try_get(0)?,
                    seq: row.try_get(1)?,
                    point: row.try_get(2)?,
                    updated_at: updated_at.map(|Moment(time)| time),
                })
            })
            .collect()
    }

    pub(super) async fn close(self) -> Result<(), AuditError> {
        Ok(self.client.batch_execute("close balances").await?)
    }
}
