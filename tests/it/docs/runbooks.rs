//! What operators read when something is to be done: sizes that are computed, and a section for every alert.

use super::{read, root};
use crate::support::sizing;

#[test]
fn the_sizes_follow_from_the_figures_of_the_bench() {
    let expected = sizing::table(&root());
    assert_eq!(sizing::written(&read("docs/size.md")), expected, "docs/size.md, instead:\n{expected}");
}

/// The alerts with their severities, as the rules have them.
fn alerts() -> Vec<(String, String)> {
    let rules = read("docs/ops/alerts.yml");
    let alerts = rules.split("- alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().expect("a name").to_owned();
        let severity = rule.split_once("severity: ").expect("a severity").1;
        (name, severity.split(['}', '\n']).next().expect("a word").to_owned())
    });
    alerts.collect()
}

#[test]
fn every_alert_has_a_section_that_says_what_to_do() {
    let text = read("docs/alerts.md");
    let sections = text.split("\n## ").skip(1).map(|section| {
        let (name, rest) = section.split_once('\n').expect("a heading");
        let severity =
            rest.trim().split_once('*').expect("a severity").1.split_once('*').expect("a severity").0;
        assert!(rest.contains("\n1. ") && rest.contains("\n2. "), "{name} does not say what to do");
        (name.to_owned(), severity.to_owned())
    });
    let documented: Vec<(String, String)> = sections.collect();
    assert_eq!(documented, alerts(), "docs/alerts.md has the alerts of docs/ops/alerts.yml, in their order");
}
