//! Nodes that refuse a revision's pods: noticed within seconds, avoided for a while, tried again.
//!
//! A node refuses when a pod for it cannot start for a stated reason (unschedulable, image pull,
//! crash loop), or when the Seika's controller has acted on the counts and still makes no pod there
//! (a quota, an admission policy). Nothing here takes away a pod that is ready.

use std::collections::BTreeMap;
use std::time::Duration;

use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use crate::rollout::{Counts, Maker, Pod};

/// A reason that lasts this long is a refusal. Shorter, the scheduler may just not have seen the
/// room that another pod leaves.
const PATIENCE: Duration = Duration::from_secs(3);
/// A desired pod that does not appear within this time counts as refused.
const MISSING_PATIENCE: Duration = Duration::from_secs(8);
/// For how long a node is avoided after its first refusal; it doubles with each further one.
const FIRST_AVOIDANCE: Duration = Duration::from_secs(30);
/// The longest avoidance.
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(600);

/// What is known of one revision's refusals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Refusals {
    nodes: BTreeMap<NodeName, Refusal>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Refusal {
    /// Since when a pod for this node has been in trouble.
    trouble_since: Option<Duration>,
    /// Until when the node is avoided.
    avoided_until: Option<Duration>,
    /// How many times in a row it refused.
    times: u32,
    why: String,
}

impl Refusals {
    /// Takes in what the pods show at `now`. `is_acted_on` says that the Seika's controller has
    /// seen the counts.
    pub(crate) fn observe(&mut self, now: Duration, pods: &[Pod], seika: &Counts, is_acted_on: bool) {
        let mut troubles: BTreeMap<NodeName, (Duration, String)> = BTreeMap::new();
        let mut existing = Counts::new();
        for pod in pods.iter().filter(|pod| pod.maker == Maker::Seika) {
            let Some(node) = pod.place() else { continue };
            *existing.entry(node.clone()).or_default() += 1;
            if pod.is_ready {
                // The node runs such pods: what was held against it is over.
                self.nodes.remove(node);
            } else if let Some(trouble) = &pod.trouble {
                troubles.insert(node.clone(), (PATIENCE, trouble.clone()));
            }
        }
        for (node, count) in seika.iter().filter(|(node, count)| is_acted_on && existing.get(*node).is_none_or(|n| n < *count)) {
            let missing = count - existing.get(node).copied().unwrap_or(0);
            troubles.entry(node.clone()).or_insert((MISSING_PATIENCE, format!("{missing} pods were not created")));
        }
        for (node, (patience, why)) in &troubles {
            let refusal = self.nodes.entry(node.clone()).or_default();
            let since = *refusal.trouble_since.get_or_insert(now);
            if now.saturating_sub(since) >= *patience && !refusal.is_avoided(now) {
                let length = FIRST_AVOIDANCE.saturating_mul(1 << refusal.times.min(5)).min(LONGEST_AVOIDANCE);
                refusal.times += 1;
                refusal.avoided_until = Some(now + length);
                refusal.trouble_since = None;
                refusal.why.clone_from(why);
            }
        }
        self.nodes.retain(|node, refusal| {
            if !troubles.contains_key(node) {
                refusal.trouble_since = None;
            }
            // The count of refusals is remembered for as long again as the node was avoided.
            let over = refusal.avoided_until.is_none_or(|until| now >= until + LONGEST_AVOIDANCE);
            refusal.trouble_since.is_some() || !over
        });
    }

    /// Why `node` is avoided at `now`, if it is.
    pub(crate) fn reason(&self, node: &NodeName, now: Duration) -> Option<&str> {
        self.nodes.get(node).filter(|refusal| refusal.is_avoided(now)).map(|refusal| refusal.why.as_str())
    }

    /// How many nodes are avoided at `now`.
    pub(crate) fn avoided(&self, now: Duration) -> usize {
        self.nodes.values().filter(|refusal| refusal.is_avoided(now)).count()
    }

    /// Whether time alone may change what is avoided.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Refusal {
    fn is_avoided(&self, now: Duration) -> bool {
        self.avoided_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn stuck() -> Pod {
        Pod { trouble: Some("Unschedulable: 0/3 nodes".to_owned()), ..Pod::on("a", "node1", Maker::Seika) }
    }

    #[test]
    fn a_node_is_avoided_once_the_reason_lasts_and_longer_each_time() {
        let node1 = NodeName::from("node1");
        let seika = Counts::from([(node1.clone(), 1)]);
        let mut refusals = Refusals::default();
        refusals.observe(second(10), &[stuck()], &seika, true);
        assert_eq!(refusals.reason(&node1, second(12)), None);
        refusals.observe(second(13), &[stuck()], &seika, true);
        assert_eq!(refusals.reason(&node1, second(42)), Some("Unschedulable: 0/3 nodes"));
        assert_eq!(refusals.reason(&node1, second(43)), None);
        refusals.observe(second(50), &[stuck()], &seika, true);
        refusals.observe(second(53), &[stuck()], &seika, true);
        assert!(refusals.reason(&node1, second(112)).is_some() && refusals.reason(&node1, second(113)).is_none());
    }

    #[test]
    fn a_ready_pod_clears_the_node() {
        let node1 = NodeName::from("node1");
        let seika = Counts::from([(node1.clone(), 1)]);
        let mut refusals = Refusals::default();
        for at in 0..5 {
            refusals.observe(second(at), &[stuck()], &seika, true);
        }
        let ready = Pod { is_ready: true, ..Pod::on("a", "node1", Maker::Seika) };
        refusals.observe(second(6), &[ready], &seika, true);
        assert_eq!(refusals.reason(&node1, second(6)), None);
        assert!(refusals.is_empty());
    }

    #[test]
    fn a_pod_that_nobody_makes_is_a_refusal_only_once_the_counts_were_acted_on() {
        let node1 = NodeName::from("node1");
        let seika = Counts::from([(node1.clone(), 1)]);
        let mut refusals = Refusals::default();
        for at in 0..60 {
            refusals.observe(second(at), &[], &seika, false);
        }
        assert_eq!(refusals.reason(&node1, second(60)), None);
        for at in 60..70 {
            refusals.observe(second(at), &[], &seika, true);
        }
        assert_eq!(refusals.reason(&node1, second(70)), Some("1 pods were not created"));
    }
}
