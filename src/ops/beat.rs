//! The report of each node with every beat of its pulse: its counts, the servers that it can reach, and the depths of
//! the queues. Together, the beats of the last quarter of an hour are the picture of the installation. Must not contain
//! how the picture is shown.

use jiff::Timestamp;
use tokio::try_join;
use tokio_postgres::{Error, Row, types::ToSql};
use uuid::Uuid;

use super::health::{Report, Seen, State};
use crate::infra::{build, postgres::Client};

/// How long beats are kept.
const HISTORY_S: i64 = 15 * 60;

/// The length of a step of the history: two beats of each node.
const STEP_S: i64 = 10;

/// A node that has been quiet for this long, three beats, has ended or can't reach PostgreSQL.
const QUIET_S: i64 = 15;

/// The counts of a node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes that it accepted: they are in the queue, or were decided at once.
    pub accepted: u64,
    /// Changes that it applied.
    pub applied: u64,
    /// Changes that it rejected.
    pub refused: u64,
}

/// A process, by its number, which it keeps until it ends.
#[derive(Clone, Debug)]
pub(super) struct Node {
    id: Uuid,
    started_at: Timestamp,
}

impl Node {
    pub(super) fn new() -> Self {
        Self { id: Uuid::now_v7(), started_at: Timestamp::now() }
    }
}

/// The last report of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSeen {
    /// Its number.
    pub id: Uuid,
    /// Its role: `serve` or `work`.
    pub role: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it sent the report.
    pub told_at: Timestamp,
    /// Whether it has been quiet for too long.
    pub is_quiet: bool,
    /// When the oldest change that it holds was accepted.
    pub oldest_at: Option<Timestamp>,
    /// The broker, as the node sees it.
    pub rabbitmq: Seen,
    /// Since when it can use the database.
    pub postgresql_since: Timestamp,
    /// The partitions whose next message it does not understand.
    pub kept: Vec<i16>,
    /// Its rates since the previous beat.
    pub rates: Rates,
}

/// The changes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Changes accepted.
    pub accepted: f64,
    /// Changes applied.
    pub applied: f64,
    /// Changes rejected.
    pub refused: f64,
}

/// The rates of all nodes in one step of the history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// When the step began.
    pub at: Timestamp,
    /// The sum of all nodes.
    pub rates: Rates,
    /// The age of the oldest change that a worker held, in seconds.
    pub waited_s: f64,
}

/// How many messages waited in a partition, for each step of the history in which it was known.
pub type DepthHistory = Vec<(Timestamp, u32)>;

const TELL: &str = "insert into node_beat (node, beat_at, role, version, started_at, accepted, applied, refused, \
         oldest_at, rabbitmq_up, rabbitmq_since, postgresql_since, kept, depths) \
     values ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Any node removes beats that are too old, including those of nodes that have ended. Nodes do not wait for each other.
const FORGET: &str = "delete from node_beat where (node, beat_at) in ( \
         select node, beat_at from node_beat \
         where beat_at < statement_timestamp() - make_interval(secs => $1::bigint) \
         limit 1000 for update skip locked)";

/// Writes the report of a node.
pub(super) async fn tell(
    client: &Client,
    Node { id, started_at }: &Node,
    report: &Report,
    counts: Counts,
    oldest_at: Option<Timestamp>,
) -> Result<(), Error> {
    let (tell, forget) = try_join!(client.prepare_cached(TELL), client.prepare_cached(FORGET))?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let Report { duty, rabbitmq, postgresql, kept, depths, .. } = report;
    let kept: Vec<i16> = kept.iter().map(|partition| partition.cast_signed()).collect();
    let count = |messages: u32| i32::try_from(messages).unwrap_or(i32::MAX);
    let depths: Vec<Option<i32>> = depths.waiting().map(|messages| messages.map(count)).collect();
    let (accepted, applied, refused) =
        (number(counts.accepted), number(counts.applied), number(counts.refused));
    let told: [&(dyn ToSql + Sync); 13] = [
        id,
        &duty.as_str(),
        &build::VERSION,
        started_at,
        &accepted,
        &applied,
        &refused,
        &oldest_at,
        &rabbitmq.is_up(),
        &rabbitmq.since,
        &postgresql.since,
        &kept,
        &depths,
    ];
    try_join!(client.execute(&tell, &told), client.execute(&forget, &[&HISTORY_S]))?;
    Ok(())
}

const NODES: &str = "select distinct on (node) node, beat_at, role, version, started_at, oldest_at, rabbitmq_up, \
         rabbitmq_since, postgresql_since, kept, accepted_s, applied_s, refused_s, \
         beat_at < clock_timestamp() - make_interval(secs => $1::bigint) as is_quiet \
     from node_rate order by node, beat_at desc";

/// Steps are those of the clock, so all viewers see the same ones. Each has at least one beat of every node, and the
/// last one is complete.
const STEPS: &str = "with node_steps as ( \
         select date_bin(make_interval(secs => $1::bigint), beat_at, timestamptz 'epoch') as at, \
             avg(accepted_s) as accepted_s, avg(applied_s) as applied_s, avg(refused_s) as refused_s, \
             max(extract(epoch from beat_at - oldest_at)) as waited_s \
         from node_rate where seconds is not null group by node, at) \
     select at, sum(accepted_s) as accepted_s, sum(applied_s) as applied_s, sum(refused_s) as refused_s, \
         coalesce(max(waited_s), 0)::float8 as waited_s \
     from node_steps where at < clock_timestamp() - make_interval(secs => $1::bigint) \
     group by at order by at";

/// All nodes see the same queues, so each step has the depths that one node saw, if possible one that saw them all. The
/// partitions are in their order.
const DEPTHS: &str = "with steps as ( \
         select distinct on (at) date_bin(make_interval(secs => $1::bigint), beat_at, timestamptz 'epoch') as at, depths \
         from node_beat where beat_at > clock_timestamp() - make_interval(secs => $2::bigint) and depths <> '{}' \
         order by at, array_position(depths, null) nulls first, beat_at desc) \
     select array_agg(at order by at) as times, array_agg(depth order by at) as depths \
     from steps, unnest(depths) with ordinality as partitions (depth, partition) \
     group by partition order by partition";

/// Reads the reports of the nodes: each node's last beat, and the history of the nodes and of the partitions.
pub(super) async fn read(client: &Client) -> Result<(Vec<NodeSeen>, Vec<Step>, Vec<DepthHistory>), Error> {
    let prepare = |statement| client.prepare_cached(statement);
    let (nodes, steps, depths) = try_join!(prepare(NODES), prepare(STEPS), prepare(DEPTHS))?;
    let (nodes, steps, depths) = try_join!(
        client.query(&nodes, &[&QUIET_S]),
        client.query(&steps, &[&STEP_S]),
        client.query(&depths, &[&STEP_S, &HISTORY_S])
    )?;
    let nodes = nodes.iter().map(node).collect::<Result<_, Error>>()?;
    let step = |row: &Row| {
        let (at, waited_s) = (row.try_get("at")?, row.try_get("waited_s")?);
        Ok::<_, Error>(Step { at, rates: rates(row)?, waited_s })
    };
    let steps = steps.iter().map(step).collect::<Result<_, Error>>()?;
    Ok((nodes, steps, depths.iter().map(depth_history).collect::<Result<_, Error>>()?))
}

fn depth_history(row: &Row) -> Result<DepthHistory, Error> {
    let (times, depths): (Vec<Timestamp>, Vec<Option<i32>>) = (row.try_get("times")?, row.try_get("depths")?);
    let known = times.into_iter().zip(depths).filter_map(|(at, depth)| Some((at, depth?.unsigned_abs())));
    Ok(known.collect())
}

fn node(row: &Row) -> Result<NodeSeen, Error> {
    let (up, since) = (row.try_get("rabbitmq_up")?, row.try_get("rabbitmq_since")?);
    Ok(NodeSeen {
        id: row.try_get("node")?,
        role: row.try_get("role")?,
        version: row.try_get("version")?,
        started_at: row.try_get("started_at")?,
        told_at: row.try_get("beat_at")?,
        is_quiet: row.try_get("is_quiet")?,
        oldest_at: row.try_get("oldest_at")?,
        rabbitmq: Seen { state: State::of(up), since },
        postgresql_since: row.try_get("postgresql_since")?,
        kept: row.try_get("kept")?,
        rates: rates(row)?,
    })
}

fn rates(row: &Row) -> Result<Rates, Error> {
    // The first beat of a node has no rate.
    let rate = |name: &str| Ok::<_, Error>(row.try_get::<_, Option<f64>>(name)?.unwrap_or_default());
    Ok(Rates { accepted: rate("accepted_s")?, applied: rate("applied_s")?, refused: rate("refused_s")? })
}
