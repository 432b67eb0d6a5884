//! The rooms of the house: which file may use what, and how large one may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The most lines of a file.
const FILE_MAX_LINES: usize = 300;

/// The most lines of a function, its signature included.
const FUNCTION_MAX_LINES: usize = 70;

pub fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("inside").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no Rust files in {folder}");
    found
}

/// The files in `src` that have one of `words` outside of comments.
fn users_of(words: &[&str]) -> Vec<String> {
    let code = |text: &str| {
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let mut users: Vec<String> = rust_files("src")
        .into_iter()
        .filter(|(_, text)| words.iter().any(|word| code(text).contains(word)))
        .map(|(path, _)| path.display().to_string())
        .collect();
    users.sort();
    users
}

#[test]
fn each_library_stays_in_its_room() {
    for (words, room, guests) in [
        (
            &["actix_web", "actix_rt", "actix_http", "actix_server", "actix_service"][..],
            "src/http/",
            &["src/cli/serve.rs"][..],
        ),
        (&["amqprs"][..], "src/queue/", &["src/main.rs"][..]),
        (
            &["insert into log", "into user_point", "update user_point", "from user_point", "from log"][..],
            "src/domain/store",
            &["src/domain/audit/scan.rs", "src/domain/audit/examine.rs", "src/domain/audit/uniqueness.rs"][..],
        ),
        (&["api_key "][..], "src/access/store.rs", &[][..]),
        (&["sha2", "subtle", "getrandom", "governor", "arc_swap"][..], "src/access/", &[][..]),
        (&["refinery"][..], "src/infra/migrate.rs", &[][..]),
        (&["prometheus::"][..], "src/infra/metrics/", &[][..]),
        (&["serde"][..], "src/", &[][..]),
        (&["process::Command"][..], "src/local/", &[][..]),
    ] {
        let strangers: Vec<String> = users_of(words)
            .into_iter()
            .filter(|file| !file.starts_with(room) && !guests.contains(&file.as_str()))
            .collect();
        assert!(strangers.is_empty(), "{words:?} outside of {room}: {strangers:?}");
    }
    let serde_in_domain: Vec<String> =
        users_of(&["serde"]).into_iter().filter(|file| file.starts_with("src/domain/")).collect();
    assert!(serde_in_domain.is_empty(), "{serde_in_domain:?}");
}

#[test]
fn imports_go_one_way() {
    for (room, forbidden) in [
        ("src/http/", &["worker"][..]),
        ("src/worker.rs", &["http"][..]),
        ("src/queue/", &["http", "worker", "postgres", "PointService"][..]),
        ("src/domain/", &["http", "worker", "queue", "config", "postgres"][..]),
        ("src/access/", &["http", "worker", "queue", "domain", "config", "postgres"][..]),
        ("src/infra/metrics/", &["http", "worker", "queue", "domain", "postgres"][..]),
        ("src/infra/lane/", &["http", "worker", "queue", "domain", "postgres"][..]),
    ] {
        for (path, text) in
            rust_files("src").iter().filter(|(path, _)| path.starts_with(room.trim_end_matches('/')))
        {
            for line in text.split(';').filter(|statement| statement.contains("use crate::")) {
                let found = forbidden.iter().find(|module| line.contains(*module));
                assert!(found.is_none(), "{} imports {found:?}", path.display());
            }
        }
    }
}

#[test]
fn files_and_functions_are_short_and_begin_with_what_they_hold() {
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(rust_files) {
        let path = path.display();
        assert!(text.starts_with("//! "), "{path} does not say what lives in it");
        let lines = text.lines().count();
        assert!(lines <= FILE_MAX_LINES, "{path} has {lines} lines");
        for (name, lines) in functions(&text) {
            assert!(lines <= FUNCTION_MAX_LINES, "{path}: {name} has {lines} lines");
        }
    }
}

/// Each function's name and number of lines, by rustfmt's indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &str| {
        let line = line.trim_start();
        ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn "]
            .iter()
            .any(|start| line.starts_with(start))
            || line.starts_with("pub(super) async fn ")
    };
    let starts = (0..lines.len()).filter(|index| begins(lines[*index]));
    starts
        .map(|start| {
            let indent = lines[start].len() - lines[start].trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().take_while(|line| **line != end).count() + 1;
            (lines[start].trim().to_owned(), length)
        })
        .collect()
}
