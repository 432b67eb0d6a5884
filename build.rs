//! What Cargo can't see: the migrations, which a macro embeds, and the commit, which `--version` tells.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    let version = env!("CARGO_PKG_VERSION");
    match commit() {
        Some(commit) => {
            println!("cargo:rustc-env=POINT_SYSTEM_BUILD={version} ({commit})");
            println!("cargo:rustc-env=POINT_SYSTEM_BUILD_COMMIT={commit}");
        }
        None => println!("cargo:rustc-env=POINT_SYSTEM_BUILD={version}"),
    }
}

/// The commit of the checkout, or else, as in a container that is built without one, what
/// `POINT_SYSTEM_COMMIT` says.
fn commit() -> Option<String> {
    println!("cargo:rerun-if-env-changed=POINT_SYSTEM_COMMIT");
    let told = || env::var("POINT_SYSTEM_COMMIT").ok();
    checked_out().or_else(told).filter(|commit| !commit.is_empty())
}

fn checked_out() -> Option<String> {
    // A repository above us that has us as a folder is not ours.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != env::current_dir().ok()?.canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // HEAD names a branch; what moves with every commit is the branch's file, be it packed or not, and the
    // log of HEAD, which may be off. In a worktree they are not all in one folder: git knows.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        // Cargo takes a missing file for one that always changes.
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
