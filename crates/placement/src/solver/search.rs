//! The best placement for local-first routing: local search for a good one, branch and bound for
//! the proof.

mod adjust;
mod walk;

use crate::solver::anneal::anneal;
use crate::solver::bound::{Relaxed, Steps, ascend, gains, growth, relax};
use crate::solver::branch;
use crate::solver::flow::Drift;
use crate::solver::instance::Instance;
use crate::solver::reduce::reduce;
use adjust::{adjust, greatest, plenty, seed, start};
use walk::Walk;

/// How hard to search; all limits count steps, none looks at a clock, so equal inputs give equal
/// outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Subgradient steps for the lower bound.
    pub(crate) steps: usize,
    /// Of these, steps without a better bound after which they become shorter.
    pub(crate) patience: usize,
    /// A placement whose objective is above the lower bound by no more than this share of it is
    /// good enough: the search ends.
    pub(crate) enough: f64,
    /// Candidates looked at on each side of a move of one replica.
    pub(crate) width: usize,
    /// Moves of one replica that a local search may try.
    pub(crate) tries: usize,
    /// Replicas too many to begin with in another start, from which those go that are missed least.
    pub(crate) drops: u32,
    /// Placements suggested by the bound from which to search again.
    pub(crate) restarts: usize,
    /// Moves of one replica that are tried at random, where worse is accepted for a while.
    pub(crate) anneals: usize,
    /// Branchings over regions that the proof may make.
    pub(crate) branchings: usize,
    /// Placements that the proof may route.
    pub(crate) routings: usize,
    /// With more nodes than this, only those near to some demand are candidates.
    pub(crate) candidates: usize,
}

/// A placement and what is known about its quality.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) placement: Vec<u32>,
    pub(crate) total: f64,
    pub(crate) lower_bound: f64,
    pub(crate) proven: bool,
}

/// What the search for a like problem has found, to begin with.
#[derive(Clone, Debug)]
pub(crate) struct Hint {
    /// What a served unit of each source was worth.
    pub(crate) worth: Vec<f64>,
    /// Where replicas were.
    pub(crate) placement: Vec<u32>,
}

/// Finds the best placement, and proves it where `effort` allows.
pub(crate) fn solve(instance: &Instance, effort: Budget) -> Found {
    solve_from(instance, effort, None).0
}

/// The same from what is known of a like problem, which takes a part of the steps; also returns
/// what a served unit of each source is worth.
pub(crate) fn solve_from(instance: &Instance, effort: Budget, hint: Option<&Hint>) -> (Found, Vec<f64>) {
    if let Some(fixed) = fixed(instance, hint) {
        return fixed;
    }
    if instance.nodes() <= effort.candidates {
        return solve_all(instance, effort, hint);
    }
    let reduced = reduce(instance, effort.candidates, hint.map(|hint| &hint.placement[..]));
    let near = hint.map(|hint| Hint {
        worth: hint.worth.clone(),
        placement: reduced.nodes.iter().map(|node| hint.placement[*node]).collect(),
    });
    let effort = Budget { routings: 0, ..effort };
    let (found, worth) = search_part(&reduced.instance, effort, near.as_ref(), |worth| relax(instance, worth).bound);
    let mut placement = vec![0; instance.nodes()];
    for (node, count) in reduced.nodes.iter().zip(&found.placement) {
        placement[*node] = *count;
    }
    (Found { placement, ..found }, worth)
}

/// The same for a part of the nodes; `bound` is what holds for all.
pub(crate) fn search_part(
    part: &Instance,
    effort: Budget,
    hint: Option<&Hint>,
    bound: impl FnOnce(&[f64]) -> f64,
) -> (Found, Vec<f64>) {
    if let Some(fixed) = fixed(part, hint) {
        return fixed;
    }
    let (found, worth) = solve_all(part, effort, hint);
    let lower_bound = bound(&worth).min(found.total);
    let proven = lower_bound >= found.total - part.tolerance(found.total);
    (Found { lower_bound, proven, ..found }, worth)
}

/// The placement where there is nothing to decide: every count is fixed.
fn fixed(instance: &Instance, hint: Option<&Hint>) -> Option<(Found, Vec<f64>)> {
    if instance.floors.iter().sum::<u32>() != instance.replicas {
        return None;
    }
    let total = instance.total(&instance.floors);
    let worth = hint.map_or_else(|| vec![0.0; instance.supplies.len()], |hint| hint.worth.clone());
    Some((Found { placement: instance.floors.clone(), total, lower_bound: total, proven: true }, worth))
}

/// What moves of one replica at a time make of a placement: the routing's total. Where so many
/// moves as gain what any first one gains at most would not come below `limit`, none is tried.
pub(crate) fn near(instance: &Instance, placement: &[u32], effort: Budget, limit: f64) -> f64 {
    let mut first = start(instance, placement);
    if first.iter().sum::<u32>() != instance.replicas {
        first = adjust(instance, first).0;
    }
    let drift = Drift::with_spare(instance, &first, 0);
    let total = drift.total() + instance.openings(&first);
    let (more, fewer) = gains(instance, &drift.source_prices(), &first);
    let gain = more.iter().copied().fold(f64::NEG_INFINITY, f64::max) - fewer.iter().copied().fold(f64::INFINITY, f64::min);
    if total - effort.tries as f64 * gain.max(0.0) >= limit {
        return drift.total();
    }
    let (placement, total) = improve(instance, first, effort);
    total - instance.openings(&placement)
}

/// Steps, width and tries of a search that may be good enough.
const HASTY: (usize, usize, usize) = (4, 8, 12);
/// How much shorter the search for prices is that begins with good ones.
const HINTED: usize = 5;

fn solve_all(instance: &Instance, effort: Budget, hint: Option<&Hint>) -> (Found, Vec<f64>) {
    let kept: u32 = instance.running.iter().zip(&instance.limits).map(|(running, limit)| running.min(limit)).sum();
    let first = hint.map_or_else(|| seed(instance), |hint| start(instance, &hint.placement));
    // Where a placement may be good enough at once, little is tried before a bound is known.
    let is_hasty = effort.enough > 0.0;
    let quick = if is_hasty {
        let (steps, width, tries) = HASTY;
        Budget { steps: effort.steps.min(steps), width: effort.width.min(width), tries: effort.tries.min(tries), ..effort }
    } else {
        effort
    };
    let whole = |placement: Vec<u32>| {
        let placed: u32 = placement.iter().sum();
        if placed == instance.replicas { placement } else { adjust(instance, placement).0 }
    };
    let mut best = improve(instance, whole(first), quick);
    if kept > 0 && hint.is_none_or(|hint| hint.placement != instance.running) {
        take_better(instance, &mut best, improve(instance, whole(start(instance, &instance.running)), quick));
    }
    if !is_hasty && effort.drops > 0 && hint.is_none() {
        take_better(instance, &mut best, improve(instance, whole(plenty(instance, effort.drops)), effort));
    }
    let (worth, count, pace) = match hint {
        Some(hint) => (hint.worth.clone(), effort.steps.div_ceil(HINTED), 1.0 / HINTED as f64),
        None => (instance.route(&best.0).1.source_prices, effort.steps, 1.0),
    };
    let steps = |count: usize| Steps { count, pace, patience: effort.patience, enough: effort.enough };
    let mut seen: Vec<Vec<u32>> = Vec::new();
    let mut ascend = |from: (Vec<f64>, Relaxed), target: f64, count: usize| {
        let visit = |placement: &[u32]| {
            if seen.last().is_none_or(|last| last != placement) {
                seen.push(placement.to_vec());
            }
        };
        ascend(instance, from, target, steps(count), |worth| Some(relax(instance, worth)), visit)
    };
    let relaxed = relax(instance, &worth);
    let (mut worth, mut relaxed) = ascend((worth, relaxed), best.1, count.min(quick.steps));
    let is_enough = |best: f64, bound: f64| bound >= best - instance.tolerance(best).max(effort.enough * best.abs());
    if is_hasty && !is_enough(best.1, relaxed.bound) {
        let tried = improve(instance, best.0.clone(), effort);
        take_better(instance, &mut best, tried);
        if effort.drops > 0 {
            take_better(instance, &mut best, improve(instance, whole(plenty(instance, effort.drops)), effort));
        }
        (worth, relaxed) = ascend((worth, relaxed), best.1, count.saturating_sub(quick.steps));
    }
    if !is_enough(best.1, relaxed.bound) {
        // What the relaxation liked is what its prices suggest; the later, the better the prices.
        // The most promising of many starts are worth a search.
        let later = &seen[seen.len() / 4..];
        let mut starts: Vec<(Vec<u32>, f64)> = (later.iter().rev().step_by((later.len() / (8 * effort.restarts).max(1)).max(1)))
            .map(|placement| (placement.clone(), instance.total(placement)))
            .collect();
        starts.sort_by(|one, other| one.1.total_cmp(&other.1));
        for start in starts.into_iter().take(effort.restarts) {
            take_better(instance, &mut best, improve(instance, start.0, effort));
        }
        if effort.anneals > 0 {
            let liked: Vec<usize> =
                (0..instance.nodes()).filter(|node| later.iter().any(|placement| placement[*node] > 0)).collect();
            let annealed = anneal(instance, &best.0, effort.anneals, &liked).0;
            take_better(instance, &mut best, improve(instance, annealed, effort));
        }
    }
    (prove(instance, best, &worth, &relaxed, effort), worth)
}

fn take_better(instance: &Instance, best: &mut (Vec<u32>, f64), other: (Vec<u32>, f64)) {
    if other.1 < best.1 - instance.tolerance(best.1) {
        *best = other;
    }
}

/// Servers that a local search may add before its routing is set up anew.
const SPARE: usize = 16;
/// Moves that fail, one after the other, after one that has changed what they were chosen by.
const OUTDATED: usize = 3;

/// Moves one replica at a time as long as that helps.
///
/// Prices bound what a move can gain: those of the present routing cheaply, those of the routing
/// without the replica that goes more closely. A move is only worked out where both say that it may
/// help, most promising first. The routing follows from move to move.
fn improve(instance: &Instance, mut placement: Vec<u32>, effort: Budget) -> (Vec<u32>, f64) {
    let mut tries = effort.tries;
    let mut drift = Drift::with_spare(instance, &placement, SPARE);
    loop {
        let mut total = drift.total() + instance.openings(&placement);
        let tolerance = instance.tolerance(total);
        let mut moves = promising(instance, &mut drift, &mut placement, total, effort.width);
        moves.sort_by(|one, other| other.0.total_cmp(&one.0).then((one.1, one.2).cmp(&(other.1, other.2))));
        let (mut is_better, mut failed) = (false, 0);
        for (_, source, target) in moves {
            if tries == 0 {
                return (placement, total);
            }
            let fits = placement[source] > instance.floors[source] && placement[target] < instance.limits[target];
            if !fits || !(placement[target] > 0 || drift.has_room()) {
                continue;
            }
            tries -= 1;
            placement[source] -= 1;
            placement[target] += 1;
            let (less, more) = (instance.server(source, &placement), instance.server(target, &placement));
            let openings = instance.openings(&placement);
            // Half of the tolerance, so that rounding decides nothing.
            let limit = total - tolerance / 2.0 - openings;
            let after = drift.attempt_below(less, more, limit).map(|routing| routing + openings);
            if let Some(after) = after.filter(|after| *after < total - tolerance) {
                drift.keep();
                (total, is_better, failed) = (after, true, 0);
            } else {
                placement[source] += 1;
                placement[target] -= 1;
                failed += 1;
                if is_better && failed == OUTDATED {
                    break;
                }
            }
        }
        if !is_better {
            return (placement, total);
        }
        if !drift.has_room() {
            drift = Drift::with_spare(instance, &placement, SPARE);
        }
    }
}

/// Moves of one replica that may help, each with what it gains at most: from one node to another.
fn promising(
    instance: &Instance,
    drift: &mut Drift<'_>,
    placement: &mut [u32],
    total: f64,
    width: usize,
) -> Vec<(f64, usize, usize)> {
    let tolerance = instance.tolerance(total);
    let (more, fewer) = gains(instance, &drift.source_prices(), placement);
    let losses: Vec<f64> = fewer.iter().map(|loss| -loss).collect();
    let (from, to) = (greatest(&losses, width), greatest(&more, width));
    let mut moves = Vec::new();
    for &source in &from {
        let hopeful: Vec<usize> =
            to.iter().copied().filter(|to| *to != source && more[*to] - fewer[source] > tolerance).collect();
        if hopeful.is_empty() {
            continue;
        }
        placement[source] -= 1;
        let (without, worth) = drift.without(instance.server(source, placement));
        let loss = without + instance.openings(placement) - total;
        for target in hopeful {
            let gain = growth(instance, &worth, target, placement[target]) - loss;
            if gain > tolerance {
                moves.push((gain, source, target));
            }
        }
        placement[source] += 1;
    }
    moves
}

/// Walks all placements that the bound does not rule out.
fn prove(instance: &Instance, best: (Vec<u32>, f64), worth: &[f64], relaxed: &Relaxed, effort: Budget) -> Found {
    let lower_bound = relaxed.bound.min(best.1);
    let proven = relaxed.bound >= best.1 - instance.tolerance(best.1);
    if !proven && effort.branchings > 0 {
        let branch::Proved { best: (placement, total), bound } = branch::prove(instance, best, worth, effort.branchings);
        return Found { placement, total, lower_bound: bound, proven: bound >= total - instance.tolerance(total) };
    }
    if proven || effort.routings == 0 {
        return Found { placement: best.0, total: best.1, lower_bound, proven };
    }
    let ((placement, total), proven) = Walk::through(instance, best, worth, &relaxed.marginals, effort.routings);
    Found { lower_bound: if proven { total } else { lower_bound }, placement, total, proven }
}
