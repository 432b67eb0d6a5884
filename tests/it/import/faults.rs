//! What is wrong with a file is said by line, before anything is written.

use super::{Rows, balances, entries};
use crate::{expiry::in_hours, support::system::System};

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_by_its_line_and_nothing_is_written() {
    let system = System::new().await;
    let time = in_hours(5);
    let text = format!(
        "user_id,point,expires_at,reason,key\r\n\
         good,1,,,\r\n\
         a b,0,tomorrow,\"a\tb\",é\r\n\
         c,1,{time},,\r\n\
         \r\n\
         c,2,{time},,\r\n\
         d,1,,,x\r\n\
         d,1,{time},,\" x \"\r\n\
         e,1\r\n\
         f,1,,\"open,\r\n\
         g,1,2020-01-01T00:00:00Z,,\r\n\
         ,,,,\r\n"
    );
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"h,1,,\xff,\r\n");
    let rows = Rows::new("");
    rows.write(bytes);
    for more in [&[][..], &["--check"]] {
        let (code, printed) = rows.import(&system, more).await;
        assert_eq!(code, Some(1), "{printed}");
        let expected = [
            "line 3: user_id must be a string of 1 to 64 visible ASCII characters",
            "line 3: point must be a whole number from 1 to 9007199254740991",
            "line 3: expires_at must be an RFC 3339 time such as 2026-12-01T00:00:00Z",
            "line 3: reason must be a string of 1 to 200 characters without control characters",
            "line 3: key must be 1 to 255 visible ASCII characters",
            "line 6: has the user_id and the expires_at of line 4: give both a key, or make them one row",
            "line 8: has the user_id and the key of line 7",
            "line 9: has 2 values, and 5 columns",
            "line 10: has a quote that is not closed in this line",
            "line 11: expires_at must be later than now, which is ",
            "line 12: user_id must be a string of 1 to 64 visible ASCII characters",
            "line 12: point must be a whole number from 1 to 9007199254740991",
            "line 13: is not UTF-8",
        ];
        let told: Vec<&str> = printed.lines().filter(|line| line.starts_with("line ")).collect();
        assert_eq!(told.len(), expected.len(), "{printed}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}, expected {expected}");
        }
        assert!(printed.contains("has 13 faults; nothing was written"), "{printed}");
    }
    assert_eq!(entries(&system).await, 0);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_are_checked_and_many_faults_are_counted() {
    let system = System::new().await;
    let rows = Rows::new("user_id,points,user_id\na,1,a\n");
    let (code, printed) = rows.import(&system, &[]).await;
    let known = "the columns are user_id, point, expires_at, reason, key";
    for line in [
        format!("line 1: names an unknown column: \"points\"; {known}"),
        "line 1: names the column user_id twice".to_owned(),
        format!("line 1: must name the column point; {known}"),
    ] {
        assert!(printed.contains(&line), "{printed}");
    }
    assert_eq!((code, printed.contains("has 3 faults")), (Some(1), true), "{printed}");
    rows.write("user_id,point\n".to_owned() + &"a,0\n".repeat(250));
    let (_, printed) = rows.import(&system, &[]).await;
    assert!(printed.contains("line 101: ") && !printed.contains("line 102: "), "{printed}");
    assert!(printed.contains("\nand 150 more") && printed.contains("has 250 faults"), "{printed}");
    rows.write("");
    assert!(rows.import(&system, &[]).await.1.contains("line 1: must name the column user_id"));
    rows.write("\u{feff}point,user_id\n5,a\n7,b");
    let (code, printed) = rows.import(&system, &["--check"]).await;
    assert!(
        code == Some(0) && printed.contains("rows.csv: 2 rows, 12 points; 0 with an expiry"),
        "{printed}"
    );
    assert_eq!(entries(&system).await, 0, "a check writes nothing");
    rows.imported(&system).await;
    assert_eq!(balances(&system).await.len(), 2);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_since_the_import_began_does_not_stop_the_rest_of_it() {
    let system = System::new().await;
    let text = "user_id,point,expires_at\na,1,\nb,2,2020-01-01T00:00:00Z\nc,3,\n";
    let rows = Rows::new(text);
    let (code, printed) = rows.import(&system, &[]).await;
    assert!(code == Some(1) && printed.contains("line 3: expires_at must be later"), "{printed}");
    assert_eq!(entries(&system).await, 0);
    // As if the import had been stopped after its first row, before the second one expired.
    rows.write(&text[..text.find("b,").expect("a row")]);
    rows.imported(&system).await;
    rows.write(text);
    let (code, printed) = rows.import(&system, &["--check"]).await;
    assert!(code == Some(0) && printed.contains("1 rows have expired since the import began"), "{printed}");
    let (code, printed) = rows.import(&system, &[]).await;
    assert_eq!(code, Some(1), "{printed}");
    for line in [
        "line 3: rejected, user b: expired",
        "applied: 1 rows, 3 points",
        "in the log already: 1 rows, 1 points",
        "rejected, expired: 1 rows, 2 points",
    ] {
        assert!(printed.lines().any(|told| told == line), "{line}: {printed}");
    }
    system.finish_without_queues().await;
}
