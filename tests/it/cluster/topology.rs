//! The queues on a cluster: three members each, and leaders on every node.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use point_system::local::{LocalRabbitMq, free_port};
use regex::Regex;

use super::servers;
use crate::support::{
    cluster::topology::{Members, set_policies},
    system::{PARTITIONS, System},
};

/// What `point-system topology --check` says of a list of queues, and whether it is content.
fn check(system: &System, list: &str, members: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_point-system"));
    command.args(["topology", "--check", "--members", members, "--amqp-url", &system.amqp_url]);
    command.args(["--queue-prefix", &system.prefix]).env("DATABASE_URL", &system.database.url);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the executable");
    child.stdin.take().expect("piped").write_all(list.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("an end");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_queue_has_three_members_and_the_policy_spreads_the_leaders() {
    let servers = servers().await;
    let system = servers.system(PARTITIONS).await;
    set_policies(&system, &servers.broker.nodes[0]).await;
    let work = system.process("work", &[]);
    work.says("working on").await;

    let members = Members::of(&servers.broker.nodes[0]).await;
    let names = system.names();
    let queues: Vec<String> = names.all().collect();
    let counts: Vec<usize> = queues.iter().map(|queue| members.count(queue)).collect();
    assert_eq!(counts, vec![3; queues.len()]);
    let leaders: BTreeSet<String> = queues.iter().map(|queue| members.leader(queue)).collect();
    assert_eq!(leaders.len(), 3, "{leaders:?}");

    let (content, printed) = check(&system, &members.json, "3");
    assert!(content && printed.contains(&format!("{}: 3 members", names.partition(0))), "{printed}");
    assert!(printed.contains("r1@localhost leads "), "{printed}");
    let (content, printed) = check(&system, &members.json, "5");
    assert!(!content && printed.contains("5 of 5 queues would not survive the loss of a node"), "{printed}");

    let lone = members.json.replace(&format!("\"{}\"", names.partition(0)), "\"another\"");
    let (content, printed) = check(&system, &lone, "3");
    assert!(!content && printed.contains(&format!("{}: missing", names.partition(0))), "{printed}");
    assert!(work.end("-TERM").await.success(), "a clean end");
    system.finish().await;
}

/// What a node exports of the members of its queues: each line as name, labels and value.
async fn exported(node: &LocalRabbitMq) -> String {
    let port = free_port().expect("a port");
    let setting = format!(
        "application:load(rabbitmq_prometheus), \
         application:set_env(rabbitmq_prometheus, tcp_config, [{{port, {port}}}, {{ip, \"127.0.0.1\"}}])."
    );
    node.control(&["eval", &setting]).await.expect("set");
    node.run("rabbitmq-plugins", &["enable", "rabbitmq_prometheus"]).await.expect("enabled");
    let url = format!("http://127.0.0.1:{port}/metrics/detailed?family=ra_metrics");
    reqwest::get(url).await.expect("an answer").text().await.expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_exports_the_members_that_the_alert_counts() {
    let servers = servers().await;
    let system = servers.system(PARTITIONS).await;
    let work = system.process("work", &[]);
    work.says("working on").await;
    let alerts = include_str!("../../../docs/ops/alerts.yml");
    let pattern = |label: &str| {
        let rest = alerts.split_once(&format!("{label}=~\"")).expect(label).1;
        Regex::new(&format!("^(?:{})$", rest.split('"').next().expect("a value"))).expect("a pattern")
    };
    let (name, queue) = (pattern("__name__"), pattern("queue"));
    let mut members = BTreeMap::new();
    for node in &servers.broker.nodes {
        for line in exported(node).await.lines() {
            let Some((metric, labels)) = line.split_once('{') else { continue };
            let of = labels.split_once("queue=\"").and_then(|(_, rest)| rest.split('"').next());
            if let Some(of) = of.filter(|of| name.is_match(metric) && queue.is_match(of)) {
                *members.entry(of.to_owned()).or_insert(0) += 1;
            }
        }
    }
    for queue in system.names().all() {
        assert_eq!(members.get(&queue), Some(&3), "{queue} in {members:?}");
    }
    assert!(work.end("-TERM").await.success(), "a clean end");
    system.finish().await;
}
