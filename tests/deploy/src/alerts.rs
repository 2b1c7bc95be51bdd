//! Alert rules as data.

use std::collections::BTreeSet;

use serde_json::Value;

/// Words of the query language that look like names of metrics.
const WORDS: [&str; 22] = [
    "absent",
    "and",
    "bool",
    "by",
    "group_left",
    "group_right",
    "ignoring",
    "increase",
    "max",
    "min",
    "min_over_time",
    "offset",
    "on",
    "or",
    "rate",
    "sum",
    "time",
    "unless",
    "without",
    "count",
    "avg",
    "max_over_time",
];

/// Each alert's name and expression.
#[must_use]
pub fn expressions(rules: &Value) -> Vec<(&str, &str)> {
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules.filter_map(|rule| Some((rule["alert"].as_str()?, rule["expr"].as_str()?))).collect()
}

/// The metrics that an expression reads. Labels, between braces or in the parentheses after `by`
/// and the like, are none.
#[must_use]
pub fn metrics(expression: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut rest, mut before_labels) = (expression, false);
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let skipped = match first {
            '{' => rest.find('}').map_or(rest.len(), |end| end + 1),
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            '(' if before_labels => rest.find(')').map_or(rest.len(), |end| end + 1),
            _ if length == 0 => first.len_utf8(),
            _ => length,
        };
        let word = &rest[..length];
        if length > 0 && !first.is_ascii_digit() && !WORDS.contains(&word) {
            found.insert(word);
        }
        let keeps = first.is_whitespace() && before_labels;
        before_labels = keeps || ["by", "on", "ignoring", "without", "group_left", "group_right"].contains(&word);
        rest = &rest[skipped..];
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use repository_checks::{produced, tree};

    use super::*;

    fn yaml(path: &str) -> Value {
        serde_saphyr::from_str(&tree::read(Path::new(path))).unwrap()
    }

    #[test]
    fn metrics_are_told_from_labels_functions_and_numbers() {
        let expression = r#"max by (node, b) (a_b{c="d e", f!="g"}) > 1e3 and on (instance) rate(h_total[5m]) or absent(i) unless j offset 10m"#;
        assert_eq!(metrics(expression), ["a_b", "h_total", "i", "j"].into());
    }

    #[test]
    fn every_metric_of_a_rule_is_one_that_the_code_registers() {
        let (rules, registered) = (yaml("deploy/alerts/rules.yaml"), produced::metrics());
        let alerts = expressions(&rules);
        assert!(alerts.len() >= 10, "{alerts:?}");
        for (alert, expression) in alerts {
            let read = metrics(expression);
            assert!(!read.is_empty(), "{alert} reads no metric");
            for metric in read {
                let is_registered = registered.keys().any(|known| produced::names_metric(&BTreeSet::from([metric]), known));
                assert!(is_registered, "{alert} reads {metric}, which no code registers");
            }
        }
    }

    /// A test of the rules that expects an alert, and one that expects none later, for each.
    #[test]
    fn every_alert_is_shown_to_fire_and_to_resolve() {
        let (rules, tests) = (yaml("deploy/alerts/rules.yaml"), yaml("deploy/alerts/rules.test.yaml"));
        let asked = |alert: &str, fires: bool| {
            let tests = tests["tests"].as_array().into_iter().flatten();
            tests.flat_map(|test| test["promql_expr_test"].as_array().into_iter().flatten()).any(|question| {
                question["expr"] == format!("ALERTS{{alertname=\"{alert}\"}}").as_str()
                    && question["exp_samples"].is_array() == fires
            })
        };
        for (alert, _) in expressions(&rules) {
            assert!(asked(alert, true) && asked(alert, false), "rules.test.yaml does not show {alert} fire and resolve");
        }
    }

    #[test]
    fn rules_have_a_severity_and_say_what_to_do() {
        let rules = yaml("deploy/alerts/rules.yaml");
        for rule in rules["groups"][0]["rules"].as_array().unwrap() {
            let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
            assert!(["warning", "critical"].contains(&severity), "{rule}");
            assert!(rule["annotations"]["summary"].is_string() && rule["annotations"]["description"].is_string(), "{rule}");
        }
    }

    /// `KANTAI_BLESS=1` writes it anew.
    #[test]
    fn the_object_for_the_operator_holds_the_rules() {
        let rules = tree::read(Path::new("deploy/alerts/rules.yaml"));
        let body = rules.lines().skip_while(|line| !line.starts_with("groups:"));
        let head = "# Made from rules.yaml; a test compares the two.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  \
                    name: kantai\n  namespace: kantai-system\n  labels:\n    app.kubernetes.io/part-of: kantai\nspec:\n";
        let made = body.fold(head.to_owned(), |text, line| text + "  " + line + "\n");
        let path = Path::new("deploy/alerts/prometheus-rule.yaml");
        if std::env::var_os("KANTAI_BLESS").is_some() {
            std::fs::write(tree::root().join(path), &made).unwrap();
        }
        assert_eq!(tree::read(path), made, "set KANTAI_BLESS=1 and run this test again");
    }
}
