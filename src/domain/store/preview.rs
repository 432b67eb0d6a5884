//! The statements that read the input of a decision, without locks. Must not contain writes or a rule of the ledger.

use std::{slice, sync::Arc};

use futures_util::future::try_join_all;
use tokio::try_join;

use super::{
    LOGGED, Store, StoreError, account, entry, get,
    lock::{NOW, REFERRED},
    read::READ_TIMEOUT_MS,
    user_id,
};
use crate::{
    domain::{
        Entry, Preview,
        decide::{Accounts, Decided, counterparty, decide},
        delta::Delta,
        known::Known,
        request_id::RequestId,
        user_id::UserId,
    },
    infra::postgres::Client,
};

impl Store {
    /// Previews each requested change. Pipelined on one connection.
    pub(in crate::domain) async fn previews(&self, deltas: &[Delta]) -> Result<Vec<Preview>, StoreError> {
        self.with_client(READ_TIMEOUT_MS, async |client| {
            try_join_all(deltas.iter().map(|delta| preview(client, delta))).await
        })
        .await
    }
}

const ACCOUNTS: &str =
    "select user_id, point, seq, updated_at, lots, holds from user_point where user_id = any($1)";

async fn preview(client: &Client, delta: &Delta) -> Result<Preview, StoreError> {
    let user = delta.user_id.as_str();
    let (about, own) = (delta.change.about().map(RequestId::get), delta.request_id.get());
    let (logged, referred, accounts, now) = try_join!(
        client.prepare_cached(LOGGED),
        client.prepare_cached(REFERRED),
        client.prepare_cached(ACCOUNTS),
        client.prepare_cached(NOW),
    )?;
    let users = [user];
    let (own, abouts): (_, Vec<_>) = ([own], about.into_iter().collect());
    let about_users: Vec<&str> = abouts.iter().map(|_| user).collect();
    let (rows, referred) =
        try_join!(async { client.query(&logged, &[&users.as_slice(), &own.as_slice()]).await }, async {
            client.query(&referred, &[&about_users, &abouts]).await
        },)?;
    let mut known = Known::default();
    for row in rows.iter().chain(&referred) {
        known.learn(Arc::new(entry(row)?));
    }
    let other = counterparty(&known, delta);
    let users: Vec<&str> = [Some(user), other.as_ref().map(UserId::as_str)].into_iter().flatten().collect();
    let (rows, now) =
        try_join!(async { client.query(&accounts, &[&users]).await }, client.query_one(&now, &[]))?;
    let accounts = rows.iter().map(|row| Ok((user_id(row)?, account(row)?)));
    let mut accounts: Accounts = accounts.collect::<Result<_, StoreError>>()?;
    let Decided { outcomes, further } =
        decide(&mut accounts, &mut known, slice::from_ref(delta), get(&now, "now")?);
    let outcome = outcomes.into_iter().next().flatten().expect("a request has an outcome");
    let is_others =
        |entry: &Arc<Entry>| entry.request_id == delta.request_id && entry.user_id != delta.user_id;
    Ok(Preview { outcome, other: further.into_iter().find(is_others) })
}
