//! Which pods go first.

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::observed::{PodProgress, PodView};

/// Puts the pods that should go first at the front: those that we asked to go already, then
/// unscheduled, pending, not ready, of lower deletion cost, ready for less long (a difference of
/// less than a factor of two does not count), restarted more often, younger.
pub(super) fn rank<'a>(pods: &mut [&'a PodView], now: Timestamp) {
    pods.sort_by_cached_key(|pod| {
        let progress = match pod.progress {
            PodProgress::Finished => 0,
            PodProgress::Unscheduled => 1,
            PodProgress::Pending => 2,
            PodProgress::Running { ready_since: None } => 3,
            PodProgress::Running { ready_since: Some(_) } => 4,
        };
        let ready_for_seconds = pod.ready_since().map_or(0, |since| now.duration_since(since).as_secs().max(0));
        let ready_for_magnitude = (ready_for_seconds + 1).unsigned_abs().ilog2();
        let key: (bool, u8, i32, u32, Reverse<i32>, Reverse<Timestamp>, &'a str) = (
            !pod.doomed,
            progress,
            pod.deletion_cost,
            ready_for_magnitude,
            Reverse(pod.restarts),
            Reverse(pod.created.unwrap_or(Timestamp::MAX)),
            &pod.name,
        );
        // A key may not borrow from the slice that is being sorted.
        (key.0, key.1, key.2, key.3, key.4, key.5, key.6.to_owned())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::fixtures::{pod, ready_pod};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_less_a_pod_serves_the_sooner_it_goes() {
        let running = |name: &str, ready_since: Option<i64>| PodView {
            progress: PodProgress::Running { ready_since: ready_since.map(at) },
            ..pod(name, "node1")
        };
        let pods = [
            ready_pod("h-old", "node1"),
            PodView { deletion_cost: 5, ..ready_pod("i-dear", "node1") },
            PodView { created: Some(at(50)), ..ready_pod("g-younger", "node1") },
            PodView { restarts: 3, ..ready_pod("f-restarted", "node1") },
            running("e-just-ready", Some(990)),
            PodView { deletion_cost: -1, ..ready_pod("d-cheap", "node1") },
            running("c-not-ready", None),
            PodView { progress: PodProgress::Pending, deletion_cost: 9, ..pod("b-pending", "node1") },
            PodView { deletion_cost: 99, ..pod("a-unscheduled", "node1") },
            PodView { doomed: true, ..ready_pod("0-asked-before", "node1") },
        ];
        let mut ranked: Vec<&PodView> = pods.iter().collect();
        rank(&mut ranked, at(1000));
        let names: Vec<&str> = ranked.iter().map(|pod| pod.name.as_str()).collect();
        let mut wanted = names.clone();
        wanted.sort_unstable();
        assert_eq!(names, wanted);
    }
}
