//! The flags of who may call, and those of the role `key`. No I/O may enter.

use clap::{Args, Subcommand};

use super::DatabaseArgs;
use crate::access::{Anonymous, KeyName, Policy, RateLimit, Scope, WhichKey};

/// Who may call, and how often.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct AccessArgs {
    /// Serve requests without an API key: "true" (or the flag alone) serves everybody; "loopback" serves requests
    /// whose Host is a loopback name or address, without a foreign Origin or a forwarding header. By default
    /// ("false") requests are served as with "loopback", but only while no key was ever created and --listen is a
    /// loopback address.
    #[arg(long, env = "POINT_SYSTEM_ALLOW_ANONYMOUS", value_name = "WHO", num_args = 0..=1, require_equals = true,
          default_value_t, default_missing_value = "true")]
    pub allow_anonymous: Anonymous,
    /// How often each key, and each address without one, may call this node, such as "100/s" or "600/m": that
    /// many at once, and as many again in that time. By default as often as they like.
    #[arg(long, env = "POINT_SYSTEM_RATE_LIMIT", value_name = "N/TIME")]
    pub rate_limit: Option<RateLimit>,
}

impl From<AccessArgs> for Policy {
    fn from(args: AccessArgs) -> Self {
        let AccessArgs { allow_anonymous, rate_limit } = args;
        Self { allow_anonymous, rate_limit }
    }
}

/// What to do about API keys.
#[derive(Debug, Subcommand)]
pub enum KeyRole {
    /// Create one. The key alone goes to standard output, this once: only its hash is kept.
    Create {
        /// Where the keys are.
        #[command(flatten)]
        database: DatabaseArgs,
        /// What to call it: a letter, then letters, digits, ".", "_" or "-".
        #[arg(long)]
        name: KeyName,
        /// What it may do; each scope includes those before it.
        #[arg(long, value_enum)]
        scope: Scope,
    },
    /// List them, the revoked ones as well.
    List {
        /// Where the keys are.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Print a JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Revoke one for good; every node refuses it within five seconds. Exits with 1 where there is none.
    Revoke {
        /// Where the keys are.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Its number, or the name of one that is not revoked.
        key: WhichKey,
    },
}
