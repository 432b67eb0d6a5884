//! The SQL statements of the ledger, and what a failed statement means. Must not contain a rule of the ledger: `decide`
//! decides, and the store writes the entries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::timeout;
use tokio_postgres::{Row, error::SqlState, types::FromSql};
use uuid::Uuid;

use super::{
    Obstacle,
    account::Account,
    actor::Actor,
    change::Action,
    delta::{POINTS_MAX, Reason},
    entry::{Entry, Rejection},
    holds::Holds,
    lots::Lots,
    metadata::Metadata,
    request_id::RequestId,
    trace::TraceId,
    user_id::UserId,
};
use crate::infra::postgres::{self, Client, ConnectError, Pool, PoolError, STATEMENT_TIMEOUT_MS};

mod apply;
mod lock;
mod rows;
mod read;
mod course;
mod preview;
mod due;
mod export;

pub(super) use apply::{Applied, Decision};
pub(super) use due::{Due, Found, Place};
pub use export::{Export, ExportError, export};

/// The longest that PostgreSQL may take to show that it can apply changes.
const ANSWER_TIMEOUT_MS: u64 = 2_000;

/// What a failed statement means for its deltas.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database is unavailable: try again later, with the same deltas.
    #[error("PostgreSQL is unavailable: {0}")]
    Unavailable(String),
    /// The database is available, but the statement took too long: try again with fewer deltas.
    #[error("PostgreSQL takes too long: {why}")]
    TooSlow {
        /// The obstacle of the user, if there was only one delta.
        obstacle: Obstacle,
        /// The message of PostgreSQL, or of our own limit.
        why: String,
    },
    /// A row breaks our constraints, or contradicts another.
    #[error("{0}")]
    Unreadable(String),
    /// The server fails to read or write some rows, with this SQLSTATE. Its message is in its own log.
    #[error("PostgreSQL fails (SQLSTATE {0})")]
    Failing(String),
    /// Two transactions are in conflict: try again at once.
    #[error("PostgreSQL asks for a retry: {0}")]
    Conflict(String),
    /// The database refuses this batch for good.
    #[error("PostgreSQL refuses: {0}")]
    Refused(String),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The message alone: a DETAIL may quote a customer's row.
        let Some(refusal) = error.as_db_error() else { return Self::Unavailable(error.to_string()) };
        let text = format!("{} ({})", refusal.message(), refusal.code().code());
        match refusal.code() {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(text),
            &SqlState::QUERY_CANCELED => Self::TooSlow { obstacle: Obstacle::Slow, why: text },
            &SqlState::LOCK_NOT_AVAILABLE => Self::TooSlow { obstacle: Obstacle::Locked, why: text },
            // With the user's row locked, the next `seq` and the new request ids are free, unless somebody has changed
            // the tables by hand. The change is good, so it is not refused.
            &SqlState::UNIQUE_VIOLATION => {
                Self::Unreadable(format!("the user's balance and log contradict each other: {text}"))
            }
            state => match &state.code()[..2] {
                // Data exceptions, broken constraints and errors raised by a trigger.
                "22" | "23" | "P0" => Self::Refused(text),
                // A damaged page or a missing file, or a trigger that fails. Other users may have neither.
                "XX" | "58" | "2F" | "38" | "39" => Self::Failing(state.code().to_owned()),
                // All else is the state of the server.
                _ => Self::Unavailable(text),
            },
        }
    }
}

impl StoreError {
    /// Whether a single delta may be the cause. Then the others can be applied without it.
    pub(super) fn may_be_of_one_delta(&self) -> bool {
        match self {
            Self::TooSlow { .. } | Self::Unreadable(_) | Self::Failing(_) | Self::Refused(_) => true,
            Self::Unavailable(_) | Self::Conflict(_) => false,
        }
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        ConnectError::from(error).into()
    }
}

/// The tables of one database.
#[derive(Clone)]
pub(super) struct Store {
    pool: Pool,
    /// How many transactions have had no answer, and how many of these were followed by a check. A store begins in
    /// doubt: an earlier process may have left commits that wait.
    unanswered: Arc<AtomicU64>,
    checked: Arc<AtomicU64>,
}

impl Store {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, unanswered: Arc::new(AtomicU64::new(1)), checked: Arc::default() }
    }

    /// Returns whether changes can be applied. Locks on single users do not count; a lock on the whole table does.
    pub(super) async fn can_apply(&self) -> bool {
        let locking = self.with_client(ANSWER_TIMEOUT_MS, async |client| {
            client.batch_execute(LOCK_NOBODY).await.map_err(StoreError::from)
        });
        locking.await.is_ok() && self.can_commit().await.is_ok()
    }

    /// After a transaction that had no answer, checks that commits end before another begins. It costs a round trip.
    async fn can_commit(&self) -> Result<(), StoreError> {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered > self.checked.load(Ordering::Relaxed) {
            drop(postgres::fit_to_commit(self.pool.get().await?).await?);
            self.checked.fetch_max(unanswered, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lends a connection for at most `limit_ms`. After a failure the connection is closed, which ends its transaction.
    /// If the server is unavailable, the idle connections are closed too: they are likely to be dead as well. A host that
    /// stays silent for longer than the limit of a statement is given up: it may be an old primary, whose commits never
    /// end.
    async fn with_client<T>(
        &self,
        limit_ms: u64,
        work: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = match self.pool.get().await {
            Ok(client) => {
                let late = || StoreError::Unavailable(format!("no answer within {limit_ms} ms"));
                let done = timeout(Duration::from_millis(limit_ms), work(&client)).await;
                let result = done.unwrap_or_else(|_| {
                    if limit_ms > STATEMENT_TIMEOUT_MS {
                        client.give_up();
                    }
                    Err(late())
                });
                if result.is_err() {
                    drop(Client::take(client));
                }
                result
            }
            Err(error) => Err(error.into()),
        };
        if matches!(result, Err(StoreError::Unavailable(_))) {
            self.pool.retain(|_, _| false);
        }
        result
    }
}

/// The columns of a log entry, as [`entry`] reads them and [`rows`] writes them.
macro_rules! entry_columns {
    () => {
        "user_id, seq, request_id, action, point, change, balance, actor, ref, fingerprint, reject_reason, reason, \
         metadata, requested_at, created_at, partial, expires_at, lots, counterparty, trace_id"
    };
}
use entry_columns;

/// Selects the entries of requests.
macro_rules! logged {
    () => {
        concat!(
            "select ",
            entry_columns!(),
            " from (select unnest($1::text[]) as user_id, unnest($2::uuid[]) as request_id) as asked \
             join log using (user_id, request_id)"
        )
    };
}
use logged;

const LOGGED: &str = logged!();

/// Skips locked rows; waits only if the whole table is locked.
const LOCK_NOBODY: &str = "select from user_point where user_id = '' for update skip locked";

/// The highest `format` of a row of `user_point` that this version understands. A row has format 1 if it has lots,
/// and format 2 if it has holds.
const FORMAT_MAX: i16 = 2;

fn user_id(row: &Row) -> Result<UserId, StoreError> {
    UserId::new("user_id", get(row, "user_id")?).map_err(corrupt)
}

/// Reads a row of `user_point`. Most have neither lots nor holds.
fn account(row: &Row) -> Result<Account, StoreError> {
    let (point, seq, updated_at) = (get(row, "point")?, get(row, "seq")?, get(row, "updated_at")?);
    if !(0..=POINTS_MAX).contains(&point) || seq < 0 {
        return Err(corrupt("point or seq is out of range"));
    }
    let (lots, holds) = (lots_within(row, point)?, holds(row)?);
    if point + holds.point() > POINTS_MAX {
        return Err(corrupt("the balance and the holds have too many points"));
    }
    Ok(Account { point, seq, updated_at, lots, holds })
}

/// Reads open holds.
fn holds(row: &Row) -> Result<Holds, StoreError> {
    let Some(text) = get::<Option<&str>>(row, "holds")? else { return Ok(Holds::default()) };
    Holds::from_text(text).ok_or_else(|| corrupt("holds can't be read"))
}

/// Reads lots that together have at most `point_max` points: those of the balance, or those that an entry is about.
fn lots_within(row: &Row, point_max: i64) -> Result<Lots, StoreError> {
    let Some(numbers) = get::<Option<Vec<i64>>>(row, "lots")? else { return Ok(Lots::default()) };
    let lots = Lots::from_numbers(&numbers).ok_or_else(|| corrupt("lots are out of order or empty"))?;
    if lots.due(Timestamp::MAX) > point_max {
        return Err(corrupt(format_args!("lots have more than {point_max} points")));
    }
    Ok(lots)
}

/// The name of an action or a reason may be one that only a newer version knows.
fn entry(row: &Row) -> Result<Entry, StoreError> {
    let (action, point, change): (String, i64, i64) =
        (get(row, "action")?, get(row, "point")?, get(row, "change")?);
    // A capture's lots are those of the captured points; its change is what returns.
    let is_capture = action.parse() == Ok(Action::Capture);
    let moved = if is_capture { point } else { change.saturating_abs() };
    let entry = Entry {
        request_id: RequestId::from(get::<Uuid>(row, "request_id")?),
        user_id: user_id(row)?,
        seq: get(row, "seq")?,
        action: action.into(),
        point,
        partial: get::<Option<bool>>(row, "partial")?.unwrap_or_default(),
        change,
        balance: get(row, "balance")?,
        actor: get::<Option<&str>>(row, "actor")?.map(Actor::new).transpose().map_err(corrupt)?,
        reference: get::<Option<Uuid>>(row, "ref")?.map(RequestId::from),
        fingerprint: get::<i64>(row, "fingerprint")?.into(),
        rejection: get::<Option<&str>>(row, "reject_reason")?.map(Rejection::named),
        reason: get::<Option<String>>(row, "reason")?.map(Reason::new).transpose().map_err(corrupt)?,
        metadata: get::<Option<String>>(row, "metadata")?.map(Metadata::new).transpose().map_err(corrupt)?,
        requested_at: get(row, "requested_at")?,
        created_at: get(row, "created_at")?,
        expires_at: get(row, "expires_at")?,
        lots: lots_within(row, moved)?,
        counterparty: get::<Option<&str>>(row, "counterparty")?
            .map(|id| UserId::new("counterparty", id))
            .transpose()
            .map_err(corrupt)?,
        trace_id: get::<Option<Uuid>>(row, "trace_id")?.map(TraceId::from),
    };
    Ok(entry)
}

/// Reads the value of a column. A value that can't be read, such as an infinite time, is damage as well.
fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(corrupt)
}

/// The error for a row that breaks our constraints: somebody has changed the tables by hand.
fn corrupt(why: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable(format!("a row breaks the rules of its table: {why}"))
}
