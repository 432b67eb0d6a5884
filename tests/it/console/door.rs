//! Who gets into the console, with which cookie, and what every answer protects a browser from.

use point_system::{
    access::{Anonymous, Scope},
    cli::AccessArgs,
    http::{Method, PAGES},
};

use super::{Visitor, header, shown};
use crate::{
    keys::{create, revoke},
    loopback::FOREIGN,
    support::system::{System, eventually},
};

/// What a browser sends for a page.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

const HTTPS: (&str, &str) = ("Origin", "https://points.example");

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_led_to_the_console_and_a_program_is_not() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    let led = visitor.get("/").header("Accept", BROWSER).send().await.expect("an answer");
    assert_eq!(
        (led.status().as_u16(), header(&led, "Location"), header(&led, "Vary")),
        (303, "/console", "Accept")
    );
    let told = visitor.get("/").header("Accept", "*/*").send().await.expect("an answer");
    assert_eq!((told.status().as_u16(), header(&told, "Vary")), (200, "Accept"));
    assert!(told.text().await.expect("text").starts_with(r#"{"name":"point-system""#));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_signs_in_and_only_the_console_gets_it_back() {
    let mut system = System::new().await;
    let key = create(&system, "support", "read").await;
    let client = system.serve();
    let nobody = Visitor::new(&client);

    let asked = nobody.get("/console/users?id=a%20b").send().await.expect("an answer");
    assert_eq!(asked.status(), 303);
    assert_eq!(header(&asked, "Location"), "/console/sign-in?next=%2Fconsole%2Fusers%3Fid%3Da%2520b");
    let wrong = format!("ps_{}", "0123456789abcdef".repeat(4));
    let (status, page) = shown(nobody.post("/console/sign-in", &[("key", &wrong)])).await;
    assert!(status == 401 && page.contains("not valid") && !page.contains(&wrong), "{page}");
    let (status, page) = shown(nobody.post("/console/sign-in", &[("key", " ")])).await;
    assert!(status == 400 && page.contains("Enter an API key"), "{page}");

    let next = [("key", key.as_str()), ("next", "/console/users?id=a%20b")];
    let entered = nobody.post("/console/sign-in", &next).send().await.expect("an answer");
    assert_eq!((entered.status().as_u16(), header(&entered, "Location")), (303, "/console/users?id=a%20b"));
    let cookie = format!("point_system_key={key}; Path=/console; HttpOnly; SameSite=Strict");
    assert_eq!(header(&entered, "Set-Cookie"), cookie);
    let elsewhere = [("key", key.as_str()), ("next", "//evil.example/console")];
    let entered =
        nobody.post("/console/sign-in", &elsewhere).header("Host", "points.example").header(HTTPS.0, HTTPS.1);
    let entered = entered.send().await.expect("an answer");
    assert_eq!(header(&entered, "Location"), "/console");
    assert_eq!(header(&entered, "Set-Cookie"), format!("{cookie}; Secure"), "off this machine");
    let behind_a_proxy = nobody.post("/console/sign-in", &[("key", &key)]).header(HTTPS.0, HTTPS.1);
    let behind_a_proxy = behind_a_proxy.send().await.expect("an answer");
    assert_eq!(header(&behind_a_proxy, "Set-Cookie"), format!("{cookie}; Secure"), "it replaced Host");
    let plain = nobody.post("/console/sign-in", &[("key", &key)]).header("Host", "points.example");
    let plain = plain.header("Origin", "http://points.example").send().await.expect("an answer");
    assert_eq!((plain.status().as_u16(), header(&plain, "Set-Cookie")), (400, ""));
    assert!(plain.text().await.expect("text").contains("https://"));

    let support = Visitor::signed_in(&client, &key).await;
    let page = support.read("/console").await;
    assert!(page.contains("support") && page.contains("Sign out") && !page.contains(&key), "{page}");
    let left = support.post("/console/sign-out", &[]).send().await.expect("an answer");
    assert_eq!(left.status(), 303);
    assert_eq!(
        header(&left, "Set-Cookie"),
        "point_system_key=; Path=/console; HttpOnly; SameSite=Strict; Max-Age=0"
    );
    revoke(&system, "support").await;
    let over = async || support.get("/console").send().await.expect("an answer").status() == 303;
    eventually("the revoked key is refused", over).await;
    assert!(support.read("/console/sign-in").await.contains("no longer valid"));
    let form = [("name", "mine"), ("scope", "read")];
    for (visitor, why) in [(&support, "your API key is no longer valid"), (&nobody, "sign in")] {
        let refused = visitor.post("/console/keys", &form).send().await.expect("an answer");
        let page = visitor.read(header(&refused, "Location")).await;
        assert!(page.contains(&format!("Nothing was changed: {why}")), "{page}");
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_asks_for_its_scope_and_protects_the_browser() {
    let mut system = System::new().await;
    let keys = [
        (Scope::Read, create(&system, "reader", "read").await),
        (Scope::Write, create(&system, "writer", "write").await),
        (Scope::Admin, create(&system, "admin", "admin").await),
    ];
    let client = system.serve();
    let nobody = Visitor::new(&client);
    for (scope, key) in &keys {
        let visitor = Visitor::signed_in(&client, key).await;
        let menu = visitor.read("/console").await;
        assert_eq!(
            menu.contains("/console/keys"),
            *scope == Scope::Admin,
            "the menu has what the viewer may see"
        );
        for page in PAGES.iter().filter(|page| page.method == Method::Get) {
            let Some(needed) = page.scope else { continue };
            let response = visitor.get(page.path).send().await.expect("an answer");
            for (name, part) in [
                ("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'"),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
                ("Referrer-Policy", "same-origin"),
            ] {
                assert!(header(&response, name).starts_with(part), "{} {name}", page.path);
            }
            let status = response.status();
            if *scope >= needed {
                assert!(status != 403 && status != 401, "{} {status}", page.path);
            } else {
                let text = response.text().await.expect("text");
                assert_eq!(status, 403, "{}", page.path);
                assert!(
                    text.contains("needs an API key with the scope") && text.contains(needed.as_str()),
                    "{text}"
                );
            }
            let nobody = nobody.get(page.path).send().await.expect("an answer");
            assert_eq!(nobody.status(), 303, "{}", page.path);
        }
    }
    for (path, status) in [("/console/nothing", 404), ("/console/assets/x/nothing.js", 404)] {
        let (found, page) = shown(nobody.get(path)).await;
        assert!(found == status && page.contains("There is nothing here"), "{path} {found} {page}");
    }
    let sign_in = nobody.read("/console/sign-in").await;
    let style = sign_in.split('"').find(|part| part.ends_with("console.css")).expect("a stylesheet");
    let style = nobody.get(style).send().await.expect("an answer");
    assert_eq!(header(&style, "Cache-Control"), "public, max-age=31536000, immutable");
    let old = nobody.get("/console/assets/0/console.css").send().await.expect("an answer");
    assert_eq!((old.status().as_u16(), header(&old, "Cache-Control")), (200, "no-store"));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_page_does_nothing() {
    let mut system = System::new().await;
    let key = create(&system, "admin", "admin").await;
    let client = system.serve();
    let admin = Visitor::signed_in(&client, &key).await;
    for page in PAGES.iter().filter(|page| page.method == Method::Post) {
        let form = || admin.foreign_post(page.path, &[("key", &key)]);
        for request in [
            form(),
            form().header("Sec-Fetch-Site", "cross-site").header("Origin", client.base()),
            form().header("Sec-Fetch-Site", "same-site"),
            form().header("Origin", "null"),
            form().header("Origin", "https://evil.example"),
        ] {
            let (status, text) = shown(request).await;
            assert!(status == 403 && text.contains("Form refused"), "{} {status}: {text}", page.path);
        }
    }
    let own = admin.foreign_post("/console/sign-out", &[]).header("Origin", client.base());
    assert_eq!(shown(own).await.0, 303, "a browser without Fetch Metadata");
    follows_a_link_of_another_site(&Visitor::new(&client)).await;
    system.finish().await;
}

/// Checks that the browser is told to ask again: then it sends the cookie, and the request is not another site's.
async fn follows_a_link_of_another_site(visitor: &Visitor) {
    let link = visitor.get("/console/users?id=1").header("Sec-Fetch-Site", "cross-site");
    let (status, page) = shown(link.header("Sec-Fetch-Mode", "navigate")).await;
    assert!(status == 200 && page.contains(r#"content="0; url=/console/users?id=1""#), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_console_is_open_to_this_machine_and_to_nobody_else() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    assert!(visitor.read("/console").await.contains("No key"));
    for (name, value) in FOREIGN {
        let (status, page) = shown(visitor.get("/console").header(name, value)).await;
        assert_eq!(status, 403, "{name}: {value}: {page}");
    }
    follows_a_link_of_another_site(&visitor).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_from_anywhere_are_no_administrators_without_a_key() {
    let mut system = System::new().await;
    let everyone = AccessArgs { rate_limit: None, allow_anonymous: Anonymous::Everyone };
    let visitor = Visitor::new(&system.serve_with(everyone));
    let before_the_first_key = visitor.post("/console/keys", &[("name", "mine"), ("scope", "admin")]);
    let refused = before_the_first_key.send().await.expect("an answer");
    assert!(refused.status() == 303 && header(&refused, "Location").starts_with("/console/sign-in"));
    create(&system, "olivia", "admin").await;
    let page = visitor.read("/console/users").await;
    assert!(!page.contains("/console/keys") && !page.contains("/console/dead-letters"), "{page}");
    let form = [("name", "mine"), ("scope", "admin")];
    for refused in [
        visitor.get("/console/keys"),
        visitor.post("/console/keys", &form),
        visitor.post("/console/keys/revoke", &[("id", "1")]),
        visitor.post("/console/dead-letters", &[("verdict", "redrive"), ("letter", "all")]),
    ] {
        let refused = refused.send().await.expect("an answer");
        assert!(refused.status() == 303 && header(&refused, "Location").starts_with("/console/sign-in"));
    }
    assert_eq!(system.count("select count(*) from api_key where revoked_at is null").await, 1);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_sign_in_and_pages_count_against_the_rate_limit() {
    let mut system = System::new().await;
    let limit = Some("3/m".parse().expect("a limit"));
    let client = system.serve_with(AccessArgs { rate_limit: limit, allow_anonymous: Anonymous::default() });
    let visitor = Visitor::new(&client);
    for (attempt, expected) in [401, 401, 401, 429].into_iter().enumerate() {
        let response = visitor.post("/console/sign-in", &[("key", "ps_1")]).send().await.expect("an answer");
        assert_eq!(response.status(), expected, "attempt {attempt}");
        assert_eq!(header(&response, "Retry-After").is_empty(), expected != 429);
    }
    assert_eq!(shown(visitor.get("/console")).await.0, 429, "the same address without a key");
    system.finish().await;
}
