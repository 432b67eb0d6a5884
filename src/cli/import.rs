//! The command `import`: reads points of another system from a CSV file, checks all of them, and adds them. Must not
//! contain a rule of the ledger.

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{DatabaseArgs, args::CONCURRENCY_MAX, progress::Progress, start::has_schema};
use crate::{
    domain::{Import, ImportName, Patience, PointService, name_rule},
    infra::postgres,
};
use apply::Applying;
use check::Checked;

mod lines;
mod rows;
mod faults;
mod check;
mod tally;
mod apply;

/// Flags of `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// CSV file. Its first line names the columns, in any order: `user_id`, `point`, and if needed `expires_at`,
    /// `reason` and `key`. The values are those of an `add` in the API; an empty value counts as absent.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The name of the import.
    #[arg(long, value_name = "NAME", help = concat!(
        "Name of the import. A row without a key counts once for each import, user and expiry, so give every file a name \
         of its own, and use the same name to run the same file again: ",
        name_rule!()
    ))]
    pub name: ImportName,
    /// Check the file and print a summary, without importing anything.
    #[arg(long)]
    pub check: bool,
    /// Maximum number of concurrent transactions (1 to 16), each on its own PostgreSQL connection.
    #[arg(long, default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=CONCURRENCY_MAX))]
    pub concurrency: u16,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Checks the whole file, and then adds the points of each row, once. Prints a summary.
///
/// # Errors
/// The file has faults, and nothing was written. Or some rows were not applied.
pub(super) async fn run(args: &ImportArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| name.to_string())?;
    if !file.metadata()?.is_file() {
        bail!("{name} is not a regular file; it is read twice, so it can't be a pipe");
    }
    let (file, now, lanes) = (Arc::new(file), Timestamp::now(), usize::from(args.concurrency));
    let import = Import::new(&args.name, now);
    let pool = postgres::pool(&args.database.url, lanes)?;
    if !args.check {
        has_schema(&args.database.url, &pool).await?;
    }
    let service = Arc::new(PointService::start(pool, lanes, &Patience::Queue(stop.clone())));
    let checking = checked(&file, &import, now, &service);
    let checked = stop.run_until_cancelled(checking).await;
    let Some(checked) = checked else { bail!("interrupted; nothing was written") };
    let Checked { rows, points, expiring, faults, past, first } =
        checked.with_context(|| name.to_string())?;
    if faults.count() > 0 {
        print!("{faults}");
        bail!("{name} has {} faults; nothing was written", faults.count());
    }
    println!("{name}: {rows} rows, {points} points; {expiring} with an expiry");
    if past.count() > 0 {
        println!("{} rows have expired since the import began", past.count());
    }
    let Some(first) = first.filter(|_| !args.check) else { return Ok(()) };
    let began = Instant::now();
    let progress = Arc::new(Progress::of_rows(Some(rows)));
    let tally = Arc::new(Mutex::default());
    let applying =
        Applying { service, stop: stop.clone(), progress: Arc::clone(&progress), tally: Arc::clone(&tally) };
    let applied = applying.all(&file, &import, first, args.concurrency).await;
    progress.end();
    let tally = tally.lock().expect("no lane has panicked");
    let (total, seconds) = (tally.total(), began.elapsed().as_secs_f64());
    print!("{tally}");
    println!("{total} in {seconds:.1} s");
    applied?;
    if total.rows < rows && stop.is_cancelled() {
        bail!("stopped after {} of {rows} rows; run the same command again to import the rest", total.rows);
    }
    if (total.rows, total.points) != (rows, points) {
        bail!("{name} has changed during the import");
    }
    if tally.lines.count() > 0 {
        bail!("{} rows were not applied", tally.lines.count());
    }
    Ok(())
}

/// Checks the file. Points that have expired are a fault, unless the log has the first row: the import has begun before,
/// and a rest of it must not fail because time has passed.
async fn checked(
    file: &Arc<File>,
    import: &Import,
    now: Timestamp,
    service: &PointService,
) -> anyhow::Result<Checked> {
    let (file, import) = (Arc::clone(file), import.clone());
    let mut checked = spawn_blocking(move || check::check(&file, &import, now)).await??;
    if let Some((_, first)) = checked.first.as_ref().filter(|_| checked.past.count() > 0) {
        let known = service.known(std::slice::from_ref(first)).await?;
        if known.iter().all(Option::is_none) {
            checked.faults.merge(std::mem::take(&mut checked.past));
        }
    }
    Ok(checked)
}
