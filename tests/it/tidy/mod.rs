//! The rooms of the house: which file may use what, what each says of itself, and how large one may be. Every rule is
//! tried on a line that breaks it.

use std::sync::LazyLock;

use regex::Regex;

pub use source::sources;
use source::{Source, regex};

mod source;

/// The most lines of a file.
const FILE_MAX_LINES: usize = 300;

/// The most lines of a function, its signature included.
const FUNCTION_MAX_LINES: usize = 70;

/// The rooms of `src` and what each may import. A room imports only what comes after it here, so there is no circle.
const ROOMS: [(&str, &[&str]); 12] = [
    ("main", &["cli", "infra"]),
    ("cli", &["http", "worker", "jobs", "ops", "access", "queue", "domain", "local", "infra"]),
    ("http", &["ops", "access", "queue", "domain", "infra"]),
    ("worker", &["queue", "domain", "infra"]),
    ("jobs", &["domain", "infra"]),
    ("ops", &["queue", "domain", "infra"]),
    ("access", &["domain", "infra"]),
    ("queue", &["domain", "infra"]),
    ("domain", &["infra"]),
    ("local", &["infra"]),
    ("infra", &[]),
    ("lib", &[]),
];

/// What belongs to one room alone, as a word of the code: a library, or a statement on a table.
const BELONGINGS: [(&[&str], &[&str]); 20] = [
    (&["actix_web", "actix_rt", "actix_http", "actix_server", "actix_service"], &["http", "cli/serve.rs"]),
    (&["utoipa", "maud"], &["http"]),
    (&["pulldown_cmark"], &["http/console/help.rs"]),
    (&["amqprs"], &["queue"]),
    (&["insert into log", "into user_point", "update user_point"], &["domain/store"]),
    (&["from user_point", "from log"], &["domain/store", "domain/audit"]),
    (&["into installation", "from installation"], &["domain/installation.rs"]),
    (&["partition_pulse", "partition_silence"], &["ops/pulse"]),
    (&["node_beat", "node_rate"], &["ops/beat.rs"]),
    (&["api_key"], &["access/store.rs"]),
    (&["sha2", "subtle", "getrandom", "governor", "arc_swap"], &["access"]),
    (&["deadpool", "deadpool_postgres"], &["infra/postgres"]),
    (&["rustls", "tokio_rustls", "rustls_native_certs"], &["infra/tls.rs"]),
    (&["tokio_postgres"], &["domain", "access", "ops", "infra", "cli"]),
    (&["PointService"], &["domain", "http", "worker", "jobs", "cli"]),
    (&["refinery"], &["infra/migrate.rs"]),
    (&["prometheus"], &["infra/metrics"]),
    (
        &["serde", "serde_json"],
        &[
            "http",
            "queue/wire",
            "domain/members.rs",
            "domain/metadata.rs",
            "domain/holds.rs",
            "cli",
            "infra/logging.rs",
        ],
    ),
    (&["anyhow"], &["cli", "local", "infra/migrate.rs", "infra/postgres"]),
    (&["process::Command"], &["local"]),
];

/// What no file of `src` may have outside of its tests.
const NOWHERE: [&str; 3] = [".unwrap()", "todo!", "dbg!"];

/// A file may import what its room may.
fn wrong_imports(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: {room} is no room of the house", source.path)];
    };
    let wrong =
        source.imports().into_iter().filter(|import| import != room && !allowed.contains(&import.as_str()));
    wrong.map(|import| format!("{} imports {import}", source.path)).collect()
}

/// A file may have its room's belongings, and what nobody owns. Rows are read by the names of their columns.
fn wrong_words(source: &Source) -> Vec<String> {
    static BY_NUMBER: LazyLock<Regex> =
        LazyLock::new(|| regex(r"\b(try_)?get(::<[^>]*>+)?\((&?row, )?[0-9]\)"));
    let mut wrong: Vec<String> = NOWHERE
        .iter()
        .filter(|word| source.code().contains(**word))
        .map(|word| format!("{} has {word}", source.path))
        .collect();
    if !source.is_in("infra/postgres") && BY_NUMBER.is_match(&source.code()) {
        wrong.push(format!("{} reads a column by its number", source.path));
    }
    for (words, places) in BELONGINGS {
        let is_home = places.iter().any(|place| source.is_in(place));
        let strangers = words.iter().filter(|word| !is_home && source.has_word(word));
        wrong.extend(strangers.map(|word| format!("{} has {word}", source.path)));
    }
    wrong
}

/// A file says what lives in it, one of `src` also what must not, and neither it nor a function is long.
fn wrong_shape(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut wrong = Vec::new();
    let header = source.header();
    if header.is_empty() {
        wrong.push(format!("{path} does not say what lives in it"));
    }
    let is_room = path.starts_with("src/") && path != "src/lib.rs";
    if is_room && !header.contains("Must not contain") {
        wrong.push(format!("{path} does not say what it must not contain"));
    }
    let lines = source.text.lines().count();
    if lines > FILE_MAX_LINES {
        wrong.push(format!("{path} has {lines} lines"));
    }
    // What the other rules skip, the tests of a file, is the end of it.
    if let Some((_, tests)) = source.text.split_once("\n#[cfg(test)]\n")
        && (!tests.starts_with("mod tests {\n") || tests.find("\n}\n") != Some(tests.len() - 3))
    {
        wrong.push(format!("{path} has code behind its tests"));
    }
    let long = source.functions().into_iter().filter(|(_, lines)| *lines > FUNCTION_MAX_LINES);
    wrong.extend(long.map(|(name, lines)| format!("{path}: {name} has {lines} lines")));
    wrong
}

fn all_of(folders: &[&str], rule: impl Fn(&Source) -> Vec<String>) {
    let files = folders.iter().flat_map(|folder| sources(folder));
    let wrong: Vec<String> = files.flat_map(|source| rule(&source)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_go_one_way() {
    all_of(&["src"], wrong_imports);
    for (index, (room, allowed)) in ROOMS.iter().enumerate() {
        let later = |import: &&str| ROOMS[index..].iter().any(|(room, _)| room == import);
        assert!(allowed.iter().all(later), "{room} imports what comes before it: a circle");
        let others =
            ROOMS.iter().map(|(other, _)| *other).filter(|other| other != room && !allowed.contains(other));
        for other in others {
            for line in [
                format!("use crate::{other}::Thing;"),
                format!("use crate::{{\n    {room}::Mine,\n    {other}::{{Thing, more::Things}},\n}};"),
                format!("fn f() {{ crate::{other}::thing() }}"),
                format!("fn f() {{ point_system::{other}::thing() }}"),
            ] {
                let wrong = wrong_imports(&Source::new(&format!("src/{room}/file.rs"), &line));
                assert_eq!(wrong, [format!("src/{room}/file.rs imports {other}")], "{line}");
            }
        }
        for import in *allowed {
            let line = format!("use crate::{import}::Thing; // crate::nothing::in::a::comment");
            let fine = wrong_imports(&Source::new(&format!("src/{room}.rs"), &line.replace(" //", "\n//")));
            assert!(fine.is_empty(), "{fine:?}");
        }
    }
    let stranger = Source::new("src/attic/file.rs", "");
    assert_eq!(wrong_imports(&stranger), ["src/attic/file.rs: attic is no room of the house"]);
}

#[test]
fn each_library_and_table_stays_in_its_room() {
    all_of(&["src"], wrong_words);
    for (words, places) in BELONGINGS {
        for word in words {
            let line = format!("fn f() {{ let x = \"{word} \"; {word}::call() }}");
            for (room, _) in
                ROOMS.iter().filter(|(room, _)| !places.iter().any(|place| place.starts_with(room)))
            {
                let path = format!("src/{room}/file.rs");
                assert_eq!(wrong_words(&Source::new(&path, &line)), [format!("{path} has {word}")]);
            }
            for place in places {
                let path = format!("src/{}.rs", place.trim_end_matches(".rs"));
                assert!(wrong_words(&Source::new(&path, &line)).is_empty(), "{path}");
            }
        }
    }
    for line in ["row.try_get(0)", "get(&row, 2)", "row.get::<_, i64>(1)", "get::<Option<&str>>(row, 3)"] {
        let wrong = wrong_words(&Source::new("src/ops/file.rs", line));
        assert_eq!(wrong, ["src/ops/file.rs reads a column by its number"], "{line}");
    }
    for word in NOWHERE {
        let line = format!("let x = y{word};");
        assert_eq!(
            wrong_words(&Source::new("src/cli/file.rs", &line)),
            [format!("src/cli/file.rs has {word}")]
        );
    }
}

#[test]
fn files_and_functions_are_short_and_begin_with_what_they_hold() {
    all_of(&["src", "tests", "benches"], wrong_shape);
    let head = "//! Things. Must not contain others.\n";
    let path = "src/cli/file.rs";
    let shape = |text: &str| wrong_shape(&Source::new(path, text));
    assert!(shape(head).is_empty());
    assert_eq!(shape("// Things.\n").len(), 2);
    assert_eq!(shape("//! Things.\n"), [format!("{path} does not say what it must not contain")]);
    let tests = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n";
    assert!(shape(&format!("{head}{tests}")).is_empty());
    assert_eq!(shape(&format!("{head}{tests}fn g() {{}}\n")), [format!("{path} has code behind its tests")]);
    let long = format!("{head}{}", "\n".repeat(FILE_MAX_LINES));
    assert_eq!(shape(&long), [format!("{path} has {} lines", FILE_MAX_LINES + 1)]);
    for start in
        ["fn f() {", "pub fn f() {", "pub(super) async fn f() {", "pub(in crate::domain) const fn f() {"]
    {
        let long = format!("{head}{start}\n{}}}\n", "    call();\n".repeat(FUNCTION_MAX_LINES - 1));
        assert_eq!(shape(&long), [format!("{path}: {start} has {} lines", FUNCTION_MAX_LINES + 1)]);
    }
}

#[test]
fn every_file_of_tests_is_one_that_runs() {
    let modules = include_str!("../main.rs");
    let top = sources("tests/it").into_iter().map(|source| source.path);
    for path in top {
        let name = path.trim_start_matches("tests/it/").split(['/', '.']).next().expect("a name").to_owned();
        let runs = name == "main" || modules.contains(&format!("\nmod {name};\n"));
        assert!(runs, "tests/it/main.rs has no `mod {name};`, so {path} never runs");
    }
}
