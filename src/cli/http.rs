//! The flags that control how HTTP is served, and to whom. Must not contain I/O.

use std::time::Duration;

use clap::Args;

use super::args::parse_time_from;
use crate::{
    access::{Anonymous, Policy, RateLimit},
    http::KEEP_ALIVE_S,
};

/// The minimum of `--keep-alive`.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(100);

/// Who may call, and how often.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct AccessArgs {
    /// Serve requests without an API key: "true" (or the flag alone) serves everybody; "loopback" serves requests
    /// whose Host is a loopback name or address and that have neither a foreign Origin nor a forwarding header. The
    /// default "false" serves the same requests as "loopback", but only until the first key is created, and only if
    /// --listen is a loopback address.
    #[arg(long, env = "POINT_SYSTEM_ALLOW_ANONYMOUS", value_name = "WHO", num_args = 0..=1, require_equals = true,
          default_value_t, default_missing_value = "true")]
    pub allow_anonymous: Anonymous,
    /// Maximum request rate on this node for all API keys of one name together, and for each address without a key,
    /// such as "100/s" or "600/m": a burst of that many requests, and as many again per second or minute. Without this
    /// flag there is no limit.
    #[arg(long, env = "POINT_SYSTEM_RATE_LIMIT", value_name = "N/TIME")]
    pub rate_limit: Option<RateLimit>,
}

impl From<AccessArgs> for Policy {
    fn from(args: AccessArgs) -> Self {
        let AccessArgs { allow_anonymous, rate_limit } = args;
        Self { allow_anonymous, rate_limit }
    }
}

/// How HTTP is served, and to whom.
#[derive(Args, Clone, Copy, Debug)]
pub struct HttpArgs {
    /// Who may call, and how often.
    #[command(flatten)]
    pub access: AccessArgs,
    /// How long to keep an idle client connection open. Make it longer than the load balancer's own idle timeout
    /// (60s for an AWS ALB and for nginx), or the load balancer sends requests on connections that are being closed.
    #[arg(long, env = "POINT_SYSTEM_KEEP_ALIVE", default_value = "75s", value_name = "TIME",
          value_parser = |text: &str| parse_time_from(KEEP_ALIVE_MIN, text))]
    pub keep_alive: Duration,
}

impl Default for HttpArgs {
    fn default() -> Self {
        Self { access: AccessArgs::default(), keep_alive: Duration::from_secs(KEEP_ALIVE_S) }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        http: HttpArgs,
    }

    #[test]
    fn a_keep_alive_is_a_time_of_which_no_part_is_lost() {
        let parse = |text: &str| {
            Line::try_parse_from(["serve", &format!("--keep-alive={text}")]).map(|line| line.http.keep_alive)
        };
        for (text, ms) in [("75s", 75_000), ("900ms", 900), ("1.5s", 1_500), ("100ms", 100), ("2m", 120_000)]
        {
            assert_eq!(parse(text).expect(text), Duration::from_millis(ms));
        }
        for wrong in ["0s", "0", "99ms", "-1s", "75", "for ever", "25h", "9223372036854775807s"] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("--keep-alive"), "{error}");
        }
        let default = Line::try_parse_from(["serve"]).expect("defaults").http.keep_alive;
        assert_eq!(default, HttpArgs::default().keep_alive);
    }
}
