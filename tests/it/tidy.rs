//! The rules of the house: what each file may use, what its header says, and how long it may be. Every rule is tried on
//! a line that breaks it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;

/// The most lines in a file.
const FILE_MAX_LINES: usize = 300;

/// The most lines in a function, its signature included.
const FUNCTION_MAX_LINES: usize = 70;

/// The rooms of `src` and what each may import. A room imports only rooms after it in this list, so there is no cycle.
const ROOMS: [(&str, &[&str]); 11] = [
    ("main", &["cli", "infra"]),
    ("cli", &["http", "worker", "ops", "access", "queue", "domain", "local", "infra"]),
    ("http", &["ops", "access", "queue", "domain", "infra"]),
    ("worker", &["queue", "domain", "infra"]),
    ("ops", &["queue", "domain", "infra"]),
    ("access", &["infra"]),
    ("queue", &["domain", "infra"]),
    ("domain", &["infra"]),
    ("local", &["infra"]),
    ("infra", &[]),
    ("lib", &[]),
];

/// Words of the code that belong to certain rooms alone: a library, or a statement on a table.
const BELONGINGS: [(&[&str], &[&str]); 13] = [
    (&["actix_web", "actix_rt", "actix_http", "actix_server", "actix_service"], &["http", "cli/serve.rs"]),
    (&["utoipa", "maud"], &["http"]),
    (&["amqprs"], &["queue"]),
    (&["insert into log", "into user_point", "update user_point"], &["domain/store"]),
    (&["from user_point", "from log"], &["domain/store", "domain/audit"]),
    (&["partition_pulse"], &["ops/pulse.rs"]),
    (&["api_key"], &["access/store.rs"]),
    (&["sha2", "subtle", "getrandom", "governor", "arc_swap"], &["access"]),
    (&["refinery"], &["infra/migrate.rs"]),
    (&["prometheus"], &["infra/metrics"]),
    (&["serde", "serde_json"], &["http", "queue/wire.rs", "cli", "infra/logging.rs"]),
    (&["anyhow"], &["cli", "local", "infra/migrate.rs", "infra/postgres"]),
    (&["process::Command"], &["local"]),
];

/// Words that no file of `src` may have outside its unit tests.
const NOWHERE: [&str; 3] = [".unwrap()", "todo!", "dbg!"];

/// A file, with its path from the root of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Its room: a folder of `src`, or a file directly in `src`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        inside.split(['/', '.']).next().unwrap_or_default()
    }

    fn is_in(&self, place: &str) -> bool {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        inside.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    }

    /// The code, without comments and unit tests.
    fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.take_while(|line| *line != "#[cfg(test)]").collect::<Vec<_>>().join("\n")
    }

    /// The rooms that it imports, through `use` or a path.
    fn imports(&self) -> BTreeSet<String> {
        static PATH: LazyLock<Regex> = LazyLock::new(|| regex(r"\b(?:crate|point_system)::(\w+|\{)"));
        let (code, mut rooms) = (self.code(), BTreeSet::new());
        for found in PATH.captures_iter(&code) {
            let name = found.get(1).expect("a group");
            match name.as_str() {
                "{" => rooms.extend(names(&code[name.end()..])),
                room => drop(rooms.insert(room.to_owned())),
            }
        }
        rooms
    }

    fn has_word(&self, word: &str) -> bool {
        let code = self.code();
        code.match_indices(word).any(|(start, _)| {
            let is_part = |next: Option<char>| next.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !is_part(code[..start].chars().next_back()) && !is_part(code[start + word.len()..].chars().next())
        })
    }

    /// Each function's first line and number of lines, found by rustfmt's indentation.
    fn functions(&self) -> Vec<(String, usize)> {
        static BEGIN: LazyLock<Regex> = LazyLock::new(|| {
            regex(r"^\s*(pub(\([^)]*\))? )?(const )?(async )?(unsafe )?(extern [^ ]+ )?fn \w")
        });
        let lines: Vec<&str> = self.text.lines().collect();
        let starts = (0..lines.len()).filter(|index| BEGIN.is_match(lines[*index]));
        let length = |start: usize| {
            let indent = lines[start].len() - lines[start].trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            lines[start..].iter().take_while(|line| **line != end).count() + 1
        };
        starts.map(|start| (lines[start].trim().to_owned(), length(start))).collect()
    }

    /// Its `//!` header.
    fn header(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    }
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// The first names of the items of a group in braces. `group` begins after the opening brace.
fn names(group: &str) -> Vec<String> {
    let (mut depth, mut items) = (1, vec![String::new()]);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => items.push(String::new()),
            _ if depth == 1 => items.last_mut().expect("one at least").push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    let first = |item: &String| item.trim().split("::").next().unwrap_or_default().to_owned();
    items.iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let path = path.strip_prefix(root).expect("inside").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no Rust files in {folder}");
    found
}

/// Finds imports that the file's room does not allow.
fn wrong_imports(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: {room} is no room of the house", source.path)];
    };
    let wrong =
        source.imports().into_iter().filter(|import| import != room && !allowed.contains(&import.as_str()));
    wrong.map(|import| format!("{} imports {import}", source.path)).collect()
}

/// Finds words that belong to other rooms.
fn wrong_words(source: &Source) -> Vec<String> {
    let mut wrong: Vec<String> = NOWHERE
        .iter()
        .filter(|word| source.code().contains(**word))
        .map(|word| format!("{} has {word}", source.path))
        .collect();
    for (words, places) in BELONGINGS {
        let is_home = places.iter().any(|place| source.is_in(place));
        let strangers = words.iter().filter(|word| !is_home && source.has_word(word));
        wrong.extend(strangers.map(|word| format!("{} has {word}", source.path)));
    }
    wrong
}

/// Finds a missing header, a header in `src` without "Must not contain", and files and functions that are too long.
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
        assert!(allowed.iter().all(later), "{room} imports a room before it: a cycle");
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
    let long = format!("{head}{}", "\n".repeat(FILE_MAX_LINES));
    assert_eq!(shape(&long), [format!("{path} has {} lines", FILE_MAX_LINES + 1)]);
    for start in
        ["fn f() {", "pub fn f() {", "pub(super) async fn f() {", "pub(in crate::domain) const fn f() {"]
    {
        let long = format!("{head}{start}\n{}}}\n", "    call();\n".repeat(FUNCTION_MAX_LINES - 1));
        assert_eq!(shape(&long), [format!("{path}: {start} has {} lines", FUNCTION_MAX_LINES + 1)]);
    }
}
