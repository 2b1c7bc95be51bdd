//! What a pair of nodes costs.

use std::ffi::c_char;

use placement::latency::{Costs, Quantile, SiteCosts, Statistic};
use placement::score::CallCosts;
use placement::{CostMatrix, CostPolicy};

use crate::edge::{Failure, KantaiStatus, exclusive, guard, hand_over, list, names, shared, take_back, text};
use crate::matrix::KantaiMatrix;

/// What a pair of nodes costs: seconds.
pub struct KantaiCosts {
    pub(crate) costs: Costs,
}

impl KantaiCosts {
    pub(crate) fn nodes(&self) -> usize {
        self.costs.nodes().len()
    }
}

/// The position of a node that is not listed: SIZE_MAX, which cbindgen.toml declares.
///
/// cbindgen:ignore
pub const KANTAI_NO_POSITION: usize = usize::MAX;

/// The shortest round trip stands for a pair.
pub const KANTAI_STATISTIC_MIN: u32 = 0;
/// The median stands for a pair.
pub const KANTAI_STATISTIC_P50: u32 = 1;
/// The 90th percentile stands for a pair.
pub const KANTAI_STATISTIC_P90: u32 = 2;
/// The 99th percentile stands for a pair.
pub const KANTAI_STATISTIC_P99: u32 = 3;
/// The weighted mean and some times the jitter stand for a pair.
pub const KANTAI_STATISTIC_MEAN_PLUS_JITTER: u32 = 4;

/// How the state of a pair becomes a cost.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KantaiPolicy {
    /// One of KANTAI_STATISTIC_...
    pub statistic: u32,
    /// How many times the jitter is added, with KANTAI_STATISTIC_MEAN_PLUS_JITTER.
    pub jitters: f64,
    /// A stale pair costs this many times its last cost, at least 1.
    pub stale_factor: f64,
    /// What a lost packet costs, seconds.
    pub loss_seconds: f64,
}

/// The median; a stale pair is half as costly again; a lost packet costs 0.2 s.
#[unsafe(no_mangle)]
pub extern "C" fn kantai_policy_default() -> KantaiPolicy {
    let policy = CostPolicy::default();
    KantaiPolicy {
        statistic: KANTAI_STATISTIC_P50,
        jitters: 0.0,
        stale_factor: policy.stale_factor,
        loss_seconds: policy.loss_seconds,
    }
}

fn read(policy: KantaiPolicy) -> Result<CostPolicy, Failure> {
    let statistic = match policy.statistic {
        KANTAI_STATISTIC_MIN => Statistic::Quantile(Quantile::Min),
        KANTAI_STATISTIC_P50 => Statistic::Quantile(Quantile::P50),
        KANTAI_STATISTIC_P90 => Statistic::Quantile(Quantile::P90),
        KANTAI_STATISTIC_P99 => Statistic::Quantile(Quantile::P99),
        KANTAI_STATISTIC_MEAN_PLUS_JITTER => Statistic::MeanPlusJitter { jitters: policy.jitters },
        value => return Err(Failure::Choice { what: "the statistic of a policy", value }),
    };
    Ok(CostPolicy { statistic, stale_factor: policy.stale_factor, loss_seconds: policy.loss_seconds })
}

/// Costs from measurements; `policy` may be NULL for the default. Later changes of the matrix
/// change nothing here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_from_matrix(
    matrix: *const KantaiMatrix,
    policy: *const KantaiPolicy,
    costs: *mut *mut KantaiCosts,
    error: *mut *mut c_char,
) -> KantaiStatus {
    // SAFETY: by the contract of the crate, here and below.
    unsafe {
        guard(error, || {
            let out = exclusive(costs, "the place for costs")?;
            let policy = if policy.is_null() { CostPolicy::default() } else { read(*shared(policy, "the policy")?)? };
            hand_over(out, KantaiCosts { costs: policy.costs(&shared(matrix, "the matrix")?.matrix).into() });
            Ok(())
        })
    }
}

/// Costs from a table of `node_count * node_count` seconds, one row per sending node. NaN: not
/// known; infinity: nothing may be sent. Negative seconds and those above 10 count as not known;
/// the diagonal becomes 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_from_seconds(
    node_names: *const *const c_char,
    node_count: usize,
    seconds: *const f64,
    seconds_count: usize,
    costs: *mut *mut KantaiCosts,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(costs, "the place for costs")?;
            let whole = node_count.checked_mul(node_count);
            if whole != Some(seconds_count) {
                let expected = whole.unwrap_or(usize::MAX);
                return Err(Failure::Length { what: "the seconds of all pairs", found: seconds_count, expected });
            }
            let seconds = list(seconds, seconds_count, "the seconds of all pairs")?.to_vec();
            let table = CostMatrix::from_row_major(names(node_names, node_count)?, seconds);
            hand_over(out, KantaiCosts { costs: table.into() });
            Ok(())
        })
    }
}

/// Costs by site, for thousands of nodes: the site of each node, a square table of the seconds
/// between `site_count` sites (one row per sending site; the diagonal is inside a site), and the
/// seconds that each node adds, NULL for none. Of a node whose site is KANTAI_NO_POSITION nothing
/// is known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_by_site(
    node_names: *const *const c_char,
    sites: *const usize,
    access_seconds: *const f64,
    node_count: usize,
    between_seconds: *const f64,
    site_count: usize,
    costs: *mut *mut KantaiCosts,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(costs, "the place for costs")?;
            const BETWEEN: &str = "the seconds between sites";
            let whole = site_count.checked_mul(site_count).ok_or(Failure::TooMany { what: BETWEEN, count: site_count })?;
            let between = list(between_seconds, whole, BETWEEN)?;
            let sites = list(sites, node_count, "the sites of nodes")?.to_vec();
            let access = if access_seconds.is_null() {
                vec![0.0; node_count]
            } else {
                list(access_seconds, node_count, "the seconds that nodes add")?.to_vec()
            };
            let between = ndarray::Array2::from_shape_fn((site_count, site_count), |(from, to)| between[from * site_count + to]);
            let found = SiteCosts::new(names(node_names, node_count)?, sites, between, access);
            hand_over(out, KantaiCosts { costs: found.into() });
            Ok(())
        })
    }
}

/// Gives costs back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_free(costs: *mut KantaiCosts) {
    unsafe { take_back(costs) }
}

/// The number of nodes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_nodes(
    costs: *const KantaiCosts,
    nodes: *mut usize,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            *exclusive(nodes, "the place for a number")? = shared(costs, "the costs")?.nodes();
            Ok(())
        })
    }
}

/// The position of a node by its name; KANTAI_NO_POSITION where it is not listed, which is no
/// error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_position(
    costs: *const KantaiCosts,
    node_name: *const c_char,
    position: *mut usize,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let found = shared(costs, "the costs")?.costs.position(text(node_name, "the name of a node")?);
            *exclusive(position, "the place for a position")? = found.unwrap_or(KANTAI_NO_POSITION);
            Ok(())
        })
    }
}

/// What an ordered pair of positions costs, seconds: NaN where it is not known, infinity where
/// nothing may be sent. Of a position beyond the list nothing is known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_costs_seconds(
    costs: *const KantaiCosts,
    from: usize,
    to: usize,
    seconds: *mut f64,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let costs = shared(costs, "the costs")?;
            let found = if from.max(to) < costs.nodes() { costs.costs.cost(from, to) } else { None };
            *exclusive(seconds, "the place for seconds")? = found.unwrap_or(f64::NAN);
            Ok(())
        })
    }
}
