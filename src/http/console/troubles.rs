//! The troubles of the installation, in words, with advice and a link to the steps. Must not contain measurements.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{
    components::{Tone, grouped, notice, time},
    help,
};
use crate::{
    infra::build,
    ops::{
        health::State,
        overview::{Picture, Told},
    },
};

/// A change that waits for longer than this is a trouble (docs/ops/alerts.yml has the same limit).
const WAIT_MAX_S: i64 = 60;

/// Something that needs attention.
struct Trouble {
    tone: Tone,
    what: Markup,
    advice: Markup,
    /// The alert whose section has the steps.
    alert: &'static str,
}

/// Says that all is well, or lists the troubles.
pub(super) fn status(picture: &Picture) -> Markup {
    let troubles = troubles(picture);
    html! {
        @if troubles.is_empty() {
            (notice(Tone::Good, html! { strong { "All is well." } " Changes are accepted and applied." }))
        }
        @for Trouble { tone, what, advice, alert } in &troubles {
            (notice(*tone, html! { p { strong { (what) } } p { (advice) } p { a href=(help::alert(alert)) { "Steps for " (alert) } } }))
        }
    }
}

fn troubles(picture: &Picture) -> Vec<Trouble> {
    let mut troubles = servers(picture);
    if let Ok(told) = &picture.told {
        troubles.extend(workers(picture, told));
    }
    troubles.extend(queues(picture));
    troubles
}

fn trouble(alert: &'static str, tone: Tone, what: Markup, advice: Markup) -> Trouble {
    Trouble { tone, what, advice, alert }
}

fn servers(picture: &Picture) -> Vec<Trouble> {
    let (here, mut troubles) = (&picture.here, Vec::new());
    if let Some((what, advice)) = database(here.postgresql.state) {
        troubles.push(trouble(
            "PointSystemDegraded",
            Tone::Bad,
            html! { "PostgreSQL " (what) " since " (time(here.postgresql.since)) "." },
            advice,
        ));
    } else if let Err(why) = &picture.told {
        troubles.push(trouble(
            "PointSystemDatabaseTooSlow",
            Tone::Warn,
            html! { "PostgreSQL does not answer the console." },
            html! { "The figures of the other processes are missing: " (why) "." },
        ));
    }
    if !here.rabbitmq.is_up() {
        troubles.push(trouble(
            "PointSystemDegraded",
            Tone::Bad,
            html! { "RabbitMQ has been unreachable since " (time(here.rabbitmq.since)) "." },
            html! {
                "Changes get 503 until it is back; reads and changes with " code { "Prefer: wait" } " still work. Check that \
                 the server runs, that it has no memory or disk alarm, and that this machine can reach it. Everything \
                 continues by itself once it is back."
            },
        ));
    }
    if !here.unusable.is_empty() {
        troubles.push(trouble(
            "PointSystemQueueUnusable",
            Tone::Bad,
            html! { "This node can't use the queues " (here.unusable.join(", ")) "." },
            html! {
                "They may have been declared with other arguments, or have lost their replicas. The log of the node says \
                 why."
            },
        ));
    }
    troubles
}

/// What is wrong with the database, and advice.
fn database(state: State) -> Option<(&'static str, Markup)> {
    match state {
        State::Up => None,
        State::Down => Some((
            "has been unreachable",
            html! {
                "Changes are still accepted and wait in RabbitMQ; nothing is lost. Balances can't be read. Check that the \
                 server runs, that its disk has room, and that this machine can reach it. Everything continues by itself \
                 once it is back."
            },
        )),
        State::ReadOnly => Some((
            "has accepted only reads",
            html! {
                "This may be a standby. Changes are queued, and are applied once a server accepts writes. Promote the standby, or \
                 point " code { "DATABASE_URL" } " at the primary."
            },
        )),
        State::CommitsWait => Some((
            "has committed nothing",
            html! {
                "Its commits wait for a synchronous standby. Changes are queued, and are applied once a standby confirms \
                 them. Balances can be read. Bring a standby back, unless another server was promoted. Do not interrupt the commits \
                 that wait."
            },
        )),
    }
}

fn workers(picture: &Picture, told: &Told) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if !told.live().any(|node| node.role == "work") {
        troubles.push(trouble(
            "PointSystemQueueHasNoWorker",
            Tone::Bad,
            html! { "No worker is running." },
            html! { "No process applies the queued changes. Start " code { "point-system work" } "." },
        ));
    }
    let cut_off: Vec<String> = told
        .live()
        .filter(|node| !node.rabbitmq.is_up())
        .map(|node| format!("{} {}", node.role, name(node.id)))
        .collect();
    if picture.here.rabbitmq.is_up() && !cut_off.is_empty() {
        troubles.push(trouble(
            "PointSystemDegraded",
            Tone::Warn,
            html! { "Some processes can't reach RabbitMQ: " (cut_off.join(", ")) "." },
            html! { "The others can. Check the network of their machines, and their logs." },
        ));
    }
    let mut kept: Vec<i16> = told.live().flat_map(|node| node.kept.clone()).collect();
    kept.sort_unstable();
    kept.dedup();
    if !kept.is_empty() {
        troubles.push(trouble(
            "PointSystemNewerWorkerNeeded",
            Tone::Warn,
            html! { "Changes wait for a newer worker, in partition " (list(&kept)) "." },
            html! {
                "A newer version has queued them. Finish the deploy: start " code { "point-system work" }
                " of that version. This node has version " (build::VERSION) "."
            },
        ));
    }
    if let Some(oldest) =
        oldest(picture, told).filter(|oldest| picture.at.duration_since(*oldest) > wait_max())
    {
        troubles.push(trouble(
            "PointSystemChangesWaitTooLong",
            Tone::Warn,
            html! { "The oldest change has waited since " (time(oldest)) "." },
            html! {
                "If the number of waiting messages grows, the workers are too slow for what is accepted: check the load of \
                 PostgreSQL, and start more workers. If only some users wait, their rows are locked by another session."
            },
        ));
    }
    troubles
}

/// The partitions whose depths fulfil a condition.
fn partitions_where(picture: &Picture, is: impl Fn(&Option<(u32, u32)>) -> bool) -> Vec<u16> {
    (0..)
        .zip(&picture.here.depths.partitions)
        .filter(|(_, depth)| is(depth))
        .map(|(partition, _)| partition)
        .collect()
}

fn queues(picture: &Picture) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let unknown = partitions_where(picture, Option::is_none);
    if picture.here.rabbitmq.is_up() && !unknown.is_empty() {
        troubles.push(trouble(
            "PointSystemQueueUnusable",
            Tone::Warn,
            html! { "RabbitMQ does not report the depth of these partitions: " (list(&unknown)) "." },
            html! {
                "Their queues may be missing, lack a majority of their members, or be forbidden to this node. The logs of the \
                 node and of RabbitMQ say why."
            },
        ));
    }
    let mut left = partitions_where(picture, |depth| matches!(depth, Some((_, 0))));
    let live = picture.told.iter().flat_map(Told::live);
    let workers: Vec<_> = live.filter(|node| node.role == "work").collect();
    left.retain(|partition| !workers.iter().any(|worker| worker.kept.contains(&partition.cast_signed())));
    if !workers.is_empty() && !left.is_empty() {
        troubles.push(trouble(
            "PointSystemQueueHasNoWorker",
            Tone::Warn,
            html! { "No worker takes changes from partition " (list(&left)) "." },
            html! {
                "During a deploy this lasts for some seconds. If it lasts longer, the workers are probably not permitted to \
                 read the queues: their logs say why."
            },
        ));
    }
    if !picture.here.silent.is_empty() {
        troubles.push(trouble(
            "PointSystemPartitionSilent",
            Tone::Bad,
            html! { "Changes wait, but no worker takes them, in partition " (list(&picture.here.silent)) "." },
            html! {
                "Workers reconnect by themselves to end this. If it lasts for some minutes, restart the workers. If \
                 somebody purged or deleted the queue, its changes are lost: their senders must send them again, with the \
                 same keys."
            },
        ));
    }
    let dead_letters = picture.here.depths.dead_letters.unwrap_or_default();
    if dead_letters > 0 {
        let (count, noun) =
            (grouped(dead_letters.into()), if dead_letters == 1 { "dead letter" } else { "dead letters" });
        troubles.push(trouble(
            "PointSystemDeadLetters",
            Tone::Warn,
            html! { (count) " " (noun) "." },
            html! {
                "These messages could not be applied, and wait for a decision. "
                a href="/console/dead-letters" { "See why, and redrive or drop them" } "."
            },
        ));
    }
    troubles
}

fn list(partitions: &[impl ToString]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A short name of a process: the last digits of its number, which differ most.
pub(super) fn name(id: uuid::Uuid) -> String {
    id.simple().to_string().split_off(26)
}

fn wait_max() -> SignedDuration {
    SignedDuration::from_secs(WAIT_MAX_S)
}

/// When the oldest change that is not applied yet was accepted, as far as the nodes know. A worker knows it for the
/// changes that it holds. For changes that no worker has taken, PostgreSQL has the time at which they began to wait.
pub(super) fn oldest(picture: &Picture, told: &Told) -> Option<Timestamp> {
    let held = told.live().filter_map(|node| node.oldest_at);
    // Two nodes report their progress at different moments, so a wait of some seconds may not be real.
    let is_wait = |since: &Timestamp| picture.at.duration_since(*since) > SignedDuration::from_secs(UNSURE_S);
    let untaken = told.untaken.iter().map(|(_, since)| *since).filter(is_wait);
    held.chain(untaken).min()
}

/// Two beats.
const UNSURE_S: i64 = 10;

#[cfg(test)]
mod tests {
    #[test]
    fn each_trouble_has_a_section_of_its_alert() {
        let source = include_str!("troubles.rs");
        let named: Vec<&str> = source
            .split('"')
            .filter(|text| text.strip_prefix("PointSystem").is_some_and(|name| !name.is_empty()))
            .collect();
        assert_eq!(named.len(), source.matches("troubles.push(trouble(\n").count());
        for alert in named {
            assert!(include_str!("../../../docs/alerts.md").contains(&format!("\n## {alert}\n")), "{alert}");
        }
    }
}
