//! The share of a revision's pods that each of its activators can use. Pure.
//!
//! A stock activator uses all pods of a revision without a concurrency limit. With a limit, the
//! activators divide the pods among themselves: each uses only its own pods, however busy they are.
//! A gateway that sends everything to one activator fills that one's pods while the others are
//! idle.

use crate::kubernetes::objects::{Concurrency, Endpoint};
use std::collections::BTreeMap;

/// How requests for a revision are spread over its activators, by node. `None` if the nearest
/// activator alone may have them: it can use every pod, or there is no pod yet and it only holds
/// requests.
///
/// Activators are numbered by the text of their addresses, as they number themselves (10.0.0.10
/// comes before 10.0.0.9). Each has the same number of pods, and the lowest numbers have one more
/// while pods are left over. An activator without a pod gets no share. An unknown limit counts as a
/// limit: without one, any share is as good.
///
/// ```
/// use std::num::NonZeroU32;
/// use locality_ingress::endpoints::shares;
/// use locality_ingress::kubernetes::{Concurrency, Endpoint};
///
/// let on = |node: &str, last: u8| Endpoint {
///     address: [10, 0, 0, last].into(),
///     port: 8012,
///     node: Some(node.into()),
///     stand_in: true,
/// };
/// let activators = [on("node1", 1), on("node2", 2), on("node3", 3)];
/// let limited = Some(Concurrency::Limited(NonZeroU32::new(5).unwrap()));
/// let shares_of_eight: Vec<_> = shares(&activators, 8, limited).unwrap().into_iter().collect();
/// assert_eq!(
///     shares_of_eight,
///     [("node1".to_owned(), 3), ("node2".to_owned(), 3), ("node3".to_owned(), 2)]
/// );
/// assert_eq!(shares(&activators, 0, limited), None);
/// assert_eq!(shares(&activators, 8, Some(Concurrency::Unlimited)), None);
/// ```
#[must_use]
pub fn shares(activators: &[Endpoint], ready_pods: u32, concurrency: Option<Concurrency>) -> Option<BTreeMap<String, u32>> {
    if ready_pods == 0 || concurrency == Some(Concurrency::Unlimited) {
        return None;
    }
    let mut numbered: Vec<(String, &Endpoint)> =
        activators.iter().map(|activator| (activator.address.to_string(), activator)).collect();
    numbered.sort_unstable();
    let count = u32::try_from(numbered.len()).ok().filter(|&count| count > 0)?;
    let (each, left_over) = (ready_pods / count, ready_pods % count);
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for ((_, activator), number) in numbered.into_iter().zip(0_u32..) {
        let pods = each + u32::from(number < left_over);
        if pods > 0 {
            *shares.entry(activator.node.clone().unwrap_or_default()).or_default() += pods;
        }
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn on(node: &str, last: u8) -> Endpoint {
        Endpoint { address: [10, 0, 0, last].into(), port: 8012, node: Some(node.into()), stand_in: true }
    }

    fn limit(limit: u32) -> Option<Concurrency> {
        NonZeroU32::new(limit).map(Concurrency::Limited)
    }

    #[test]
    fn activators_are_numbered_by_the_text_of_their_addresses() {
        // In numbers 9 comes before 10, in text after it.
        let shares = shares(&[on("a", 9), on("b", 10)], 1, limit(1)).unwrap();
        assert_eq!(shares, BTreeMap::from([("b".to_owned(), 1)]));
    }

    #[test]
    fn activators_on_one_node_add_up_and_an_unknown_limit_is_taken_for_one() {
        let activators = [on("a", 1), on("a", 2), on("b", 3)];
        let expected = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 2)]);
        assert_eq!(shares(&activators, 7, None), Some(expected.clone()));
        assert_eq!(shares(&activators, 7, limit(1)), Some(expected));
        assert_eq!(shares(&[], 7, None), None);
    }

    proptest! {
        #[test]
        fn the_shares_are_the_pods(count in 1_u8..20, pods in 1_u32..200) {
            let activators: Vec<_> = (0..count).map(|number| on(&format!("node{number}"), number)).collect();
            let shares = shares(&activators, pods, limit(3)).unwrap();
            prop_assert_eq!(shares.values().sum::<u32>(), pods);
            prop_assert_eq!(shares.len(), usize::try_from(pods).unwrap().min(usize::from(count)));
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", shares);
        }
    }
}
