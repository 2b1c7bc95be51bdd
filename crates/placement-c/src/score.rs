//! Scores of nodes for a pod, into the caller's buffer.

use std::ffi::c_char;

use placement::score::{self, PlacedDependency, Requirements};

use crate::costs::KantaiCosts;
use crate::edge::{Failure, KantaiStatus, buffer, guard, list, shared};

/// The candidates: those listed, or all nodes in order.
unsafe fn candidates<'a>(
    costs: &KantaiCosts,
    listed: *const usize,
    count: usize,
    all: &'a mut Vec<usize>,
) -> Result<&'a [usize], Failure> {
    if !listed.is_null() {
        // SAFETY: by the contract of the crate, here and below.
        return unsafe { list(listed, count, "the candidates") };
    }
    if count != costs.nodes() {
        return Err(Failure::Length { what: "the scores of all nodes", found: count, expected: costs.nodes() });
    }
    all.extend(0..count);
    Ok(all)
}

/// Scores candidates by the mean response time that demand would see there: the best gets `best`,
/// one with twice its response time half of that, and one that no source reaches 0.
///
/// Sources are positions with their requests in flight; without any that is above 0, all candidates
/// count alike. `candidates` are positions, or NULL for all nodes in order; one that is not listed
/// (KANTAI_NO_POSITION) is as far as an unknown pair. `scores` gets `candidate_count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_score_demand(
    costs: *const KantaiCosts,
    sources: *const usize,
    requests: *const f64,
    source_count: usize,
    serving_seconds: f64,
    candidates: *const usize,
    candidate_count: usize,
    best: u8,
    scores: *mut u8,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let costs = shared(costs, "the costs")?;
            let sources = list(sources, source_count, "the sources")?;
            let requests = list(requests, source_count, "the requests of sources")?;
            let sources: Vec<(usize, f64)> = sources.iter().copied().zip(requests.iter().copied()).collect();
            let mut all = Vec::new();
            let candidates = self::candidates(costs, candidates, candidate_count, &mut all)?;
            let scores = buffer(scores, candidate_count, "the place for scores")?;
            score::demand_into(&costs.costs, &sources, serving_seconds, candidates, best, scores);
            Ok(())
        })
    }
}

/// Scores candidates for a pod that will call pods on these nodes (positions, one entry a pod): the
/// cheapest candidate gets `best`, the dearest 0, and one with a way that is not known or cut 0
/// while the others get at least 1. Without pods that are called, all get `best`.
///
/// `candidates` and `scores` as in kantai_score_demand; a candidate that is not listed gets 0, and
/// a pod on a node that is not listed is left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_score_dependencies(
    costs: *const KantaiCosts,
    called: *const usize,
    called_count: usize,
    candidates: *const usize,
    candidate_count: usize,
    best: u8,
    scores: *mut u8,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let costs = shared(costs, "the costs")?;
            let called = list(called, called_count, "the nodes that are called")?;
            let placed: Vec<PlacedDependency> =
                called.iter().map(|node| PlacedDependency { node: *node, max_cost: f64::INFINITY }).collect();
            let mut all = Vec::new();
            let candidates = self::candidates(costs, candidates, candidate_count, &mut all)?;
            let scores = buffer(scores, candidate_count, "the place for scores")?;
            score::dependencies_into(&costs.costs, &placed, candidates, best, scores);
            Ok(())
        })
    }
}

/// Counts for each candidate how many of the pods that it will call are near enough: on the same
/// node, or at most so many seconds away. What is not known is not near. `satisfied` gets
/// `candidate_count` numbers; the others of `called_count` are violated. A scheduler's filter
/// should refuse a node where more are violated than satisfied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_requirements(
    costs: *const KantaiCosts,
    called: *const usize,
    most_seconds: *const f64,
    called_count: usize,
    candidates: *const usize,
    candidate_count: usize,
    satisfied: *mut u32,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let costs = shared(costs, "the costs")?;
            let called = list(called, called_count, "the nodes that are called")?;
            let most = list(most_seconds, called_count, "the seconds that are allowed")?;
            let placed: Vec<PlacedDependency> =
                called.iter().zip(most).map(|(node, most)| PlacedDependency { node: *node, max_cost: *most }).collect();
            let mut all = Vec::new();
            let candidates = self::candidates(costs, candidates, candidate_count, &mut all)?;
            let satisfied = buffer(satisfied, candidate_count, "the place for counts")?;
            let mut found = vec![Requirements::default(); candidate_count];
            score::requirements_into(&costs.costs, &placed, candidates, &mut found);
            for (satisfied, found) in satisfied.iter_mut().zip(found) {
                *satisfied = found.satisfied;
            }
            Ok(())
        })
    }
}
