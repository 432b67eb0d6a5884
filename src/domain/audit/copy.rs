//! PostgreSQL's binary copy format, of rows of 8-byte numbers: bytes in, rows out. No I/O and no SQL may enter.

/// What the stream begins with, flags and an empty extension included (PostgreSQL, COPY, Binary Format).
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The bytes of a number.
const NUMBER_BYTES: usize = 8;

/// The stream is not a copy of such rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL sent something other than a binary copy of numbers")]
pub struct NotNumbers;

/// The rows of a stream that comes in pieces, which may end anywhere.
#[derive(Default)]
pub(super) struct Rows {
    begun: bool,
    rest: Vec<u8>,
}

impl Rows {
    /// Hands each row that is complete by now to `take`; a null is `None`.
    pub(super) fn read<const COLUMNS: usize>(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut([Option<i64>; COLUMNS]),
    ) -> Result<(), NotNumbers> {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(piece);
            let rest = std::mem::take(&mut self.rest);
            return self.read(&rest, take);
        }
        let mut bytes = piece;
        if !self.begun {
            let Some((header, rest)) = bytes.split_first_chunk() else {
                self.rest = bytes.to_vec();
                return Ok(());
            };
            if header != HEADER {
                return Err(NotNumbers);
            }
            (self.begun, bytes) = (true, rest);
        }
        while let Some((row, rest)) = row(bytes)? {
            row.map(&mut take);
            bytes = rest;
        }
        self.rest = bytes.to_vec();
        Ok(())
    }
}

/// The first row of `bytes` and what is behind it, if it is complete; `None` inside for the end of the stream.
#[expect(clippy::type_complexity, reason = "used once")]
fn row<const COLUMNS: usize>(
    bytes: &[u8],
) -> Result<Option<(Option<[Option<i64>; COLUMNS]>, &[u8])>, NotNumbers> {
    let Some((&count, mut bytes)) = bytes.split_first_chunk() else { return Ok(None) };
    if i16::from_be_bytes(count) == -1 {
        return Ok(Some((None, bytes)));
    }
    if usize::try_from(i16::from_be_bytes(count)) != Ok(COLUMNS) {
        return Err(NotNumbers);
    }
    let mut row = [None; COLUMNS];
    for column in &mut row {
        let Some((&length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        bytes = rest;
        let length = i32::from_be_bytes(length);
        if length == -1 {
            continue;
        }
        if usize::try_from(length) != Ok(NUMBER_BYTES) {
            return Err(NotNumbers);
        }
        let Some((&number, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        (*column, bytes) = (Some(i64::from_be_bytes(number)), rest);
    }
    Ok(Some((Some(row), bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_out_whole_however_they_are_cut(
            rows in prop::collection::vec(any::<[Option<i64>; 3]>(), 0..20), size in 1..100usize
        ) {
            let mut bytes = HEADER.to_vec();
            for row in &rows {
                bytes.extend(3i16.to_be_bytes());
                for number in row {
                    match number {
                        None => bytes.extend((-1i32).to_be_bytes()),
                        Some(number) => {
                            bytes.extend(8i32.to_be_bytes());
                            bytes.extend(number.to_be_bytes());
                        }
                    }
                }
            }
            bytes.extend((-1i16).to_be_bytes());
            let (mut reader, mut read) = (Rows::default(), Vec::new());
            for piece in bytes.chunks(size) {
                reader.read(piece, |row| read.push(row)).expect("a copy");
            }
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn what_is_no_copy_of_numbers_is_refused() {
        for wrong in [
            &b"SELECT NOT A COPY AT ALL"[..],
            &[&HEADER[..], &[0, 4]].concat(),
            &[&HEADER[..], &[0, 1, 0, 0, 0, 4]].concat(),
        ] {
            assert_eq!(Rows::default().read(wrong, |_: [_; 1]| {}), Err(NotNumbers));
        }
    }
}
