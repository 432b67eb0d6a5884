//! The command `dead-letters set-aside`: says which message it has moved, and notes that no worker will take it. Must not
//! contain how a message is moved.

use anyhow::Error;

use super::letter::{contents, printable};
use crate::{
    infra::postgres::{self, DatabaseUrl},
    ops::pulse,
    queue::{self, LinkWatch},
};

pub(super) async fn run(link: &LinkWatch, url: &DatabaseUrl, partition: u16) -> anyhow::Result<()> {
    let moved = queue::set_aside(link, partition).await?;
    let holds = contents(&moved.deltas, moved.message_id.as_deref(), moved.bytes);
    let why = moved.death.map_or_else(String::new, |death| format!("{}; ", printable(&death.to_string())));
    println!("set aside from partition {partition}: {why}{holds}");
    if let Err(error) = end_silence(link, url, partition).await {
        log::warn!("partition {partition} may count as silent until its next change: {error:#}");
    }
    Ok(())
}

/// No worker will report that it has taken the message. If no other message is left, this command reports it, so that
/// the partition does not count as silent.
async fn end_silence(link: &LinkWatch, url: &DatabaseUrl, partition: u16) -> anyhow::Result<()> {
    let pool = postgres::pool(url, 1)?;
    // The time comes first, so that changes that are accepted later still count as waiting.
    if let Some(until) = pulse::waiting_until(&pool, partition).await?
        && queue::is_empty(link, partition).await.map_err(Error::msg)?
    {
        pulse::tell_taken(&pool, partition, until).await?;
    }
    Ok(())
}
