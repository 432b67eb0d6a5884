//! TLS to PostgreSQL, with every `sslmode`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use point_system::{
    infra::postgres::{self, Client},
    local::LocalPostgres,
};

use super::{
    VERSIONS,
    certificates::{Authority, Identity},
};
use crate::support::{servers::open_folder, system::eventually};

/// Opens a session. Returns its version of TLS, or `None` if it is not encrypted; or why there is no session.
async fn connect(url: &str) -> Result<Option<String>, String> {
    let pool = postgres::pool(&url.parse().expect("a valid URL"), 1).map_err(|error| format!("{error:#}"))?;
    let client = pool.get().await.map_err(|error| error.to_string())?;
    let encrypted = "select version from pg_stat_ssl where pid = pg_backend_pid()";
    Ok(client.query_one(encrypted, &[]).await.expect(encrypted).get(0))
}

/// Lets the server write a file beside its data, so that the server owns it: PostgreSQL refuses a key of another owner.
async fn install(client: &Client, file: &str, name: &str) {
    let rows: Vec<String> =
        fs::read_to_string(file).expect("a PEM").lines().map(|line| format!("('{line}')")).collect();
    let data: String = client.query_one("show data_directory", &[]).await.expect("a folder").get(0);
    let copied = Path::new(&data).join(name);
    let copy = format!("copy (values {}) to '{}'", rows.join(", "), copied.display());
    client.batch_execute(&copy).await.expect("copied");
    fs::set_permissions(copied, fs::Permissions::from_mode(0o600)).expect("closed");
}

/// Gives the server a certificate.
async fn certify(client: &Client, server: &Identity) {
    install(client, &server.certificate, "server.crt").await;
    install(client, &server.key, "server.key").await;
}

/// Lets the server read its settings anew, and waits until the connection of `url` is as expected.
async fn reload(
    client: &Client,
    url: &str,
    what: &str,
    expected: impl Fn(&Result<Option<String>, String>) -> bool,
) {
    client.query("select pg_reload_conf()", &[]).await.expect("reloaded");
    eventually(what, async || expected(&connect(url).await)).await;
}

/// A server with TLS, which asks for certificates, and a connection that needs none.
struct Rig {
    server: LocalPostgres,
    admin: Client,
    theirs: Authority,
    /// The URL by name, without parameters.
    by_name: String,
    /// The parameters of a client that is as it should be.
    right: String,
}

impl Rig {
    async fn start(folder: &Path) -> Self {
        let server = LocalPostgres::start(&folder.join("postgres")).await.expect("a server");
        let by_name = server.url().replace("127.0.0.1", "localhost");
        let theirs = Authority::new(folder, "theirs");
        let us = theirs.certify("us", &["us"]);
        let right = format!(
            "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            theirs.file, us.certificate, us.key
        );
        let url = server.url().parse().expect("a valid URL");
        let pool = postgres::pool(&url, 1).expect("a pool");
        let admin = pool.get().await.expect("a connection");
        for (mode, expected) in [("prefer", None), ("disable", None)] {
            assert_eq!(connect(&format!("{by_name}?sslmode={mode}")).await, Ok(expected), "{mode}");
        }
        let refused = connect(&format!("{by_name}?{right}")).await.expect_err("no TLS");
        assert!(refused.contains("server does not support TLS"), "{refused}");

        certify(&admin, &theirs.certify("server", &["localhost"])).await;
        install(&admin, &theirs.file, "clients.crt").await;
        let hba: String = admin.query_one("show hba_file", &[]).await.expect("a file").get(0);
        let rules = "('hostssl all all 127.0.0.1/32 trust clientcert=verify-ca'), \
             ('host all all 127.0.0.1/32 trust')";
        admin.batch_execute(&format!("copy (values {rules}) to '{hba}'")).await.expect("rules");
        for setting in ["ssl = on", "ssl_ca_file = 'clients.crt'"] {
            admin.batch_execute(&format!("alter system set {setting}")).await.expect(setting);
        }
        reload(&admin, &format!("{by_name}?{right}"), "TLS", Result::is_ok).await;
        Self { server, admin, theirs, by_name, right }
    }

    /// Checks that there is no session with these parameters, because of `why`.
    async fn is_refused(&self, parameters: &str, why: &str) {
        let refused = connect(&format!("{}?{parameters}", self.by_name)).await.expect_err(why);
        assert!(refused.contains(why), "{parameters}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_trusted_by_its_certificate_or_not_at_all() {
    let folder = open_folder();
    let mut rig = Rig::start(folder.path()).await;
    let others = Authority::new(folder.path(), "others");
    let stranger = others.certify("stranger", &["us"]);
    let server = rig.theirs.certify("server", &["localhost"]);
    let expired = rig.theirs.certify_until("expired", &["localhost"], 2020);
    let right = format!("{}?{}", rig.by_name, rig.right);
    for (version, _) in VERSIONS {
        for setting in ["ssl_min_protocol_version", "ssl_max_protocol_version"] {
            rig.admin
                .batch_execute(&format!("alter system set {setting} = '{version}'"))
                .await
                .expect(setting);
        }
        let is_version = |got: &Result<Option<String>, String>| *got == Ok(Some(version.to_owned()));
        reload(&rig.admin, &right, version, is_version).await;
        rig.is_refused(&rig.right.replace("theirs.crt", "others.crt"), "UnknownIssuer").await;
        rig.is_refused("sslmode=require", "UnknownIssuer").await;
        rig.is_refused(
            &format!("sslmode=verify-full&sslrootcert={}", rig.theirs.file),
            "requires a valid client certificate",
        )
        .await;
        let us = rig.right.split_once("&sslcert=").expect("a certificate").1;
        let stranger = format!("{}&sslkey={}", stranger.certificate, stranger.key);
        // The server may close the connection before its alert is read, so the reason is not always known.
        rig.is_refused(&rig.right.replace(us, &stranger), "").await;

        let by_address = format!("{}?{}", rig.server.url(), rig.right);
        let refused = connect(&by_address).await.expect_err("another name");
        assert!(refused.contains("not valid for name"), "{refused}");
        let authority_only = by_address.replace("verify-full", "verify-ca");
        assert_eq!(connect(&authority_only).await, Ok(Some(version.to_owned())), "verify-ca checks no name");
        let unverified = format!("{}?sslmode=prefer&sslcert={us}", rig.by_name);
        assert_eq!(connect(&unverified).await, Ok(Some(version.to_owned())), "prefer checks nothing");
        assert_eq!(connect(&rig.by_name).await, Ok(None), "TLS is not asked for");

        certify(&rig.admin, &expired).await;
        reload(&rig.admin, &right, "expired", Result::is_err).await;
        rig.is_refused(&rig.right, "expired").await;
        rig.is_refused(&rig.right.replace("verify-full", "verify-ca"), "expired").await;
        certify(&rig.admin, &server).await;
        reload(&rig.admin, &right, "valid again", Result::is_ok).await;
    }
    rig.server.stop().await.expect("PostgreSQL stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_anew_for_each_session() {
    let folder = open_folder();
    let mut rig = Rig::start(folder.path()).await;
    let url: String = format!("{}?{}", rig.by_name, rig.right);
    let ours: Vec<String> =
        ["us.crt", "us.key"].map(|name| folder.path().join(name).to_str().expect("UTF-8").to_owned()).into();
    let kept: Vec<Vec<u8>> = ours.iter().map(|file| fs::read(file).expect("ours")).collect();
    let pool = postgres::pool(&url.parse().expect("a valid URL"), 1).expect("a pool");
    drop(Client::take(pool.get().await.expect("a session")));

    let stranger = Authority::new(folder.path(), "others").certify("stranger", &["us"]);
    fs::copy(stranger.certificate, &ours[0]).expect("copied");
    fs::copy(stranger.key, &ours[1]).expect("copied");
    assert!(pool.get().await.is_err(), "the new certificate is the one that is shown");
    fs::write(&ours[0], "nothing").expect("written");
    let refused = pool.get().await.expect_err("no certificate").to_string();
    assert!(refused.contains("us.crt: has no certificate in PEM format"), "{refused}");
    for (file, text) in ours.iter().zip(kept) {
        fs::write(file, text).expect("written");
    }
    assert!(pool.get().await.is_ok());
    let missing = connect(&url.replace("theirs.crt", "missing.crt")).await.expect_err("no such file");
    assert!(missing.contains("missing.crt"), "{missing}");
    rig.server.stop().await.expect("PostgreSQL stops");
}
