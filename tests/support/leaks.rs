//! Watches the logs of this process and its children, in which no API key and no panic may appear.

use std::{
    collections::HashSet,
    io::{self, Write},
    sync::{Mutex, Once, PoisonError},
};

/// The length of a useful part of a key: more consecutive hexadecimal digits than anything else in a log, such as the
/// 40 of a commit in the backtrace of a panic.
const DIGITS: usize = 48;

/// The fewest different digits in that part. A key is random; a user id of a test may be 64 zeros.
const DIFFERENT_DIGITS: usize = 8;

static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Watches the log lines of this process from now on, as they would be printed.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let target = env_logger::Target::Pipe(Box::new(Watch));
        env_logger::builder().parse_filters("warn,point_system=info").target(target).init();
    });
}

struct Watch;

impl Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        see(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks a line of a log.
pub fn see(line: &str) {
    if has_key(line) || line.contains("panicked at") {
        LEAKS.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    }
}

/// Fails if any line so far, of any test, had a key or reported a panic.
pub fn have_neither() {
    let leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(leaks.is_empty(), "API keys or panics in logs: {leaks:?}");
}

fn has_key(line: &str) -> bool {
    let words = line.split(|character: char| !character.is_ascii_hexdigit());
    let different = |word: &str| word.bytes().collect::<HashSet<u8>>().len();
    words.filter(|word| word.len() >= DIGITS).any(|word| different(word) >= DIFFERENT_DIGITS)
}

#[test]
fn a_key_in_a_line_is_seen() {
    let key = "0123456789abcdef".repeat(4);
    assert!(has_key(&format!("Authorization: Bearer ps_{key}, and more")));
    assert!(has_key(&key[..DIGITS]));
    assert!(!has_key(&format!("user_id={}", "0".repeat(64))));
    assert!(!has_key("request_id=01a20624-3feb-731d-a4d5-b1aa769fe666 user_id=9223372036854775807"));
}
