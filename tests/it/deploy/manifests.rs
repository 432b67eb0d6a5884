//! The manifests: their commands and variables are those of the program, and no container has more rights than it needs.

use std::{collections::BTreeSet, fs, time::Duration};

use clap::{Arg, Command, CommandFactory, Parser};
use point_system::cli::Cli;
use regex::Regex;
use serde_json::{Value, json};

use super::{COMPOSE, PACKAGES, files, kubernetes, root};
use crate::support::tools;

/// The longest that a role takes to end, by default.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Every file that starts the program, with its text.
fn starters() -> Vec<(String, String)> {
    let listed = COMPOSE.iter().chain(&["Containerfile"]).map(|name| root().join(name));
    let found = [kubernetes(), files("deploy/systemd", ".service"), files("deploy/systemd", ".env")].concat();
    listed
        .chain(found)
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("a text")))
        .collect()
}

/// The arguments of the program wherever something starts it.
fn commands(text: &str) -> Vec<Vec<String>> {
    let start =
        r"(?m)(?:^ExecStart=/usr/bin/point-system |(?:^CMD |^ *args: |test: |^ +command: )\[)([^\]\n]*)";
    let start = Regex::new(start).expect("a pattern");
    let words = |found: regex::Captures| {
        let words = found[1].split([' ', ',']).filter(|word| !word.is_empty());
        words.map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>()
    };
    let ours = |words: &Vec<String>| words[0] != "CMD" || words[1] == "/point-system";
    let bare = |words: Vec<String>| if words[0] == "CMD" { words[2..].to_vec() } else { words };
    start.captures_iter(text).map(words).filter(ours).map(bare).collect()
}

/// The variables of a command and those below it.
fn variables(command: &Command, found: &mut BTreeSet<String>) {
    let named = command.get_arguments().filter_map(Arg::get_env);
    found.extend(named.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|role| variables(role, found));
}

#[test]
fn what_starts_the_program_uses_commands_and_variables_that_it_has() {
    let mut known = BTreeSet::new();
    variables(&Cli::command(), &mut known);
    let variable = Regex::new(r"\bPOINT_SYSTEM_[A-Z_]+").expect("a pattern");
    let mut started = BTreeSet::new();
    for (path, text) in starters() {
        for name in variable.find_iter(&text).map(|found| found.as_str()) {
            // The image has it as an argument of its build.
            assert!(known.contains(name) || name == "POINT_SYSTEM_COMMIT", "{path}: {name}");
        }
        for command in commands(&text) {
            let urls = ["--database-url", "postgres://u@h/d", "--amqp-url", "amqp://h"];
            let needed = match command[0].as_str() {
                "health" => &urls[..0],
                "migrate" => &urls[..2],
                _ => &urls,
            };
            let line = ["point-system"]
                .into_iter()
                .chain(command.iter().map(String::as_str))
                .chain(needed.iter().copied());
            let error = Cli::try_parse_from(line).err().map(|error| format!("{error}"));
            assert_eq!(error, None, "{path}: {command:?}");
            started.insert(command[0].clone());
        }
    }
    assert_eq!(
        started,
        ["health", "migrate", "serve", "work"].map(str::to_owned).into(),
        "the commands are found"
    );
}

/// The documents of YAML files, by Python.
async fn documents(texts: &[String]) -> Option<Vec<Value>> {
    let read = "import sys, json, yaml; print(json.dumps([d for f in sys.argv[1:] for d in yaml.safe_load_all(open(f))]))";
    let mut python = tools::python("python", &PACKAGES).await?;
    let output = python.args(["-c", read]).args(texts).output().await.expect("python");
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_container_in_kubernetes_has_more_than_it_needs() {
    let paths: Vec<String> = kubernetes().iter().map(|path| path.display().to_string()).collect();
    let Some(documents) = documents(&paths).await else {
        eprintln!("skipped: python3 can't install {} here", PACKAGES.join(", "));
        return;
    };
    let mut pods = 0;
    for document in documents.iter().filter(|document| !document["spec"]["template"].is_null()) {
        pods += 1;
        let (name, pod) = (&document["metadata"]["name"], &document["spec"]["template"]["spec"]);
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let container = &pod["containers"][0];
        let rights = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}});
        assert_eq!(container["securityContext"], rights, "{name}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        for variable in container["env"].as_array().expect("variables") {
            let is_url = variable["name"].as_str().expect("a name").ends_with("_URL");
            assert_eq!(is_url, variable["valueFrom"]["secretKeyRef"].is_object(), "{name}: {variable}");
        }
        if document["kind"] == "Deployment" {
            let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
            assert!(grace > SHUTDOWN.as_secs(), "{name}: {grace}");
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe]["httpGet"].is_object(), "{name}: {probe}");
            }
        }
    }
    assert_eq!(pods, 3);
    // A rule with a wildcard, and any rule for the API of Kubernetes, is more than we need.
    assert!(documents.iter().all(|document| !document["kind"].to_string().contains("Role")), "{documents:?}");
    let version = concat!("point-system:", env!("CARGO_PKG_VERSION"));
    let migrate = documents.iter().find(|document| document["kind"] == "Job").expect("a Job");
    assert_eq!(migrate["spec"]["template"]["spec"]["containers"][0]["image"], version);
    let kustomization =
        fs::read_to_string(root().join("deploy/kubernetes/kustomization.yaml")).expect("a text");
    assert!(kustomization.contains(concat!("newTag: ", env!("CARGO_PKG_VERSION"), "\n")), "{kustomization}");
}
