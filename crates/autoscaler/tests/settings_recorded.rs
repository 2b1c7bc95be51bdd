//! Which values stock accepts, and whether the same are accepted here.
//!
//! `golden/settings-1.15.2.jsonl` was recorded from knative.dev/serving v0.42.2 (Knative 1.15.2)
//! itself, called as a library: the answers of its `NewConfigFromMap` and `ValidateAnnotations` for
//! each key alone. `golden/record.go` does it again.

use std::collections::BTreeMap;

use autoscaler::settings::{ClusterSettings, RevisionSettings};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Rule {
    map: String,
    key: String,
    accepted: Vec<String>,
    refused: Vec<String>,
}

/// Where the answers may differ: no metric is none for stock's classes, which always have one, and
/// stock lets a larger initial scale pass than it reads later, when it falls back to the default as
/// well.
fn differs_on_purpose(rule: &Rule, value: &str) -> bool {
    let is_too_large = value == "2147483648" && (rule.key.ends_with("/initial-scale") || rule.key.ends_with("/initialScale"));
    is_too_large || value.is_empty() && rule.key.ends_with("/metric")
}

#[test]
fn values_are_accepted_as_stock_accepts_them() {
    let recorded = include_str!("golden/settings-1.15.2.jsonl");
    let (mut compared, mut differences) = (0, Vec::new());
    for rule in recorded.lines().map(|line| serde_json::from_str::<Rule>(line).unwrap()) {
        let accepted = rule.accepted.iter().map(|value| (value, true));
        for (value, is_accepted) in accepted.chain(rule.refused.iter().map(|value| (value, false))) {
            let data = BTreeMap::from([(rule.key.clone(), value.clone())]);
            let problems = match rule.map.as_str() {
                "config-autoscaler" => ClusterSettings::default().follow(&data, &BTreeMap::new()),
                _ => RevisionSettings::read(&data, 0, true, &ClusterSettings::default()).problems,
            };
            compared += 1;
            if problems.is_empty() != is_accepted && !differs_on_purpose(&rule, value) {
                differences.push(format!("{} {value:?}: stock {is_accepted}, {problems:?}", rule.key));
            }
        }
    }
    assert_eq!(differences, Vec::<String>::new());
    assert!(compared > 3000, "{compared} values");
}
