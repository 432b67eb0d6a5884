//! The command `export`: writes balances or the log as CSV. Must not contain SQL.

use std::{
    fs::{self, File},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, bail};
use clap::Args;

use super::{DatabaseArgs, progress::Progress, start::has_schema};
use crate::{
    domain::{self, Export, ExportError},
    infra::postgres,
};

/// How much is written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Flags of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// What to export.
    #[arg(value_name = "WHAT")]
    pub what: Export,
    /// File to write. It is complete or not there: until its last row is written, its name ends in ".part". Without this
    /// flag, the rows go to standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Writes the rows, and says how many there are.
///
/// # Errors
/// The database or the output failed, or the rows can't say what some users have.
pub(super) async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let pool = postgres::reading_pool(&args.database.url, 1)?;
    has_schema(&args.database.url, &pool).await?;
    let progress = Progress::of_rows(None);
    let write_to = async |output: &mut dyn Write| {
        let mut output = BufWriter::with_capacity(BUFFER_BYTES, output);
        let write = |row: &[u8]| {
            progress.advance(1);
            output.write_all(row)
        };
        let rows = domain::export(&pool, args.what, write).await?;
        output.flush()?;
        Ok(rows)
    };
    let exported = match &args.output {
        Some(path) => into_file(path, write_to).await,
        None => write_to(&mut io::stdout()).await.map_err(told),
    };
    progress.end();
    log::info!("{} rows", exported?);
    Ok(())
}

/// Writes a file beside `path`, which then takes its name and its place.
async fn into_file(
    path: &Path,
    write_to: impl AsyncFnOnce(&mut dyn Write) -> Result<u64, ExportError>,
) -> anyhow::Result<u64> {
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        bail!("{} is not a regular file", path.display());
    }
    let mut part = path.as_os_str().to_owned();
    // Another export may be writing to the same place.
    part.push(format!(".{}.part", process::id()));
    let named = || format!("writing {}", path.display());
    let mut file = File::create(&part).with_context(named)?;
    let written = write_to(&mut file).await.map_err(told);
    let written = written.and_then(|rows| {
        file.sync_all()?;
        fs::rename(&part, path)?;
        Ok(rows)
    });
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written.with_context(named)
}

fn told(error: ExportError) -> anyhow::Error {
    match error {
        ExportError::Output(error) if error.kind() == ErrorKind::BrokenPipe => {
            anyhow::Error::msg("the reader of the output closed it before the last row")
        }
        other => other.into(),
    }
}
