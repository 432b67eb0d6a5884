//! Tells Cargo about the migrations, which a macro embeds, and finds the commit, which `--version` names. Must not
//! contain anything else.

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

/// Returns the commit of the checkout. Without a checkout, as in a container, it is `POINT_SYSTEM_COMMIT`.
fn commit() -> Option<String> {
    println!("cargo:rerun-if-env-changed=POINT_SYSTEM_COMMIT");
    let told = || env::var("POINT_SYSTEM_COMMIT").ok();
    checked_out().or_else(told).filter(|commit| !commit.is_empty())
}

fn checked_out() -> Option<String> {
    // Ignore a repository that only contains our folder.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != env::current_dir().ok()?.canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // HEAD names a branch. A commit changes the file of the branch, or the packed refs, and the log of HEAD, if there
    // is one. A worktree has them in several folders, so ask git for each path.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        // Cargo treats a missing file as always changed.
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
