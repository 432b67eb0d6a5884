//! The source files of the project, as the rules look at them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;

/// A file, by its path from the root of the repository.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Its room in `src`: a folder, or a file beside it.
    pub fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        inside.split(['/', '.']).next().unwrap_or_default()
    }

    pub fn is_in(&self, place: &str) -> bool {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        inside.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    }

    /// The code, without comments and unit tests.
    pub fn code(&self) -> String {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.take_while(|line| *line != "#[cfg(test)]").collect::<Vec<_>>().join("\n")
    }

    /// The rooms that it imports, by `use` or by a path.
    pub fn imports(&self) -> BTreeSet<String> {
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

    pub fn has_word(&self, word: &str) -> bool {
        let code = self.code();
        code.match_indices(word).any(|(start, _)| {
            let is_part = |next: Option<char>| next.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !is_part(code[..start].chars().next_back()) && !is_part(code[start + word.len()..].chars().next())
        })
    }

    /// Each function's name and number of lines, by rustfmt's indentation.
    pub fn functions(&self) -> Vec<(String, usize)> {
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

    /// The sentences that begin it.
    pub fn header(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    }
}

pub fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// The first names of the items of a group in braces, whose opening brace is behind us.
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

pub fn sources(folder: &str) -> Vec<Source> {
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
