//! The docs are true: the commands of the README and the guide, the links, the cited tests, and in `tables` the tables of
//! Operations. Must not contain the text of a document.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use regex::Regex;
use tokio::process::Command;
use uuid::Uuid;

use crate::{support::system::System, tidy::sources};

mod runbooks;
mod tables;

/// The address in the commands.
const BASE: &str = "http://127.0.0.1:31001";

/// The end of a year in the commands, which stands for that of the next year.
const YEAR_END: &str = "2027-12-31";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_answer_as_it_says() {
    assert!(answer_as_they_say("README.md").await > 0, "the README shows no queued change");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_guide_answer_as_it_says() {
    answer_as_they_say("docs/guide.md").await;
}

/// Runs the commands of a document, and returns how many changes they have queued.
async fn answer_as_they_say(document: &str) -> usize {
    if !shell("curl --version").await.starts_with("curl ") {
        eprintln!("skipped: curl is not on the PATH");
        return usize::MAX;
    }
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let next_year = format!("{}-12-31", Timestamp::now().to_zoned(TimeZone::UTC).year() + 1);
    let mut pending = 0;
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Path::new(env!("CARGO_BIN_EXE_point-system")).parent().expect("a folder").display();
    let before = format!(
        "cd '{}'; export DATABASE_URL='{}' PATH='{programs}':\"$PATH\"; curl() {{ command curl -sS \"$@\"; }};",
        folder.path().display(),
        system.database.url
    );
    for (command, expected) in examples(&read(document)) {
        let command = command.replace(BASE, client.base()).replace(YEAR_END, &next_year);
        // What is pending is applied before the next command.
        system.drain(pending).await;
        let answer = shell(&format!("{before} {command}")).await;
        assert_eq!(shape(&answer), shape(&expected), "{command}");
        pending += usize::from(answer.contains(r#""status":"pending""#));
    }
    system.finish().await;
    pending
}

async fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().await.expect("a shell");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim_end().to_owned()
}

/// The commands in the `console` blocks of a document, each with what it prints.
fn examples(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = blocks.flat_map(|block| block.split("$ ").skip(1));
    let parts = commands.filter_map(|example| example.split_once('\n'));
    parts.map(|(command, printed)| (command.to_owned(), printed.trim_end().to_owned())).collect()
}

/// A text with each id, each time and each duration replaced by its kind.
fn shape(text: &str) -> String {
    let text = Regex::new(r" in \d+\.\d s$").expect("a pattern").replace(text, " in <duration>");
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
    docs.chain(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name))).collect()
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
fn every_test_that_the_guarantees_and_the_threat_model_cite_exists() {
    let text = read("docs/guarantees.md") + &read("SECURITY.md");
    let cited: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|code| is_test(code)).collect();
    assert!(cited.len() > 30, "{cited:?}");
    let file = |path: &str| {
        let path = root().join("tests/it").join(path.replace("::", "/"));
        [path.with_extension("rs"), path.join("mod.rs")].into_iter().find(|path| path.exists())
    };
    let everywhere: String = sources("src").into_iter().map(|source| source.text).collect();
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
