//! Least privilege: each role of the service runs as the database role and the RabbitMQ user that the documents give it,
//! and these are refused everything else.

use std::{fs, mem};

use point_system::{
    cli::AccessArgs,
    infra::postgres::{self, Client, Pool},
};
use serde_json::json;
use tokio_postgres::error::SqlState;
use url::Url;

use crate::{
    console::{Visitor, shown},
    dead_letters::{dead_letters, has_dead},
    keys,
    support::{
        client::{self, answer},
        process::run,
        servers::{Database, servers},
        system::{System, eventually},
    },
};

/// What the service never needs: to change or remove an entry, to change the tables, or to make or revive a key.
const REFUSED_TO_SERVICE: [&str; 31] = [
    "update log set point = 1",
    "update log set change = 0 where false",
    "delete from log",
    "delete from log where false",
    "truncate log",
    "truncate user_point",
    "drop table log",
    "drop table user_point",
    "drop index log_ended",
    "drop schema public cascade",
    "alter table log add column more text",
    "alter table log disable trigger all",
    "alter table log drop constraint log_pkey",
    "alter table log owner to current_user",
    "alter domain points drop constraint points_check",
    "do $$ begin lock table log in access exclusive mode; end $$",
    "create index on log (point)",
    "create rule nothing as on insert to log do instead nothing",
    "create trigger t before insert on log for each row execute function suppress_redundant_updates_trigger()",
    "create table mine (id int)",
    "create temporary table log (id int)",
    "create function mine() returns int language sql return 1",
    "create schema mine",
    "set session_replication_role = replica",
    "alter role current_user superuser",
    "update user_point set user_id = 'another'",
    "insert into api_key (name, generation, scope, key_hash) values ('mine', 1, 'admin', sha256('mine'))",
    "update api_key set revoked_at = null",
    "delete from api_key",
    "update installation set partitions = 64",
    "delete from refinery_schema_history",
];

/// What somebody who only reads never needs: to write, or to see a hash.
const REFUSED_TO_READER: [&str; 5] = [
    "insert into log select * from log",
    "update user_point set point = 1",
    "delete from user_point",
    "insert into user_point (user_id) values ('mine')",
    "select key_hash from api_key",
];

/// The script, with names of roles that belong to this database alone: roles are the same in all databases of a server.
fn script(database: &Database) -> String {
    let script = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sql/roles.sql"));
    script.expect("the script").replace("point_system_", &format!("{}_", database.name))
}

/// The URL of the database for one of the script's roles.
fn url_of(database: &Database, role: &str) -> String {
    let mut url = Url::parse(&database.url).expect("a valid URL");
    url.set_username(&format!("{}_{role}", database.name)).expect("a name");
    url.set_password(Some(PASSWORD)).expect("a password");
    url.into()
}

const PASSWORD: &str = "of-a-test";
const ROLES: [&str; 3] = ["owner", "service", "reader"];

async fn refuses(client: &Client, statements: &[&str]) {
    for statement in statements {
        let result = client.batch_execute(statement).await;
        let code = result.as_ref().err().and_then(tokio_postgres::Error::code);
        assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {result:?}");
    }
}

/// Runs a command that must succeed as this role.
async fn done(database: &Database, role: &str, command: &[&str]) -> String {
    let (code, printed) = run(command[0], &command[1..], &url_of(database, role)).await;
    assert_eq!(code, Some(0), "{command:?} as {role}: {printed}");
    printed
}

/// The tables and domains that the script leaves out.
const LEFT_OUT: &str = "select string_agg(name, ' ') from (select tablename::text from pg_tables where schemaname = 'public' \
         and (tableowner <> $1 || '_owner' or not has_table_privilege($1 || '_service', tablename, 'select')) \
     union all select typname::text from pg_type where typnamespace = 'public'::regnamespace and typtype = 'd' \
         and pg_get_userbyid(typowner) <> $1 || '_owner') as names (name)";

/// Applies the script, which leaves nothing out, and gives the roles a password.
async fn apply(database: &Database) {
    let admin = database.pool(1).get().await.expect("a connection");
    admin.batch_execute(&script(database)).await.expect("the script runs");
    for role in ROLES {
        let alter = format!("alter role {}_{role} password '{PASSWORD}'", database.name);
        admin.batch_execute(&alter).await.expect("a password");
    }
    let left_out: Option<String> = admin.query_one(LEFT_OUT, &[&database.name]).await.expect("names").get(0);
    assert_eq!(left_out, None, "deploy/sql/roles.sql leaves them out");
}

/// Removes the database first: what it holds belongs to the roles.
async fn remove_roles(name: &str, server: &Pool) {
    let admin = server.get().await.expect("a connection");
    for role in ROLES {
        admin.batch_execute(&format!("drop role {name}_{role}")).await.expect("dropped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_migrates_an_empty_database_and_the_service_starts_once_it_has_its_privileges() {
    let database = Database::empty().await;
    apply(&database).await;
    let printed = done(&database, "owner", &["migrate"]).await;
    assert!(printed.contains("made installation"), "{printed}");
    let check = ["migrate", "--check"];
    let (code, printed) = run(check[0], &check[1..], &url_of(&database, "service")).await;
    assert!(code == Some(1) && printed.contains("permission denied"), "{printed}");
    apply(&database).await;
    done(&database, "service", &check).await;
    let (name, server) = (database.name.clone(), database.server());
    database.drop().await;
    remove_roles(&name, &server).await;
}

async fn the_page_of_keys_says_what_is_not_permitted(client: &client::Client, admin_key: &str) {
    let olivia = Visitor::signed_in(client, admin_key).await;
    let new = [("name", "new"), ("scope", "read")];
    for (path, form) in [("/console/keys", &new[..]), ("/console/keys/revoke", &[("id", "1")])] {
        let (status, page) = shown(olivia.post(path, form)).await;
        let why = "Nothing was changed: the database does not permit it";
        assert!(status == 403 && page.contains(why) && page.contains("shop"), "{status} {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_runs_as_a_role_that_cannot_rewrite_the_log() {
    let mut system = System::new().await;
    apply(&system.database).await;
    system.node_database_url = Some(url_of(&system.database, "service"));
    done(&system.database, "owner", &["migrate"]).await;
    let owner = url_of(&system.database, "owner");
    let admin = mem::replace(&mut system.database.url, owner);
    let key = keys::create(&system, "shop", "write").await;
    let admin_key = keys::create(&system, "olivia", "admin").await;
    system.database.url = admin;
    let client = system.serve_with(AccessArgs::default());
    system.work();
    let send = |action: &str, members: serde_json::Value| {
        client.send(action, &members).bearer_auth(&key).header("Prefer", "wait")
    };
    for (action, members, status) in [
        ("add", json!({"user_id": "a", "point": 100}), 200),
        ("subtract", json!({"user_id": "a", "point": 10}), 200),
        ("transfer", json!({"user_id": "a", "to": "b", "point": 10}), 200),
        // The row that is made for c is deleted, because nothing is written to its log.
        ("transfer", json!({"user_id": "a", "to": "c", "point": 1_000}), 409),
    ] {
        let (answered, body) = answer(send(action, members)).await;
        assert_eq!(answered, status, "{action}: {body}");
    }
    assert_eq!(system.count("select count(*) from user_point where user_id = 'c'").await, 0);
    let queued = client.send("add", &json!({"user_id": "a", "point": 1})).bearer_auth(&key);
    assert_eq!(answer(queued).await.0, 202);
    system.drain(6).await;
    let (_, balance) = answer(client.get("/v1/point?id=a").bearer_auth(&key)).await;
    assert_eq!(balance["point"], 81, "{balance}");
    let used = "select count(*) from api_key where last_used_at is not null";
    eventually("the use of the key is written", async || system.count(used).await == 1).await;
    let pulse = "select count(*) from partition_pulse where taken_until > '-infinity'";
    eventually("the pulse is written", async || system.count(pulse).await > 0).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.csv");
    fs::write(&file, "user_id,point,expires_at,reason,key\nd,5,,,\n").expect("written");
    done(&system.database, "service", &["import", file.to_str().expect("text"), "--name", "old"]).await;
    for command in [
        &["audit"][..],
        &["export", "balances"],
        &["export", "log"],
        &["key", "list"],
        &["migrate", "--check"],
    ] {
        done(&system.database, "reader", command).await;
    }
    for (role, refused) in [("service", &REFUSED_TO_SERVICE[..]), ("reader", &REFUSED_TO_READER)] {
        let url = url_of(&system.database, role).parse().expect("a valid URL");
        let pool = postgres::pool(&url, 1).expect("a pool");
        refuses(&pool.get().await.expect("a connection"), refused).await;
    }
    let create = ["create", "--name", "new", "--scope", "read"];
    let (code, printed) = run("key", &create, &url_of(&system.database, "service")).await;
    let why =
        "the database does not permit it (permission denied for table api_key): use `point-system key` with";
    assert!(code == Some(1) && printed.contains(why), "{printed}");
    the_page_of_keys_says_what_is_not_permitted(&client, &admin_key).await;
    assert_eq!(keys::list(&system).await.len(), 2);
    let (name, server) = (system.database.name.clone(), system.database.server());
    system.finish().await;
    remove_roles(&name, &server).await;
}

/// The permissions that the documents give each RabbitMQ user, for this installation: the user, then configure, write
/// and read.
fn permissions(system: &System) -> Vec<[String; 4]> {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md")).expect("the document");
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("rabbitmqctl set_permissions point_system_"));
    let parse = |line: &str| {
        let mut parts = line.split('\'').map(|part| {
            part.trim()
                .replace("point-system", &system.prefix)
                .replace("ID", &system.installation.id.to_string())
        });
        let user = format!("{}_{}", system.prefix, parts.next().expect("a user"));
        let patterns: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
        let [configure, write, read] = patterns.try_into().expect("three patterns");
        [user, configure, write, read]
    };
    lines.map(parse).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_runs_with_permissions_for_its_own_queues_alone() {
    let Some(broker) = servers().await.broker() else {
        eprintln!("skipped: the tests can't make users of a broker that they did not start");
        return;
    };
    let mut system = System::new().await;
    let permissions = permissions(&system);
    assert_eq!(permissions.len(), 3, "{permissions:?}");
    assert!(permissions.iter().flatten().all(|part| !part.contains(".*")), "{permissions:?}");
    // One call: each starts a runtime of its own. A backslash of a pattern is one in Erlang's texts, too.
    let text = |part: &str| format!("<<\"{}\">>", part.replace('\\', "\\\\"));
    let made = permissions.iter().map(|[user, configure, write, read]| {
        let [user, configure, write, read] = [user, configure, write, read].map(|part| text(part));
        format!(
            "ok = rabbit_auth_backend_internal:add_user({user}, <<\"{PASSWORD}\">>, <<\"test\">>), \
             ok = rabbit_auth_backend_internal:set_permissions({user}, <<\"/\">>, {configure}, {write}, {read}, <<\"test\">>)"
        )
    });
    let made: Vec<String> = made.collect();
    broker.control(&["eval", &format!("{}.", made.join(", "))]).await.expect("users");
    let url = |role: usize| {
        let mut url = Url::parse(&system.amqp_url).expect("a valid URL");
        url.set_username(&permissions[role][0]).expect("a name");
        url.set_password(Some(PASSWORD)).expect("a password");
        Some(url.into())
    };
    let [serve, work, operator] = [0, 1, 2].map(url);

    system.node_amqp_url = serve.clone();
    let client = system.serve();
    let id = client.queue("add", 7, 1).await;
    let (status, printed) = dead_letters(&system, &["list"]).await;
    assert!(!status.success() && printed.contains("ACCESS_REFUSED"), "{printed}");
    system.node_amqp_url = work;
    system.work();
    system.drain(1).await;
    assert_eq!(system.ledger().await[&7], [id]);
    let (status, printed) = dead_letters(&system, &["list"]).await;
    assert!(!status.success() && printed.contains("ACCESS_REFUSED"), "{printed}");
    let queues = system.queues().await;
    queues.publish_dead("damage").await;
    has_dead(&queues, 1).await;
    system.node_amqp_url = operator;
    let (status, printed) = dead_letters(&system, &["list"]).await;
    assert!(status.success() && printed.contains("malformed"), "{printed}");
    let (status, printed) = dead_letters(&system, &["drop", "--all", "--yes"]).await;
    assert!(status.success(), "{printed}");
    // The queues of another installation are not theirs.
    let prefix = system.prefix.clone();
    system.prefix.push_str("-other");
    let (status, printed) = dead_letters(&system, &["list"]).await;
    assert!(!status.success() && printed.contains("ACCESS_REFUSED"), "{printed}");
    system.prefix = prefix;
    system.finish().await;
    for [user, ..] in &permissions {
        let gone = format!("rabbit_auth_backend_internal:delete_user({}, <<\"test\">>).", text(user));
        broker.control(&["eval", &gone]).await.expect("no user");
    }
}
