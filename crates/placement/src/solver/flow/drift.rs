//! A routing that follows a placement from move to move, each of which is tried before it is kept.

use ndarray::Array2;

use super::{Network, Scratch, Server, Ways};
use crate::solver::instance::Instance;

/// A routing in which servers come, go, shrink and grow.
pub(crate) struct Drift<'a> {
    costs: &'a Array2<f64>,
    ways: Ways<'a>,
    /// The row of the server in each slot.
    rows: Vec<Option<usize>>,
    now: Network,
    trial: Network,
    /// The rows after the trial.
    trial_rows: Vec<Option<usize>>,
    scratch: Scratch,
}

impl<'a> Drift<'a> {
    /// The best routing for a placement.
    pub(crate) fn new(instance: &'a Instance, placement: &[u32]) -> Self {
        let servers = instance.servers(placement);
        // While a replica moves, there may be a node more than there are replicas.
        let slots = instance.nodes().min(instance.replicas as usize) + 1;
        let ways = Ways::new(&instance.costs, &instance.supplies, &servers, slots - servers.len(), &instance.segments);
        let mut rows: Vec<Option<usize>> = servers.iter().map(|server| Some(server.row)).collect();
        rows.resize(slots, None);
        let mut scratch = Scratch::default();
        let now = Network::filled(&ways, &mut scratch, &servers, &instance.supplies);
        Self { costs: &instance.costs, ways, trial_rows: rows.clone(), rows, now, trial: Network::default(), scratch }
    }

    /// The routing's own total.
    pub(crate) fn total(&self) -> f64 {
        self.now.total(&self.ways)
    }

    /// The sources that a node serves, and how much of each.
    pub(crate) fn tenants(&self, row: usize) -> &[(usize, f64)] {
        self.slot(row).map_or(&[], |slot| self.now.tenants(slot))
    }

    /// The total if one server, which must be there, had the capacity given, less than now, and
    /// another one, there or not, the capacity given, more than now.
    pub(crate) fn attempt(&mut self, less: Server, more: Server) -> f64 {
        self.trial.copy(&self.now);
        self.trial_rows.clone_from(&self.rows);
        if let Some(slot) = self.slot(less.row) {
            self.trial.shrink(&self.ways, &mut self.scratch, slot, less.capacity);
            if less.capacity <= 0.0 {
                self.trial_rows[slot] = None;
            }
        }
        let free = self.rows.iter().position(Option::is_none);
        if let Some(slot) = self.slot(more.row).or(free) {
            if self.rows[slot].is_none() {
                self.ways.put(slot, &self.costs.row(more.row));
                self.trial_rows[slot] = Some(more.row);
            }
            self.trial.grow(&self.ways, &mut self.scratch, slot, more.capacity);
        }
        self.trial.total(&self.ways)
    }

    /// Makes the change that was tried last.
    pub(crate) fn keep(&mut self) {
        std::mem::swap(&mut self.now, &mut self.trial);
        std::mem::swap(&mut self.rows, &mut self.trial_rows);
    }

    fn slot(&self, row: usize) -> Option<usize> {
        self.rows.iter().position(|known| *known == Some(row))
    }
}
