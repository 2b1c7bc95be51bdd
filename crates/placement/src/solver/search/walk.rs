//! The proof for few nodes: all placements that a bound does not rule out are looked at.

use crate::solver::instance::Instance;

/// Nodes times replicas up to which a walk is begun at all, and steps that it may take.
const FEW: usize = 500_000;
const STEPS: usize = 5_000_000;

pub(super) struct Walk<'a> {
    instance: &'a Instance,
    marginals: &'a [Vec<f64>],
    rest: Vec<Vec<f64>>,
    routings: usize,
    steps: usize,
    placement: Vec<u32>,
    best: (Vec<u32>, f64),
}

impl Walk<'_> {
    /// The best placement, and whether that is proven, from the best one known, what a unit of each
    /// source is worth, and the marginal profits that each node then has; at most so many
    /// placements are routed.
    pub(super) fn through(
        instance: &Instance,
        best: (Vec<u32>, f64),
        worth: &[f64],
        marginals: &[Vec<f64>],
        routings: usize,
    ) -> ((Vec<u32>, f64), bool) {
        if instance.nodes().saturating_mul(instance.replicas as usize) > FEW {
            return (best, false);
        }
        let base: f64 = worth.iter().zip(&instance.supplies).map(|(worth, supply)| worth * supply).sum();
        let rest = rests(instance, marginals);
        let placement = vec![0; instance.nodes()];
        let mut walk = Walk { instance, marginals, rest, routings, steps: STEPS, placement, best };
        let proven = walk.descend(0, instance.replicas, base);
        (walk.best, proven)
    }

    /// Tries every count on `node` and the nodes after it; `bound` is the bound without the profits
    /// of these. False when the effort ran out.
    fn descend(&mut self, node: usize, left: u32, bound: f64) -> bool {
        let limit = self.best.1 - self.instance.tolerance(self.best.1);
        if bound - self.rest[node][left as usize] >= limit {
            return true;
        }
        if node == self.instance.nodes() {
            if self.routings == 0 {
                return false;
            }
            self.routings -= 1;
            let total = self.instance.total(&self.placement);
            if total < limit {
                self.best = (self.placement.clone(), total);
            }
            return true;
        }
        let mut profit = 0.0;
        for here in 0..=left.min(self.marginals[node].len() as u32) {
            if self.steps == 0 {
                return false;
            }
            self.steps -= 1;
            if here > 0 {
                profit += self.marginals[node][here as usize - 1];
            }
            if here >= self.instance.floors[node] {
                self.placement[node] = here;
                if !self.descend(node + 1, left - here, bound - profit) {
                    return false;
                }
            }
        }
        self.placement[node] = 0;
        true
    }
}

/// `rest[node][count]`: the most profit that `count` replicas on this and all later nodes can make;
/// minus infinity if they do not fit.
///
/// What a node's replicas gain never increases from one to the next, so the most that many replicas
/// can gain is what the most gainful of them do, beside those that the floors ask for.
fn rests(instance: &Instance, marginals: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let replicas = instance.replicas as usize;
    let mut rest = vec![vec![f64::NEG_INFINITY; replicas + 1]; instance.nodes() + 1];
    let mut free: Vec<f64> = Vec::new();
    let (mut held, mut base) = (0, 0.0);
    rest[instance.nodes()][0] = 0.0;
    for node in (0..instance.nodes()).rev() {
        let (due, more) = marginals[node].split_at(marginals[node].len().min(instance.floors[node] as usize));
        held += instance.floors[node] as usize;
        base += due.iter().sum::<f64>();
        free.extend(more);
        free.sort_unstable_by(|one, other| other.total_cmp(one));
        free.truncate(replicas);
        let mut profit = base;
        for (count, entry) in rest[node].iter_mut().enumerate().skip(held) {
            if count > held {
                match free.get(count - held - 1) {
                    Some(gain) => profit += gain,
                    None => break,
                }
            }
            *entry = profit;
        }
    }
    rest
}
