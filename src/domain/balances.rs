//! Reads current balances: of one user, of many, and page by page. Must not contain writes or SQL.

use super::{
    Balance, PointService, ServiceError, UserIdPrefix,
    read::{IDS_MAX, LookUp},
    store::{Store, StoreError},
    user_id::UserId,
};

/// The most users in one request for balances.
pub const BALANCES_MAX: usize = 100;

/// Selects users by the beginning of their ids.
#[derive(Clone, Debug)]
pub struct BalancesQuery {
    /// What their ids begin with.
    pub prefix: UserIdPrefix,
    /// Only users whose ids come after this one, byte by byte.
    pub after: Option<UserId>,
    /// The most balances to return, from 1 to [`PAGE_MAX`](super::PAGE_MAX).
    pub limit: u16,
}

/// The balances of some of the users that a query selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancesPage {
    /// The balances, in the order of the users' ids.
    pub balances: Vec<Balance>,
    /// The `after` of the next page, if there is one.
    pub next: Option<UserId>,
}

/// The users of one request share a query, so their balances are of one moment.
impl LookUp for Vec<UserId> {
    type Answer = Vec<Option<Balance>>;
    const NAME: &'static str = "read";
    const TOGETHER_MAX: usize = IDS_MAX;

    fn weight(&self) -> usize {
        self.len()
    }

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        let users: Vec<&str> = asked.iter().flatten().map(UserId::as_str).collect();
        let found = store.balances(&users).await?;
        let of_request = |users: &Self| users.iter().map(|user| found.get(user).cloned()).collect();
        Ok(asked.iter().map(of_request).collect())
    }
}

impl LookUp for BalancesQuery {
    type Answer = BalancesPage;
    const NAME: &'static str = "read_prefix";
    const TOGETHER_MAX: usize = IDS_MAX;

    /// Each balance may be in a block that must come from the disk.
    fn weight(&self) -> usize {
        self.limit.into()
    }

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        store.balance_pages(asked).await
    }
}

impl PointService {
    /// Returns the balance of a user, or `None` for an unknown user.
    ///
    /// # Errors
    /// [`ServiceError`] if PostgreSQL does not answer, within a few seconds.
    pub async fn balance(&self, user_id: UserId) -> Result<Option<Balance>, ServiceError> {
        let balances = self.balances(vec![user_id]).await?;
        Ok(balances.into_iter().next().flatten())
    }

    /// Returns the balances of up to [`BALANCES_MAX`] users, all of one moment, in the order of `users`: `None` for an
    /// unknown user.
    ///
    /// # Errors
    /// As [`PointService::balance`]. If a row of one of the users is damaged, there is no answer for any of them.
    pub async fn balances(&self, users: Vec<UserId>) -> Result<Vec<Option<Balance>>, ServiceError> {
        self.readers.balances.call(users).await?
    }

    /// Returns a page of balances.
    ///
    /// # Errors
    /// As [`PointService::balances`], for the users of this page.
    pub async fn balances_page(&self, query: BalancesQuery) -> Result<BalancesPage, ServiceError> {
        self.readers.balance_pages.call(query).await?
    }
}
