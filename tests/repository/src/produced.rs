//! What the daemons can produce that an operator sees: metrics, conditions, reasons and events.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::rust_source::{Literal, literals, without_tests_and_comments};
use crate::tree;

/// Names, each with the files where the code says them.
pub type Names = BTreeMap<String, BTreeSet<PathBuf>>;

/// What comes right before the name of a metric.
const REGISTERING: [&str; 10] = [
    "register(",
    "register_with_unit(",
    "encode_descriptor(",
    "gauge(",
    "gauge(encoder,",
    "gauge(encoder, pairs,",
    "write_totals(encoder,",
    "counter(",
    "histogram(",
    "let name = ",
];
/// Capitalised words in the code that are no condition, reason or event of ours: kinds and fields
/// of Kubernetes, Knative and HTTP, and words that the code only reads.
const NOT_OURS: &str = include_str!("../words-of-others.txt");

/// The metrics that the code of the crates registers, by full name, without what the text format
/// appends (`_total`, a unit).
#[must_use]
pub fn metrics() -> Names {
    gather(|code| if code.contains("prometheus_client") { metrics_in(code) } else { BTreeSet::new() })
}

/// Conditions, reasons and events: the capitalised words that the code of the crates says.
#[must_use]
pub fn conditions_and_events() -> Names {
    let not_ours: BTreeSet<&str> = NOT_OURS.lines().filter(|line| !line.starts_with('#')).map(str::trim).collect();
    let mut names = gather(words_in);
    names.retain(|word, _| !not_ours.contains(word.as_str()));
    names
}

fn gather(names_in: impl Fn(&str) -> BTreeSet<String>) -> Names {
    let mut names = Names::new();
    let crates = tree::root().join("crates");
    for path in tree::files_below(&crates, &["rs"]) {
        // Daemons only: `CRATE/src/...`, without modules that are tests as a whole.
        if path.iter().nth(1).is_none_or(|folder| folder != "src")
            || path.iter().any(|part| part == "tests.rs" || part == "tests")
        {
            continue;
        }
        let path = PathBuf::from("crates").join(path);
        for name in names_in(&without_tests_and_comments(&tree::read(&path))) {
            names.entry(name).or_default().insert(path.clone());
        }
    }
    names
}

fn metrics_in(code: &str) -> BTreeSet<String> {
    let literals = literals(code);
    let prefix = literals.iter().find(|literal| literal.before.trim_end().ends_with("sub_registry_with_prefix("));
    let prefix = prefix.map(|literal| format!("{}_", literal.text)).unwrap_or_default();
    let names = literals.iter().filter(|literal| is_snake_case(literal.text) && names_a_metric(literal));
    names.map(|literal| format!("{prefix}{}", literal.text)).collect()
}

/// Whether a registration comes before it, or a help text after it, as in a table of metrics.
fn names_a_metric(literal: &Literal<'_>) -> bool {
    let before = literal.before.trim_end();
    let registered = REGISTERING.iter().any(|call| before.ends_with(call.trim_end()));
    let helped = literal.after.trim_start().strip_prefix(',').map(str::trim_start).and_then(|rest| rest.strip_prefix('"'));
    let sentence = |help: &str| help.starts_with(char::is_uppercase) && help.split('"').next().is_some_and(|it| it.contains(' '));
    registered || helped.is_some_and(sentence)
}

fn is_snake_case(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn words_in(code: &str) -> BTreeSet<String> {
    let literals = literals(code);
    let words = literals.iter().filter(|literal| is_capitalised_word(literal.text) && !is_a_type_name(literal));
    words.map(|literal| literal.text.to_owned()).collect()
}

fn is_capitalised_word(text: &str) -> bool {
    text.len() > 3
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_lowercase())
}

/// `kind = "Seika"` and the like, as derive macros and `Debug` have it.
fn is_a_type_name(literal: &Literal<'_>) -> bool {
    let before = literal.before.trim_end();
    let attribute = before.strip_suffix('=').is_some_and(|before| {
        let name = before.trim_end().rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next();
        ["derive", "from", "into", "kind", "name", "rename", "singular", "status", "struct", "try_from"]
            .contains(&name.unwrap_or(""))
    });
    attribute || before.ends_with("debug_struct(")
}

/// The words between backticks in `markdown`, labels in braces left out.
#[must_use]
pub fn named_in(markdown: &str) -> BTreeSet<&str> {
    let code = markdown.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))).filter(|word| !word.is_empty()).collect()
}

/// Whether a page that names these words names the metric, with whatever the text format appends.
#[must_use]
pub fn names_metric(named: &BTreeSet<&str>, metric: &str) -> bool {
    let appended = ["", "_total", "_seconds", "_seconds_total", "_bytes", "_info"];
    appended.iter().any(|end| named.contains(format!("{metric}{end}").as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn page() -> String {
        tree::read(Path::new("docs/operate.md"))
    }

    #[test]
    fn the_operators_page_names_every_metric() {
        let metrics = metrics();
        assert!(metrics.len() > 40, "the scan finds too little: {metrics:#?}");
        let page = page();
        let named = named_in(&page);
        let missing: Names = metrics.into_iter().filter(|(metric, _)| !names_metric(&named, metric)).collect();
        assert_eq!(missing, Names::new(), "docs/operate.md does not name these metrics");
    }

    #[test]
    fn the_operators_page_names_no_metric_that_is_not_there() {
        let metrics = metrics();
        let page = page();
        // The first cell of a row in a table of metrics.
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split(" | ").next());
        let ours = ["kantai_", "locality_ingress_", "seika_"];
        let cells: Vec<String> = rows.map(|cell| format!("`{cell}")).collect();
        let named = cells.iter().flat_map(|cell| named_in(cell)).filter(|name| ours.iter().any(|start| name.starts_with(start)));
        let gone: Vec<&str> =
            named.filter(|name| !metrics.keys().any(|metric| names_metric(&BTreeSet::from([*name]), metric))).collect();
        assert_eq!(gone, Vec::<&str>::new(), "docs/operate.md names these metrics, which no code registers");
    }

    #[test]
    fn the_operators_page_names_every_condition_reason_and_event() {
        let words = conditions_and_events();
        assert!(words.len() > 30, "the scan finds too little: {words:#?}");
        let page = page();
        let named = named_in(&page);
        let missing: Names = words.into_iter().filter(|(word, _)| !named.contains(word.as_str())).collect();
        assert_eq!(missing, Names::new(), "name these in docs/operate.md, or in words-of-others.txt if they are not ours");
    }

    #[test]
    fn metrics_are_found_in_calls_tables_and_variables_with_their_prefix() {
        let code = r#"
            let scope = registry.sub_registry_with_prefix("ours");
            scope.register(
                "one", "Help", metric);
            let name = "two";
            let all = [("three", "Three things", x), ("label", "value")];
            gauge("four", help);
        "#;
        assert_eq!(metrics_in(code), ["ours_one", "ours_two", "ours_three", "ours_four"].map(String::from).into());
    }

    #[test]
    fn conditions_and_events_are_found_and_kinds_are_not() {
        let code = r#"
            #[kube(kind = "Seika")]
            event(EventType::Normal, "HandedBack", note); "some text"; "lower"; "Has space"
        "#;
        assert_eq!(words_in(code), ["HandedBack".to_owned()].into());
    }

    #[test]
    fn a_metric_is_named_with_its_unit_and_not_by_another_that_begins_alike() {
        let named = named_in("| `a_b_seconds{from,to}` | and `c_total` |");
        assert!(names_metric(&named, "a_b") && names_metric(&named, "c"));
        assert!(!names_metric(&named, "a"));
    }
}
