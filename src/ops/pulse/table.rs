//! The table of the pulse: the times up to which the changes of each partition were accepted and taken. Must not
//! contain conclusions from them.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio::try_join;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use crate::{
    domain::Partitions,
    infra::postgres::{Client, ConnectError, Pool, PoolError},
    ops::setback::{Memory, Times},
    queue::Accepted,
};

/// What a node tells of each partition that has news.
pub(super) enum News {
    /// The latest delta that it has accepted.
    Accepted(Vec<(i16, Accepted)>),
    /// The time up to which it has taken the deltas. An unknown time changes nothing.
    Taken(Vec<(i16, Option<Timestamp>)>),
}

/// Returns the time up to which the changes of a partition were accepted, unless workers have taken all of them.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn waiting_until(pool: &Pool, partition: u16) -> Result<Option<Timestamp>, PoolError> {
    let row = pool.get().await?.query_opt(WAITING, &[&partition.cast_signed()]).await;
    let until = |row: Row| row.try_get("accepted_until");
    Ok(row.and_then(|row| row.map(until).transpose()).map_err(ConnectError::from)?)
}

/// Reports, in place of the workers, the time up to which the changes of a partition have been taken.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn tell_taken(pool: &Pool, partition: u16, until: Timestamp) -> Result<(), PoolError> {
    let (partitions, untils) = ([partition.cast_signed()], [until]);
    let told = pool.get().await?.execute(TAKEN, &[&&partitions[..], &&untils[..]]).await;
    Ok(told.map(drop).map_err(ConnectError::from)?)
}

/// Silence begins with the first change that is accepted while no other change waits.
const ACCEPTED: &str = "insert into partition_pulse as known \
         (partition, accepted_until, accepted_user, accepted_request, moved_at) \
     select partition, accepted_until, user_id, request_id, clock_timestamp() \
     from unnest($1::smallint[], $2::timestamptz[], $3::text[], $4::uuid[]) \
         as news (partition, accepted_until, user_id, request_id) \
     on conflict (partition) do update set \
         (accepted_until, accepted_user, accepted_request) = (select \
             excluded.accepted_until, excluded.accepted_user, excluded.accepted_request), \
         moved_at = case when known.accepted_until <= known.taken_until then excluded.moved_at \
             else known.moved_at end \
     where known.accepted_until < excluded.accepted_until";

const TAKEN: &str = "insert into partition_pulse as known (partition, taken_until, moved_at) \
     select partition, coalesce(taken_until, '-infinity'), clock_timestamp() \
     from unnest($1::smallint[], $2::timestamptz[]) as news (partition, taken_until) \
     on conflict (partition) do update set \
         taken_until = greatest(known.taken_until, excluded.taken_until), moved_at = excluded.moved_at";

const WAITING: &str = "select accepted_until from partition_silence where partition = $1 and waits";

const UNTAKEN: &str = "select partition, moved_at from partition_silence where waits";

/// Returns the partitions where changes wait, and when a worker last took one.
pub(in crate::ops) async fn untaken(client: &Client) -> Result<Vec<(u16, Timestamp)>, Error> {
    let statement = client.prepare_cached(UNTAKEN).await?;
    let rows = client.query(&statement, &[]).await?;
    let read = |row: &Row| Ok((row.try_get::<_, i16>("partition")?.unsigned_abs(), row.try_get("moved_at")?));
    rows.iter().map(read).collect()
}

const SILENCE: &str = "select partition, case when waits \
         then extract(epoch from clock_timestamp() - moved_at)::float8 else 0 end as seconds, \
         case when accepted_until > taken_until and not waits then accepted_until end as decided_until, \
         extract(epoch from accepted_until)::float8 as accepted, extract(epoch from taken_until)::float8 as taken \
     from partition_silence where partition >= 0 and partition < $1";

/// Writes the news. Returns for how many seconds no worker has taken a change from each partition; 0 if no change
/// waits.
pub(super) async fn told_and_seen(
    client: &Client,
    news: &News,
    partitions: Partitions,
    (memory, decided): (&mut Memory, &mut HashMap<u16, Timestamp>),
) -> Result<Vec<(u16, f64)>, Error> {
    let tell = match news {
        News::Accepted(_) => ACCEPTED,
        News::Taken(_) => TAKEN,
    };
    let (tell, silence) = try_join!(client.prepare_cached(tell), client.prepare_cached(SILENCE))?;
    let count = partitions.count().cast_signed();
    // Before the news, which would hide that the database has gone back.
    memory.compare(&times(&client.query(&silence, &[&count]).await?)?);
    match news {
        News::Accepted(news) if !news.is_empty() => {
            let partitions: Vec<i16> = news.iter().map(|(partition, _)| *partition).collect();
            let times: Vec<Timestamp> = news.iter().map(|(_, latest)| latest.at).collect();
            let users: Vec<&str> = news.iter().map(|(_, latest)| latest.user_id.as_str()).collect();
            let requests: Vec<Uuid> = news.iter().map(|(_, latest)| latest.request_id.get()).collect();
            client.execute(&tell, &[&partitions, &times, &users, &requests]).await?;
        }
        News::Taken(news) if !news.is_empty() => {
            let (partitions, untils): (Vec<i16>, Vec<Option<Timestamp>>) = news.iter().copied().unzip();
            client.execute(&tell, &[&partitions, &untils]).await?;
        }
        News::Accepted(_) | News::Taken(_) => {}
    }
    let rows = client.query(&silence, &[&count]).await?;
    memory.compare(&times(&rows)?);
    take_decided(client, &rows, decided).await?;
    rows.iter().map(|row| Ok((partition(row)?, row.try_get("seconds")?))).collect()
}

/// If the latest change of a partition is decided, and still the latest at the next beat, its worker has ended before it
/// could tell that it took it. Then this node tells that in its place.
async fn take_decided(
    client: &Client,
    rows: &[Row],
    decided: &mut HashMap<u16, Timestamp>,
) -> Result<(), Error> {
    let mut now = HashMap::new();
    for row in rows {
        if let Some(until) = row.try_get::<_, Option<Timestamp>>("decided_until")? {
            now.insert(partition(row)?, until);
        }
    }
    let lasting = now.iter().filter(|(partition, until)| decided.get(partition) == Some(until));
    let (partitions, untils): (Vec<i16>, Vec<Timestamp>) =
        lasting.map(|(partition, until)| (partition.cast_signed(), *until)).unzip();
    if !partitions.is_empty() {
        let statement = client.prepare_cached(TAKEN).await?;
        client.execute(&statement, &[&partitions, &untils]).await?;
    }
    *decided = now;
    Ok(())
}

fn partition(row: &Row) -> Result<u16, Error> {
    row.try_get("partition").map(i16::unsigned_abs)
}

fn times(rows: &[Row]) -> Result<Vec<(u16, Times)>, Error> {
    let times = |row: &Row| Ok((partition(row)?, [row.try_get("accepted")?, row.try_get("taken")?]));
    rows.iter().map(times).collect()
}
