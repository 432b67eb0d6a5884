//! Why an operation on the keys failed. Must not contain HTTP.

use std::net::SocketAddr;

/// Why an operation on the keys failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The database is unavailable.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(String),
    /// The role in the database has no permission for it.
    #[error(
        "the database does not permit it ({0}): use `point-system key` with the URL of the owner to change keys, and run \
         deploy/sql/roles.sql if the service itself lacks a permission"
    )]
    NotPermitted(String),
    /// A key has, or had, this name.
    #[error(
        "the name {0} has been used before, and a name always identifies the same actor: choose another name, or give \
         {0} a new key with `point-system key rotate {0}`"
    )]
    NameUsed(String),
    /// No key has, or had, this name.
    #[error("no key was ever named {0}: `point-system key create` creates the first one")]
    NameUnknown(String),
    /// Two active keys have this name.
    #[error(
        "{name} has two active keys, {} and {}: revoke one of them by its number (`point-system key list` shows when \
         each was last used)",
        ids[0], ids[1]
    )]
    TwoActive {
        /// The name.
        name: String,
        /// The numbers of the keys.
        ids: [i64; 2],
    },
    /// The number of active keys has reached its limit.
    #[error("there are {limit} active keys, which is the maximum: revoke some")]
    TooMany {
        /// Maximum number of active keys.
        limit: i64,
    },
    /// Other machines could reach the service without a key, and no flag allows that.
    #[error(
        "there is no API key, and {listen} is not a loopback address: create a key with `point-system key \
         create`, or use --allow-anonymous to serve everybody without a key"
    )]
    Unprotected {
        /// The address that the service listens on.
        listen: SocketAddr,
    },
}
