//! The command line's own documentation: version, completions and manual.

use std::collections::BTreeSet;

use clap::CommandFactory;
use point_system::cli::Cli;

use crate::support::process::Process;

async fn printed(role: &str, arguments: &[&str]) -> String {
    // A secret in the environment, which must not appear in a page.
    let set_up = |command: &mut tokio::process::Command| {
        command.env("DATABASE_URL", "postgres://u:hush@h/d").env("AMQP_URL", "amqp://u:hush@h");
    };
    let (status, text) = Process::start(role, arguments, set_up).ends().await;
    assert!(status.success(), "{text}");
    assert!(!text.contains("hush"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_names_the_commit() {
    let version = printed("--version", &[]).await;
    let expected = point_system::infra::build::COMMIT.map_or_else(
        || format!("point-system {}", env!("CARGO_PKG_VERSION")),
        |commit| format!("point-system {} ({commit})", env!("CARGO_PKG_VERSION")),
    );
    assert_eq!(version, expected);
    if let Some(commit) = point_system::infra::build::COMMIT {
        assert!(commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{commit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_manual_know_every_role_and_flag() {
    let whole = printed("man", &[]).await;
    assert!(whole.contains(".TH point-system 1"), "{whole}");
    let line = Cli::command();
    let roles: BTreeSet<&str> = line.get_subcommands().map(clap::Command::get_name).collect();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed("completions", &[shell]).await;
        for word in roles.iter().chain(&["metrics-listen", "redrive", "queue-prefix"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    for role in roles {
        let page = format!("point\\-system\\-{}", role.replace('-', "\\-"));
        assert!(whole.contains(&page), "{role} in {whole}");
        assert!(printed("man", &[role]).await.contains(&page), "{role}");
    }
    let serve = printed("man", &["serve"]).await;
    for flag in ["metrics", "POINT_SYSTEM_METRICS_LISTEN", "DATABASE_URL", "POINT_SYSTEM_LOG_FORMAT"] {
        assert!(serve.contains(flag), "{flag} in {serve}");
    }
    assert!(printed("man", &["dead-letters", "redrive"]).await.contains("redrive"));
}
