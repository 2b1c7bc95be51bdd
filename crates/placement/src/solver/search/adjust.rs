//! A first placement, and as many replicas as there shall be.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::solver::bound::gains;
use crate::solver::flow::Thinning;
use crate::solver::instance::Instance;

/// More replicas to add than this are not added one by one.
const MANY_TO_ADD: u32 = 16;
/// With more replicas to place than this, a source may get several at once.
const MANY_TO_SEED: u32 = 1024;
/// More replicas to remove than this are not removed one by one.
const MANY_TO_REMOVE: u32 = 512;
/// Removals that are worked out, at most, before the best of them is made.
const TRIED: u32 = 16;

/// A wish cut to what floors and limits allow.
pub(super) fn start(instance: &Instance, wish: &[u32]) -> Vec<u32> {
    let bounds = instance.floors.iter().zip(&instance.limits);
    wish.iter().zip(bounds).map(|(wish, (floor, limit))| (*wish).min(*limit).max(*floor)).collect()
}

/// A first placement: again and again a replica goes next to the source with the most demand left,
/// and serves what is nearest to it.
pub(super) fn seed(instance: &Instance) -> Vec<u32> {
    let mut placement = instance.floors.clone();
    let mut left = instance.supplies.clone();
    let mut nearest: Vec<usize> = (0..left.len()).collect();
    for (node, count) in instance.floors.iter().enumerate().filter(|(_, count)| **count > 0) {
        settle(instance, node, f64::from(*count), &mut left, &mut nearest);
    }
    let mut missing = instance.replicas.saturating_sub(placement.iter().sum());
    while missing > 0 {
        let Some((source, most)) = left.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)) else { break };
        if *most <= 0.0 {
            break;
        }
        let room = (0..instance.nodes()).filter(|node| placement[*node] < instance.limits[*node]);
        let cost = |node: &usize| instance.costs[(*node, source)] + instance.opening(*node, placement[*node] + 1);
        let Some(node) = room.min_by(|one, other| cost(one).total_cmp(&cost(other))) else { break };
        // Of very many replicas a source gets a part of its own at once.
        let own = if missing > MANY_TO_SEED { (*most / instance.replica_capacity / 4.0) as u32 } else { 1 };
        let count = own.clamp(1, missing).min(instance.limits[node] - placement[node]);
        placement[node] += count;
        missing -= count;
        settle(instance, node, f64::from(count), &mut left, &mut nearest);
        // A source that no node can serve must not be chosen again and again.
        if instance.costs[(node, source)].is_infinite() {
            left[source] = 0.0;
        }
    }
    placement
}

/// More replicas than there shall be, by at most `more`: each source gets as many as it needs, next
/// to it, those with the most demand first. What is left when those are gone that are missed least
/// stands where several small sources share.
pub(super) fn plenty(instance: &Instance, more: u32) -> Vec<u32> {
    let mut placement = instance.floors.clone();
    let mut left = instance.replicas.saturating_add(more).saturating_sub(placement.iter().sum());
    let mut order: Vec<usize> = (0..instance.supplies.len()).collect();
    order.sort_by(|one, other| instance.supplies[*other].total_cmp(&instance.supplies[*one]).then(one.cmp(other)));
    for source in order {
        let mut wanted = ((instance.supplies[source] / instance.replica_capacity).ceil() as u32).min(left);
        while wanted > 0 {
            let costs = instance.costs.column(source);
            let room = (0..instance.nodes()).filter(|node| placement[*node] < instance.limits[*node] && costs[*node].is_finite());
            let Some(node) = room.min_by(|one, other| costs[*one].total_cmp(&costs[*other]).then(one.cmp(other))) else { break };
            let count = wanted.min(instance.limits[node] - placement[node]);
            placement[node] += count;
            wanted -= count;
            left -= count;
        }
    }
    placement
}

fn settle(instance: &Instance, node: usize, replicas: f64, left: &mut [f64], order: &mut [usize]) {
    let costs = instance.costs.row(node);
    order.sort_unstable_by(|one, other| costs[*one].total_cmp(&costs[*other]).then(one.cmp(other)));
    let mut room = replicas * instance.replica_capacity;
    for source in order.iter().take_while(|source| costs[**source].is_finite()) {
        let amount = room.min(left[*source]);
        left[*source] -= amount;
        room -= amount;
        if room <= 0.0 {
            break;
        }
    }
}

/// Adds or removes replicas, each time those whose estimate is best, until the number is right;
/// also returns the objective.
pub(super) fn adjust(instance: &Instance, mut placement: Vec<u32>) -> (Vec<u32>, f64) {
    loop {
        let placed: u32 = placement.iter().sum();
        let routing = instance.route(&placement).1;
        if placed == instance.replicas {
            let total = routing.total() + instance.openings(&placement);
            return (placement, total);
        }
        let (more, fewer) = gains(instance, &routing.source_prices, &placement);
        let missing = instance.replicas.saturating_sub(placed);
        if missing > 0 {
            let at_once = if missing > MANY_TO_ADD { missing.div_ceil(8) } else { 1 };
            change(&mut placement, &more, at_once, |node, held| instance.limits[node] - held, |held, count| held + count);
        } else if placed - instance.replicas > MANY_TO_REMOVE {
            let at_once = (placed - instance.replicas - MANY_TO_REMOVE).div_ceil(4);
            let kept: Vec<f64> = fewer.iter().map(|loss| -loss).collect();
            change(&mut placement, &kept, at_once, |node, held| held - instance.floors[node], |held, count| held - count);
        } else {
            thin(instance, &mut placement, &fewer);
        }
    }
}

/// Changes the counts of the nodes with the greatest finite values by `count` in all, evenly as far
/// as each has room for it.
fn change(
    placement: &mut [u32],
    values: &[f64],
    count: u32,
    room: impl Fn(usize, u32) -> u32,
    changed: impl Fn(u32, u32) -> u32,
) {
    let mut nodes = greatest(values, count as usize);
    if nodes.is_empty() {
        // Nothing is known of any; something has to change nevertheless.
        nodes = (0..placement.len()).filter(|node| room(*node, placement[*node]) > 0).collect();
    }
    let each = count.div_ceil(u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1));
    let mut left = count;
    for node in nodes {
        let here = each.min(left).min(room(node, placement[node]));
        placement[node] = changed(placement[node], here);
        left -= here;
    }
}

/// A candidate for removal: its loss as far as it is known, its node, and the number of removals
/// before the loss was computed.
struct Removal {
    loss: f64,
    node: usize,
    round: u32,
}

impl Removal {
    fn key(&self) -> (Reverse<u64>, Reverse<usize>) {
        // Bits of a float in the order of its value.
        let bits = self.loss.to_bits();
        let ordered = if bits >> 63 == 0 { bits | (1 << 63) } else { !bits };
        (Reverse(ordered), Reverse(self.node))
    }
}

impl PartialEq for Removal {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Removal {}

impl PartialOrd for Removal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Removal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Removes one replica at a time, that which is missed least, until the number is right. `losses`
/// is what each node's next one costs at least.
///
/// What a removal costs rarely falls when others have gone, so that a known loss is as good as a
/// lower bound: what is on top of the heap and has just been worked out is the least of all. The
/// routing follows from removal to removal.
fn thin(instance: &Instance, placement: &mut [u32], losses: &[f64]) {
    let mut thinning = Thinning::new(instance, placement);
    let mut heap: BinaryHeap<Removal> = (losses.iter().enumerate())
        .filter(|(node, loss)| loss.is_finite() && placement[*node] > instance.floors[*node])
        .map(|(node, loss)| Removal { loss: *loss, node, round: 0 })
        .collect();
    let excess = placement.iter().sum::<u32>().saturating_sub(instance.replicas);
    for round in 1..=excess {
        let total = thinning.total();
        let mut tried = 0;
        let node = loop {
            // The floors do not add up to more than all replicas, so something can go.
            let Some(top) = heap.pop() else { return };
            if top.round == round || tried == TRIED {
                break top.node;
            }
            tried += 1;
            placement[top.node] -= 1;
            let without = thinning.total_without(instance.server(top.node, placement));
            placement[top.node] += 1;
            let loss = without - total - instance.opening(top.node, placement[top.node]);
            heap.push(Removal { loss, round, ..top });
        };
        placement[node] -= 1;
        thinning.remove(instance.server(node, placement));
        if placement[node] > instance.floors[node] {
            // The next one of a node is missed no less than this one was.
            let loss = losses[node].max(0.0);
            heap.push(Removal { loss, node, round: 0 });
        }
    }
}

/// The positions of the greatest finite values, greatest first, earlier positions first among
/// equals.
pub(super) fn greatest(values: &[f64], count: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..values.len()).filter(|position| values[*position].is_finite()).collect();
    let order = |one: &usize, other: &usize| values[*other].total_cmp(&values[*one]).then(one.cmp(other));
    if count > 0 && count < positions.len() {
        positions.select_nth_unstable_by(count - 1, order);
    }
    positions.truncate(count);
    positions.sort_by(order);
    positions
}
