//! The table of endpoints: the routes, the admission, the description, the documents and the Postman collection agree
//! with it.

use std::{collections::BTreeSet, fs, path::Path};

use point_system::{
    access::Scope,
    http::{ENDPOINTS, Endpoint},
};
use reqwest::{
    Method, RequestBuilder,
    header::{ALLOW, CACHE_CONTROL},
};
use serde_json::{Value, json};

use crate::{
    keys::create,
    openapi::{Operation, description, operations},
    support::{
        client::{answer, text},
        system::System,
    },
};

/// The operations that the table of endpoints has.
fn endpoints() -> BTreeSet<Operation> {
    ENDPOINTS.iter().map(operation_of).collect()
}

fn operation_of(endpoint: &Endpoint) -> Operation {
    (format!("{:?}", endpoint.method).to_uppercase(), endpoint.path.to_owned())
}

/// The rows of a table in `docs/api.md`, sorted: the first two cells of each.
pub fn documented(name: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).expect("a file");
    let [begin, end] = [format!("<!-- {name} -->"), format!("<!-- end {name} -->")];
    let table = page.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).expect(name).0;
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        row.trim_matches('|').split('|').take(2).map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>()
    };
    let mut rows: Vec<_> = rows.map(cells).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoints_are_routed_and_described_and_nothing_else_is() {
    let mut system = System::new().await;
    let client = system.serve();
    let description = description(&client).await;
    assert_eq!(operations(&description), endpoints());
    for endpoint in ENDPOINTS {
        let options = client.request(Method::OPTIONS, endpoint.path).send().await.expect("an answer");
        let allow = if operation_of(endpoint).0 == "GET" { "GET, HEAD" } else { "POST" };
        assert_eq!(
            (options.status().as_u16(), &options.headers()[ALLOW]),
            (405, &allow.parse().expect("a header"))
        );
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    for file in fs::read_dir(folder).expect("a folder").flatten().filter(|file| file.path().is_file()) {
        let code = fs::read_to_string(file.path()).expect("text");
        let routes = [".service(", "web::resource("].iter().any(|call| code.contains(call));
        assert_eq!(
            routes,
            file.file_name() == "endpoints.rs",
            "{:?}: routes come from the table",
            file.path()
        );
    }
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_asks_for_the_scope_that_its_description_names() {
    let mut system = System::new().await;
    let key = create(&system, "reader", "read").await;
    let client = system.serve();
    let description = description(&client).await;
    for endpoint in ENDPOINTS {
        let (method, path) = operation_of(endpoint);
        let rule = path.starts_with("/v1/").then_some(if method == "GET" { "read" } else { "write" });
        assert_eq!(
            endpoint.scope.map(Scope::as_str),
            rule,
            "{method} {path}: every endpoint of the API is guarded"
        );
        let described = &description["paths"][&path][method.to_lowercase()];
        let scope = endpoint.scope.map(Scope::as_str);
        let security = scope.map_or(Value::Null, |scope| json!([{"bearer": [scope]}, {}]));
        assert_eq!(described["security"], security, "{method} {path}");
        let refusals = ["401", "403", "429"].map(|status| described["responses"].get(status).is_some());
        assert_eq!(refusals, [scope.is_some(); 3], "{method} {path}");
        let request = || client.request(method.parse().expect("a method"), &path.replace(['{', '}'], ""));
        let status = async |request: RequestBuilder| answer(request).await.0.as_u16();
        let (without, with) = (status(request()).await, status(request().bearer_auth(&key)).await);
        assert_eq!(without == 401, scope.is_some(), "{method} {path}: {without}");
        assert_eq!(with == 403, scope == Some("write"), "{method} {path}: {with}");
        assert_ne!(with, 401, "{method} {path}");
        if scope.is_some() {
            let response = request().bearer_auth(&key).send().await.expect("an answer");
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store", "{method} {path}");
            let responses = described["responses"].as_object().expect("responses");
            let all = responses.values().all(|one| one["headers"]["Cache-Control"].is_object());
            assert!(all, "{method} {path}: {responses:?}");
        }
    }
    system.finish().await;
}

#[test]
fn the_documents_list_every_endpoint_with_its_scope() {
    let row = |endpoint: &Endpoint| {
        let (method, path) = operation_of(endpoint);
        vec![format!("{method} {path}"), endpoint.scope.map_or("none", Scope::as_str).to_owned()]
    };
    let mut expected: Vec<_> = ENDPOINTS.iter().map(row).collect();
    expected.sort();
    assert_eq!(documented("endpoints"), expected);
}

#[test]
fn the_postman_collection_has_every_endpoint() {
    let collection =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/postman_collection.json"));
    let collection: Value = serde_json::from_str(&collection.expect("a file")).expect("JSON");
    let mut requested = BTreeSet::new();
    let mut folders = vec![&collection];
    while let Some(folder) = folders.pop() {
        folders.extend(folder["item"].as_array().into_iter().flatten());
        if let Some(request) = folder.get("request") {
            let url = text(&request["url"]["raw"]);
            let path = url.strip_prefix("{{PS_URL}}").expect(&url).split('?').next().expect("a path");
            requested.insert((text(&request["method"]), path.to_owned()));
        }
    }
    for (method, path) in &endpoints() {
        // A path with a parameter is requested with some value of it.
        let (begin, parameter) =
            path.split_once('{').map_or((path.as_str(), false), |(begin, _)| (begin, true));
        let found = requested.iter().any(|(asked, url)| {
            asked == method
                && if parameter { url.starts_with(begin) && url.len() > begin.len() } else { url == begin }
        });
        assert!(found, "the Postman collection has no {method} {path}");
    }
}
