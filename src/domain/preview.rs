//! Says what a change would do, without doing it. Must not contain writes, SQL or a rule.

use std::sync::Arc;

use super::{
    Delta, Entry, Outcome, PointService, ServiceError,
    read::{LookUp, PIPELINE_MAX},
    store::{Store, StoreError},
};

/// What a change would do if it was decided now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Its outcome. `replayed` if the change was decided before: this is then what became of it.
    pub outcome: Outcome,
    /// The entry of the other user whose balance would change, if there is one.
    pub other: Option<Arc<Entry>>,
}

impl LookUp for Delta {
    /// A damaged row, or one of a newer version, is an error for those who ask for it.
    type Answer = Preview;
    const NAME: &'static str = "preview";
    const TOGETHER_MAX: usize = PIPELINE_MAX;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        store.previews(asked).await
    }
}

impl PointService {
    /// Decides a requested change as [`PointService::apply_delta`] would now, and writes nothing. Another change may come
    /// first.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn preview(&self, delta: Delta) -> Result<Preview, ServiceError> {
        self.readers.previews.call(delta).await?
    }
}
