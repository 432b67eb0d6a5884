//! A base backup and a synchronous archive of a private PostgreSQL, and restores from them.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use point_system::{infra::postgres, local::LocalPostgres};
use tokio::process::{Child, Command};

use crate::support::system::eventually;

/// A private PostgreSQL, its base backup, and its archive, which has every commit before the client hears of it.
pub struct Archived {
    pub postgres: LocalPostgres,
    folder: PathBuf,
    receiving: Child,
}

impl Archived {
    /// Takes a base backup of `postgres`, which runs in `folder`, and archives what it commits from then on.
    pub async fn start(postgres: LocalPostgres, folder: &Path) -> Self {
        let folder = folder.to_owned();
        let archive = folder.join("archive");
        fs::create_dir(&archive).expect("a folder");
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).expect("for the user of the server");
        let url = format!("{}?application_name=archive", postgres.url());
        let receivewal = |arguments: &[&str]| {
            let mut command = Command::from(postgres.program("pg_receivewal").expect("installed"));
            command.args(["--dbname", &url, "--directory=archive", "--slot=archive"]).args(arguments);
            command.kill_on_drop(true);
            command
        };
        let made = receivewal(&["--create-slot"]).status().await.expect("pg_receivewal");
        assert!(made.success(), "{made}");
        let receiving = receivewal(&["--synchronous"]).spawn().expect("pg_receivewal");
        let mut backup = Command::from(postgres.program("pg_basebackup").expect("installed"));
        backup.args(["--dbname", &url, "--pgdata=backup", "--checkpoint=fast"]);
        let made = backup.status().await.expect("pg_basebackup");
        assert!(made.success(), "{made}");
        let archived = Self { postgres, folder, receiving };
        // From here on, a commit waits for the archive.
        archived.ask("alter system set synchronous_standby_names = 'archive'").await;
        archived.ask("select pg_reload_conf()").await;
        let sync = "select sync_state from pg_stat_replication where application_name = 'archive'";
        eventually("the archive is synchronous", async || archived.ask(sync).await == Some("sync".into()))
            .await;
        archived
    }

    /// Runs a statement. Returns the first value of its answer.
    pub async fn ask(&self, statement: &str) -> Option<String> {
        let url = self.postgres.url().parse().expect("a URL");
        let client = postgres::reading_pool(&url, 1).expect("a pool").get().await.expect("a connection");
        let answers = client.simple_query(statement).await.expect(statement);
        answers.iter().find_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }

    /// Kills the server, and loses its disk.
    pub async fn lose(&mut self) {
        let data = self.folder.join("data");
        let text = fs::read_to_string(data.join("postmaster.pid")).expect("a pid file");
        let pid = text.lines().next().expect("a pid").trim();
        assert!(Command::new("kill").args(["-KILL", pid]).status().await.expect("kill").success());
        self.receiving.kill().await.expect("the archive ends with its server");
        self.postgres.stop().await.expect("it has ended");
        // Its sessions may write for a moment longer.
        eventually("the data is gone", async || {
            fs::remove_dir_all(&data).ok();
            !data.exists()
        })
        .await;
    }

    /// Starts the server from the base backup and the archive, as it was at a time, or at the end.
    pub async fn restore(&mut self, until: Option<&str>) {
        let data = self.folder.join("data");
        let copied = Command::new("cp").arg("-a").args([&self.folder.join("backup"), &data]).status().await;
        assert!(copied.expect("cp").success());
        let archive = self.folder.join("archive");
        let archive = archive.display();
        let target = until
            .map(|time| format!("recovery_target_time = '{time}'\nrecovery_target_action = 'promote'\n"));
        let settings = format!(
            "restore_command = 'cp {archive}/%f %p 2>/dev/null || cp {archive}/%f.partial %p 2>/dev/null'\n\
             synchronous_standby_names = ''\n{}",
            target.unwrap_or_default()
        );
        let file = File::options().append(true).open(data.join("postgresql.auto.conf"));
        file.expect("its settings").write_all(settings.as_bytes()).expect("written");
        let signal = data.join("recovery.signal");
        File::create(&signal).expect("a file");
        fs::set_permissions(&signal, fs::Permissions::from_mode(0o666)).expect("for the user of the server");
        self.postgres.resume().await.expect("PostgreSQL starts");
        let recovering = "select pg_is_in_recovery()";
        eventually("the server is restored", async || self.ask(recovering).await == Some("f".into())).await;
    }
}
