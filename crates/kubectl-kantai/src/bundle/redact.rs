//! Takes out of an object what may be a secret.

use serde_json::{Map, Value};

/// What stands in place of a text that was taken out.
const TAKEN_OUT: &str = "(taken out)";
/// The annotation in which kubectl keeps the object as it was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Variables that only Kantai reads begin with this; none of them is a secret.
const OURS: &str = "KANTAI_";
/// Fields whose texts, at any depth, may be secrets.
const SECRET_FIELDS: [&str; 8] = ["args", "command", "stringData", "binaryData", "password", "token", "httpHeaders", "caBundle"];

/// Takes secrets out of an object, at any depth.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            if fields.contains_key("name") && fields.contains_key("value") {
                redact_variable(fields);
            }
            for (key, field) in fields.iter_mut() {
                if key == LAST_APPLIED || SECRET_FIELDS.contains(&key.as_str()) {
                    blank(field);
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) => {
            if let Some(cleaned) = without_credentials(text) {
                *text = cleaned;
            }
        }
        _ => {}
    }
}

/// A variable of a container: its value is kept only where Kantai alone reads it.
fn redact_variable(fields: &mut Map<String, Value>) {
    let is_ours = fields.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with(OURS));
    if let Some(value) = fields.get_mut("value").filter(|_| !is_ours) {
        blank(value);
    }
}

/// Replaces every text.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) => TAKEN_OUT.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::Object(fields) => fields.values_mut().for_each(blank),
        _ => {}
    }
}

/// A text in which addresses have no user and password any more; `None` where none had one.
pub(super) fn without_credentials(text: &str) -> Option<String> {
    let mut cleaned = String::new();
    let mut rest = text;
    let mut is_changed = false;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        cleaned.push_str(before);
        let end =
            after.find(|character: char| matches!(character, '/' | '?' | '#' | '"' | '\'' | ',') || character.is_whitespace());
        let authority = &after[..end.unwrap_or(after.len())];
        rest = match authority.rfind('@') {
            Some(at) => {
                is_changed = true;
                cleaned.push_str(TAKEN_OUT);
                &after[at..]
            }
            None => after,
        };
    }
    cleaned.push_str(rest);
    is_changed.then_some(cleaned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_arguments_and_what_was_applied_are_taken_out() {
        let mut pod = json!({
            "metadata": {"name": "a", "managedFields": [{"f": 1}], "annotations": {LAST_APPLIED: "{\"x\":\"hush\"}", "note": "b"}},
            "spec": {"containers": [{"name": "user", "args": ["--password=hush"], "command": ["sh", "-c", "hush"], "env": [
                {"name": "DATABASE_PASSWORD", "value": "hush"}, {"name": "KANTAI_PROMETHEUS_URL", "value": "http://user:hush@p.m:9090/x"},
                {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]},
        });
        redact(&mut pod);
        let text = pod.to_string();
        assert!(!text.contains("hush"), "{text}");
        assert!(
            text.contains("DATABASE_PASSWORD") && text.contains("http://(taken out)@p.m:9090/x") && text.contains("secretKeyRef")
        );
        assert!(!text.contains("managedFields") && text.contains("\"note\":\"b\""), "{text}");
    }

    proptest! {
        #[test]
        fn no_password_in_an_address_stays(before in "[a-z ]{0,8}", user in "[a-z]{0,5}", host in "[a-z.]{1,9}(:[0-9]{2})?", after in "(/[a-z]{0,5})?( [a-z]{0,5})?") {
            let text = format!("{before}http://{user}:hu@sh@{host}{after}");
            let cleaned = without_credentials(&text).unwrap();
            prop_assert!(!cleaned.contains("hu@sh") && cleaned.ends_with(&format!("@{host}{after}")), "{}", cleaned);
        }

        #[test]
        fn other_text_is_left_as_it_is(text in "[a-z@:/ .]{0,30}") {
            prop_assume!(!text.contains("://"));
            prop_assert_eq!(without_credentials(&text), None);
        }
    }
}
