//! The ways that demand can take: from each source to each server.

use ndarray::{Array2, ArrayView1};

use super::{Server, UNSERVED_SECONDS};
use crate::problem::Segment;

/// Shares of the total demand below this are rounding dust.
const DUST: f64 = 1e-12;

/// What does not change while demand is routed: the network times to each slot that a server can be
/// in, and how serving takes time.
pub(super) struct Ways<'a> {
    /// `costs[source * count + slot]`: gathered so that a search reads memory in order. The last of
    /// the `count` slots is an imaginary server that is dear and never full.
    pub(super) costs: Vec<f64>,
    pub(super) count: usize,
    pub(super) segments: &'a [Segment],
    /// Less demand than this is rounding dust.
    pub(super) dust: f64,
}

impl<'a> Ways<'a> {
    /// Ways to these servers, each in the slot of its position, followed by `spare` empty slots.
    pub(super) fn new(costs: &Array2<f64>, supplies: &[f64], servers: &[Server], spare: usize, segments: &'a [Segment]) -> Self {
        let count = servers.len() + spare + 1;
        let dust = DUST * supplies.iter().sum::<f64>();
        let mut ways = Self { costs: vec![UNSERVED_SECONDS; supplies.len() * count], count, segments, dust };
        for (slot, server) in servers.iter().enumerate() {
            ways.put(slot, &costs.row(server.row));
        }
        ways
    }

    /// Puts a server with these costs, one per source, in a slot.
    pub(super) fn put(&mut self, slot: usize, costs: &ArrayView1<'_, f64>) {
        for (row, cost) in self.costs.chunks_exact_mut(self.count).zip(costs) {
            row[slot] = *cost;
        }
    }

    /// The network times from one source.
    pub(super) fn row(&self, source: usize) -> &[f64] {
        &self.costs[source * self.count..(source + 1) * self.count]
    }
}
