//! Every SQL statement on the table of keys, private to this room. Must not contain decisions.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{time::timeout, try_join};
use tokio_postgres::{Row, error::SqlState};

use super::{
    AccessError,
    key::{KeyHash, KeyName, Scope},
};
use crate::{
    domain::Actor,
    infra::postgres::{self, Client, ConnectError, Pool, PoolError},
};

/// The longest that one visit to the table may take. A connection that takes longer is closed.
const VISIT_TIMEOUT_MS: u64 = 2_000;

/// Maximum number of active keys. Every node holds all of them, and reads them every second.
const KEYS_MAX: i64 = 10_000;

impl From<tokio_postgres::Error> for AccessError {
    fn from(error: tokio_postgres::Error) -> Self {
        // Only the message: the DETAIL may quote a row.
        match error.as_db_error() {
            Some(refusal) if *refusal.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
                Self::NotPermitted(refusal.message().to_owned())
            }
            Some(refusal) => Self::Unavailable(format!("{} ({})", refusal.message(), refusal.code().code())),
            None => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ConnectError> for AccessError {
    fn from(error: ConnectError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<PoolError> for AccessError {
    fn from(error: PoolError) -> Self {
        ConnectError::from(error).into()
    }
}

/// A key in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its place among the keys of its name: 1 for the first.
    pub generation: i32,
    /// What it may do.
    pub scope: Scope,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last used, to within a few seconds.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked, or `None` if it is active.
    pub revoked_at: Option<Timestamp>,
}

/// An active key, as a node needs it.
pub(super) struct ActiveRow {
    pub(super) id: i64,
    pub(super) actor: Actor,
    pub(super) scope: Scope,
    pub(super) hash: KeyHash,
}

/// What a node needs to know about the keys.
pub(super) struct Snapshot {
    pub(super) active: Vec<ActiveRow>,
    /// The active keys that this version can't read, and why.
    pub(super) unreadable: Vec<String>,
    /// Whether there is any key, active or revoked.
    pub(super) any: bool,
}

const INSERT: &str = "insert into api_key (name, generation, scope, key_hash) select $1, $2, $3, $4 \
     where (select count(*) from api_key where revoked_at is null) < $5 returning id";

/// Inserts a key and returns its number, or `None` if there is, or was, a key of this name and generation.
pub(super) async fn insert(
    pool: &Pool,
    name: &KeyName,
    generation: i32,
    scope: Scope,
    hash: &KeyHash,
) -> Result<Option<i64>, AccessError> {
    let (name, scope) = (name.as_str(), scope.as_str());
    write(pool, async |client| {
        match client.query_opt(INSERT, &[&name, &generation, &scope, &hash.as_bytes(), &KEYS_MAX]).await {
            Ok(Some(created)) => Ok(Some(created.try_get("id")?)),
            Ok(None) => Err(AccessError::TooMany { limit: KEYS_MAX }),
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

const LIST: &str = "select id, name, generation, scope, created_at, last_used_at, revoked_at from api_key \
     order by id";

pub(super) async fn list(pool: &Pool) -> Result<Vec<KeyRecord>, AccessError> {
    read(pool, async |client| client.query(LIST, &[]).await?.iter().map(record).collect()).await
}

const KEYS_OF: &str = "select id, name, generation, scope, created_at, last_used_at, revoked_at from api_key \
     where name = $1 order by generation";

/// Reads the keys that a name ever had, in the order of their generations.
pub(super) async fn keys_of(pool: &Pool, name: &str) -> Result<Vec<KeyRecord>, AccessError> {
    read(pool, async |client| client.query(KEYS_OF, &[&name]).await?.iter().map(record).collect()).await
}

/// A key that was revoked before keeps its time. Returns the row as it was before.
const REVOKE: &str = "with found as ( \
         select id, name, generation, scope, created_at, last_used_at, revoked_at from api_key \
         where id = $1 for update), \
     revoked as ( \
         update api_key set revoked_at = now() from found \
         where api_key.id = found.id and api_key.revoked_at is null) \
     select * from found";

pub(super) async fn revoke(pool: &Pool, id: i64) -> Result<Option<KeyRecord>, AccessError> {
    write(pool, async |client| client.query_opt(REVOKE, &[&id]).await?.as_ref().map(record).transpose()).await
}

const ACTIVE: &str = "select id, name, scope, key_hash from api_key where revoked_at is null";

const ANY: &str = "select exists (select from api_key) as has_any";

/// Reads what a node needs to know about the keys. A key that can't be read hides no other.
pub(super) async fn snapshot(pool: &Pool) -> Result<Snapshot, AccessError> {
    read(pool, async |client| {
        let (active, any) = try_join!(client.prepare_cached(ACTIVE), client.prepare_cached(ANY))?;
        let (active, any) = try_join!(client.query(&active, &[]), client.query_one(&any, &[]))?;
        let mut unreadable = Vec::new();
        let active = active.iter().filter_map(|row| {
            let tell = |why: &_| unreadable.push(format!("key {}: {why}", row.get::<_, i64>("id")));
            active_row(row).inspect_err(tell).ok()
        });
        Ok(Snapshot { active: active.collect(), unreadable, any: any.try_get("has_any")? })
    })
    .await
}

/// Several nodes may see that a key was used. One of them writes it every ten seconds. None waits for a row that
/// somebody else has locked.
const USED: &str = "update api_key set last_used_at = now() where id in ( \
         select id from api_key \
         where id = any($1) and (last_used_at is null or last_used_at < now() - interval '10 seconds') \
         for update skip locked)";

/// Writes that these keys were used just now.
pub(super) async fn used(pool: &Pool, ids: &[i64]) -> Result<(), AccessError> {
    write(pool, async |client| {
        let statement = client.prepare_cached(USED).await?;
        client.execute(&statement, &[&ids]).await?;
        Ok(())
    })
    .await
}

/// Reads on a connection of the pool.
async fn read<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&Client) -> Result<T, AccessError>,
) -> Result<T, AccessError> {
    run_on(pool.get().await?, pool, work).await
}

/// Writes on a connection of the pool.
async fn write<T>(
    pool: &Pool,
    work: impl AsyncFnOnce(&Client) -> Result<T, AccessError>,
) -> Result<T, AccessError> {
    run_on(postgres::fit_to_commit(pool.get().await?).await?, pool, work).await
}

/// Runs `work` on a connection. After a failure, closes the connection. If the server had closed it, closes the idle
/// ones too: they are likely to be dead as well.
async fn run_on<T>(
    client: Client,
    pool: &Pool,
    work: impl AsyncFnOnce(&Client) -> Result<T, AccessError>,
) -> Result<T, AccessError> {
    let late = || AccessError::Unavailable(format!("no answer within {VISIT_TIMEOUT_MS} ms"));
    let done = timeout(Duration::from_millis(VISIT_TIMEOUT_MS), work(&client)).await;
    let result = done.unwrap_or_else(|_| Err(late()));
    if let Err(AccessError::Unavailable(_)) = result {
        let was_closed = client.is_closed();
        drop(Client::take(client));
        if was_closed {
            pool.retain(|_, _| false);
        }
    }
    result
}

fn record(row: &Row) -> Result<KeyRecord, AccessError> {
    Ok(KeyRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        generation: row.try_get("generation")?,
        scope: scope(row.try_get("scope")?)?,
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

fn active_row(row: &Row) -> Result<ActiveRow, AccessError> {
    let name: KeyName = row.try_get::<_, &str>("name")?.parse().map_err(|_| corrupt("name"))?;
    let hash = KeyHash::from_stored(row.try_get("key_hash")?).ok_or_else(|| corrupt("key_hash"))?;
    Ok(ActiveRow { id: row.try_get("id")?, actor: name.into(), scope: scope(row.try_get("scope")?)?, hash })
}

fn scope(text: &str) -> Result<Scope, AccessError> {
    text.parse().map_err(|_| corrupt("scope"))
}

/// The error of a row that our constraints do not allow: somebody changed the table by hand.
fn corrupt(column: &str) -> AccessError {
    AccessError::Unavailable(format!("a row of api_key breaks the rules of its table: {column}"))
}
