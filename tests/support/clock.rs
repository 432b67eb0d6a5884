//! A clock of the database that jumps. Must not contain a fault or a test.

use crate::support::system::System;

/// Functions that stand before those of PostgreSQL in the `search_path` of every later session.
const FUNCTIONS: &str = "create table clock (shift interval not null); \
     insert into clock values ('0'); \
     create function clock_timestamp() returns timestamptz language sql volatile \
         as 'select pg_catalog.clock_timestamp() + shift from public.clock'; \
     create function now() returns timestamptz language sql stable \
         as 'select pg_catalog.now() + shift from public.clock'";

/// Lets the sessions that begin from now on ask a clock that [`shift`] moves.
pub async fn install(system: &System) {
    system.execute(FUNCTIONS).await;
    let database = &system.database.name;
    system.execute(&format!("alter database {database} set search_path = public, pg_catalog")).await;
}

/// Sets the clock to as many seconds after the true time, or before it if negative.
pub async fn shift(system: &System, seconds: i64) {
    system.execute(&format!("update clock set shift = '{seconds} s'")).await;
}
