//! Names: of pods, so that asking twice for the same pod gives a conflict and not a second pod; of
//! template revisions.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use k8s_api::seika::PodTemplate;

/// Characters that spell no words, as Kubernetes itself uses for generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 8;
const REVISION_LENGTH: usize = 10;
const RECORD_SUFFIX_LENGTH: usize = 5;
const OBJECT_NAME_LENGTH_MAX: usize = 253;
/// A pod's host name is its name cut at 63 characters: longer names would lose the part that makes
/// them unique.
const POD_NAME_LENGTH_MAX: usize = 63;
const LABEL_VALUE_LENGTH_MAX: usize = 63;

/// The name of the pod in `slot` of `node`: `<seika>-<node>-<suffix>`. The suffix depends on
/// nothing but the Seika's UID, the node and the slot, so a restarted controller, or the next
/// leader, uses the same name again.
#[must_use]
pub fn pod_name(seika: &str, seika_uid: &str, node: &str, slot: u32) -> String {
    let mut digest = Sha256::new();
    for part in [seika_uid, node] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.update(slot.to_be_bytes());
    let suffix = spell(&digest.finalize(), SUFFIX_LENGTH);
    format!("{}-{suffix}", shortened(&format!("{seika}-{node}"), POD_NAME_LENGTH_MAX - SUFFIX_LENGTH - 1))
}

/// The name of the ControllerRevision of a template: `<seika>-<revision>-<suffix>`. The suffix
/// depends on the Seika's UID, so that a Seika which is deleted and created again does not wait for
/// the deletion of the old one's.
#[must_use]
pub fn record_name(seika: &str, seika_uid: &str, revision: &str) -> String {
    let suffix = spell(&Sha256::digest(seika_uid.as_bytes()), RECORD_SUFFIX_LENGTH);
    let end = format!("-{revision}-{suffix}");
    format!("{}{end}", shortened(seika, OBJECT_NAME_LENGTH_MAX - end.len().min(OBJECT_NAME_LENGTH_MAX)))
}

/// The value of the node label. Node names may be longer than a label's value may be; the hash of
/// the whole keeps those apart.
#[must_use]
pub fn node_label(node: &str) -> String {
    if node.len() <= LABEL_VALUE_LENGTH_MAX {
        return node.to_owned();
    }
    let suffix = spell(&Sha256::digest(node.as_bytes()), SUFFIX_LENGTH);
    format!("{}-{suffix}", shortened(node, LABEL_VALUE_LENGTH_MAX - SUFFIX_LENGTH - 1))
}

/// The revision of a template: equal templates have equal revisions, in whatever order their keys
/// were written.
#[must_use]
pub fn revision(template: &PodTemplate) -> String {
    let mut digest = Sha256::new();
    for (key, value) in
        template.metadata.labels.iter().chain([(&String::new(), &String::new())]).chain(&template.metadata.annotations)
    {
        for part in [key, value] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
    }
    for (key, value) in sorted(&template.spec) {
        digest.update(key.as_bytes());
        digest.update([0]);
        digest_value(value, &mut digest);
    }
    spell(&digest.finalize(), REVISION_LENGTH)
}

/// Whether maps keep the order of insertion is a compile-time choice of any crate in the build, so
/// order is never relied on.
fn sorted(map: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn digest_value(value: &Value, digest: &mut Sha256) {
    match value {
        Value::Array(items) => {
            digest.update(b"[");
            for item in items {
                digest_value(item, digest);
            }
            digest.update(b"]");
        }
        Value::Object(map) => {
            digest.update(b"{");
            for (key, value) in sorted(map) {
                digest.update(key.as_bytes());
                digest.update([0]);
                digest_value(value, digest);
            }
            digest.update(b"}");
        }
        scalar => {
            digest.update(scalar.to_string().as_bytes());
            digest.update([0]);
        }
    }
}

fn spell(digest: &[u8], length: usize) -> String {
    digest.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// At most `length` characters of `text`, ending in a letter or digit.
fn shortened(text: &str, length: usize) -> &str {
    // Names of Kubernetes objects are ASCII; anything else would have been refused before it came
    // here.
    let end = (0..=length.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].trim_end_matches(|character: char| !character.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_tells_seika_and_node_and_is_the_same_each_time() {
        let name = pod_name("hello", "uid-1", "node1", 0);
        assert!(name.starts_with("hello-node1-") && name.len() == "hello-node1-".len() + SUFFIX_LENGTH, "{name}");
        assert_eq!(name, pod_name("hello", "uid-1", "node1", 0));
        assert_ne!(name, pod_name("hello", "uid-2", "node1", 0));
    }

    #[test]
    fn the_slots_of_a_full_node_have_different_names() {
        let names: HashSet<_> = (0..1000).map(|slot| pod_name("hello", "uid-1", "node1", slot)).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn long_names_are_cut_where_a_name_may_end() {
        let seika = "a".repeat(53);
        let name = pod_name(&seika, "uid-1", "b.example.com", 0);
        assert!(name.len() <= POD_NAME_LENGTH_MAX && name.starts_with(&format!("{seika}-")), "{name}");
        assert!(!name.contains(".-") && !name.contains("--"), "{name}");
        let node = "n".repeat(200);
        assert_eq!(node_label(&node).len(), LABEL_VALUE_LENGTH_MAX);
        assert_eq!(node_label("node1"), "node1");
    }

    #[test]
    fn a_record_is_named_after_seika_and_revision() {
        let name = record_name("hello", "uid-1", "bcdfghjklm");
        assert!(
            name.starts_with("hello-bcdfghjklm-") && name.len() == "hello-bcdfghjklm-".len() + RECORD_SUFFIX_LENGTH,
            "{name}"
        );
        assert_ne!(name, record_name("hello", "uid-2", "bcdfghjklm"));
        assert_eq!(record_name(&"a".repeat(253), "uid-1", "bcdfghjklm").len(), 253);
    }

    #[test]
    fn a_revision_depends_on_the_content_alone() {
        let template = |spec: Value| PodTemplate { spec: spec.as_object().unwrap().clone(), ..PodTemplate::default() };
        let one = revision(&template(json!({ "a": 1, "b": [{ "c": 2, "d": 3 }] })));
        assert_eq!(one, revision(&template(json!({ "b": [{ "d": 3, "c": 2 }], "a": 1 }))));
        assert_ne!(one, revision(&template(json!({ "a": 1, "b": [{ "c": 2, "d": 4 }] }))));
        assert_ne!(one, revision(&template(json!({ "a": 1, "b": [{ "c": 2 }, { "d": 3 }] }))));
    }
}
