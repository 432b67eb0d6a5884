//! The settings of a session, and sessions that can't write.

use point_system::{
    access::Anonymous,
    cli::AccessArgs,
    domain::Installation,
    infra::{
        migrate,
        postgres::{self, Pool},
    },
    local::LocalPostgres,
};

use crate::{
    keys::create,
    support::{
        client::answer,
        process::run,
        servers::{Database, OwnServers, open_folder},
        system::{PARTITIONS, PATIENCE, System, eventually},
    },
};

/// The message that distinguishes a standby, or another read-only server, from an unreachable one.
const READ_ONLY: &str = "the server is read-only: is it a standby?";

fn reading(url: &str) -> Pool {
    postgres::reading_pool(&url.parse().expect("a valid URL"), 1).expect("a pool")
}

async fn value(pool: &Pool, query: &str) -> String {
    pool.get().await.expect("a connection").query_one(query, &[]).await.expect(query).get(0)
}

async fn execute(pool: &Pool, statement: &str) {
    pool.get().await.expect("a connection").batch_execute(statement).await.expect(statement);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_what_we_rely_on_whatever_its_database_is_set_to() {
    let database = Database::migrated().await;
    let (server, name) = (database.server(), &database.name);
    for setting in ["default_transaction_isolation = 'serializable'", "jit = on"] {
        execute(&server, &format!("alter database {name} set {setting}")).await;
    }
    for (set, expected) in [
        ("off", "on"),
        ("local", "on"),
        ("on", "on"),
        ("remote_write", "remote_write"),
        ("remote_apply", "remote_apply"),
    ] {
        execute(&server, &format!("alter database {name} set synchronous_commit = {set}")).await;
        for pool in [database.pool(1), reading(&database.url)] {
            assert_eq!(value(&pool, "show synchronous_commit").await, expected, "{set}");
            assert_eq!(value(&pool, "show transaction_isolation").await, "read committed");
            assert_eq!(value(&pool, "show jit").await, "off");
        }
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_by_what_writes_and_good_for_what_reads() {
    let folder = open_folder();
    let mut server = LocalPostgres::start(&folder.path().join("postgres")).await.expect("a server");
    let url = server.url();
    let pool = postgres::pool(&url.parse().expect("a valid URL"), 1).expect("a pool");
    migrate::run(&pool, PATIENCE).await.expect("migrations");
    Installation::make(&pool, PARTITIONS).await.expect("an installation");
    // A server that finds this file follows a primary, which need not exist.
    let signal = format!("{}/standby.signal", value(&pool, "show data_directory").await);
    execute(&pool, &format!("copy (values ('')) to '{signal}'")).await;
    drop(pool);
    server.stop().await.expect("PostgreSQL stops");
    server.resume().await.expect("PostgreSQL starts");

    let pool = postgres::pool(&url.parse().expect("a valid URL"), 1).expect("a pool");
    let Err(refused) = pool.get().await else { panic!("a session that must write, on a standby") };
    let refused = refused.to_string();
    assert!(refused.contains(READ_ONLY), "{refused}");
    let patience = ["--startup-timeout", "1s"];
    for (role, arguments) in [
        ("serve", &[&["--listen", "127.0.0.1:0"], &patience[..]].concat()[..]),
        ("work", &patience),
        ("migrate", &patience),
        ("key", &["create", "--name", "shop", "--scope", "write"]),
    ] {
        let (code, printed) = run(role, arguments, &url).await;
        assert!(code == Some(1) && printed.contains(READ_ONLY), "{role}: {code:?}: {printed}");
    }
    for (role, arguments, expected) in [
        ("audit", &[][..], "0 findings"),
        ("key", &["list"], "no keys"),
        ("migrate", &["--check"], "nothing is pending"),
    ] {
        let (code, printed) = run(role, arguments, &url).await;
        assert!(code == Some(0) && printed.contains(expected), "{role}: {code:?}: {printed}");
    }

    let mut primary = LocalPostgres::start(&folder.path().join("primary")).await.expect("a server");
    let port = |url: &str| url::Url::parse(url).expect("a valid URL").port().expect("a port");
    let first = format!("127.0.0.1:{}", port(&url));
    let both = url.replace(&first, &format!("{first},127.0.0.1:{}", port(&primary.url())));
    for (pool, expected) in [
        (postgres::pool(&both.parse().expect("a valid URL"), 1).expect("a pool"), port(&primary.url())),
        (reading(&both), port(&url)),
    ] {
        assert_eq!(value(&pool, "show port").await, expected.to_string(), "of two hosts");
    }
    primary.stop().await.expect("PostgreSQL stops");

    execute(&reading(&url), "select pg_promote()").await;
    eventually("the standby is the primary", async || pool.get().await.is_ok()).await;
    assert_eq!(run("migrate", &[], &url).await, (Some(0), "nothing to apply".to_owned()));
    server.stop().await.expect("PostgreSQL stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_any_more_is_given_up_until_it_does() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let operator = reading(&system.database.url);
    let client = system.serve();
    system.work();
    client.queue("add", 7, 1).await;
    system.drain(1).await;

    execute(&operator, "alter system set default_transaction_read_only = on").await;
    execute(&operator, "select pg_reload_conf()").await;
    eventually("the node says so", async || {
        let (status, ready) = answer(client.get("/readyz")).await;
        let said = (ready["state"].as_str(), ready["postgresql"]["state"].as_str());
        status == 200 && said == (Some("degraded"), Some("read_only"))
    })
    .await;
    client.queue("add", 7, 10).await;
    let waited = client.change("add", 7, 100).header("Prefer", "wait");
    let (status, problem) = answer(waited).await;
    assert_eq!((status.as_u16(), problem["type"].as_str()), (503, Some("/problems/database-unavailable")));
    eventually("sessions that only read are dropped as well", async || {
        answer(client.get("/v1/point?id=7")).await.0 == 503
    })
    .await;
    let (code, audited) = run("audit", &[], &system.database.url).await;
    assert!(code == Some(0) && audited.contains("1 entries of 1 users"), "{audited}");

    execute(&operator, "alter system reset default_transaction_read_only").await;
    execute(&operator, "select pg_reload_conf()").await;
    eventually("what was queued is applied", async || {
        answer(client.get("/v1/point?id=7")).await.1["point"].as_i64() == Some(11)
    })
    .await;
    eventually("the node is ready", async || answer(client.get("/readyz")).await.1["state"] == "ready").await;
    assert_eq!(system.queues().await.dead().await, 0, "what passes makes no dead letters");
    system.finish().await;
    servers.stop().await;
}

const WAITING_COMMITS: &str = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";

/// Whether commits wait for a standby, and none of them has begun within the time of two attempts, of several beats of
/// a pulse, and of many looks at the keys.
const ONLY_OLD_COMMITS_WAIT: &str = "select count(*) from \
         (select max(state_change) as latest from pg_stat_activity where wait_event = 'SyncRep') as waiting \
     where latest < clock_timestamp() - interval '13 s'";

/// A commit that waits for a standby ends neither at a limit nor when its client leaves. So one more session would wait
/// with each attempt, until PostgreSQL has none left to read with.
#[tokio::test(flavor = "multi_thread")]
async fn while_commits_wait_for_a_standby_no_more_are_begun_and_reads_go_on() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let operator = reading(&system.database.url);
    let key = create(&system, "shop", "read").await;
    let client =
        system.serve_with(AccessArgs { allow_anonymous: Anonymous::Everyone, ..AccessArgs::default() });
    let read = || client.get("/v1/point?id=7").bearer_auth(&key);
    system.work();
    client.queue("add", 7, 1).await;
    system.drain(1).await;
    eventually("the key is known", async || answer(read()).await.0 == 200).await;

    execute(&operator, "alter system set synchronous_standby_names = 'away'").await;
    execute(&operator, "select pg_reload_conf()").await;
    eventually("a commit waits", async || system.count(WAITING_COMMITS).await > 0).await;
    client.queue("add", 7, 10).await;
    let wait = async || {
        let (status, problem) = answer(client.change("add", 8, 100).header("Prefer", "wait")).await;
        let problem = problem["type"].as_str().map(str::to_owned);
        assert_eq!((status.as_u16(), problem.as_deref()), (503, Some("/problems/database-unavailable")));
    };
    wait().await;
    eventually("the node says so", async || {
        let (status, ready) = answer(client.get("/readyz")).await;
        let said = (ready["state"].as_str(), ready["postgresql"]["state"].as_str());
        status == 200 && said == (Some("degraded"), Some("commits_wait"))
    })
    .await;
    system.work();
    eventually("no more are begun", async || {
        wait().await;
        let (status, balance) = answer(read()).await;
        assert_eq!((status.as_u16(), balance["point"].as_i64()), (200, Some(1)), "reads go on");
        system.count(ONLY_OLD_COMMITS_WAIT).await == 1
    })
    .await;
    let overview = client.get("/console").header("Cookie", format!("point_system_key={key}"));
    let overview = overview.send().await.expect("an answer").text().await.expect("text");
    assert!(overview.contains("PostgreSQL has committed nothing since"), "{overview}");
    assert!(!overview.contains("No worker is running"), "{overview}");

    execute(&operator, "alter system reset synchronous_standby_names").await;
    execute(&operator, "select pg_reload_conf()").await;
    eventually("the node is ready", async || answer(client.get("/readyz")).await.1["state"] == "ready").await;
    eventually("all is applied", async || client.balance(7).await == 11).await;
    assert_eq!(system.count(WAITING_COMMITS).await, 0);
    system.finish().await;
    servers.stop().await;
}
