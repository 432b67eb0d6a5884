//! Reads CSV line by line. Must not contain what the columns mean.
//!
//! A library for CSV accepts more than this: a quote that is never closed takes the rest of the file as one value. No
//! value of a row may contain the end of a line, so here a row is a line, its number is right, and its length has a
//! limit.

use std::{
    borrow::Cow,
    io::{self, BufRead, Read},
};

/// The longest line. The longest row has about 1,300 bytes; if every character is quoted, some more.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// What some programs write at the beginning of a file in UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The lines of a file.
pub(super) struct Lines<R> {
    file: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(file: R) -> Self {
        Self { file, line: Vec::new(), number: 0 }
    }

    /// The next line that is not empty, with its number, or what is wrong with it as a text. `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Result<&str, String>)>> {
        loop {
            let is_short = self.read()?;
            if self.line.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            if !is_short {
                return Ok(Some((self.number, Err(format!("is longer than {LINE_MAX_BYTES} bytes")))));
            }
            let end = self.line.trim_ascii_end().len();
            if end > 0 {
                break;
            }
        }
        let Ok(text) = str::from_utf8(&self.line) else {
            return Ok(Some((self.number, Err("is not UTF-8".to_owned()))));
        };
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = text.strip_prefix(BYTE_ORDER_MARK).filter(|_| self.number == 1).unwrap_or(text);
        Ok(Some((self.number, Ok(text))))
    }

    /// Reads a line. Of one that is too long, it keeps the beginning, and returns false.
    fn read(&mut self) -> io::Result<bool> {
        self.line.clear();
        let mut some = self.some()?;
        let is_short = some < LINE_MAX_BYTES || self.line.ends_with(b"\n");
        while some == LINE_MAX_BYTES && !self.line.ends_with(b"\n") {
            self.line.clear();
            some = self.some()?;
        }
        if !is_short && self.line.is_empty() {
            self.line.push(b'\n');
        }
        Ok(is_short)
    }

    /// Reads up to the end of the line, but no more than a line may have.
    fn some(&mut self) -> io::Result<u64> {
        let some = self.file.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut self.line)?;
        Ok(some as u64)
    }
}

/// The values of a line (RFC 4180, without the ends of lines in values).
///
/// # Errors
/// What is wrong, readable after the line.
pub(super) fn values(line: &str) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let (mut values, mut rest) = (Vec::new(), line);
    loop {
        let (value, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => plain(rest)?,
        };
        values.push(value);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(values),
            None => return Err("has text between a closing quote and the next comma"),
        }
    }
}

/// A value without quotes, and what comes after it.
fn plain(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let (value, after) = text.split_at(text.find(',').unwrap_or(text.len()));
    if value.contains('"') {
        return Err("has a quote in a value that does not begin with one");
    }
    Ok((value.into(), after))
}

/// A value behind its opening quote, and what comes after it. Two quotes are one of the value.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut from = 0;
    while let Some(at) = text[from..].find('"') {
        let end = from + at;
        if !text[end + 1..].starts_with('"') {
            let value = &text[..end];
            let value = if from == 0 { value.into() } else { value.replace("\"\"", "\"").into() };
            return Ok((value, &text[end + 1..]));
        }
        from = end + 2;
    }
    Err("has a quote that is not closed in this line")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &[u8]) -> Vec<(u64, Result<String, String>)> {
        let (mut lines, mut found) = (Lines::new(file), Vec::new());
        while let Some((number, line)) = lines.next().expect("a slice") {
            found.push((number, line.map(str::to_owned)));
        }
        found
    }

    #[test]
    fn lines_have_their_numbers_and_a_limit() {
        let long = "x".repeat(usize::try_from(LINE_MAX_BYTES).expect("small"));
        let fits = &long[1..];
        let file = format!("\u{feff}a\r\n\r\n\n{fits}\n{long}\n{long}{long}\nb\n  \nc");
        let mut file = file.into_bytes();
        file.extend_from_slice(b"\n\xff\n");
        let too_long = || Err("is longer than 65536 bytes".to_owned());
        let expected = [
            (1, Ok("a".to_owned())),
            (4, Ok(fits.to_owned())),
            (5, too_long()),
            (6, too_long()),
            (7, Ok("b".to_owned())),
            (9, Ok("c".to_owned())),
            (10, Err("is not UTF-8".to_owned())),
        ];
        assert_eq!(read(&file), expected);
        assert_eq!(read(long.as_bytes()), [(1, too_long())]);
    }

    #[test]
    fn values_are_plain_or_quoted() {
        for (line, expected) in [
            ("", ""),
            ("a,b", "a|b"),
            (",", "|"),
            (r#""a,b","c""#, "a,b|c"),
            (r#""""a""b""","",x"#, r#""a"b"||x"#),
        ] {
            assert_eq!(values(line).expect(line).join("|"), expected);
        }
        for wrong in [r#"a"b"#, r#""a"b"#, r#""a" ,b"#, r#""a"#, r#"a,""""#, r#"5" or 6",b"#] {
            assert!(values(wrong).is_err(), "{wrong}");
        }
    }
}
