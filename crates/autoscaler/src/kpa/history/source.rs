//! What one source node asked for, second by second.

use std::collections::VecDeque;

use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use super::SourceDemand;

/// One source's part of the history. Single precision: it decides where pods go, never how many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SourceHistory {
    name: NodeName,
    /// Requests in flight and requests per second, newest last.
    seconds: VecDeque<[f32; 2]>,
    /// How many of them are not zero.
    busy: usize,
    running: [Running; 2],
}

/// What the newest seconds come to, as many as one of the history's windows has.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Running {
    sum: SourceDemand,
    active: usize,
}

impl Running {
    fn enter(&mut self, second: [f32; 2]) {
        self.sum = self.sum.plus(demand(second));
        self.active += usize::from(second != NONE);
    }

    fn leave(&mut self, second: [f32; 2]) {
        self.active -= usize::from(second != NONE);
        // What rounding left of a silent window is nothing.
        self.sum = if self.active > 0 { self.sum.minus(demand(second)) } else { SourceDemand::NONE };
    }
}

fn demand([concurrency, requests_per_second]: [f32; 2]) -> SourceDemand {
    SourceDemand { concurrency: f64::from(concurrency), requests_per_second: f64::from(requests_per_second) }
}

const NONE: [f32; 2] = [0.0; 2];

impl SourceHistory {
    /// A source without demand for the last `length` seconds.
    pub(super) fn new(name: NodeName, length: usize) -> Self {
        // One more is about to come.
        let mut seconds = VecDeque::with_capacity((length + 1).next_power_of_two());
        seconds.resize(length, NONE);
        Self { name, seconds, busy: 0, running: [Running::default(); 2] }
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.name
    }

    /// One more second, where the history's windows have these lengths.
    pub(super) fn push(&mut self, demand: SourceDemand, lengths: [u64; 2]) {
        let second = [demand.concurrency as f32, demand.requests_per_second as f32];
        for (running, length) in self.running.iter_mut().zip(lengths) {
            let leaving = (self.seconds.len() as u64).checked_sub(length);
            if let Some(leaving) = leaving.and_then(|at| self.seconds.get(at as usize)) {
                running.leave(*leaving);
            }
            running.enter(second);
        }
        self.busy += usize::from(second != NONE);
        self.seconds.push_back(second);
    }

    /// The window at `at` has another length now.
    pub(super) fn resize(&mut self, at: usize, length: u64) {
        let mut running = Running::default();
        for second in self.raw(length) {
            running.enter(*second);
        }
        self.running[at] = running;
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
        self.raw(length).map(|second| demand(*second))
    }

    /// The sum over the newest `length` seconds, which may be those of the window at `window`.
    pub(super) fn sum(&self, window: Option<usize>, length: u64) -> SourceDemand {
        match window {
            Some(at) => self.running[at].sum.map(|sum| sum.max(0.0)),
            None => self.newest_first(length).fold(SourceDemand::NONE, SourceDemand::plus),
        }
    }

    /// In how many of them there was demand.
    pub(super) fn active_seconds(&self, window: Option<usize>, length: u64) -> usize {
        match window {
            Some(at) => self.running[at].active,
            None => self.raw(length).filter(|second| **second != NONE).count(),
        }
    }

    fn raw(&self, length: u64) -> impl Iterator<Item = &[f32; 2]> {
        self.seconds.iter().rev().take(length as usize)
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.name.as_str().len() + self.seconds.capacity() * size_of::<[f32; 2]>()
    }
}
