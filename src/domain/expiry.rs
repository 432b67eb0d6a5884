//! Expires the points and ends the holds of users who have no changes: finds these users, and hands them to the lanes
//! that apply changes. Must not contain SQL or a rule.

use super::{
    PointService, ServiceError,
    store::{Due, Found, Place},
};
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
        let mut place: Option<Place> = None;
        let (mut kept, mut first) = (0, None::<(Due, ServiceError)>);
        loop {
            let limit = i64::try_from(DUE_MAX.min(self.group_max())).expect("small");
            let Found { due, unreadable, place: next } = self.store.due(place.as_ref(), limit).await?;
            for user in unreadable {
                log::warn!(user_id:% = user; "expired points stay in the user's balance: the row breaks the rules of its table");
            }
            let oldest = first.as_ref().map(|(due, _)| due).or(due.first());
            metrics::expired_lots_are_overdue(oldest.map(|due| due.overdue_s));
            place = next;
            if place.is_none() {
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
        }
        if let Some((due, why)) = first {
            log::warn!(user_id:% = due.user_id; "expired points stay in the user's balance for now: {why}; such users: {kept}");
        }
        Ok(())
    }
}
