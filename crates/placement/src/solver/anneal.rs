//! A long search: moves at random, of which also those are made for a while that make the placement
//! a little worse.
//!
//! A replica moves from a node to one that the bound's relaxation liked, or to one near to a
//! source. It is accepted when the total rises by less than a threshold that is halved now and
//! then. Unlike simulated annealing this compares numbers only, so that it goes the same way on
//! every machine.
//!
//! Source: Dueck and Scheuer 1990 (threshold accepting).

use crate::latency::synthetic::Random;
use crate::solver::flow::Drift;
use crate::solver::instance::Instance;

/// The threshold at first, as a share of the total, and how often it is halved.
const HOT: f64 = 3e-3;
const HALVINGS: usize = 8;
/// Nodes that count as near to a source.
const NEAR: usize = 24;

/// The best placement met in `moves` moves from `start`, and its total. `liked` are nodes worth
/// trying wherever a replica comes from.
pub(crate) fn anneal(instance: &Instance, start: &[u32], moves: usize, liked: &[usize]) -> (Vec<u32>, f64) {
    let mut random = Random::new(0);
    let mut placement = start.to_vec();
    let mut drift = Drift::new(instance, &placement);
    let mut total = drift.total() + instance.openings(&placement);
    let mut best = (placement.clone(), total);
    // One entry per replica.
    let mut held: Vec<usize> = (0..placement.len()).flat_map(|node| vec![node; placement[node] as usize]).collect();
    let near: Vec<Vec<usize>> = (0..instance.supplies.len()).map(|source| nearest(instance, source)).collect();
    let mut threshold = HOT * total;
    if held.is_empty() || near.is_empty() {
        return best;
    }
    for step in 0..moves {
        if step > 0 && step % (moves / HALVINGS).max(1) == 0 {
            threshold /= 2.0;
        }
        let replica = random.below(held.len());
        let from = held[replica];
        if placement[from] <= instance.floors[from] {
            continue;
        }
        let to = if !liked.is_empty() && random.below(4) > 0 {
            liked[random.below(liked.len())]
        } else {
            let tenants = drift.tenants(from);
            let source = match tenants.get(random.below(tenants.len())) {
                Some((source, _)) if random.below(2) == 0 => *source,
                _ => random.below(near.len()),
            };
            // The nearer, the likelier.
            let place = random.unit();
            match near[source].get((place * place * near[source].len() as f64) as usize) {
                Some(node) => *node,
                None => continue,
            }
        };
        if to == from || placement[to] >= instance.limits[to] {
            continue;
        }
        placement[from] -= 1;
        placement[to] += 1;
        let moved = drift.attempt(instance.server(from, &placement), instance.server(to, &placement));
        let moved = moved + instance.openings(&placement);
        if moved < total + threshold {
            drift.keep();
            total = moved;
            held[replica] = to;
            if total < best.1 {
                best = (placement.clone(), total);
            }
        } else {
            placement[from] += 1;
            placement[to] -= 1;
        }
    }
    best
}

/// The open nodes nearest to a source, nearest first.
fn nearest(instance: &Instance, source: usize) -> Vec<usize> {
    let costs = instance.costs.column(source);
    let mut open: Vec<usize> =
        (0..instance.nodes()).filter(|node| instance.limits[*node] > 0 && costs[*node].is_finite()).collect();
    open.sort_by(|one, other| costs[*one].total_cmp(&costs[*other]).then(one.cmp(other)));
    open.truncate(NEAR);
    open
}
