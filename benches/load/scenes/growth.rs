//! Growth: apply and read with longer and longer logs.

use super::{LANES, MANY, Size, USERS, uniform};
use crate::{
    bed::Bed,
    ceiling,
    report::{Line, Target},
    traffic::{Kind, Users},
};

/// The number of entries per user that the log is filled with.
const ENTRIES_PER_USER: u64 = 100;

/// Returns the lines of apply and read for each length of the log.
pub async fn measure(size: &Size, of_message: usize) -> Vec<Line> {
    let lines = |rows: &u64| {
        let line = |what: &str| {
            let line =
                Line::new("growth", format!("{what}, {rows} log rows"), "/s").against("the same, 0 log rows");
            if *rows == 10_000_000 { line.target(Target::RatioAtLeast(0.9)) } else { line }
        };
        [line("apply"), line("read")]
    };
    let mut lines: Vec<Line> = size.log_rows.iter().flat_map(lines).collect();
    let mut grown = Vec::new();
    for rows in size.log_rows.iter().filter(|rows| **rows > 0) {
        grown.push(filled(size, *rows).await);
    }
    for _ in 0..size.runs {
        let mut rates = Vec::new();
        let mut empty = filled(size, 0).await;
        rates.extend(apply_and_read(&mut empty, size, of_message).await);
        empty.finish().await;
        for bed in &mut grown {
            rates.extend(apply_and_read(bed, size, of_message).await);
        }
        for (at, line) in lines.iter_mut().enumerate() {
            line.add(rates[at], rates[at % 2]);
        }
    }
    for bed in grown {
        bed.finish().await;
    }
    lines
}

/// Measures apply and read. If the log has histories, it uses their users.
async fn apply_and_read(bed: &mut Bed, size: &Size, of_message: usize) -> [f64; 2] {
    bed.publish(&Users::Uniform(USERS), size.backlog, of_message).await;
    let drained = bed.drain(LANES).await;
    let (serve, address) = bed.serve().await;
    let read = uniform(Kind::Read, MANY, size.time).run(address).await.per_second;
    assert!(serve.end("-TERM").await.success(), "a clean end");
    [drained.per_second, read]
}

/// Writes histories of [`ENTRIES_PER_USER`] entries, with the users interleaved as they would be over time. Then
/// vacuums and checkpoints, as PostgreSQL would overnight.
async fn filled(size: &Size, rows: u64) -> Bed {
    let mut bed = Bed::new(size).await;
    let users = (rows / ENTRIES_PER_USER).max(u64::from(rows > 0));
    let statement = format!(
        "insert into user_point (user_id, point, seq) \
             select u::text, {ENTRIES_PER_USER}, {ENTRIES_PER_USER} from generate_series(1, {users}) u; \
         insert into log (user_id, seq, request_id, action, point, change, balance, fingerprint, requested_at, created_at) \
             select u::text, s, gen_random_uuid(), 'add', 1, 1, s, 0, now(), now() \
             from generate_series(1, {ENTRIES_PER_USER}) s, generate_series(1, {users}) u;"
    );
    if rows > 0 {
        bed.system.execute(&statement).await;
    }
    bed.system.execute("vacuum analyze user_point, log").await;
    bed.system.execute("checkpoint").await;
    bed.expected += users * ENTRIES_PER_USER;
    bed.expected += ceiling::see_all(&bed.system, USERS).await;
    bed
}
