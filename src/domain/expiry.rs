//! Lets points expire of users whom no change touches: finds them, and hands them to the lanes that apply changes. Must
//! not contain SQL or a rule.

use super::{PointService, ServiceError, store::Due};

/// The most users that are looked up at once. Each look-up is a transaction of its own, which other changes do not share.
const DUE_MAX: usize = 1_000;

impl PointService {
    /// Lets all points leave their balances that have expired by now. Users who have an obstacle keep them until the next
    /// time. Several services may do so at once: a user's row is locked while it is decided what has expired.
    ///
    /// # Errors
    /// [`ServiceError`] if PostgreSQL does not answer. Some points may have left.
    pub async fn expire_all(&self) -> Result<(), ServiceError> {
        let mut last: Option<Due> = None;
        loop {
            let limit = DUE_MAX.min(self.group_max());
            let due = self.store.due(last.as_ref(), i64::try_from(limit).expect("small")).await?;
            if due.is_empty() {
                return Ok(());
            }
            let results = self.expire(due.iter().map(|due| due.user_id.clone()).collect()).await?;
            for result in results {
                match result {
                    Ok(()) | Err(ServiceError::Blocked(_) | ServiceError::NotUnderstood(_)) => {}
                    Err(ServiceError::Refused(why)) => log::error!("expired points stay in a balance: {why}"),
                    Err(error @ (ServiceError::Unavailable(_) | ServiceError::Overloaded)) => {
                        return Err(error);
                    }
                }
            }
            last = due.into_iter().next_back();
        }
    }
}
