//! The executable as a child process, and its output.

use std::{
    io::pipe,
    os::fd::OwnedFd,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::timeout,
};

use crate::support::{
    client::Client,
    leaks,
    servers::servers,
    system::{PATIENCE, eventually},
};

/// Runs a role on a database to its end. Returns its exit code and everything that it printed.
pub async fn run(role: &str, arguments: &[&str], database_url: &str) -> (Option<i32>, String) {
    let amqp_url = &servers().await.amqp_url;
    let process = Process::start(role, arguments, |command| {
        command.env("DATABASE_URL", database_url).env("AMQP_URL", amqp_url);
    });
    let (status, printed) = timeout(PATIENCE, process.ends()).await.expect("an end");
    (status.code(), printed)
}

/// The lines of a process that a failing test prints.
const LAST_LINES: usize = 40;

pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_point-system");

/// A running `point-system`. It is killed when it is dropped.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a role. `set_up` sets its environment.
    pub fn start(role: &str, arguments: &[&str], set_up: impl FnOnce(&mut Command)) -> Self {
        Self::spawn(Command::new(EXECUTABLE), role, arguments, set_up)
    }

    /// As `start`, with another executable, such as that of an earlier version.
    pub fn start_other(
        executable: &Path,
        role: &str,
        arguments: &[&str],
        set_up: impl FnOnce(&mut Command),
    ) -> Self {
        Self::spawn(Command::new(executable), role, arguments, set_up)
    }

    /// As `start`, with a limit of open files.
    pub fn start_limited(
        descriptors: usize,
        role: &str,
        arguments: &[&str],
        set_up: impl FnOnce(&mut Command),
    ) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), EXECUTABLE]);
        Self::spawn(shell, role, arguments, set_up)
    }

    fn spawn(
        mut command: Command,
        role: &str,
        arguments: &[&str],
        set_up: impl FnOnce(&mut Command),
    ) -> Self {
        // Nobody waits for a load balancer, unless a test says so.
        command.arg(role).args(arguments).kill_on_drop(true).env("POINT_SYSTEM_DRAIN_DELAY", "0s");
        // One pipe for both streams, as on a terminal, so that lines keep their order.
        let (printed, stdout) = pipe().expect("a pipe");
        let stderr = stdout.try_clone().expect("a descriptor");
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        set_up(&mut command);
        let child = command.spawn().expect("the executable");
        let lines = Arc::default();
        collect(Receiver::from_owned_fd(OwnedFd::from(printed)).expect("a pipe"), &lines);
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("running")
    }

    /// Everything it has printed, on either stream.
    pub fn printed(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits for a line that contains `part`. Returns the rest of the line after it.
    pub async fn says(&self, part: &str) -> String {
        let mut found = None;
        eventually(part, async || {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            found = lines.iter().find_map(|line| Some(line.split_once(part)?.1.to_owned()));
            found.is_some()
        })
        .await;
        found.expect("found")
    }

    /// Its metrics. It must have been started with `--metrics-listen`.
    pub async fn metrics(&self) -> String {
        let address = self.says("metrics listen at ").await;
        let answer = Client::new(&format!("http://{address}")).get("/metrics").send().await;
        answer.expect("an answer").text().await.expect("text")
    }

    /// Waits for its end. Returns its exit status and everything that it printed.
    pub async fn ends(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().await.expect("an end");
        // The collector holds the lines until the pipe has ended.
        eventually("all is read", async || Arc::strong_count(&self.lines) == 1).await;
        (status, self.printed())
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.expect("kill").success());
    }

    /// Sends a signal and waits for the end.
    pub async fn end(self, signal: &str) -> ExitStatus {
        self.signal(signal).await;
        self.ends().await.0
    }
}

impl Drop for Process {
    /// The last lines of a process that a failing test leaves behind.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let printed = self.printed();
            let lines: Vec<&str> = printed.lines().rev().take(LAST_LINES).collect();
            eprintln!("the last lines of a process, the newest first:\n{}", lines.join("\n"));
        }
    }
}

fn collect(pipe: Receiver, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    tokio::spawn(async move {
        let mut printed = BufReader::new(pipe).lines();
        let mut panic: Option<String> = None;
        while let Ok(Some(line)) = printed.next_line().await {
            // The line after that of a panic says why.
            match panic.take() {
                Some(panic) => leaks::see(&format!("{panic} {line}")),
                None if line.contains("panicked at") => panic = Some(line.clone()),
                None => leaks::see(&line),
            }
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        if let Some(panic) = panic {
            leaks::see(&panic);
        }
    });
}
