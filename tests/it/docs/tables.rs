//! The tables of docs/operations.md say what the code says: roles, flags, metrics. Must not contain a row: the code is
//! the source.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, Command, CommandFactory};
use point_system::cli::Cli;

use super::read;
use crate::{ops, support::system::System, tidy::sources};

/// A row of a table, cell by cell.
type Row = Vec<String>;

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
fn the_table_of_roles_has_every_role() {
    let text = read("docs/operations.md");
    let row = |role: &Command| format!("\n| `point-system {}", role.get_name());
    let cli = Cli::command();
    let missing: Vec<String> = cli.get_subcommands().map(row).filter(|row| !text.contains(row)).collect();
    assert!(missing.is_empty(), "{missing:?}");
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
        for flag in command.get_arguments().filter(|arg| arg.get_long().is_some() && !arg.is_hide_set()) {
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
fn description(flag: &Arg) -> [String; 4] {
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
    let in_code: BTreeSet<String> = sources("src/infra/metrics")
        .iter()
        .flat_map(|source| source.text.split('"'))
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
