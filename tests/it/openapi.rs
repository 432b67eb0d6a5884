//! The API's description: it is complete, it is true (schemathesis asks), and it has pages and a row in the documents.

use std::{collections::BTreeSet, fs};

use point_system::{cli::AccessArgs, http::ENDPOINTS};
use reqwest::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    endpoints::documented,
    keys::create,
    support::{
        client::{Client, answer, text},
        system::{System, eventually},
        tools,
    },
};

const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// The most examples that schemathesis makes up for an operation and a way to make them up.
const EXAMPLES_MAX: &str = "150";

/// The fewest that it must have tried in all.
const EXAMPLES_MIN: usize = 2_000;

/// A method and a path.
pub type Operation = (String, String);

pub async fn description(client: &Client) -> Value {
    let (status, description) = answer(client.get("/openapi.json")).await;
    assert_eq!(status, 200);
    description
}

pub fn operations(description: &Value) -> BTreeSet<Operation> {
    let paths = description["paths"].as_object().expect("paths");
    let methods = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(methods).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_described_with_an_example_or_is_a_page() {
    let mut system = System::new().await;
    let client = system.serve();
    let description = description(&client).await;
    for (method, path) in operations(&description) {
        let operation = &description["paths"][&path][method.to_lowercase()];
        assert!(!text(&operation["summary"]).is_empty() && operation["tags"].is_array(), "{method} {path}");
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let name = format!("{method} {path} {status}");
            assert!(!text(&response["description"]).is_empty(), "{name}");
            let Some(contents) = response["content"].as_object() else {
                assert!(
                    status == "303" && response["headers"]["Location"].is_object(),
                    "{name} has no content"
                );
                continue;
            };
            for (media_type, content) in contents {
                let example = content.get("example").or(content.get("examples"));
                let json = media_type.ends_with("json") && path != "/openapi.json";
                assert!(!json || example.is_some(), "{name} has no example");
                assert!(status.starts_with('2') || media_type == "application/problem+json", "{name}");
            }
        }
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_has_a_page_an_operation_and_a_row_in_the_documents() {
    let mut system = System::new().await;
    let client = system.serve();
    let description = description(&client).await;
    let kinds = &description["paths"]["/problems/{kind}"]["get"]["parameters"][0]["schema"]["enum"];
    let kinds: BTreeSet<String> = kinds.as_array().expect("kinds").iter().map(text).collect();
    let index = page(&client, "/problems").await;
    let (mut described, mut rows) = (BTreeSet::new(), Vec::new());
    for (method, path) in operations(&description) {
        let responses = &description["paths"][&path][method.to_lowercase()]["responses"];
        for response in responses.as_object().expect("responses").values() {
            let examples = response["content"]["application/problem+json"]["examples"].as_object();
            for (kind, example) in examples.into_iter().flatten() {
                let problem = &example["value"];
                assert_eq!(problem["type"], format!("/problems/{kind}"));
                if described.insert(kind.clone()) {
                    rows.push(vec![problem["status"].to_string(), text(&problem["type"])]);
                    let (kind_page, title) =
                        (page(&client, &text(&problem["type"])).await, text(&problem["title"]));
                    assert!(kind_page.contains(&format!("<h1>{title}</h1>")), "{kind}: {kind_page}");
                    let link = format!("<a href=\"/problems/{kind}\">{title}</a>");
                    assert!(index.contains(&link), "{kind} is not in the index");
                }
            }
        }
    }
    assert_eq!(described, kinds, "every kind is an answer of some operation");
    rows.sort();
    assert_eq!(documented("problems"), rows);
    let (status, problem) = answer(client.get("/problems/unheard-of")).await;
    assert_eq!((status.as_u16(), &problem["type"]), (404, &"/problems/not-found".into()));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_need_nothing_but_this_service() {
    let mut system = System::new().await;
    let client = system.serve();
    for path in ["/docs", "/problems", "/problems/key-reused"] {
        let page = page(&client, path).await;
        assert!(!page.contains("://"), "{path} names another server: {page}");
        let files = page.split(['"', ' ']).filter(|part| part.starts_with("/docs/"));
        let files: BTreeSet<&str> = files.collect();
        assert!(!files.is_empty(), "{path} has no style");
        for file in files {
            let response = client.get(file).send().await.expect("an answer");
            assert_eq!(response.status(), 200, "{file}");
            assert!(response.bytes().await.expect("a body").len() > 100, "{file} is empty");
        }
    }
    system.finish().await;
}

/// A page that keeps to what it may load.
async fn page(client: &Client, path: &str) -> String {
    let response = client.get(path).send().await.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
    let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().expect("a text").to_owned();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{path}: {policy}");
    response.text().await.expect("a text")
}

/// The description without its leave to call without a key, so that schemathesis tries that and wants a 401.
fn keys_needed(mut description: Value) -> Value {
    let paths = description["paths"].as_object_mut().expect("paths").values_mut();
    let operations = paths.flat_map(|path| path.as_object_mut().expect("methods").values_mut());
    let mut guarded = 0;
    for security in operations.filter_map(|operation| operation.get_mut("security")) {
        security.as_array_mut().expect("alternatives").retain(|alternative| *alternative != json!({}));
        guarded += 1;
    }
    let needed = ENDPOINTS.iter().filter(|endpoint| endpoint.scope.is_some()).count();
    assert_eq!(guarded, needed, "every endpoint with a scope asks for a key");
    description
}

/// The description without metadata: a schema can't say how many bytes a JSON text may have, nor which character all of
/// its strings leave out. Other tests try metadata.
fn without_metadata(mut description: Value) -> Value {
    let schemas = &mut description["components"]["schemas"];
    let (single, operations) = (
        ["Add", "Subtract", "Reverse", "Transfer", "Hold", "Capture", "Release"],
        "/Batch/properties/operations/items/oneOf",
    );
    let kinds = schemas.pointer(operations).and_then(Value::as_array).map_or(0, Vec::len);
    assert_eq!(kinds, single.len(), "each kind of change is alone or an operation");
    let operations = (0..kinds).map(|kind| format!("{operations}/{kind}"));
    for schema in single.map(|name| format!("/{name}")).into_iter().chain(operations) {
        let members = schemas.pointer_mut(&format!("{schema}/properties")).and_then(Value::as_object_mut);
        assert!(members.expect(&schema).remove("metadata").is_some());
    }
    description
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let Some(mut schemathesis) = tools::python("schemathesis", &[SCHEMATHESIS]).await else {
        eprintln!("skipped: python3 can't install {SCHEMATHESIS} here");
        return;
    };
    let mut system = System::new().await;
    let key = create(&system, "schemathesis", "write").await;
    let client = system.serve_with(AccessArgs::default());
    system.work();
    // From a file, since the operation that a description is loaded from is left out.
    let folder = tempfile::tempdir().expect("a folder");
    let description = folder.path().join("openapi.json");
    let described = without_metadata(keys_needed(self::description(&client).await));
    fs::write(&description, described.to_string()).expect("written");
    schemathesis
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schemathesis.toml"), "run"])
        .arg(&description)
        .args(["--url", client.base(), "--checks", "all", "--max-examples", EXAMPLES_MAX, "--seed", "1"])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--continue-on-failure", "--generation-database", "none", "--no-color"])
        .current_dir(folder.path());
    let output = schemathesis.output().await.expect("schemathesis");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    let tried = report.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<usize>().ok());
    assert!(tried.is_some_and(|tried| tried >= EXAMPLES_MIN), "too few examples: {report}");
    let queues = system.queues().await;
    eventually("all is taken from the queues", async || queues.waiting().await == 0).await;
    system.finish().await;
}
