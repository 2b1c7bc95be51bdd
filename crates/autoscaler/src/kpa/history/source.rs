//! What one source node asked for, second by second.

use std::collections::VecDeque;

use latency_matrix::NodeName;

use super::SourceDemand;

/// One source's part of the history. Single precision: it decides where pods go, never how many.
#[derive(Clone, Debug)]
pub(super) struct Source {
    name: NodeName,
    /// Requests in flight and requests per second, newest last.
    seconds: VecDeque<[f32; 2]>,
    /// How many of them are not zero.
    busy: usize,
}

const NONE: [f32; 2] = [0.0; 2];

impl Source {
    /// A source without demand for the last `length` seconds.
    pub(super) fn new(name: NodeName, length: usize) -> Self {
        // One more is about to come.
        let mut seconds = VecDeque::with_capacity((length + 1).next_power_of_two());
        seconds.resize(length, NONE);
        Self { name, seconds, busy: 0 }
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(super) fn push(&mut self, demand: SourceDemand) {
        let demand = [demand.concurrency as f32, demand.requests_per_second as f32];
        self.busy += usize::from(demand != NONE);
        self.seconds.push_back(demand);
    }

    /// Forgets the oldest second.
    pub(super) fn pop(&mut self) {
        if let Some(demand) = self.seconds.pop_front() {
            self.busy -= usize::from(demand != NONE);
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.busy == 0
    }

    pub(super) fn newest_first(&self, length: u64) -> impl Iterator<Item = SourceDemand> {
        self.raw(length).map(|[concurrency, requests_per_second]| SourceDemand {
            concurrency: f64::from(*concurrency),
            requests_per_second: f64::from(*requests_per_second),
        })
    }

    pub(super) fn sum(&self, length: u64) -> SourceDemand {
        self.newest_first(length).fold(SourceDemand::NONE, SourceDemand::plus)
    }

    pub(super) fn active_seconds(&self, length: u64) -> usize {
        self.raw(length).filter(|demand| **demand != NONE).count()
    }

    fn raw(&self, length: u64) -> impl Iterator<Item = &[f32; 2]> {
        self.seconds.iter().rev().take(length as usize)
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.name.as_str().len() + self.seconds.capacity() * size_of::<[f32; 2]>()
    }
}
