//! NACKs, and the bisection that finds the resource at fault if a NACK does not name it.

use super::store::StoreRevision;
use super::{ResourceKind, ResourceName};

/// A NACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The kind of the refused resources.
    pub kind: ResourceKind,
    /// The names in the refused response.
    pub names: Vec<String>,
    /// Those at fault; empty while unknown.
    pub at_fault: Vec<String>,
    /// Envoy's message.
    pub message: String,
    /// The refused resources are of at most this revision.
    pub revision: StoreRevision,
    /// The last revision of which the gateway accepted everything of this kind.
    pub confirmed: StoreRevision,
}

impl Nack {
    /// A message for people about a NACK by the gateway of `node`.
    #[must_use]
    pub fn by_gateway_of(&self, node: &str) -> String {
        format!("the gateway of node {node} refused an update (NACK): {}", self.message)
    }
}

/// Resources refused together with the one at fault. They are sent again without it; in halves if
/// the one at fault is unknown.
#[derive(Debug, Default)]
pub(super) struct Bisection {
    left: Vec<Vec<ResourceName>>,
}

impl Bisection {
    /// Records a NACK of `names`. Returns those known to be at fault, which are not sent again.
    pub(super) fn refused(&mut self, kind: ResourceKind, mut names: Vec<ResourceName>, message: &str) -> Vec<ResourceName> {
        if names.len() <= 1 {
            return names;
        }
        // Names of listeners and routes are words that a message may contain for other reasons.
        let distinctive = !matches!(kind, ResourceKind::Listener | ResourceKind::Routes);
        let (named, others): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| distinctive && mentions(message, name));
        if named.is_empty() {
            let half = names.split_off(names.len() / 2);
            self.left.extend([half, names]);
        } else if !others.is_empty() {
            // Whether these were accepted is unknown.
            self.left.push(others);
        }
        named
    }

    /// The next resources to send, and no others with them.
    pub(super) fn next(&mut self) -> Option<Vec<ResourceName>> {
        self.left.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The number of names to be sent again.
    pub(super) fn len(&self) -> usize {
        self.left.iter().map(Vec::len).sum()
    }

    /// The gateway unsubscribed from the name.
    pub(super) fn forget(&mut self, name: &str) {
        self.left.iter_mut().for_each(|names| names.retain(|one| one.as_str() != name));
        self.left.retain(|names| !names.is_empty());
    }
}

/// Whether the message contains the name as a whole word: `ns/a/80` is not part of `ns/a/8080`.
fn mentions(message: &str, name: &ResourceName) -> bool {
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '-' | '_' | '.');
    let end_of_sentence = |rest: &str| rest.strip_prefix('.').is_some_and(|rest| !rest.starts_with(in_name));
    message.match_indices(name.as_str()).any(|(at, found)| {
        let (before, after) = (&message[..at], &message[at + found.len()..]);
        !before.ends_with(in_name) && (!after.starts_with(in_name) || end_of_sentence(after))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<ResourceName> {
        numbers.into_iter().map(|number| ResourceName::new(format!("ns/s{number}/80"))).collect()
    }

    #[test]
    fn whoever_is_named_is_at_fault_and_the_others_are_sent_again() {
        let mut bisection = Bisection::default();
        let fault = bisection.refused(ResourceKind::Cluster, names(0..4), "Error adding/updating cluster(s) ns/s2/80: bad");
        assert_eq!(fault, names([2]));
        assert_eq!(bisection.next(), Some(names([0, 1, 3])));
        assert!(bisection.is_empty());
        assert!(mentions("bad ns/s2/80.", &names([2])[0]));
        assert!(!mentions("bad ns/s2/8080", &names([2])[0]));
        assert!(!mentions("bad other-ns/s2/80", &names([2])[0]));
    }

    proptest! {
        #[test]
        fn exactly_those_at_fault_are_found_and_every_other_one_is_taken(
            count in 1_usize..200,
            bad in prop::collection::btree_set(0_usize..200, 0..5),
        ) {
            let bad = names(bad.into_iter().filter(|number| *number < count));
            let mut bisection = Bisection::default();
            let (mut found, mut taken, mut sent) = (Vec::new(), Vec::new(), Some(names(0..count)));
            let mut refusals = 0;
            while let Some(together) = sent {
                if together.iter().any(|name| bad.contains(name)) {
                    refusals += 1;
                    found.extend(bisection.refused(ResourceKind::Assignment, together, "weights must not be 0"));
                } else {
                    taken.extend(together);
                }
                sent = bisection.next();
            }
            found.sort();
            let mut expected = bad.clone();
            expected.sort();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(taken.len() + found.len(), count);
            prop_assert!(refusals <= 9 * bad.len());
        }
    }
}
