//! The dashboard and the alerts: they use existing metrics, and promtool accepts them.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    ops::exported,
    support::{client::text, system::System},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are_and_show_each_gauge() {
    let system = System::new().await;
    let text = exported(&system).await;
    let exported = names(&text);
    for file in ["grafana.json", "alerts.yml", "alerts_test.yml"] {
        let text = read(file);
        let asked = names(&text);
        assert!(asked.len() > 5, "{file}");
        let missing: Vec<_> = asked.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    let queries = [dashboard_queries(), alert_queries()].concat().join("\n");
    let asked = names(&queries);
    let unseen: Vec<_> = gauges(&text).difference(&asked).copied().collect();
    assert!(unseen.is_empty(), "no panel and no alert asks for {unseen:?}");
    system.finish().await;
}

/// The names of our metrics in `text`.
fn names(text: &str) -> BTreeSet<&str> {
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    parts.filter(|part| part.starts_with("point_system_")).collect()
}

/// The gauges in an export.
fn gauges(exported: &str) -> BTreeSet<&str> {
    let types = exported.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"));
    let gauges: BTreeSet<&str> = types.filter(|name| name.starts_with("point_system_")).collect();
    assert!(gauges.len() > 10, "{gauges:?}");
    gauges
}

fn operations_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/ops")
}

fn read(file: &str) -> String {
    fs::read_to_string(operations_folder().join(file)).expect(file)
}

/// The Prometheus queries of the dashboard's panels and annotations.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let targets = list(&dashboard["panels"]).into_iter().flat_map(|panel| list(&panel["targets"]));
    let annotations = list(&dashboard["annotations"]["list"]);
    let queries =
        targets.chain(annotations).map(|asked| text(&asked["expr"]).replace("$__rate_interval", "1m"));
    let queries: Vec<String> = queries.collect();
    assert!(queries.len() > 20, "{queries:?}");
    queries
}

/// The Prometheus queries of the alerts. A long one continues on lines that are indented further.
fn alert_queries() -> Vec<String> {
    const INDENT: &str = "        expr: ";
    let alerts = read("alerts.yml");
    let rests = alerts.split(INDENT).skip(1);
    let query = |rest: &str| {
        let more = rest.lines().skip(1).take_while(|line| line.starts_with("          "));
        rest.lines().take(1).chain(more).collect::<Vec<_>>().join(" ")
    };
    let queries: Vec<String> = rests.map(query).collect();
    assert_eq!(queries.len(), alerts.matches("- alert: ").count(), "{queries:?}");
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_no_fault() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(operations_folder()).stdin(Stdio::null());
        command
    };
    if !promtool(&["--version"]).output().await.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: promtool is not on the PATH");
        return;
    }
    for arguments in [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = promtool(&arguments).output().await.expect("promtool");
        assert!(output.status.success(), "{output:?}");
    }
    let mut system = System::new().await;
    let client = system.serve();
    client.balance(7).await;
    let rules: Vec<Value> =
        dashboard_queries().iter().map(|query| json!({"record": "dashboard:query", "expr": query})).collect();
    // JSON is YAML.
    let file = tempfile::NamedTempFile::new().expect("a file");
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    fs::write(file.path(), rules).expect("written");
    let path = file.path().to_str().expect("text");
    let output = promtool(&["check", "rules", "--lint=none", path]).output().await.expect("promtool");
    assert!(output.status.success(), "{output:?}");
    let metrics = point_system::infra::metrics::render().expect("text");
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), metrics).expect("written");
    let mut check = promtool(&["check", "metrics"]);
    let output = check.stdin(file.reopen().expect("opened")).output().await.expect("promtool");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    system.finish().await;
}
