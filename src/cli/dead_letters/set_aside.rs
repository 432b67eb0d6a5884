//! The command `dead-letters set-aside`: says which message it has moved. Must not contain how a message is moved.

use super::letter::{contents, printable};
use crate::queue::{self, LinkWatch};

pub(super) async fn run(link: &mut LinkWatch, partition: u16) -> anyhow::Result<()> {
    let moved = queue::set_aside(link, partition).await?;
    let holds = contents(&moved.deltas, moved.message_id.as_deref(), moved.bytes);
    let why = moved.death.map_or_else(String::new, |death| format!("{}; ", printable(&death.to_string())));
    println!("set aside from partition {partition}: {why}{holds}");
    Ok(())
}
