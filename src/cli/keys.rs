//! The command `key`: creates, rotates, lists and revokes API keys. Must not contain the rules of a key.

use std::io::{self, Write};

use anyhow::{Context, bail};
use clap::Subcommand;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::Serialize;

use super::{DatabaseArgs, start};
use crate::{
    access::{self, ApiKey, KeyName, KeyRecord, Rotation, Scope, WhichKey},
    domain::name_rule,
    infra::postgres::{self, DatabaseUrl, Pool},
};

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeyRole {
    /// Create a key with a new name and print it, alone, on standard output. It is shown only once; only its hash is
    /// stored.
    Create {
        /// The database.
        #[command(flatten)]
        database: DatabaseArgs,
        /// The name of the key.
        #[arg(long, help = concat!("Name of the key, never used before: ", name_rule!()))]
        name: KeyName,
        /// What the key may do. Each scope includes those before it.
        #[arg(long, value_enum)]
        scope: Scope,
    },
    /// Create another key with the same name and scope, and print it as "create" does. The old key stays active until
    /// you revoke it. A name has at most two active keys.
    Rotate {
        /// The database.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Name of the key.
        name: KeyName,
    },
    /// List all keys, including revoked ones.
    List {
        /// The database.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key permanently. Every node refuses it within five seconds. Exits with 1 if it is not found.
    Revoke {
        /// The database.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Its number, or its name if no other active key has that name.
        key: WhichKey,
    },
}

/// A line of `list --json`.
#[derive(Serialize)]
struct KeyResponse<'a> {
    id: i64,
    name: &'a str,
    scope: &'a str,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

/// Runs `role`.
///
/// # Errors
/// The database can't be used or lacks migrations, or the command failed.
pub(super) async fn run(role: KeyRole) -> anyhow::Result<()> {
    match role {
        KeyRole::Create { database, name, scope } => {
            create(&open(&database, postgres::pool).await?, &name, scope).await
        }
        KeyRole::Rotate { database, name } => rotate(&open(&database, postgres::pool).await?, &name).await,
        KeyRole::List { database, json } => list(&open(&database, postgres::reading_pool).await?, json).await,
        KeyRole::Revoke { database, key } => revoke(&open(&database, postgres::pool).await?, &key).await,
    }
}

async fn open(
    database: &DatabaseArgs,
    pool: impl FnOnce(&DatabaseUrl, usize) -> anyhow::Result<Pool>,
) -> anyhow::Result<Pool> {
    let pool = pool(&database.url, 1)?;
    let ready = start::has_schema(&database.url, &pool).await;
    ready.with_context(|| format!("PostgreSQL at {}", database.url))?;
    Ok(pool)
}

async fn create(pool: &Pool, name: &KeyName, scope: Scope) -> anyhow::Result<()> {
    let (id, key) = access::create(pool, name, scope).await?;
    show(&key, id, name, scope)
}

async fn rotate(pool: &Pool, name: &KeyName) -> anyhow::Result<()> {
    let (Rotation { id, scope, other }, key) = access::rotate(pool, name).await?;
    show(&key, id, name, scope)?;
    if let Some(old) = other {
        eprintln!(
            "key {old} stays active until you revoke it with `point-system key revoke {old}`; `point-system key list` \
             shows when it was last used"
        );
    }
    Ok(())
}

/// Prints a new key.
fn show(key: &ApiKey, id: i64, name: &KeyName, scope: Scope) -> anyhow::Result<()> {
    let (name, scope) = (name.as_str(), scope.as_str());
    writeln!(io::stdout(), "{}", key.reveal())
        .with_context(|| format!("key {id} ({name}) was created but could not be shown: revoke it"))?;
    eprintln!("created key {id} ({name}, {scope}); it is shown only once; every node accepts it within 5 s");
    Ok(())
}

async fn list(pool: &Pool, json: bool) -> anyhow::Result<()> {
    let keys = access::list(pool).await?;
    let mut out = io::stdout();
    if json {
        for key in &keys {
            writeln!(out, "{}", json_line(key)?)?;
        }
        return Ok(());
    }
    if keys.is_empty() {
        writeln!(out, "no keys")?;
        return Ok(());
    }
    let head = ["ID", "NAME", "SCOPE", "CREATED", "LAST USED", "REVOKED"].map(str::to_owned);
    let rows: Vec<[String; 6]> = [head].into_iter().chain(keys.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

async fn revoke(pool: &Pool, which: &WhichKey) -> anyhow::Result<()> {
    let Some(KeyRecord { id, name, revoked_at, .. }) = access::revoke(pool, which).await? else {
        bail!("not found: {}", label(which));
    };
    match revoked_at {
        None => writeln!(io::stdout(), "revoked key {id} ({name}); every node refuses it within 5 s")?,
        Some(at) => writeln!(io::stdout(), "key {id} ({name}) was already revoked at {}", in_seconds(at))?,
    }
    Ok(())
}

fn cells(key: &KeyRecord) -> [String; 6] {
    let KeyRecord { id, name, generation: _, scope, created_at, last_used_at, revoked_at } = key;
    let time = |at: &Option<Timestamp>| at.map_or_else(|| "-".to_owned(), in_seconds);
    [
        id.to_string(),
        name.clone(),
        scope.as_str().to_owned(),
        in_seconds(*created_at),
        time(last_used_at),
        time(revoked_at),
    ]
}

fn json_line(key: &KeyRecord) -> serde_json::Result<String> {
    serde_json::to_string(&KeyResponse {
        id: key.id,
        name: &key.name,
        scope: key.scope.as_str(),
        created_at: key.created_at,
        last_used_at: key.last_used_at,
        revoked_at: key.revoked_at,
    })
}

fn in_seconds(at: Timestamp) -> String {
    let down = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
    at.round(down).map_or_else(|_| at.to_string(), |at| at.to_string())
}

fn label(which: &WhichKey) -> String {
    match which {
        WhichKey::Id(id) => format!("key {id}"),
        WhichKey::Name(name) => format!("an active key named {}", name.escape_debug()),
    }
}
