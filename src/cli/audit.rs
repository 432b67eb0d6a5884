//! The command `audit`: prints what the audit finds. Must not contain the rules that the audit checks.

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{DatabaseArgs, progress::bar};
use crate::{
    domain::{Finding, audit},
    infra::postgres,
};

/// Flags of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Print one JSON object per line: each finding, then the summary.
    #[arg(long)]
    pub json: bool,
}

/// A finding as a line of `--json`.
#[derive(Serialize)]
struct FindingResponse {
    user_id: String,
    seq: Option<i64>,
    column: &'static str,
    expected: String,
    found: String,
}

/// The summary as the last line of `--json`.
#[derive(Serialize)]
struct ReportResponse {
    entries: i64,
    users: i64,
    findings: u64,
    seconds: f64,
}

/// Prints each finding and a summary.
///
/// # Errors
/// The audit failed, or it found damage.
pub(super) async fn run(args: &AuditArgs) -> anyhow::Result<()> {
    postgres::check(&args.database.url).await?;
    let pool = postgres::reading_pool(&args.database.url, 1)?;
    let bar = bar("{wide_bar} {percent}% of the log, {eta} to go");
    let started = Instant::now();
    let progress = |done: i64, all: i64| {
        bar.set_length(all.unsigned_abs());
        bar.set_position(done.unsigned_abs());
    };
    let print = |finding: Finding| bar.suspend(|| print(finding, args.json));
    let report = audit(&pool, progress, print).await?;
    bar.finish_and_clear();
    let (entries, users, findings) = (report.entries, report.users, report.findings);
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        println!("{}", serde_json::to_string(&ReportResponse { entries, users, findings, seconds })?);
    } else {
        println!("{entries} entries of {users} users in {seconds:.1} s: {findings} findings");
    }
    if findings > 0 {
        bail!("the ledger is broken");
    }
    Ok(())
}

fn print(finding: Finding, json: bool) {
    if !json {
        println!("{finding}");
        return;
    }
    let Finding { user_id, seq, column, expected, found } = finding;
    let line = serde_json::to_string(&FindingResponse { user_id, seq, column, expected, found });
    println!("{}", line.expect("numbers and strings are always valid JSON"));
}
