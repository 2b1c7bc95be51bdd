//! The chart's values: their reference, made of `values.yaml`, and their schema.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

/// A line of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `gateway.image.tag`.
    pub path: String,
    /// As it is written; nothing for what only has values below it.
    pub default: Option<String>,
    /// The comment above it.
    pub meaning: String,
}

/// What is written whole, though it has values below it.
const WHOLE: &str = "resources";

/// The values of a file with two spaces per level and the comments above what they are about.
#[must_use]
pub fn entries(yaml: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut open, mut comment) = (Vec::<&str>::new(), Vec::<&str>::new());
    for line in yaml.lines() {
        let text = line.trim();
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with('#')) else {
            match text.strip_prefix('#') {
                Some(said) => comment.push(said.trim()),
                None => comment.clear(),
            }
            continue;
        };
        open.truncate((line.len() - line.trim_start().len()) / 2);
        let inside = open.contains(&WHOLE);
        open.push(key);
        if inside {
            continue;
        }
        let value = value.trim();
        let default = if key == WHOLE { Some("see values.yaml") } else { Some(value).filter(|value| !value.is_empty()) };
        let meaning = if key == WHOLE { "Requests and limits.".to_owned() } else { comment.join(" ") };
        entries.push(Entry { path: open.join("."), default: default.map(str::to_owned), meaning });
        comment.clear();
    }
    entries
}

/// The reference, as a table in Markdown.
#[must_use]
pub fn reference(entries: &[Entry]) -> String {
    let mut text = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for Entry { path, default, meaning } in entries.iter().filter(|entry| entry.default.is_some() || !entry.meaning.is_empty()) {
        let default = default.as_ref().map(|default| format!("`{default}`")).unwrap_or_default();
        let _ = writeln!(text, "| `{path}` | {default} | {meaning} |");
    }
    text
}

/// The paths of the values that a schema describes.
#[must_use]
pub fn described(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![(String::new(), schema)];
    while let Some((path, schema)) = open.pop() {
        let below = schema["properties"].as_object().filter(|_| !path.ends_with(WHOLE));
        match below {
            Some(below) => {
                let dot = if path.is_empty() { "" } else { "." };
                open.extend(below.iter().map(|(key, schema)| (format!("{path}{dot}{key}"), schema)));
            }
            None => drop(found.insert(path)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use repository_checks::tree;

    use super::*;

    const VALUES: &str = "deploy/chart/values.yaml";
    const PAGE: &str = "deploy/chart/README.md";
    const MARKS: [&str; 2] = ["<!-- values -->\n", "<!-- end of values -->"];

    #[test]
    fn entries_have_their_path_default_and_comment() {
        let yaml = "# About the file.\n\n# All of it.\na:\n  # One\n  # thing.\n  b: 1\n  c: {}\n  resources:\n    limits:\n      cpu: 1\nd: \"\"\n";
        let entry = |path: &str, default: Option<&str>, meaning: &str| Entry {
            path: path.to_owned(),
            default: default.map(str::to_owned),
            meaning: meaning.to_owned(),
        };
        assert_eq!(
            entries(yaml),
            [
                entry("a", None, "All of it."),
                entry("a.b", Some("1"), "One thing."),
                entry("a.c", Some("{}"), ""),
                entry("a.resources", Some("see values.yaml"), "Requests and limits."),
                entry("d", Some("\"\""), ""),
            ]
        );
    }

    #[test]
    fn the_schema_describes_every_value_and_no_other() {
        let schema: Value = serde_json::from_str(&tree::read(Path::new("deploy/chart/values.schema.json"))).unwrap();
        let mut described = described(&schema);
        // Helm gives every chart this one.
        assert!(described.remove("global"));
        let values: BTreeSet<String> =
            entries(&tree::read(Path::new(VALUES))).into_iter().filter(|it| it.default.is_some()).map(|it| it.path).collect();
        assert_eq!(values, described);
    }

    #[test]
    fn every_value_is_explained() {
        let entries = entries(&tree::read(Path::new(VALUES)));
        let silent: Vec<_> = entries.iter().filter(|entry| entry.default.is_some() && entry.meaning.is_empty()).collect();
        assert_eq!(silent, Vec::<&Entry>::new());
    }

    /// `KANTAI_BLESS=1` writes it anew.
    #[test]
    fn the_reference_says_what_the_file_says() {
        let page = tree::read(Path::new(PAGE));
        let (head, rest) = page.split_once(MARKS[0]).expect("the page has a mark");
        let (_, tail) = rest.split_once(MARKS[1]).expect("the page has a second mark");
        let made = format!("{head}{}\n{}\n{}{tail}", MARKS[0], reference(&entries(&tree::read(Path::new(VALUES)))), MARKS[1]);
        if std::env::var_os("KANTAI_BLESS").is_some() {
            std::fs::write(tree::root().join(PAGE), &made).unwrap();
        }
        assert_eq!(tree::read(Path::new(PAGE)), made, "set KANTAI_BLESS=1 and run this test again");
    }
}
