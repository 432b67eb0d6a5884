//! TLS to PostgreSQL: a TLS connection is always verified.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use point_system::{
    infra::postgres::{self, Client},
    local::LocalPostgres,
};

use crate::support::{servers::open_folder, system::eventually};

/// Creates a key and a self-signed certificate for `localhost` in `folder`, with the OpenSSL program.
fn certify(folder: &Path) {
    let config = folder.join("openssl.cnf");
    fs::write(&config, "[req]\ndistinguished_name = dn\n[dn]\n").expect("written");
    let output = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '))
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", "server.key", "-out", "server.crt"])
        .arg("-config")
        .arg(&config)
        .current_dir(folder)
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Lets the server write a file beside its data, so that the server owns it: PostgreSQL refuses a key of another owner.
async fn install(client: &Client, file: &Path) {
    let rows: Vec<String> =
        fs::read_to_string(file).expect("a PEM").lines().map(|line| format!("('{line}')")).collect();
    let data: String = client.query_one("show data_directory", &[]).await.expect("a folder").get(0);
    let name = file.file_name().expect("a name").to_string_lossy();
    let copied = Path::new(&data).join(name.as_ref());
    let copy = format!("copy (values {}) to '{}'", rows.join(", "), copied.display());
    client.batch_execute(&copy).await.expect("copied");
    fs::set_permissions(copied, fs::Permissions::from_mode(0o600)).expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_its_certificate_or_not_at_all() {
    let folder = open_folder();
    let mut server = LocalPostgres::start(&folder.path().join("postgres")).await.expect("a server");
    let by_name = server.url().replace("127.0.0.1", "localhost");
    let connect = async |url: &str| {
        let pool = postgres::pool(&url.parse().expect("a valid URL"), 1).expect("a pool");
        let client = pool.get().await?;
        let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        anyhow::Ok(client.query_one(encrypted, &[]).await?.get::<_, bool>(0))
    };
    let [theirs, others] = ["theirs", "others"].map(|name| folder.path().join(name));
    for certificates in [&theirs, &others] {
        fs::create_dir(certificates).expect("created");
        certify(certificates);
    }
    let with = |url: &str, folder: &Path| {
        format!("{url}?sslmode=verify-full&sslrootcert={}", folder.join("server.crt").display())
    };
    assert!(connect(&with(&by_name, &theirs)).await.is_err(), "a server without TLS is not accepted instead");

    let pool = postgres::pool(&server.url().parse().expect("a valid URL"), 1).expect("a pool");
    let client = pool.get().await.expect("a connection");
    install(&client, &theirs.join("server.crt")).await;
    install(&client, &theirs.join("server.key")).await;
    client.batch_execute("alter system set ssl = on").await.expect("set");
    client.query("select pg_reload_conf()", &[]).await.expect("reloaded");
    let encrypted = with(&by_name, &theirs);
    eventually("TLS", async || connect(&encrypted).await.is_ok_and(|encrypted| encrypted)).await;

    assert!(!connect(&by_name).await.expect("a connection"), "not asked for");
    assert!(connect(&with(&by_name, &others)).await.is_err(), "signed by somebody else");
    assert!(
        connect(&format!("{by_name}?sslmode=require")).await.is_err(),
        "signed by nobody the system knows"
    );
    assert!(connect(&with(&server.url(), &theirs)).await.is_err(), "another name");
    server.stop().await.expect("a clean end");
}
