//! The last known latency of every pair. Pure.

use std::collections::BTreeMap;

use placement::{Freshness, LatencyMatrix, MatrixError, NodeName, PairState, PairStats};

/// One pair, as a source knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The probing node.
    pub from: NodeName,
    /// The probed node.
    pub to: NodeName,
    /// Its state; the age in its statistics is that at `read_at`.
    pub state: PairState,
}

/// What was last read of every pair, and when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyBook {
    pairs: BTreeMap<(NodeName, NodeName), (PairState, f64)>,
}

impl LatencyBook {
    /// Takes in what a source said at `now_seconds` (any clock that only this book is read by). A pair that it does not know, or knows
    /// only staler, keeps what is held: that ages by itself.
    pub fn absorb(&mut self, measurements: Vec<Measurement>, now_seconds: f64) {
        for Measurement { from, to, state } in measurements {
            let measured_at = |stats: &PairStats| now_seconds - stats.age_seconds;
            let held_at =
                self.pairs.get(&(from.clone(), to.clone())).and_then(|(held, read_at)| Some(read_at - held.stats()?.age_seconds));
            let newer = match (&state, held_at) {
                (PairState::Unknown, Some(_)) => false,
                (PairState::Known(stats) | PairState::Stale(stats), Some(held_at)) => measured_at(stats) >= held_at,
                _ => true,
            };
            if newer {
                self.pairs.insert((from, to), (state, now_seconds));
            }
        }
    }

    /// The matrix over `nodes` as it stands at `now_seconds`. Pairs that were never read are unknown; others age to stale and are forgotten.
    ///
    /// # Errors
    /// When a node is listed twice.
    pub fn matrix(&self, nodes: Vec<NodeName>, now_seconds: f64, freshness: Freshness) -> Result<LatencyMatrix, MatrixError> {
        let mut matrix = LatencyMatrix::new(nodes)?;
        let present: std::collections::BTreeSet<NodeName> = matrix.nodes().iter().cloned().collect();
        for ((from, to), (state, read_at)) in &self.pairs {
            if !present.contains(from) || !present.contains(to) || from == to {
                continue;
            }
            let passed = (now_seconds - read_at).max(0.0);
            let state = match state.stats() {
                Some(stats) => PairState::judged(PairStats { age_seconds: stats.age_seconds + passed, ..*stats }, freshness),
                // That a node did not answer is news for as long as an answer would be.
                None if passed > freshness.stale_after_seconds => PairState::Unknown,
                None => *state,
            };
            matrix.set(from, to, state)?;
        }
        Ok(matrix)
    }

    /// How many pairs are known at `now_seconds`.
    #[must_use]
    pub fn known_pairs(&self, now_seconds: f64, freshness: Freshness) -> usize {
        let fresh = |(state, read_at): &&(PairState, f64)| {
            state.stats().is_some_and(|stats| stats.age_seconds + (now_seconds - read_at) <= freshness.stale_after_seconds)
        };
        self.pairs.values().filter(fresh).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rtt_seconds: f64, age_seconds: f64) -> Vec<Measurement> {
        let state = PairState::Known(PairStats { age_seconds, ..PairStats::constant(rtt_seconds) });
        vec![Measurement { from: "node1".into(), to: "node2".into(), state }]
    }

    fn state(book: &LatencyBook, now_seconds: f64) -> PairState {
        let nodes = vec!["node1".into(), "node2".into(), "node3".into()];
        book.matrix(nodes, now_seconds, Freshness::default()).unwrap().state(&"node1".into(), &"node2".into())
    }

    #[test]
    fn a_reading_ages_to_stale_and_then_is_forgotten() {
        let mut book = LatencyBook::default();
        assert_eq!(state(&book, 0.0), PairState::Unknown);
        book.absorb(measured(0.005, 2.0), 100.0);
        assert!(matches!(state(&book, 120.0), PairState::Known(stats) if stats.age_seconds == 22.0));
        assert!(matches!(state(&book, 140.0), PairState::Stale(_)));
        assert_eq!(state(&book, 4000.0), PairState::Unknown);
        assert_eq!((book.known_pairs(120.0, Freshness::default()), book.known_pairs(140.0, Freshness::default())), (1, 0));
    }

    #[test]
    fn an_older_reading_from_another_source_changes_nothing() {
        let mut book = LatencyBook::default();
        book.absorb(measured(0.005, 1.0), 100.0);
        book.absorb(measured(0.009, 30.0), 101.0);
        assert!(matches!(state(&book, 101.0), PairState::Known(stats) if stats.p50 == 0.005));
        book.absorb(vec![Measurement { from: "node1".into(), to: "node2".into(), state: PairState::Unknown }], 102.0);
        assert!(matches!(state(&book, 102.0), PairState::Known(_)));
    }

    #[test]
    fn a_node_that_does_not_answer_is_unreachable_until_that_is_old() {
        let mut book = LatencyBook::default();
        book.absorb(measured(0.005, 1.0), 100.0);
        book.absorb(vec![Measurement { from: "node1".into(), to: "node2".into(), state: PairState::Unreachable }], 105.0);
        assert_eq!(state(&book, 106.0), PairState::Unreachable);
        assert_eq!(state(&book, 200.0), PairState::Unknown);
        book.absorb(measured(0.006, 0.0), 201.0);
        assert!(matches!(state(&book, 201.0), PairState::Known(_)));
    }
}
