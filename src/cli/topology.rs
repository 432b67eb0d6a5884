//! The command `topology`: the policies that the queues need on a RabbitMQ cluster, and a check of their members.
//! Must not contain the declaration of a queue.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    BrokerArgs, DatabaseArgs,
    args::parse_time,
    start::{Deadline, installed},
};
use crate::{infra::postgres, queue::QueueNames};
use members::{Finding, Listed};

mod members;

/// The priority of the policies. A policy for all queues, such as `.*`, usually has 0.
const PRIORITY: u8 = 10;

/// Flags of `topology`.
#[derive(Args, Debug)]
pub struct TopologyArgs {
    /// The output to print.
    #[command(flatten)]
    what: What,
    /// Number of members that each queue must have. RabbitMQ gives a queue three, or one on each node of a smaller
    /// cluster; `rabbitmq-queues grow` adds more.
    #[arg(long, default_value_t = 3, value_name = "N", requires = "check",
          value_parser = clap::value_parser!(u16).range(1..))]
    members: u16,
    /// The database, which has the id of the installation.
    #[command(flatten)]
    database: DatabaseArgs,
    /// The broker, of which only the virtual host is used.
    #[command(flatten)]
    broker: BrokerArgs,
    /// How long to wait for PostgreSQL and its migrations.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    startup_timeout: Duration,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Print the commands that set the policies of this installation's queues, with comments, for a shell. Run them
    /// before the first `serve` or `work`, which declare the queues.
    #[arg(long)]
    policies: bool,
    /// Read the queues from standard input, as `rabbitmqctl list_queues --formatter json name leader members online` or
    /// the management API (`GET /api/queues/VHOST`) print them. Name each queue of this installation that is missing,
    /// has too few members or has a member that is offline, and exit with 1 if there is one.
    #[arg(long)]
    check: bool,
}

/// Prints the policies or the check.
///
/// # Errors
/// The database is not ready in time, or a queue lacks a member.
pub(super) async fn run(args: &TopologyArgs) -> anyhow::Result<()> {
    let pool = postgres::reading_pool(&args.database.url, 1)?;
    let installation = installed(&pool, &args.database, Deadline::after(args.startup_timeout)).await?;
    let names = args.broker.names(&installation);
    if args.what.policies {
        let text = policies(&names, args.broker.url.virtual_host());
        return io::stdout().write_all(text.as_bytes()).context("standard output");
    }
    check(&names, &io::read_to_string(io::stdin()).context("standard input")?, args.members)
}

/// The commands, as a script for a shell.
fn policies(names: &QueueNames, virtual_host: &str) -> String {
    let (vhost, pattern) = (quoted(virtual_host), quoted(&names.pattern()));
    let name = quoted(names.stem());
    let set = format!("rabbitmqctl set_policy --vhost {vhost} --priority {PRIORITY} --apply-to");
    format!(
        "# The policy of these queues. It works from the moment a queue is declared: set it before the first serve or work.
# Each new queue gets its leader on the node that leads the fewest. Without it, one node leads all of them.
{set} queues {name} {pattern} '{{\"queue-leader-locator\":\"balanced\"}}'

# Instead of it, for RabbitMQ 3.13 or newer with quorum_queue.continuous_membership_reconciliation.enabled = true:
# a queue whose members were lost with their nodes gets new ones. Older versions refuse the policy.
# {set} quorum_queues {name} {pattern} '{{\"queue-leader-locator\":\"balanced\",\"target-group-size\":3}}'

# Queues that exist already keep their leaders and members. Add a member on a node, then spread the leaders:
# rabbitmq-queues grow NODE all --vhost-pattern {} --queue-pattern {pattern}
# rabbitmq-queues rebalance quorum --vhost-pattern {} --queue-pattern {pattern}
",
        quoted(&exactly(virtual_host)),
        quoted(&exactly(virtual_host)),
    )
}

/// A word of a shell command.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The regular expression that matches only this text.
fn exactly(text: &str) -> String {
    let escaped = text
        .chars()
        .map(|c| if c.is_alphanumeric() || "/-_".contains(c) { c.into() } else { format!("\\{c}") });
    format!("^{}$", escaped.collect::<String>())
}

/// Prints the state of each queue, and fails if one lacks a member.
fn check(names: &QueueNames, listed: &str, members: u16) -> anyhow::Result<()> {
    let listed = Listed::parse(listed).context(
        "standard input must be the queues as JSON: rabbitmqctl list_queues --formatter json name leader members online",
    )?;
    let (findings, leaders) = (listed.findings(names, members.into()), listed.leaders(names));
    let mut out = io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    for (node, count) in &leaders {
        writeln!(out, "{node} leads {count}")?;
    }
    if leaders.len() == 1 && members > 1 {
        writeln!(out, "one node leads all queues: rabbitmq-queues rebalance quorum")?;
    }
    let wrong = findings.iter().filter(|finding| !matches!(finding, Finding::Sound { .. })).count();
    if wrong > 0 {
        bail!("{wrong} of {} queues would not survive the loss of a node", findings.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_command_is_one_word_whatever_it_has() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!([exactly("/"), exactly("a.b")], ["^/$", r"^a\.b$"]);
    }
}
