//! The access of a long-lived process to the dead letters, each time on a connection of its own: the lock on them lasts
//! as long as its connection. Must not contain how a message is read or settled.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use xxhash_rust::xxh3::Xxh3;

use super::{
    BrokerUrl,
    dead_letters::{DeadLetter, DeadLetters, DeadLettersError},
    link::{Link, LinkWatch},
    names::QueueNames,
};

/// The longest that a connection may take.
const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// Names a dead letter by its content, because its position changes when others are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterId(pub u64);

impl LetterId {
    /// The name of a dead letter. Letters that are equal have one name, and are settled one at a time.
    #[must_use]
    pub fn of(letter: &DeadLetter) -> Self {
        let mut hash = Xxh3::new();
        let id = letter.message_id.as_deref().unwrap_or_default();
        for part in [id.as_bytes(), &[0], &letter.body] {
            hash.update(part);
        }
        Self(hash.digest())
    }
}

/// Which dead letters to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first of this name.
    One(LetterId),
    /// All that are there now.
    All,
}

/// The action on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Put the changes back into their queues. Letters that can't be redriven stay.
    Redrive,
    /// Remove the letters permanently.
    Drop,
}

/// The result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Letters settled.
    pub done: usize,
    /// Letters that stay, because they can't be redriven.
    pub left: usize,
}

/// Opens the dead letters for one request at a time.
#[derive(Clone)]
pub struct LetterDesk {
    url: BrokerUrl,
    names: QueueNames,
    turn: Arc<Semaphore>,
}

impl LetterDesk {
    /// A desk for the dead letters of the installation of `link`.
    #[must_use]
    pub fn new(url: BrokerUrl, link: &LinkWatch) -> Self {
        Self { url, names: link.names.clone(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Returns up to `most` dead letters after the first `skipped`, and how many there are in all.
    ///
    /// # Errors
    /// [`DeadLettersError`] if there is no connection, or somebody else has them open.
    pub async fn list(
        &self,
        skipped: usize,
        most: usize,
    ) -> Result<(Vec<DeadLetter>, usize), DeadLettersError> {
        self.visit(async move |letters: &mut DeadLetters| {
            let (mut page, mut count) = (Vec::new(), 0);
            while let Some(letter) = letters.next().await? {
                count += 1;
                if count > skipped && page.len() < most {
                    page.push(letter);
                }
            }
            Ok((page, count + letters.out_of_reach() as usize))
        })
        .await
    }

    /// Settles dead letters.
    ///
    /// # Errors
    /// [`DeadLettersError`] if a letter can't be settled. Those before it are.
    pub async fn settle(&self, which: Which, verdict: Verdict) -> Result<Settled, DeadLettersError> {
        self.visit(async move |letters: &mut DeadLetters| {
            let mut settled = Settled::default();
            while let Some(letter) = letters.next().await? {
                let is_wanted = match which {
                    Which::One(id) => LetterId::of(&letter) == id,
                    Which::All => true,
                };
                if !is_wanted {
                    continue;
                }
                match verdict {
                    Verdict::Redrive if !letter.death.is_redrivable() => settled.left += 1,
                    Verdict::Redrive => {
                        letters.redrive(letter).await?;
                        settled.done += 1;
                    }
                    Verdict::Drop => {
                        letters.remove(letter).await?;
                        settled.done += 1;
                    }
                }
                if which != Which::All {
                    break;
                }
            }
            Ok(settled)
        })
        .await
    }

    /// Opens the dead letters, runs `work`, and returns the unsettled letters to the queue.
    async fn visit<T>(
        &self,
        work: impl AsyncFnOnce(&mut DeadLetters) -> Result<T, DeadLettersError>,
    ) -> Result<T, DeadLettersError> {
        let taken = |_| DeadLettersError::Locked("this node has them open for another request".to_owned());
        let _turn = self.turn.try_acquire().map_err(taken)?;
        let link = Link::start(self.url.clone(), self.names.clone(), "console");
        let visiting = async {
            let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
            link.watch().ready(limit).await.map_err(DeadLettersError::Unavailable)?;
            let mut letters = DeadLetters::open(&link.watch()).await?;
            let worked = work(&mut letters).await;
            let closed = letters.close().await;
            worked.and_then(|worked| closed.map(|()| worked))
        };
        let visited = visiting.await;
        link.close().await;
        visited
    }
}
