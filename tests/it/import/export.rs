//! What is exported is of one moment, complete or not there, and gives the same balances where it is imported.

use std::{collections::BTreeSet, fs, process::Stdio};

use jiff::ToSpan;
use point_system::domain::{Delta, IdempotencyKey, Reason, RequestId, TraceParent, UserId};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::{Rows, balances};
use crate::{
    apply::{add, add_until, apply, capture, hold, reverse, subtract},
    expiry::{in_hours, pass},
    support::{client::answer, process::run, system::System},
};

/// Exports into a file. Returns its lines.
async fn exported(system: &System, what: &str, rows: &Rows) -> Vec<String> {
    let path = rows.path().display().to_string();
    let (code, printed) = run("export", &[what, "--output", &path], &system.database.url).await;
    assert_eq!(code, Some(0), "{printed}");
    let lines: Vec<String> = fs::read_to_string(&path).expect("a file").lines().map(str::to_owned).collect();
    assert!(printed.contains(&format!("{} rows", lines.len() - 1)), "{printed}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_gives_the_same_balances_and_lots_in_an_empty_installation() {
    let (old, new) = (System::new().await, System::new().await);
    let service = old.service(2);
    let mut rng = fastrand::Rng::with_seed(15);
    let far = "9999-12-30T21:59:59.999999Z".parse().expect("a time");
    let mut deltas: Vec<Delta> =
        vec![add_until(1, 5, far), add(2, 5), subtract(2, 5), add_until(3, 9, in_hours(1))];
    for _ in 0..2_000 {
        let (id, point) = (rng.i64(10..300), rng.i64(1..100));
        deltas.push(match rng.u8(..4) {
            0 => add(id, point),
            1 => subtract(id, point),
            _ => add_until(id, point, in_hours(rng.i64(1..6)) + rng.i64(0..9).microseconds()),
        });
    }
    service.apply_deltas(deltas).await.expect("results");
    pass(&old, 2 * 3_600).await;
    let due = "select count(*) from user_point where due_at <= now()";
    assert!(old.count(due).await > 100, "some lots are due");
    let rows = Rows::new("");
    let lines = exported(&old, "balances", &rows).await;
    assert_eq!(lines[0], "user_id,point,expires_at");
    assert!(!lines.iter().any(|line| line.starts_with("2,") || line.starts_with("3,")), "they have nothing");
    rows.imported(&new).await;
    service.expire_all().await.expect("an answer");
    assert_eq!(balances(&new).await, balances(&old).await);
    assert!(balances(&new).await.len() > 200);
    let again = exported(&new, "balances", &rows).await;
    assert_eq!(again.iter().collect::<BTreeSet<_>>(), lines.iter().collect::<BTreeSet<_>>());
    old.finish_without_queues().await;
    new.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_column_for_everything_that_the_api_shows() {
    let mut system = System::new().await;
    let (service, client) = (system.service(2), system.serve());
    let user = UserId::new("user_id", "7").expect("valid");
    let key = IdempotencyKey::new("a").expect("valid");
    let reason = Reason::new("a, \"b\"".to_owned()).ok();
    let soon = in_hours(1);
    let traceparent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    let request_id = RequestId::from_key(None, &user, &key);
    let gift = Delta { request_id, reason, traceparent, ..add_until(7, 5, soon) };
    let order = subtract(7, 4);
    let undone = reverse(7, order.request_id);
    for delta in [&gift, &order, &undone, &subtract(7, 9)] {
        apply(&service, delta).await;
    }
    let rows = Rows::new("");
    let lines = exported(&system, "log", &rows).await;
    let columns: BTreeSet<&str> = lines[0].split(',').collect();
    let (_, description) = answer(client.get("/openapi.json")).await;
    let members = description["components"]["schemas"]["Entry"]["properties"].as_object().expect("members");
    assert_eq!(columns, members.keys().map(String::as_str).collect::<BTreeSet<_>>());
    let at = soon.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
    let expected = [
        format!(
            "7,1,{},applied,,,add,,5,,5,{at},,,\"a, \"\"b\"\"\",,{},5,",
            gift.request_id, "4bf92f3577b34da6a3ce929d0e0e4736"
        ),
        format!(
            "7,2,{},applied,,,subtract,,4,,-4,,\"[{{\"\"at\"\" : \"\"{at}\"\", \"\"point\"\" : 4}}]\",,,,,1,",
            order.request_id
        ),
        format!("7,3,{},applied,,{},reverse,,4,,4,,\"[", undone.request_id, order.request_id),
    ];
    for (line, expected) in lines[1..].iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line}, expected {expected}");
    }
    assert!(lines[4].contains(",rejected,insufficient_points,,subtract,,9,,0,"), "{}", lines[4]);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_leaves_the_file_as_it_was() {
    let system = System::new().await;
    let service = system.service(2);
    for id in 1..=3 {
        apply(&service, &add(id, 5)).await;
    }
    system.execute("update user_point set format = 3 where user_id <> '1'").await;
    let rows = Rows::new("as it was");
    let path = rows.path().display().to_string();
    let (code, printed) = run("export", &["balances", "--output", &path], &system.database.url).await;
    let told = "user 2 (the first of 2 users) has a row that a newer version wrote";
    assert!(code == Some(1) && printed.contains(told), "{printed}");
    assert_eq!(fs::read_to_string(rows.path()).expect("a file"), "as it was");
    let files = fs::read_dir(rows.folder.path()).expect("a folder").count();
    assert_eq!(files, 1, "no part of a file is left");
    let (code, printed) = run("export", &["balances", "--output", "/dev/null"], &system.database.url).await;
    assert!(code == Some(1) && printed.contains("/dev/null is not a regular file"), "{printed}");
    system.execute("update user_point set format = 0").await;
    // What a hold has taken is in no row of balances.
    let order = hold(3, 1, None);
    apply(&service, &order).await;
    let (code, printed) = run("export", &["balances"], &system.database.url).await;
    let told = "user 3 has open holds: release or capture them first";
    assert!(code == Some(1) && printed.contains(told), "{printed}");
    apply(&service, &capture(3, order.request_id, None)).await;
    let (code, printed) = run("export", &["balances"], &system.database.url).await;
    assert!(code == Some(0) && printed.contains("user_id,point,expires_at\n"), "{printed}");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_of_a_session_ends_an_export_and_a_reader_that_leaves_does() {
    let system = System::new().await;
    let fill = "insert into user_point (user_id, point, seq, updated_at) select i::text, 5, 1, now() from generate_series(1, 100000) i; \
                insert into log (user_id, seq, request_id, action, point, change, balance, fingerprint, requested_at, created_at) \
                    select i::text, 1, gen_random_uuid(), 'add', 5, 5, 5, 0, now(), now() from generate_series(1, 100000) i";
    system.execute(fill).await;
    system.execute(&format!("alter database {} set statement_timeout = '100ms'", system.database.name)).await;
    let rows = Rows::new("");
    for what in ["balances", "log"] {
        assert_eq!(exported(&system, what, &rows).await.len(), 100_001);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_point-system"));
    command.args(["export", "log"]).env("DATABASE_URL", &system.database.url);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the executable");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let header = lines.next_line().await.expect("a line").expect("a header");
    assert!(header.starts_with("user_id,seq,"), "{header}");
    drop(lines);
    let output = child.wait_with_output().await.expect("an end");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("the reader of the output closed it before the last row"), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    system.discard().await;
}
