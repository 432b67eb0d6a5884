//! The entries of the log that a decision looks at. Must not contain a decision or I/O.

use std::{collections::HashMap, sync::Arc};

use super::{entry::Entry, request_id::RequestId, user_id::UserId};

/// The entries of the request ids of the deltas, of [`reuse`](super::decide::reuse) of those that came with another
/// change, and of the requests that the deltas refer to, with what has ended these requests.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: HashMap<(UserId, RequestId), Arc<Entry>>,
    /// The applied reversals, captures and releases, by the request that they are about.
    endings: HashMap<(UserId, RequestId), Arc<Entry>>,
}

impl Known {
    /// Adds an entry.
    pub(super) fn learn(&mut self, entry: Arc<Entry>) {
        if let Some(request) = entry.ended() {
            self.endings.insert((entry.user_id.clone(), request), Arc::clone(&entry));
        }
        self.entries.insert((entry.user_id.clone(), entry.request_id), entry);
    }

    /// A user's entry with this request id.
    pub(super) fn entry(&self, user_id: &UserId, request_id: RequestId) -> Option<&Arc<Entry>> {
        self.entries.get(&(user_id.clone(), request_id))
    }

    /// The entry that has reversed a user's request, or ended its hold.
    pub(super) fn ending(&self, user_id: &UserId, request: RequestId) -> Option<&Arc<Entry>> {
        self.endings.get(&(user_id.clone(), request))
    }
}
