//! Points of another system come from a file, each row once, and balances go to a file that gives them again.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::{
    expiry::in_hours,
    support::{
        process::{self, Process},
        system::System,
    },
};

mod export;
mod faults;
mod interrupted;

/// A file of rows, and the commands that read it.
struct Rows {
    folder: TempDir,
}

impl Rows {
    fn new(text: &str) -> Self {
        let rows = Self { folder: TempDir::new().expect("a folder") };
        rows.write(text);
        rows
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rows.csv")
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path(), text).expect("written");
    }

    fn arguments<'a>(path: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&[path, "--name", "old"], more].concat()
    }

    /// Imports the rows. Returns the exit code and what was printed.
    async fn import(&self, system: &System, more: &[&str]) -> (Option<i32>, String) {
        let path = self.path().display().to_string();
        process::run("import", &Self::arguments(&path, more), &system.database.url).await
    }

    /// Starts an import of the rows.
    fn start(&self, system: &System) -> Process {
        system.process("import", &Self::arguments(&self.path().display().to_string(), &[]))
    }

    /// Imports all rows, and expects that each gives its points or has given them.
    async fn imported(&self, system: &System) -> String {
        let (code, printed) = self.import(system, &[]).await;
        assert_eq!(code, Some(0), "{printed}");
        printed
    }
}

/// Each user's points, and those that expire.
async fn balances(system: &System) -> Vec<(String, i64, Option<Vec<i64>>)> {
    let query = "select user_id, point, lots from user_point where point > 0 order by user_id";
    let rows = system.rows(query).await;
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn entries(system: &System) -> i64 {
    system.count("select count(*) from log").await
}

/// Rows of many users: of each user one without expiry, two with, and one with a key.
fn many(users: usize) -> (String, usize) {
    let [soon, late] = [700, 9_000].map(in_hours);
    let of_user = |user| {
        format!("{user},{user},,opening balance,\n{user},20,{soon},,\n{user},30,{late},,\n{user},7,,,k\n")
    };
    let rows: Vec<String> = (1..=users).map(of_user).collect();
    (format!("user_id,point,expires_at,reason,key\n{}", rows.concat()), 4 * users)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_gives_its_points_once_and_a_rerun_changes_nothing() {
    let system = System::new().await;
    let (text, count) = many(700);
    let rows = Rows::new(&text);
    let printed = rows.imported(&system).await;
    let points: usize = (1..=700).map(|user| user + 57).sum();
    for line in [
        format!("{count} rows, {points} points; 1400 with an expiry"),
        format!("applied: {count} rows, {points} points"),
        format!("{count} rows, {points} points in "),
    ] {
        assert!(printed.contains(&line), "{line} in {printed}");
    }
    let found = balances(&system).await;
    assert_eq!(found.len(), 700);
    let seven = found.iter().find(|(user, ..)| user == "7").expect("user 7");
    let (point, lots) = (seven.1, seven.2.as_deref().expect("lots"));
    assert_eq!((point, lots[1], lots[3]), (64, 20, 30));
    let of_actor =
        "select count(*) from log where actor = 'system:import' and metadata = '{\"import\":\"old\"}'";
    assert_eq!(system.count(of_actor).await, entries(&system).await);
    assert_eq!(system.count("select count(*) from log where reason = 'opening balance'").await, 700);

    let printed = rows.imported(&system).await;
    assert!(
        printed.contains(&format!("applied: 0 rows, 0 points\nin the log already: {count} rows")),
        "{printed}"
    );
    assert_eq!((entries(&system).await, balances(&system).await), (2_800, found.clone()));
    // Another import counts again, but for the rows with a key.
    let path = rows.path().display().to_string();
    let (code, printed) = process::run("import", &[&path, "--name", "new"], &system.database.url).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("applied: 2100 rows") && printed.contains("already: 700 rows, 4900"),
        "{printed}"
    );
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_user_are_applied_in_the_order_of_the_file() {
    let system = System::new().await;
    let some = |nth| format!("a,{nth},{nth}\nb,{nth},{nth}\nother-{nth},x,1\n");
    let rows: Vec<String> = (1..=3_000).map(some).collect();
    Rows::new(&format!("user_id,key,point\n{}", rows.concat())).imported(&system).await;
    for user in ["a", "b"] {
        let query = format!("select array_agg(point::bigint order by seq) from log where user_id = '{user}'");
        let points: Vec<i64> = system.rows(&query).await[0].get(0);
        assert_eq!(points, (1..=3_000).collect::<Vec<_>>(), "{user}");
    }
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_give_no_points_are_named_and_counted() {
    let system = System::new().await;
    let rows = Rows::new("user_id,point,key\na,9007199254740991,1\na,5,2\nb,6,1\nb,7,2\na,1,3\n");
    let (code, printed) = rows.import(&system, &[]).await;
    assert_eq!(code, Some(1), "{printed}");
    let rejected = "line 3: rejected, user a: balance_limit\nline 6: rejected, user a: balance_limit\n";
    let counts = "applied: 3 rows, 9007199254741004 points\nrejected, balance_limit: 2 rows, 6 points\n\
                  5 rows, 9007199254741010 points in ";
    assert!(printed.contains(&format!("{rejected}{counts}")), "{printed}");
    assert!(printed.contains("2 rows were not applied"), "{printed}");
    // A rerun says the same of them.
    let (code, printed) = rows.import(&system, &[]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains(rejected) && printed.contains("already: 3 rows"), "{printed}");
    assert_eq!(entries(&system).await, 5);

    // Rows that have changed since, and one that is new.
    rows.write("user_id,point,key\nb,6,1\nb,8,2\nc,1,1\n");
    let before = balances(&system).await;
    let (code, printed) = rows.import(&system, &[]).await;
    assert_eq!(code, Some(1), "{printed}");
    let changed = "line 3: changed, user b: the log has 7 points for it\napplied: 1 rows, 1 points\n\
                   in the log already: 1 rows, 6 points\nchanged since they were imported: 1 rows, 8 points\n";
    assert!(printed.contains(changed), "{printed}");
    assert_eq!(entries(&system).await, 6, "a changed row writes nothing");
    assert_eq!(balances(&system).await[..2], before);
    system.finish_without_queues().await;
}
