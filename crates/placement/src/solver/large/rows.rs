//! What is near where costs are read by source, a row at a time.

use crate::solver::bound::Offer;

/// Costs that are looked at together.
const CHUNK: usize = 16;

/// The least cost of each chunk of each source's row: most are too far to be looked into again.
#[derive(Clone, Debug, Default)]
pub(super) struct Minima {
    chunks: usize,
    least: Vec<f64>,
}

impl Minima {
    pub(super) fn new(sources: usize, nodes: usize) -> Self {
        let chunks = nodes.div_ceil(CHUNK);
        Self { chunks, least: Vec::with_capacity(sources * chunks) }
    }

    /// Adds the row of the next source; returns the greatest cost in it.
    pub(super) fn add(&mut self, row: &[f64]) -> f64 {
        let mut most = [0.0; LANES];
        for chunk in row.chunks(CHUNK) {
            let mut least = [f64::INFINITY; LANES];
            let (parts, rest) = chunk.as_chunks::<LANES>();
            for part in parts {
                for ((least, most), cost) in least.iter_mut().zip(&mut most).zip(part) {
                    *least = if cost < least { *cost } else { *least };
                    *most = if cost > most { *cost } else { *most };
                }
            }
            for cost in rest {
                least[0] = cost.min(least[0]);
                most[0] = cost.max(most[0]);
            }
            self.least.push(least.into_iter().fold(f64::INFINITY, f64::min));
        }
        most.into_iter().fold(0.0, f64::max)
    }

    fn of(&self, source: usize) -> &[f64] {
        &self.least[source * self.chunks..(source + 1) * self.chunks]
    }

    /// The chunks of a source's row, each with its least cost and its open nodes.
    pub(super) fn groups<'a>(
        &'a self,
        source: usize,
        row: &'a [f64],
        limits: &'a [u32],
    ) -> impl Iterator<Item = (f64, impl Iterator<Item = (f64, u32)>)> {
        let chunks = self.of(source).iter().zip(row.chunks(CHUNK)).enumerate();
        chunks.map(move |(chunk, (least, costs))| {
            let nodes = costs.iter().zip(chunk * CHUNK..).filter(|(_, node)| limits[*node] > 0);
            (*least, nodes.map(|(cost, node)| (*cost, node as u32)))
        })
    }

    /// Adds the nodes that a source is worth more to than it costs.
    pub(super) fn offers(&self, source: usize, row: &[f64], worth: f64, offers: &mut Vec<Offer>) {
        for (chunk, _) in self.of(source).iter().enumerate().filter(|(_, least)| **least < worth) {
            let start = chunk * CHUNK;
            let costs = row[start..].iter().take(CHUNK).zip(start..);
            for (cost, node) in costs.filter(|(cost, _)| **cost < worth) {
                offers.push(Offer { node: node as u32, source: source as u32, gain: worth - cost });
            }
        }
    }
}

/// Costs that are compared side by side.
const LANES: usize = 4;
