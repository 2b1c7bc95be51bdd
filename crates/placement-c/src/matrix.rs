//! What was measured of the pairs of some nodes.

use std::ffi::c_char;

use placement::LatencyMatrix;
use placement::latency::{PairState, PairStats};

use crate::edge::{Failure, KantaiStatus, buffer, exclusive, guard, hand_over, names, shared, take_back};

/// What was measured of the pairs of some nodes.
pub struct KantaiMatrix {
    pub(crate) matrix: LatencyMatrix,
}

/// Measured lately.
pub const KANTAI_PAIR_KNOWN: u32 = 0;
/// Measured, but longer ago than is trusted.
pub const KANTAI_PAIR_STALE: u32 = 1;
/// Never measured, forgotten, or measured as nonsense.
pub const KANTAI_PAIR_UNKNOWN: u32 = 2;
/// Probed and not answering: nothing may be sent this way.
pub const KANTAI_PAIR_UNREACHABLE: u32 = 3;

/// Statistics of the round trips of an ordered pair. Numbers that no link can have make the pair
/// unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KantaiPairStats {
    /// Shortest round trip, seconds.
    pub min_seconds: f64,
    /// Median, seconds.
    pub p50_seconds: f64,
    /// 90th percentile, seconds.
    pub p90_seconds: f64,
    /// 99th percentile, seconds.
    pub p99_seconds: f64,
    /// Exponentially weighted mean, seconds.
    pub ewma_seconds: f64,
    /// Mean deviation between successive round trips, seconds.
    pub jitter_seconds: f64,
    /// Lost probes over sent probes, 0 to 1.
    pub loss_ratio: f64,
    /// Seconds since the newest sample.
    pub age_seconds: f64,
    /// Samples, at least 1.
    pub samples: u64,
}

impl From<KantaiPairStats> for PairStats {
    fn from(stats: KantaiPairStats) -> Self {
        Self {
            min: stats.min_seconds,
            p50: stats.p50_seconds,
            p90: stats.p90_seconds,
            p99: stats.p99_seconds,
            ewma: stats.ewma_seconds,
            jitter: stats.jitter_seconds,
            loss_ratio: stats.loss_ratio,
            age_seconds: stats.age_seconds,
            samples: stats.samples,
        }
    }
}

impl From<PairStats> for KantaiPairStats {
    fn from(stats: PairStats) -> Self {
        Self {
            min_seconds: stats.min,
            p50_seconds: stats.p50,
            p90_seconds: stats.p90,
            p99_seconds: stats.p99,
            ewma_seconds: stats.ewma,
            jitter_seconds: stats.jitter,
            loss_ratio: stats.loss_ratio,
            age_seconds: stats.age_seconds,
            samples: stats.samples,
        }
    }
}

impl KantaiMatrix {
    fn hold(&self, from: usize, to: usize) -> Result<(), Failure> {
        let nodes = self.matrix.nodes().len();
        if from.max(to) < nodes { Ok(()) } else { Err(Failure::Position { from, to, nodes }) }
    }
}

/// A matrix of nodes, of whose pairs nothing is known yet; a node to itself is 0. No two nodes may
/// have the same name. Nodes are positions in this list from here on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_matrix_new(
    node_names: *const *const c_char,
    node_count: usize,
    matrix: *mut *mut KantaiMatrix,
    error: *mut *mut c_char,
) -> KantaiStatus {
    // SAFETY: by the contract of the crate, here and below.
    unsafe {
        guard(error, || {
            let out = exclusive(matrix, "the place for a matrix")?;
            hand_over(out, KantaiMatrix { matrix: LatencyMatrix::new(names(node_names, node_count)?)? });
            Ok(())
        })
    }
}

/// Gives a matrix back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_matrix_free(matrix: *mut KantaiMatrix) {
    unsafe { take_back(matrix) }
}

/// Sets an ordered pair to one round trip in seconds, measured now. NaN, or a time that no link can
/// have (negative, or more than 10 s), makes it unknown.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_matrix_set_rtt(
    matrix: *mut KantaiMatrix,
    from: usize,
    to: usize,
    rtt_seconds: f64,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let matrix = exclusive(matrix, "the matrix")?;
            matrix.hold(from, to)?;
            matrix.matrix.set_at(from, to, PairState::Known(PairStats::constant(rtt_seconds)));
            Ok(())
        })
    }
}

/// Sets an ordered pair: `state` is one of KANTAI_PAIR_..., and `stats` is needed where that is
/// known or stale.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_matrix_set(
    matrix: *mut KantaiMatrix,
    from: usize,
    to: usize,
    state: u32,
    stats: *const KantaiPairStats,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let matrix = exclusive(matrix, "the matrix")?;
            matrix.hold(from, to)?;
            let stats = || shared(stats, "the statistics of a pair").map(|stats| PairStats::from(*stats));
            let state = match state {
                KANTAI_PAIR_KNOWN => PairState::Known(stats()?),
                KANTAI_PAIR_STALE => PairState::Stale(stats()?),
                KANTAI_PAIR_UNKNOWN => PairState::Unknown,
                KANTAI_PAIR_UNREACHABLE => PairState::Unreachable,
                value => return Err(Failure::Choice { what: "the state of a pair", value }),
            };
            matrix.matrix.set_at(from, to, state);
            Ok(())
        })
    }
}

/// Reads an ordered pair: its state, and its statistics where it is known or stale. `stats` may be
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_matrix_get(
    matrix: *const KantaiMatrix,
    from: usize,
    to: usize,
    state: *mut u32,
    stats: *mut KantaiPairStats,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let matrix = shared(matrix, "the matrix")?;
            matrix.hold(from, to)?;
            let found = matrix.matrix.pairs()[(from, to)];
            *exclusive(state, "the place for a state")? = match found {
                PairState::Known(_) => KANTAI_PAIR_KNOWN,
                PairState::Stale(_) => KANTAI_PAIR_STALE,
                PairState::Unknown => KANTAI_PAIR_UNKNOWN,
                PairState::Unreachable => KANTAI_PAIR_UNREACHABLE,
            };
            if let (Some(known), false) = (found.stats(), stats.is_null()) {
                buffer(stats, 1, "the place for statistics")?[0] = (*known).into();
            }
            Ok(())
        })
    }
}
