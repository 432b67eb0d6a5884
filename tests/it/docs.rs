//! The docs and the code say the same: flags, metrics, the README's commands, links, and the tests that are cited.
//! Must not contain what a document should say: the code is the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Command, CommandFactory};
use jiff::Timestamp;
use point_system::cli::Cli;
use tokio::process;
use uuid::Uuid;

use crate::{ops, system::System, tidy::rust_files};

/// The address in the README's commands.
const README_BASE: &str = "http://127.0.0.1:31001";

/// A row of a table, cell by cell.
type Row = Vec<String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table between two markers of docs/operations.md. A meaning ends without its period, as clap has it.
fn table(name: &str) -> Vec<Row> {
    let text = read("docs/operations.md");
    let (_, rest) = text.split_once(&format!("<!-- {name} -->")).expect("a first marker");
    let (table, _) = rest.split_once(&format!("<!-- end {name} -->")).expect("a last marker");
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let row = row.strip_prefix('|').and_then(|row| row.strip_suffix('|')).expect("a row");
        row.split('|').map(|cell| cell.trim().trim_end_matches('.').to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// Fails with the rows to add and to remove.
fn assert_same(name: &str, documented: Vec<Row>, known: &BTreeSet<Row>) {
    let count = documented.len();
    let documented: BTreeSet<Row> = documented.into_iter().collect();
    assert_eq!(documented.len(), count, "a row of {name} is there twice");
    let (missing, wrong) = (known.difference(&documented), documented.difference(known));
    let (missing, wrong): (Vec<_>, Vec<_>) = (missing.collect(), wrong.collect());
    let message = format!("docs/operations.md, {name}: missing {missing:#?}, wrong {wrong:#?}");
    assert!(missing.is_empty() && wrong.is_empty(), "{message}");
}

#[test]
fn the_table_of_flags_is_what_the_command_line_knows() {
    assert_same("flags", table("flags"), &flags());
}

/// Every flag as a row: flag, variable, default, roles, meaning.
fn flags() -> BTreeSet<Row> {
    let mut whole = Cli::command().name("point-system");
    // Gives each role the global flags.
    whole.build();
    let (mut roles, mut users) = (Vec::new(), BTreeMap::<[String; 4], Vec<String>>::new());
    collect_roles(&whole, &[], &mut roles);
    for (role, command) in &roles {
        for flag in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
            if !["help", "version"].contains(&flag.get_id().as_str()) {
                users.entry(description(flag)).or_default().push(role.clone());
            }
        }
    }
    let roles: Vec<String> = roles.into_iter().map(|(role, _)| role).collect();
    let row = |([flag, variable, default, help], users): ([String; 4], Vec<String>)| {
        vec![flag, variable, default, names(&users, &roles), help]
    };
    users.into_iter().map(row).collect()
}

/// The roles that do something, such as "serve" or "dead-letters list".
fn collect_roles<'a>(command: &'a Command, parents: &[&str], found: &mut Vec<(String, &'a Command)>) {
    for role in command.get_subcommands().filter(|role| role.get_name() != "help") {
        let name = [parents, &[role.get_name()]].concat();
        if role.has_subcommands() {
            collect_roles(role, &name, found);
        } else {
            found.push((name.join(" "), role));
        }
    }
}

/// Flag, variable, default and meaning.
fn description(flag: &clap::Arg) -> [String; 4] {
    let code = |text: &str| format!("`{text}`");
    let name = code(&format!("--{}", flag.get_long().expect("long")));
    let variable = flag.get_env().map(|name| code(&name.to_string_lossy())).unwrap_or_default();
    let values = flag.get_default_values().first();
    let default = match (flag.get_action(), values) {
        (ArgAction::SetTrue, _) => "off".to_owned(),
        (_, _) if flag.is_required_set() => "required".to_owned(),
        (_, Some(value)) => code(&value.to_string_lossy()),
        (_, None) => "none".to_owned(),
    };
    let help = flag.get_long_help().or(flag.get_help()).expect("a help text").to_string();
    [name, variable, default, help]
}

/// The roles in a few words: "all", or a parent instead of all of its children.
fn names(users: &[String], roles: &[String]) -> String {
    if users == roles {
        return "all".to_owned();
    }
    let mut names: Vec<&str> = Vec::new();
    for user in users {
        let parent = user.split(' ').next().expect("a word");
        let mut children = roles.iter().filter(|role| role.split(' ').next() == Some(parent));
        let name = if children.all(|child| users.contains(child)) { parent } else { user };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_metrics_is_what_the_nodes_export() {
    let system = System::new().await;
    let exported = ops::exported(&system).await;
    let mut documented = table("metrics");
    for row in &mut documented {
        row[2] = sorted(row[2].split(", "));
    }
    let named: BTreeSet<String> = documented.iter().map(|row| row[0].replace('`', "")).collect();
    assert_same("metrics", documented, &metrics(&exported));
    let in_code: BTreeSet<String> = rust_files("src/infra/metrics")
        .iter()
        .flat_map(|(_, text)| text.split('"'))
        .filter(|part| part.starts_with("point_system_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, in_code, "names in docs/operations.md and in src/infra/metrics");
    system.finish().await;
}

/// Every metric as a row: name, type, labels, meaning.
fn metrics(exported: &str) -> BTreeSet<Row> {
    let described = |kind: &str| -> BTreeMap<&str, &str> {
        exported.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(' ')).collect()
    };
    let (help, types) = (described("# HELP "), described("# TYPE "));
    let row = |(name, meaning): (&&str, &&str)| {
        let kind = types[name];
        let suffix = if kind == "histogram" { "_count" } else { "" };
        let start = format!("{name}{suffix}{{");
        let series = exported.lines().find_map(|line| line.strip_prefix(&start)?.rsplit_once('}'));
        let labels = series.map(|(labels, _)| {
            sorted(labels.split("\",").map(|label| label.split_once('=').expect("a label").0))
        });
        vec![format!("`{name}`"), kind.to_owned(), labels.unwrap_or_default(), (*meaning).to_owned()]
    };
    help.iter().map(row).collect()
}

fn sorted<'a>(labels: impl Iterator<Item = &'a str>) -> String {
    let labels: BTreeSet<&str> = labels.collect();
    labels.into_iter().collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_answer_as_it_says() {
    if !shell("curl --version").await.starts_with("curl ") {
        eprintln!("skipped: curl is not on the PATH");
        return;
    }
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let readme = read("README.md");
    let mut pending = 0;
    for (command, expected) in examples(&readme) {
        let command = command.replace(README_BASE, client.base());
        let curl = command.strip_prefix("curl ").expect("a command that this test can run");
        // What is pending is applied before the next command.
        system.drain(pending).await;
        let answer = shell(&format!("curl -sS {curl}")).await;
        assert_eq!(shape(&answer), shape(&expected), "{command}");
        pending += usize::from(answer.contains(r#""status":"pending""#));
    }
    assert!(pending > 0, "the README shows no queued change");
    system.finish().await;
}

async fn shell(command: &str) -> String {
    let output = process::Command::new("sh").args(["-c", command]).output().await.expect("a shell");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim_end().to_owned()
}

/// The commands in the `console` blocks of a document, each with what it prints.
fn examples(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = blocks.flat_map(|block| block.split("$ ").skip(1));
    let parts = commands.filter_map(|example| example.split_once('\n'));
    parts.map(|(command, printed)| (command.to_owned(), printed.trim_end().to_owned())).collect()
}

/// A text with each id and each time replaced by its kind.
fn shape(text: &str) -> String {
    let kind = |part: &str| match (part.parse::<Uuid>(), part.parse::<Timestamp>()) {
        (Ok(id), _) => format!("<id of version {}>", id.get_version_num()),
        (_, Ok(_)) => "<time>".to_owned(),
        _ => part.to_owned(),
    };
    text.split('"').map(kind).collect::<Vec<_>>().join("\"")
}

/// The documents, by their paths.
fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).expect("a folder").flatten().map(|entry| entry.path());
    let docs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    docs.chain(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = prose(&read(&document));
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.parent().expect("a folder");
            let target = if path.is_empty() { document.clone() } else { folder.join(path) };
            let found = if anchor.is_empty() {
                target.exists()
            } else {
                target.is_file() && anchors(&read(&target)).contains(anchor)
            };
            if !found {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose(text).lines().filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let anchor: String = heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = [anchor.clone()].into_iter().chain(again);
        anchors.insert(names.find(|name| !anchors.contains(name)).expect("a free name"));
    }
    anchors
}

#[test]
fn every_test_that_the_guarantees_cite_exists() {
    let text = read("docs/guarantees.md");
    let cited: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|code| is_test(code)).collect();
    assert!(cited.len() > 30, "{cited:?}");
    let file = |path: &str| {
        let path = root().join("tests/it").join(path.replace("::", "/"));
        [path.with_extension("rs"), path.join("mod.rs")].into_iter().find(|path| path.exists())
    };
    let everywhere: String = rust_files("src").into_iter().map(|(_, text)| text).collect();
    let exists = |cited: &&str| match cited.rsplit_once("::") {
        None => everywhere.contains(&format!("fn {cited}(")),
        Some((module, name)) => {
            let has = |path: &PathBuf| read(path).contains(&format!("fn {name}("));
            file(cited).is_some() || file(module).is_some_and(|path| has(&path))
        }
    };
    let missing: Vec<&&str> = cited.iter().filter(|cited| !exists(cited)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Whether `code` names a test: a path, or a sentence.
fn is_test(code: &str) -> bool {
    let is_name = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c));
    is_name && (code.contains("::") || code.matches('_').count() > 3)
}
