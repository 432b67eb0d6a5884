//! Expires the points and ends the holds of users who have no changes: finds these users, and hands them to the lanes
//! that apply changes. Must not contain SQL or a rule.

use super::{PointService, ServiceError, store::Due};
use crate::infra::metrics;

/// The most users that are looked up at once. Each look-up is a transaction of its own, which other changes do not share.
const DUE_MAX: usize = 1_000;

impl PointService {
    /// Removes all points that have expired by now from the balances, and ends the holds whose time has come. A user
    /// with an obstacle keeps them until a later call, and the log names the first such user. Several services may do
    /// this at the same time: a user's row is locked while it is decided what has expired.
    ///
    /// # Errors
    /// [`ServiceError`] if PostgreSQL does not answer. Some points may have been removed.
    pub async fn expire_all(&self) -> Result<(), ServiceError> {
        let mut last: Option<Due> = None;
        let (mut kept, mut first) = (0, None::<(Due, ServiceError)>);
        loop {
            let limit = DUE_MAX.min(self.group_max());
            let due = self.store.due(last.as_ref(), i64::try_from(limit).expect("small")).await?;
            let oldest = first.as_ref().map(|(due, _)| due).or(due.first());
            metrics::expired_lots_are_overdue(oldest.map(|due| due.overdue_s));
            if due.is_empty() {
                break;
            }
            let results = self.expire(due.iter().map(|due| due.user_id.clone()).collect()).await?;
            for (due, result) in due.iter().zip(results) {
                match result {
                    Ok(()) => {}
                    Err(error @ (ServiceError::Unavailable(_) | ServiceError::Overloaded)) => {
                        return Err(error);
                    }
                    Err(why) => {
                        kept += 1;
                        first.get_or_insert((due.clone(), why));
                    }
                }
            }
            last = due.into_iter().next_back();
        }
        if let Some((due, why)) = first {
            log::warn!(user_id:% = due.user_id; "expired points stay in the user's balance for now: {why}; such users: {kept}");
        }
        Ok(())
    }
}
