//! The Debian package: it is made of files that are there, and has everything that its units and documents name.

use tokio::process::Command;

use super::{accepts, files};
use crate::support::tools;

#[tokio::test(flavor = "multi_thread")]
async fn the_debian_package_has_the_program_its_units_and_its_manual() {
    for program in ["cargo-deb", "dpkg-deb"] {
        if tools::installed(program, "--version").await.is_none() {
            eprintln!("skipped: {program} is not installed");
            return;
        }
    }
    let mut build = Command::new("deploy/debian/build");
    build.arg(env!("CARGO_BIN_EXE_point-system"));
    let printed = accepts(build).await;
    let is_package = |line: &&str| line.starts_with('/') && line.contains("/point-system_");
    let package = printed.lines().find(is_package).unwrap_or_else(|| panic!("{printed}"));
    let asked = async |option: &str| {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args([option, package]);
        accepts(dpkg).await
    };
    let contents = asked("--contents").await;
    let units = files("deploy/systemd", ".service").into_iter().map(|unit| {
        let name = unit.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        format!("-rw-r--r-- ./usr/lib/systemd/system/{name}")
    });
    let more = [
        "-rwxr-xr-x ./usr/bin/point-system",
        "-rw-r--r-- ./usr/share/man/man1/point-system-serve.1.gz",
        "-rw-r--r-- ./usr/lib/sysusers.d/point-system.conf",
        "-rw------- ./etc/point-system/serve.env",
    ];
    // The columns between, the size and the time, differ.
    let has = |wanted: &str| {
        let (rights, path) = wanted.rsplit_once(' ').expect("a path");
        contents.lines().any(|line| line.starts_with(rights) && line.ends_with(&format!(" {path}")))
    };
    for wanted in units.chain(more.map(str::to_owned)) {
        assert!(has(&wanted), "{wanted} is not in {contents}");
    }
    let about = asked("--info").await;
    for line in ["Package: point-system", "Depends: libc6", "conffiles", "postinst", "prerm"] {
        assert!(about.contains(line), "{line} is not in {about}");
    }
}
