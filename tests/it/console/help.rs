//! The documents in the console: their links lead somewhere, and the overview leads to them.

use std::collections::{BTreeMap, BTreeSet};

use super::Visitor;
use crate::support::system::{System, eventually};

const HOME: &str = "/console/help";

/// The values of an attribute.
fn values<'a>(page: &'a str, attribute: &str) -> BTreeSet<&'a str> {
    let start = format!(" {attribute}=\"");
    page.split(start.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_in_the_documents_leads_to_a_section() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    let index = visitor.read(HOME).await;
    let mut pages = BTreeMap::new();
    for path in values(&index, "href").into_iter().filter(|path| path.starts_with("/console/help/")) {
        pages.insert(path.to_owned(), visitor.read(path).await);
    }
    assert!(pages.len() >= 5, "{:?}", pages.keys());
    let mut sections = 0;
    for (path, page) in &pages {
        assert_eq!(values(page, "id").len(), page.matches(" id=\"").count(), "{path} has an id twice");
        for link in values(page, "href") {
            assert!(!link.contains(".md") && !link.starts_with("../"), "{path}: {link}");
            let Some((to, section)) = link.split_once('#') else { continue };
            let of = if to.is_empty() { path } else { to };
            let there = pages.get(of).map_or_else(BTreeSet::new, |page| values(page, "id"));
            assert!(there.contains(section), "{path}: {link} leads to nothing");
            sections += 1;
        }
    }
    assert!(sections > 50, "{sections} links");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trouble_leads_to_the_section_of_its_alert() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    let link = "/console/help/alerts#pointsystemqueuehasnoworker";
    eventually("the workers are missed", async || {
        values(&visitor.read("/console").await, "href").contains(link)
    })
    .await;
    let page = visitor.read(link).await;
    assert!(
        page.contains("<h2 id=\"pointsystemqueuehasnoworker\">PointSystemQueueHasNoWorker</h2>"),
        "{page}"
    );
    let nothing = visitor.get("/console/help/nothing").send().await.expect("an answer");
    assert_eq!(nothing.status(), 404);
    system.finish().await;
}
