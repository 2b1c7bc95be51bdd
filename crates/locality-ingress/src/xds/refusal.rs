//! What a gateway refused, and the search for who is at fault where it does not say.

use super::store::StoreRevision;
use super::{Kind, Name};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// What it refused.
    pub kind: Kind,
    /// The names in the refused answer.
    pub names: Vec<String>,
    /// Those of them that are at fault; none while that is not known yet.
    pub at_fault: Vec<String>,
    /// Why, in Envoy's words.
    pub message: String,
    /// What is refused is of this revision at the latest.
    pub revision: StoreRevision,
    /// The last revision of which it took all of this kind.
    pub confirmed: StoreRevision,
}

impl Nack {
    /// For people, from the gateway of `node`.
    #[must_use]
    pub fn by_gateway_of(&self, node: &str) -> String {
        format!("the gateway of node {node} refused an update (NACK): {}", self.message)
    }
}

/// Resources that were refused together with one that is at fault, and are to be sent again without
/// it: by halves where it is not known which one that is.
#[derive(Debug, Default)]
pub(super) struct Bisection {
    left: Vec<Vec<Name>>,
}

impl Bisection {
    /// Takes over the refusal of `names`, in Envoy's words. Those at fault, as far as that is known
    /// now: they are not sent again.
    pub(super) fn refused(&mut self, kind: Kind, mut names: Vec<Name>, message: &str) -> Vec<Name> {
        if names.len() <= 1 {
            return names;
        }
        // Listeners and routes are named by words that an explanation may have for other reasons.
        let distinctive = !matches!(kind, Kind::Listener | Kind::Routes);
        let (named, others): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| distinctive && mentions(message, name));
        if named.is_empty() {
            let half = names.split_off(names.len() / 2);
            self.left.extend([half, names]);
        } else if !others.is_empty() {
            // Whether they were taken is not said.
            self.left.push(others);
        }
        named
    }

    /// The next ones to be sent together, and nothing else with them.
    pub(super) fn next(&mut self) -> Option<Vec<Name>> {
        self.left.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// How many names it holds.
    pub(super) fn len(&self) -> usize {
        self.left.iter().map(Vec::len).sum()
    }

    /// The gateway wants it no more.
    pub(super) fn forget(&mut self, name: &str) {
        self.left.iter_mut().for_each(|names| names.retain(|one| one.as_str() != name));
        self.left.retain(|names| !names.is_empty());
    }
}

/// Whether the message has the name as a word of its own: `ns/a/80` is not meant by `ns/a/8080`.
fn mentions(message: &str, name: &Name) -> bool {
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

    fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<Name> {
        numbers.into_iter().map(|number| Name::new(format!("ns/s{number}/80"))).collect()
    }

    #[test]
    fn whoever_is_named_is_at_fault_and_the_others_are_sent_again() {
        let mut bisection = Bisection::default();
        let fault = bisection.refused(Kind::Cluster, names(0..4), "Error adding/updating cluster(s) ns/s2/80: bad");
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
                    found.extend(bisection.refused(Kind::Assignment, together, "weights must not be 0"));
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
