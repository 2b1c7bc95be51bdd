//! Faults of kube-scheduler's configuration, noticed by what it sends. Pure.

use std::collections::BTreeSet;

use crate::wire::Question;

/// Requests that have to look sampled before it is said: a pod's own constraints may leave just as
/// many nodes by chance.
const SAMPLED_REQUESTS: u32 = 3;
/// Up to so many nodes the scheduler looks at all of them.
const ALWAYS_ALL: usize = 100;

/// A fault of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Whole nodes are sent, where names are enough.
    NodesSent,
    /// Only some of the nodes are sent, so the best one may not be among them.
    NodesSampled,
    /// A filter is asked for and switched off here.
    FilterNotServed,
    /// Pods were evicted for one whose node the filter refuses: preempt is not asked for.
    PreemptNotAsked,
    /// A request is longer than any of names.
    RequestTooLong,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::NodesSent, Self::NodesSampled, Self::FilterNotServed, Self::PreemptNotAsked, Self::RequestTooLong];

    /// The name in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NodesSent => "nodes_sent",
            Self::NodesSampled => "nodes_sampled",
            Self::FilterNotServed => "filter_not_served",
            Self::PreemptNotAsked => "preempt_not_asked",
            Self::RequestTooLong => "request_too_long",
        }
    }

    /// What to do about it.
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::NodesSent => "set nodeCacheCapable: true for this extender: whole nodes cost the scheduler most of its speed",
            Self::NodesSampled => "set percentageOfNodesToScore: 100: the scheduler sends a part of the nodes only",
            Self::FilterNotServed => "remove filterVerb, or start the extender with --filter; until then all nodes pass",
            Self::PreemptNotAsked => "set preemptVerb: preempt: pods are evicted in vain from nodes that the filter refuses",
            Self::RequestTooLong => "set nodeCacheCapable: true for this extender: requests are too long to be read",
        }
    }
}

/// What was noticed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchfulness {
    sampled: u32,
    has_been_asked_to_preempt: bool,
    said: BTreeSet<Fault>,
}

impl Watchfulness {
    /// Looks at a request to score or filter, in a cluster of so many nodes.
    pub(crate) fn look_at(&mut self, question: &Question<'_>, nodes: usize) -> Option<Fault> {
        if question.has_objects {
            return self.say(Fault::NodesSent);
        }
        if nodes > ALWAYS_ALL && question.names.len() == sample(nodes) {
            self.sampled = self.sampled.saturating_add(1);
            return (self.sampled >= SAMPLED_REQUESTS).then_some(Fault::NodesSampled).and_then(|fault| self.say(fault));
        }
        // Once all were sent the scheduler samples not.
        if nodes > ALWAYS_ALL && question.names.len() > sample(nodes) {
            self.sampled = 0;
        }
        None
    }

    /// Preempt was asked for.
    pub(crate) fn preempt_was_asked(&mut self) {
        self.has_been_asked_to_preempt = true;
        self.said.remove(&Fault::PreemptNotAsked);
    }

    /// The filter refuses a node that pods were evicted from for this one.
    pub(crate) fn nominated_node_is_refused(&mut self) -> Option<Fault> {
        if self.has_been_asked_to_preempt { None } else { self.say(Fault::PreemptNotAsked) }
    }

    /// Notes a fault; returns it the first time.
    pub(crate) fn say(&mut self, fault: Fault) -> Option<Fault> {
        self.said.insert(fault).then_some(fault)
    }
}

/// How many nodes the scheduler looks for in a cluster of so many, unless it is told otherwise.
fn sample(nodes: usize) -> usize {
    let percent = (50_usize.saturating_sub(nodes / 125)).max(5);
    (nodes * percent / 100).max(ALWAYS_ALL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::question;

    fn with_names(count: usize) -> String {
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        serde_json::json!({"Pod": {}, "Nodes": null, "NodeNames": names}).to_string()
    }

    fn look(watchfulness: &mut Watchfulness, names: usize, nodes: usize) -> Option<Fault> {
        watchfulness.look_at(&question(with_names(names).as_bytes()).unwrap(), nodes)
    }

    #[test]
    fn the_schedulers_own_numbers_of_nodes_are_known() {
        // Seen with kube-scheduler 1.36.
        assert_eq!((sample(150), sample(300)), (100, 144));
        assert_eq!((sample(5_000), sample(10_000)), (500, 500));
    }

    #[test]
    fn sampled_lists_are_noticed_after_a_few_and_said_once() {
        let mut watchfulness = Watchfulness::default();
        assert_eq!([90, 90, 90, 90].map(|names| look(&mut watchfulness, names, 90)), [None; 4]);
        let seen = [144, 144, 144, 144].map(|names| look(&mut watchfulness, names, 300));
        assert_eq!(seen, [None, None, Some(Fault::NodesSampled), None]);
        let mut all = Watchfulness::default();
        assert_eq!([144, 144, 300, 144, 144].map(|names| look(&mut all, names, 300)), [None; 5]);
    }

    #[test]
    fn whole_nodes_are_noticed_at_once() {
        let body = br#"{"Pod":{},"Nodes":{"items":[{"metadata":{"name":"n1"}}]},"NodeNames":null}"#;
        let mut watchfulness = Watchfulness::default();
        assert_eq!(watchfulness.look_at(&question(body).unwrap(), 3), Some(Fault::NodesSent));
        assert_eq!(watchfulness.look_at(&question(body).unwrap(), 3), None);
    }

    #[test]
    fn evictions_in_vain_are_noticed_where_preempt_was_never_asked() {
        let mut watchfulness = Watchfulness::default();
        assert_eq!(watchfulness.nominated_node_is_refused(), Some(Fault::PreemptNotAsked));
        assert_eq!(watchfulness.nominated_node_is_refused(), None);
        watchfulness.preempt_was_asked();
        assert_eq!(watchfulness.nominated_node_is_refused(), None);
        let names: BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
    }
}
