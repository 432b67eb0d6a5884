//! Behind PgBouncer: session pooling keeps our promises, and the other modes are refused.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    pin::pin,
    process::{Command, Stdio},
};

use futures_util::future::{Either, join_all, select};
use point_system::infra::postgres::{self, Unfit};
use tempfile::TempDir;
use tokio::{process::Child, task::JoinSet};
use tokio_postgres::NoTls;
use url::Url;

use crate::support::{
    load::Load,
    process::run,
    servers::{Database, open_folder},
    system::{System, eventually},
};

/// The program, and its place on Debian, which may not be on a user's PATH.
const PROGRAMS: [&str; 2] = ["pgbouncer", "/usr/sbin/pgbouncer"];

/// Part of the name of its socket. Nothing listens on a port.
const PORT: u16 = 6432;

/// A private PgBouncer in front of the server of a database. It is killed when it is dropped.
struct PgBouncer {
    folder: TempDir,
    _child: Child,
}

impl PgBouncer {
    /// Starts it with a `pool_mode`, and at most `sessions` on the server. Returns `None` if it is not installed.
    async fn start(database: &Database, mode: &str, sessions: usize) -> Option<Self> {
        let succeeds = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let Some(program) =
            PROGRAMS.into_iter().find(|program| succeeds(Command::new(program).arg("--version")))
        else {
            eprintln!("skipped: pgbouncer is not installed (apt-get install pgbouncer)");
            return None;
        };
        let folder = open_folder();
        // It refuses to run as root, and its user creates the socket.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("open");
        let settings = folder.path().join("pgbouncer.ini");
        fs::write(&settings, configuration(database, mode, sessions, folder.path())).expect("written");
        let mut command = tokio::process::Command::new(program);
        command.arg("--quiet").arg(&settings).current_dir(folder.path()).kill_on_drop(true);
        if String::from_utf8_lossy(&Command::new("id").arg("-u").output().expect("id").stdout).trim() == "0" {
            let user = ["postgres", "nobody"].into_iter().find(|name| succeeds(Command::new("id").arg(name)));
            command.args(["--user", user.expect("a user of the servers")]);
        }
        let child = command.stdin(Stdio::null()).spawn().expect("pgbouncer");
        let socket = folder.path().join(format!(".s.PGSQL.{PORT}"));
        eventually("pgbouncer listens", async || UnixStream::connect(&socket).is_ok()).await;
        Some(Self { folder, _child: child })
    }

    fn url(&self, database: &str) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://anyone@{host}:{PORT}/{database}")
    }
}

/// Lets in every client that reaches the socket, as the user of the tests.
fn configuration(database: &Database, mode: &str, sessions: usize, folder: &Path) -> String {
    let server = Url::parse(&database.url).expect("a valid URL");
    let (host, port) = (server.host_str().expect("a host"), server.port().unwrap_or(5432));
    let user = server.username();
    let password = server.password().map(|password| format!(" password={password}")).unwrap_or_default();
    format!(
        "[databases]\n* = host={host} port={port} user={user}{password}\n\
         [pgbouncer]\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {sessions}\n\
         listen_addr =\nlisten_port = {PORT}\nunix_socket_dir = {}\n",
        folder.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn session_pooling_keeps_every_promise() {
    let mut system = System::new().await;
    let Some(pgbouncer) = PgBouncer::start(&system.database, "session", 50).await else {
        return system.discard().await;
    };
    let empty = Database::empty().await;
    let url = pgbouncer.url(&empty.name);
    let (migrating, again) = tokio::join!(run("migrate", &[], &url), run("migrate", &[], &url));
    assert!(migrating.0 == Some(0) && again.0 == Some(0), "{migrating:?} {again:?}");
    let locks = "select count(*) from pg_locks where locktype = 'advisory' \
         and database = (select oid from pg_database where datname = current_database())";
    let left: i64 =
        empty.pool(1).get().await.expect("a connection").query_one(locks, &[]).await.expect("a count").get(0);
    assert_eq!(left, 0, "migrate leaves no lock in a session that others get");

    system.node_database_url = Some(pgbouncer.url(&system.database.name));
    let client = system.serve();
    system.work();
    let load = Load { users: 20, changes_per_user: 10, connections: 8 };
    let promises = load.run(&client).await;
    system.drain(load.changes()).await;
    assert_eq!(system.ledger().await, promises);
    let (code, audited) = run("audit", &[], &pgbouncer.url(&system.database.name)).await;
    assert!(code == Some(0) && audited.contains("200 entries of 20 users"), "{audited}");
    system.stop().await;
    drop(pgbouncer);
    empty.drop().await;
    system.finish().await;
}

/// Has a client leave after the first of its answers. The next two reach nobody: PgBouncer takes them for those to its
/// own statements, which reset the session and set `application_name`. The last one looks like the answer to whether our
/// session can write.
async fn leave_early(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    let connection = tokio::spawn(connection);
    let first = pin!(client.simple_query("select 1"));
    let others = ["''", "''", "'off'"].map(|word| format!("select {word} from pg_sleep(0.2)"));
    let others = join_all(others.iter().map(|statement| client.simple_query(statement)));
    let answered = select(first, others).await;
    assert!(matches!(answered, Either::Left((Ok(_), _))), "the first is answered first");
    connection.abort();
}

/// PgBouncer before 1.21 gives a session to its next client while the answer to another one is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_still_answers_another_client_is_not_used() {
    let database = Database::migrated().await;
    let Some(pgbouncer) = PgBouncer::start(&database, "session", 1).await else {
        return database.drop().await;
    };
    let url = pgbouncer.url(&database.name);
    for open in [postgres::pool, postgres::reading_pool] {
        leave_early(&url).await;
        let pool = open(&url.parse().expect("a valid URL"), 1).expect("a pool");
        let client = pool.get().await.expect("a session");
        for word in ["ours", "ours, too"] {
            let row = client.query_one("select $1::text", &[&word]).await.expect("an answer");
            assert_eq!(row.get::<_, &str>(0), word);
        }
    }
    drop(pgbouncer);
    database.drop().await;
}

/// Checks that the mode is refused, however the sessions are shared with other clients.
async fn is_refused_amid_traffic(url: &str) {
    let mut traffic = JoinSet::new();
    for _ in 0..8 {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
        tokio::spawn(connection);
        traffic.spawn(async move { while client.simple_query("select pg_sleep(0.001)").await.is_ok() {} });
    }
    for _ in 0..20 {
        let error = postgres::check(&url.parse().expect("a valid URL")).await.expect_err("shared sessions");
        assert_eq!(error.downcast_ref(), Some(&Unfit::SharedSessions), "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_pooling_is_refused_by_every_role() {
    let database = Database::migrated().await;
    for mode in ["transaction", "statement"] {
        let Some(pgbouncer) = PgBouncer::start(&database, mode, 50).await else {
            return database.drop().await;
        };
        let url = pgbouncer.url(&database.name);
        is_refused_amid_traffic(&url).await;
        for (role, arguments) in [
            ("serve", &["--listen", "127.0.0.1:0"][..]),
            ("work", &[]),
            ("migrate", &[]),
            ("migrate", &["--check"]),
            ("audit", &[]),
            ("dead-letters", &["list"]),
            ("key", &["list"]),
            ("key", &["create", "--name", "shop", "--scope", "write"]),
        ] {
            let (code, printed) = run(role, arguments, &url).await;
            let told = printed.contains("use session pooling") && !printed.contains("trying again");
            assert!(code == Some(1) && told, "{role}, {mode}: {code:?}: {printed}");
        }
    }
    database.drop().await;
}
