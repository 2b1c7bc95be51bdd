//! Kubernetes objects as data.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Objects by kind, namespace and name, as in `DaemonSet kantai-system/kantai-gateway`.
pub type Objects = BTreeMap<String, Value>;

/// The objects of a stream of YAML documents.
///
/// # Errors
/// Where a document is no YAML, is no object, or two have the same name.
pub fn read(yaml: &str) -> anyhow::Result<Objects> {
    let mut objects = Objects::new();
    for document in format!("\n{yaml}").split("\n---").filter(|document| has_content(document)) {
        let object: Value = serde_saphyr::from_str(document)?;
        let name = name_of(&object);
        anyhow::ensure!(object["kind"].is_string() && object["metadata"]["name"].is_string(), "no object: {document}");
        anyhow::ensure!(objects.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    Ok(objects)
}

fn has_content(document: &str) -> bool {
    document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// What tells `right` from `left`: one line for each object that only one has, and for each place
/// in an object where they differ.
#[must_use]
pub fn differences(left: &Objects, right: &Objects) -> BTreeSet<String> {
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let mut found = BTreeSet::new();
    for name in names {
        match (left.get(name), right.get(name)) {
            (Some(left), Some(right)) => compare(name, left, right, &mut found),
            (Some(_), None) => drop(found.insert(format!("- {name}"))),
            (None, _) => drop(found.insert(format!("+ {name}"))),
        }
    }
    found
}

fn compare(place: &str, left: &Value, right: &Value, found: &mut BTreeSet<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => compare(&format!("{place} {key}"), left, right, found),
                    (Some(_), None) => drop(found.insert(format!("- {place} {key}"))),
                    (None, _) => drop(found.insert(format!("+ {place} {key}"))),
                }
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{place} {index}"), left, right, found);
            }
        }
        // 1 and 1.0 are the same.
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => {}
        (left, right) if left == right => {}
        (left, right) => drop(found.insert(format!("! {place}: {left} / {right}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# a comment\n---\nkind: A\nmetadata: {name: a, namespace: ns}\nspec: {x: 1, y: [1, 2]}\n---\nkind: B\nmetadata: {name: b}\n";

    #[test]
    fn equal_objects_do_not_differ_in_any_order() {
        let other = "kind: B\nmetadata: {name: b}\n---\nkind: A\nspec: {y: [1, 2], x: 1.0}\nmetadata: {namespace: ns, name: a}\n";
        assert_eq!(differences(&read(ONE).unwrap(), &read(other).unwrap()), BTreeSet::new());
    }

    #[test]
    fn each_difference_is_told_by_its_place() {
        let other =
            "kind: A\nmetadata: {name: a, namespace: ns}\nspec: {x: 2, y: [1, 3], z: 1}\n---\nkind: C\nmetadata: {name: c}\n";
        let found = differences(&read(ONE).unwrap(), &read(other).unwrap());
        let told = ["! A ns/a spec x: 1 / 2", "! A ns/a spec y 1: 2 / 3", "+ A ns/a spec z", "+ C c", "- B b"];
        assert_eq!(found, told.map(String::from).into());
    }

    #[test]
    fn what_is_no_object_or_is_there_twice_is_refused() {
        assert!(read("a: 1\n").is_err());
        assert!(read("kind: B\nmetadata: {name: b}\n---\nkind: B\nmetadata: {name: b}\n").is_err());
    }
}
