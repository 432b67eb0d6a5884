//! Previews the effect of a change, without writing it. Must not contain writes, SQL or a rule.

use std::sync::Arc;

use super::{
    Delta, Entry, Outcome, PointService, ServiceError,
    read::{LookUp, PIPELINE_MAX},
    store::{Store, StoreError},
};

/// The effect that a change would have if it were decided now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Its outcome. If it is `replayed`, the change was decided before, and this is its final outcome.
    pub outcome: Outcome,
    /// The entry of the other user whose balance would change, if there is one.
    pub other: Option<Arc<Entry>>,
}

impl LookUp for Delta {
    /// A damaged row, or one of a newer version, is an error only for the callers that ask for it.
    type Answer = Preview;
    const NAME: &'static str = "preview";
    const TOGETHER_MAX: usize = PIPELINE_MAX;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        store.previews(asked).await
    }
}

impl PointService {
    /// Decides a requested change as [`PointService::apply_delta`] would now, and writes nothing. Another change may be
    /// decided before it is requested.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn preview(&self, delta: Delta) -> Result<Preview, ServiceError> {
        self.readers.previews.call(delta).await?
    }
}
