//! The columns of a file, and the rows that its lines say. Must not contain what becomes of a row.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufReader, Seek},
    ops::ControlFlow,
};

use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

use super::lines::{Lines, values};
use crate::domain::{self, IdempotencyKey, Points, Reason, Row, UserId, whole_number};

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The columns of a file. The names are those of the API.
#[derive(Clone, Copy, Debug, EnumIter, EnumString, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
enum Column {
    UserId,
    Point,
    ExpiresAt,
    Reason,
    Key,
}

impl Column {
    fn name(self) -> &'static str {
        self.into()
    }

    fn is_required(self) -> bool {
        match self {
            Self::UserId | Self::Point => true,
            Self::ExpiresAt | Self::Reason | Self::Key => false,
        }
    }
}

/// A row, or each fault in its line.
pub(super) type Read<'a> = Result<Row<'a>, Vec<String>>;

/// Reads a file from its beginning to its end, or until `each` breaks. It calls `each` with the number and the row of
/// each line. If the columns are wrong, that is all that it reads.
pub(super) fn read(
    mut file: &File,
    mut each: impl FnMut(u64, Read<'_>) -> ControlFlow<()>,
) -> std::io::Result<()> {
    file.rewind()?;
    let mut lines = Lines::new(BufReader::with_capacity(BUFFER_BYTES, file));
    let header = match lines.next()? {
        Some((number, line)) => (number, line.map_err(|fault| vec![fault]).and_then(Header::read)),
        None => (1, Header::read("")),
    };
    let header = match header {
        (_, Ok(header)) => header,
        (number, Err(faults)) => {
            let _ = each(number, Err(faults));
            return Ok(());
        }
    };
    loop {
        let Some((number, line)) = lines.next()? else { return Ok(()) };
        let values = line.and_then(|line| Ok(values(line)?));
        let row = match &values {
            Ok(values) => header.row(values),
            Err(fault) => Err(vec![fault.clone()]),
        };
        if each(number, row).is_break() {
            return Ok(());
        }
    }
}

/// Which columns there are, in the order of the file.
struct Header(Vec<Column>);

impl Header {
    fn read(line: &str) -> Result<Self, Vec<String>> {
        let names = values(line).map_err(|fault| vec![fault.to_owned()])?;
        let (mut columns, mut faults) = (Vec::new(), Vec::new());
        for name in names.iter().filter(|_| !line.is_empty()) {
            match name.parse::<Column>() {
                Ok(column) if columns.contains(&column) => {
                    faults.push(format!("names the column {name} twice"));
                }
                Ok(column) => columns.push(column),
                Err(_) => faults.push(format!("names an unknown column: {:?}; {}", name, known())),
            }
        }
        let missing = Column::iter().filter(|column| column.is_required() && !columns.contains(column));
        faults.extend(missing.map(|column| format!("must name the column {}; {}", column.name(), known())));
        if faults.is_empty() { Ok(Self(columns)) } else { Err(faults) }
    }

    /// The row of these values, or each fault in them. An empty value counts as absent.
    fn row<'a>(&self, values: &'a [Cow<'_, str>]) -> Read<'a> {
        let Self(columns) = self;
        if values.len() != columns.len() {
            return Err(vec![format!("has {} values, and {} columns", values.len(), columns.len())]);
        }
        let value = |column: Column| {
            let place = columns.iter().position(|other| *other == column)?;
            Some(values[place].as_ref()).filter(|value| !value.is_empty())
        };
        let mut faults = Vec::new();
        let mut fault = |column: Column, rule: &str| faults.push(format!("{} {rule}", column.name()));
        let user_id = UserId::new("user_id", value(Column::UserId).unwrap_or_default())
            .map_err(|invalid| fault(Column::UserId, &invalid.rule));
        let point = value(Column::Point).and_then(whole_number).and_then(|point| Points::new(point).ok());
        let point = point.ok_or(Points::RULE).map_err(|rule| fault(Column::Point, rule));
        let expires_at = value(Column::ExpiresAt).map(domain::time).transpose();
        let expires_at = expires_at.map_err(|rule| fault(Column::ExpiresAt, rule));
        let reason = value(Column::Reason).map(|text| Reason::new(text.to_owned())).transpose();
        let reason = reason.map_err(|invalid| fault(Column::Reason, &invalid.rule));
        let key = value(Column::Key).map(IdempotencyKey::new).transpose();
        let key = key.map_err(|invalid| fault(Column::Key, &invalid.rule));
        match (user_id, point, expires_at, reason, key) {
            (Ok(user_id), Ok(point), Ok(expires_at), Ok(reason), Ok(key)) => {
                Ok(Row { user_id, point, expires_at, reason, key })
            }
            _ => Err(faults),
        }
    }
}

fn known() -> String {
    let names: Vec<&str> = Column::iter().map(Column::name).collect();
    format!("the columns are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_named_once_and_in_any_order() {
        let Header(columns) = Header::read("key,point,\"user_id\"").expect("a header");
        assert_eq!(columns, [Column::Key, Column::Point, Column::UserId]);
        let faults = |line| Header::read(line).err().expect("faults").len();
        assert_eq!(
            [faults(""), faults("user_id"), faults("point,point,user_id"), faults("User_ID,points")],
            [2, 1, 1, 4]
        );
    }

    #[test]
    fn a_row_has_its_values_or_every_fault_in_them() {
        let header = Header::read("user_id,point,expires_at,reason,key").expect("a header");
        let of = |line: &str| {
            let values = values(line).expect("values");
            header.row(&values).map(|row| format!("{row:?}"))
        };
        assert!(
            of("007,1e2,,,")
                .expect("a row")
                .contains("Points(100), expires_at: None, reason: None, key: None")
        );
        let timed = of("a,1,2030-01-01T00:00:00.1234567+01:00,\"a, b\",\" k \"").expect("a row");
        assert!(timed.contains("2029-12-31T23:00:00.123456Z") && timed.contains("\"a, b\""), "{timed}");
        let faults = of("a b,0,2030-01-01,\u{7},é").expect_err("faults");
        let columns: Vec<&str> = faults.iter().filter_map(|fault| fault.split(' ').next()).collect();
        assert_eq!(columns, Column::iter().map(Column::name).collect::<Vec<_>>());
        assert!(faults.iter().all(|fault| fault.contains(" must be ")), "{faults:?}");
        assert_eq!(of(",,,,").expect_err("faults").len(), 2);
        assert_eq!(of("a,1").expect_err("a fault"), ["has 2 values, and 5 columns"]);
    }
}
