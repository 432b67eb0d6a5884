//! Finds the server programs: in an environment variable, the usual folders, the PATH. Must not contain anything that
//! starts them.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::bail;

/// The folder of `initdb` and `postgres`.
pub(super) fn postgres() -> anyhow::Result<PathBuf> {
    let usual = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr"];
    let versions = usual.iter().flat_map(|parent| newest_first(Path::new(parent)));
    let folders = versions.filter(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        folder.starts_with("/usr/lib/postgresql")
            || name.starts_with("postgresql")
            || name.starts_with("pgsql")
    });
    find(
        "PostgreSQL",
        "POINT_SYSTEM_POSTGRES_BIN",
        &["initdb", "postgres"],
        on_path().chain(folders.map(|folder| folder.join("bin"))),
    )
}

/// The folder of `rabbitmq-server`. The PATH comes last, because on Debian it has another program, which changes the
/// user.
pub(super) fn rabbitmq() -> anyhow::Result<PathBuf> {
    let usual = ["/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"];
    let folders = usual.into_iter().map(PathBuf::from).chain(on_path());
    find("RabbitMQ", "POINT_SYSTEM_RABBITMQ_BIN", &["rabbitmq-server"], folders)
}

/// Erlang's `epmd`, beside RabbitMQ's programs or on the PATH.
pub(super) fn epmd(rabbitmq: &Path) -> anyhow::Result<PathBuf> {
    let folders = std::iter::once(rabbitmq.to_owned()).chain(on_path());
    Ok(find("Erlang", "POINT_SYSTEM_RABBITMQ_BIN", &["epmd"], folders)?.join("epmd"))
}

fn find(
    name: &str,
    variable: &str,
    programs: &[&str],
    folders: impl IntoIterator<Item = PathBuf>,
) -> anyhow::Result<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    let has_all = |folder: &PathBuf| programs.iter().all(|program| folder.join(program).is_file());
    let Some(folder) = named.into_iter().chain(folders).find(has_all) else {
        let programs = programs.join(" and ");
        bail!(
            "{name} is not installed: {programs} not found. Install it, name its folder in {variable}, or run \
             everything in containers with `docker compose up`"
        );
    };
    Ok(folder)
}

fn on_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// Returns the folders in `parent`, the highest number in their names first.
fn newest_first(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.sort_by_key(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        std::cmp::Reverse(digits.parse::<u64>().unwrap_or_default())
    });
    folders
}
