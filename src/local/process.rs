//! A server program as a child process that ends with this process, however it ends. Must not contain anything about a
//! particular program.

use std::{
    fs::File,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use uuid::Uuid;

/// The longest that a server may take to start.
const START_TIMEOUT_MS: u64 = 90_000;

/// The longest wait for a server of an earlier run to end.
const LOCK_TIMEOUT_MS: u64 = 40_000;

/// The pause between two checks whether a server has started or ended.
pub(super) const POLL_MS: u64 = 50;

/// The guard between this process and a server. We hold the other end of its standard input. When that closes, because
/// we close it or end, the guard sends a signal to the server, and kills it after 30 s. The signal is what we have
/// written there, or else `$1`.
const GUARD: &str = r#"
signal=$1; shift
"$@" </dev/null &
server=$!
exec 3<&0 </dev/null
{
    asked=$(cat)
    kill -s "${asked:-$signal}" "$server"
    tries=0
    while kill -0 "$server" && [ "$tries" -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL "$server"
} <&3 3<&- >/dev/null 2>&1 &
exec 3<&-
wait "$server"
"#;

/// The user that the servers run as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    /// The user of this process.
    Us,
    /// Another user, because this process runs as root and PostgreSQL refuses to.
    Other { uid: u32, gid: u32 },
}

impl Owner {
    /// Chooses the user: for root it is `postgres`, or else `nobody`.
    pub(super) fn find() -> anyhow::Result<Self> {
        if id(&["-u"])? != 0 {
            return Ok(Self::Us);
        }
        let other = ["postgres", "nobody"].into_iter().find_map(|name| {
            Some(Self::Other { uid: id(&["-u", name]).ok()?, gid: id(&["-g", name]).ok()? })
        });
        other.context(
            "this runs as root, and there is no user \"postgres\" or \"nobody\" to run the servers as",
        )
    }

    /// Creates the folder if it is missing, and gives it to the owner.
    pub(super) fn create_folder(self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        self.give(folder)
    }

    /// Gives a file or a folder to the owner.
    pub(super) fn give(self, path: &Path) -> anyhow::Result<()> {
        if let Self::Other { uid, gid } = self {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("giving {} to the user of the servers", path.display()))?;
        }
        Ok(())
    }

    /// Makes a command that the owner runs, in its own process group, so that Ctrl-C does not reach it.
    pub(super) fn command(self, program: impl AsRef<Path>, folder: &Path) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(folder).process_group(0).stdin(Stdio::null());
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn id(arguments: &[&str]) -> anyhow::Result<u32> {
    let output = Command::new("id").args(arguments).output().context("running id")?;
    if !output.status.success() {
        bail!("no such user");
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// A running server. Dropping this value asks the server to stop.
pub(super) struct Process {
    name: &'static str,
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which appends to the file `log`, and waits until `ready`. First waits for a server of an
    /// earlier run that still uses the log.
    pub(super) async fn start(
        name: &'static str,
        command: &Command,
        stop_signal: &str,
        log: PathBuf,
        owner: Owner,
        ready: impl AsyncFn() -> bool,
    ) -> anyhow::Result<Self> {
        let output = lock(name, &log).await?;
        let folder = command.get_current_dir().unwrap_or(Path::new("/"));
        let mut guard = owner.command("/bin/sh", folder);
        guard.args(["-c", GUARD, "point-system-guard", stop_signal]).arg(command.get_program());
        guard.args(command.get_args());
        // Our environment may have settings for other servers.
        guard.env_clear().env("LANG", "C.UTF-8").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (key, value) in command.get_envs() {
            guard.env(key, value.unwrap_or_default());
        }
        let guard = guard
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let mut process = Self { name, guard, log };
        let started = Instant::now();
        while !ready().await {
            if process.has_ended()? || started.elapsed() > Duration::from_millis(START_TIMEOUT_MS) {
                bail!("{name} did not start; the end of {}:\n{}", process.log.display(), process.log_end());
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
        Ok(process)
    }

    /// Kills the server (SIGKILL), and waits until it has ended.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        let mut guard = self.guard.stdin.take().context("the server is being stopped")?;
        guard.write_all(b"KILL").with_context(|| format!("killing {}", self.name))?;
        drop(guard);
        self.stop().await
    }

    /// Asks the server to stop, and waits until it has stopped.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.guard.stdin.take());
        while !self.has_ended()? {
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
        Ok(())
    }

    fn has_ended(&mut self) -> anyhow::Result<bool> {
        let status = self.guard.try_wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(status.is_some())
    }

    fn log_end(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Opens a log and locks it. The server inherits the open file and the lock. So the lock lasts until we, the server and
/// the server's children have ended.
async fn lock(name: &str, log: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(log);
    let file = file.with_context(|| format!("opening {}", log.display()))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(error).context("locking a log"),
        }
        if started.elapsed() > Duration::from_millis(LOCK_TIMEOUT_MS) {
            bail!("another {name} is using {}", log.display());
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
}

/// Returns a port of 127.0.0.1 that nobody listens on. It is outside the ranges that systems assign, and this process
/// gets each port only once.
///
/// # Errors
/// There is none from 20000 to 29999.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u64 = 20_000;
    const COUNT: u64 = 10_000;
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(Uuid::now_v7().as_u64_pair().1 % COUNT));
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port from 20000 to 29999"))
}
