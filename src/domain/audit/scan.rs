//! The statements that read whole tables, and their rows. Must not contain a comparison of rows.

use std::ops::RangeInclusive;

use tokio_postgres::{Row, types::ToSql};

use super::{
    AuditError,
    chains::{BalanceRow, Chains, Step},
    lots::{Expiring, LotSum, hold},
    moment::Moment,
    references::{broken_reference, is_unmatched},
};
use crate::{domain::delta::POINTS_MAX, infra::postgres::Client};

mod change;

use change::change;

/// The number of blocks that one query reads, between two reports of progress: 4 MiB in blocks of 8 KiB.
const STEP_BLOCKS: i64 = 512;

/// The size of a number, in bytes.
const NUMBER_BYTES: usize = 8;

/// Stands for null among the numbers. No column of a sound entry has this value.
const NULL: i64 = i64::MIN;

/// The number of balances that one fetch returns.
const FETCH_ROWS: u32 = 10_000;

const LOG_BLOCKS: &str = "select pg_relation_size('log') / current_setting('block_size')::bigint as blocks";

/// Packs a column of a part of the log into one value. This costs the client a quarter of one row per entry.
macro_rules! packed {
    ($column:expr) => {
        concat!("string_agg(coalesce(int8send(", $column, "), '\\x8000000000000000'), '')")
    };
}

/// The user as a number, a hash of 64 bits. Texts would take more time and memory, and a damaged row may have any text.
macro_rules! user {
    () => {
        "hashtextextended(user_id, 0)"
    };
}

/// The entries of a range of users in the part of the log between two blocks. Usually these are all users.
macro_rules! part {
    () => {
        " from log where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid \
             and ($3::bigint = '-9223372036854775808' and $4::bigint = '9223372036854775807' \
                 or hashtextextended(user_id, 0) between $3 and $4) is not false"
    };
}

const LOG: &str = concat!(
    "select ",
    packed!(user!()),
    " as users, ",
    packed!("seq"),
    " as seqs, ",
    packed!("balance"),
    " as balances, ",
    packed!(change!()),
    " as changes, string_agg(coalesce(timestamptz_send(created_at), '\\x8000000000000000'), '') as times, \
     string_agg(reason, '') filter (where octet_length(reason) <= 800) as reasons, count(ref) + count(counterparty) as refs, \
         count(expires_at) + count(lots) as lots, \
         count(*) filter (where reject_reason = 'balance_limit' and counterparty is null) as limits",
    part!()
);

/// The entries about points that expire or are held, with the hold that an entry has ended.
const LOTS: &str = concat!(
    "select ",
    user!(),
    " as user, action, request_id, point, change, reject_reason is not null as is_rejected, created_at, expires_at, \
         lots::text as lots, ended.* \
     from (select *",
    part!(),
    " and (expires_at is not null or lots is not null or action in ('capture', 'release'))) as log \
     left join lateral (select request_id as ended, point as ended_point, expires_at as ended_at, \
             lots::text as ended_lots \
         from log as o where log.action in ('capture', 'release') and log.reject_reason is null \
             and o.user_id = log.user_id and o.request_id = log.ref and o.action = 'hold' \
             and o.reject_reason is null and o.seq < log.seq order by o.seq desc limit 1) as ended on true"
);

/// The entries that were rejected because of the limit, though the balance alone would not have exceeded it. How much was
/// held is known where a user's entries are read in order.
const DOUBTFUL: &str = concat!(
    "select ",
    user!(),
    " as user",
    part!(),
    " and reject_reason = 'balance_limit' and counterparty is null and balance::numeric + point <= 9007199254740991"
);

/// The entries that are about another entry and contradict it.
const BROKEN_REFERENCES: &str = concat!(
    "select ",
    user!(),
    " as user",
    part!(),
    " and (ref is not null or counterparty is not null) and (",
    broken_reference!(),
    " is not null or ",
    is_unmatched!(),
    ")"
);

/// The entries whose reasons have a control character.
const CONTROL_CHARACTERS: &str = concat!(
    "select coalesce(",
    user!(),
    ", -9223372036854775808) as user",
    part!(),
    " and reason ~ '[\\x01-\\x1f\\x7f-\\x9f]'"
);

/// Reads the entries of the wanted users, and returns how many. Few entries of other users are sent.
pub(super) async fn read_log(
    client: &Client,
    chains: &mut Chains,
    passes: i64,
    progress: &mut impl FnMut(i64, i64),
) -> Result<i64, AuditError> {
    let blocks: i64 = client.query_one(LOG_BLOCKS, &[]).await?.try_get("blocks")?;
    let statement = client.prepare(LOG).await?;
    let (mut first, mut count) = (0, 0);
    // The last step has no end. Our snapshot does not show entries that are written meanwhile.
    while first <= blocks {
        let next = if first + STEP_BLOCKS > blocks { i64::from(u32::MAX) } else { first + STEP_BLOCKS };
        let (from, to) = chains.users().into_inner();
        let part: [&(dyn ToSql + Sync); 4] = [&first, &next, &from, &to];
        let row = client.query_one(&statement, &part).await?;
        let columns = (
            numbers(&row, "users")?,
            numbers(&row, "seqs")?,
            numbers(&row, "balances")?,
            numbers(&row, "changes")?,
        );
        let entries = columns.0.zip(columns.1).zip(columns.2.zip(columns.3)).zip(numbers(&row, "times")?);
        for (((user, seq), (after, change)), time) in entries {
            let sound =
                (0..=POINTS_MAX).contains(&after) && change != NULL && Moment(time).readable().is_some();
            count += 1;
            let step = sound.then(|| Step { before: after - change, after, time });
            chains.entry(user, seq, step);
        }
        let reasons: Option<&str> = row.try_get("reasons")?;
        if reasons.unwrap_or_default().chars().any(char::is_control) {
            for row in client.query(CONTROL_CHARACTERS, &part).await? {
                chains.entry(row.try_get("user")?, 0, None);
            }
        }
        let refs: i64 = row.try_get("refs")?;
        if refs > 0 {
            for row in client.query(BROKEN_REFERENCES, &part).await? {
                chains.entry(row.try_get("user")?, 0, None);
            }
        }
        if refs > 0 || row.try_get::<_, i64>("lots")? > 0 {
            read_lots(client, chains, &part).await?;
        }
        if row.try_get::<_, i64>("limits")? > 0 {
            for row in client.query(DOUBTFUL, &part).await? {
                row.try_get::<_, Option<i64>>("user")?.into_iter().for_each(|user| chains.doubt(user));
            }
        }
        progress(passes * blocks + next.min(blocks), (passes + 1) * blocks);
        first = next;
    }
    Ok(count)
}

/// Adds the points that expire or are held according to the entries of a part.
async fn read_lots(
    client: &Client,
    chains: &mut Chains,
    part: &[&(dyn ToSql + Sync)],
) -> Result<(), AuditError> {
    for row in client.query(LOTS, part).await? {
        let user = row.try_get::<_, Option<i64>>("user")?.unwrap_or(NULL);
        let action: Option<&str> = row.try_get("action")?;
        let entry = Expiring {
            action: action.and_then(|action| action.parse().ok()),
            request: row.try_get("request_id")?,
            point: row.try_get("point")?,
            change: row.try_get("change")?,
            is_rejected: row.try_get("is_rejected")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            lots: row.try_get("lots")?,
            ended: hold(
                row.try_get("ended")?,
                row.try_get("ended_point")?,
                row.try_get("ended_at")?,
                row.try_get("ended_lots")?,
            ),
        };
        if entry.wrong_point().is_some() || entry.wrong_time().is_some() || entry.wrong_lots().is_some() {
            chains.entry(user, 0, None);
        }
        chains.lots(user, entry.sum());
    }
    Ok(())
}

/// The numbers of a packed column, which is null if there are none.
fn numbers<'a>(row: &'a Row, column: &str) -> Result<impl Iterator<Item = i64> + use<'a>, AuditError> {
    let packed: Option<&[u8]> = row.try_get(column)?;
    let numbers = packed.unwrap_or_default().chunks_exact(NUMBER_BYTES);
    Ok(numbers.map(|bytes| i64::from_be_bytes(bytes.try_into().expect("eight bytes"))))
}

/// The number of entries in the log.
pub(super) async fn count_log(client: &Client) -> Result<i64, AuditError> {
    Ok(client.query_one("select count(*) as entries from log", &[]).await?.try_get("entries")?)
}

/// Reads the balances of a range of users in parts.
pub(super) struct Balances<'a> {
    client: &'a Client,
    fetch: String,
}

impl<'a> Balances<'a> {
    pub(super) async fn open(client: &'a Client, users: RangeInclusive<i64>) -> Result<Self, AuditError> {
        let (from, to) = users.into_inner();
        let user = user!();
        let cursor = format!(
            "declare balances no scroll cursor for \
                 select {user} as user, user_id, seq, point, format, updated_at, due_at, lots::text as lots, holds \
                 from user_point \
                 where ({user} between {from} and {to}) is not false"
        );
        client.batch_execute(&cursor).await?;
        Ok(Self { client, fetch: format!("fetch {FETCH_ROWS} from balances") })
    }

    /// The next balances, or none after the last.
    pub(super) async fn next(&mut self) -> Result<Vec<BalanceRow>, AuditError> {
        let rows = self.client.query(&self.fetch, &[]).await?;
        rows.iter()
            .map(|row| {
                let updated_at: Option<Moment> = row.try_get("updated_at")?;
                let hash: Option<i64> = row.try_get("user")?;
                let (format, due_at) = (row.try_get("format")?, row.try_get("due_at")?);
                Ok(BalanceRow {
                    user: hash.unwrap_or(NULL),
                    user_id: row.try_get("user_id")?,
                    seq: row.try_get("seq")?,
                    point: row.try_get("point")?,
                    format,
                    lots: LotSum::of_row(format, due_at, row.try_get("lots")?, row.try_get("holds")?),
                    updated_at: updated_at.map(|Moment(time)| time),
                })
            })
            .collect()
    }

    pub(super) async fn close(self) -> Result<(), AuditError> {
        Ok(self.client.batch_execute("close balances").await?)
    }
}

/// The users of these numbers: usually one user each.
const USERS: &str = concat!(
    "select distinct user_id from (select user_id from log union all select user_id from user_point) as everybody \
     where user_id is not null and ",
    user!(),
    " = any($1)"
);

/// The ids of the users that these numbers stand for. Reads both tables.
pub(super) async fn users(client: &Client, users: &[i64]) -> Result<Vec<String>, AuditError> {
    let rows = client.query(USERS, &[&users]).await?;
    rows.iter().map(|row| Ok(row.try_get("user_id")?)).collect()
}
