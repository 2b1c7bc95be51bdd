//! Demand: requests in flight per source node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use latency_matrix::NodeName;

/// Why a number is not a demand.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DemandError {
    /// NaN, infinite or negative.
    #[error("failed to read the demand of source node {node}: {value} is not a finite number of at least 0")]
    Invalid {
        /// The source node.
        node: NodeName,
        /// The number found.
        value: f64,
    },
    /// More requests in flight than [`Demand::MOST`], from one source or from all together.
    #[error("failed to read the demand of source node {node}: {value} requests in flight are too many to be true")]
    Absurd {
        /// The source node.
        node: NodeName,
        /// The number found, with those of the sources before it.
        value: f64,
    },
    /// A serving time that is not a positive finite number of seconds.
    #[error("failed to turn request rates into demand: a serving time of {0} seconds is not positive and finite")]
    ServingTime(f64),
}

/// Requests in flight (concurrency) per source node: the node that a request enters the cluster on.
/// Entries below [`Demand::LEAST`] are dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<NodeName, f64>", into = "BTreeMap<NodeName, f64>")]
pub struct Demand {
    in_flight: BTreeMap<NodeName, f64>,
}

impl Demand {
    /// No real service has more requests in flight: the counter or its unit is broken.
    pub const MOST: f64 = 1e12;
    /// Fewer requests in flight than this are none: less than one millisecond a century.
    pub const LEAST: f64 = 1e-12;

    /// From the mean number of requests in flight per source node; entries for the same node add
    /// up.
    ///
    /// # Errors
    /// When a number is NaN, infinite or negative, or the sum is more than [`Demand::MOST`].
    pub fn from_concurrency(in_flight: impl IntoIterator<Item = (NodeName, f64)>) -> Result<Self, DemandError> {
        let mut sums = BTreeMap::new();
        let mut total = 0.0;
        for (node, value) in in_flight {
            if !(value.is_finite() && value >= 0.0) {
                return Err(DemandError::Invalid { node, value });
            }
            total += value;
            if total > Self::MOST {
                return Err(DemandError::Absurd { node, value: total });
            }
            if value >= Self::LEAST {
                *sums.entry(node).or_insert(0.0) += value;
            }
        }
        Ok(Self { in_flight: sums })
    }

    /// From request rates per source node, by Little's law: in flight = rate x serving time.
    ///
    /// ```
    /// use placement::Demand;
    ///
    /// let demand = Demand::from_requests_per_second([("node1".into(), 200.0)], 0.004)?;
    /// assert_eq!(demand.of(&"node1".into()), 0.8);
    /// # Ok::<(), placement::problem::DemandError>(())
    /// ```
    ///
    /// # Errors
    /// When a rate is NaN, infinite or negative, or the serving time is not positive and finite.
    pub fn from_requests_per_second(
        rates: impl IntoIterator<Item = (NodeName, f64)>,
        serving_seconds: f64,
    ) -> Result<Self, DemandError> {
        if !(serving_seconds.is_finite() && serving_seconds > 0.0) {
            return Err(DemandError::ServingTime(serving_seconds));
        }
        let demand = Self::from_concurrency(rates)?;
        Self::from_concurrency(demand.in_flight.into_iter().map(|(node, rate)| (node, rate * serving_seconds)))
    }

    /// Requests in flight from this source.
    #[must_use]
    pub fn of(&self, source: &NodeName) -> f64 {
        self.in_flight.get(source).copied().unwrap_or(0.0)
    }

    /// Requests in flight from all sources.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.in_flight.values().sum()
    }

    /// Whether no source has demand.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The sources with demand, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, f64)> {
        self.in_flight.iter().map(|(node, value)| (node, *value))
    }
}

impl TryFrom<BTreeMap<NodeName, f64>> for Demand {
    type Error = DemandError;

    fn try_from(in_flight: BTreeMap<NodeName, f64>) -> Result<Self, DemandError> {
        Self::from_concurrency(in_flight)
    }
}

impl From<Demand> for BTreeMap<NodeName, f64> {
    fn from(demand: Demand) -> Self {
        demand.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_demand_are_refused() {
        for value in [f64::NAN, f64::INFINITY, -0.1] {
            assert!(Demand::from_concurrency([("a".into(), value)]).is_err(), "{value}");
            assert!(Demand::from_requests_per_second([("a".into(), 1.0)], value).is_err(), "{value}");
        }
        assert!(Demand::from_requests_per_second([("a".into(), 1.0)], 0.0).is_err());
        // Each is finite, and their sum is not.
        assert!(matches!(Demand::from_concurrency(["a", "b"].map(|node| (node.into(), 1e308))), Err(DemandError::Absurd { .. })));
        assert!(serde_json::from_str::<Demand>("{\"a\":-1}").is_err());
    }

    #[test]
    fn zero_is_nobody_and_same_names_add_up() {
        assert!(Demand::from_concurrency([("a".into(), 0.0)]).unwrap().is_zero());
        assert_eq!(Demand::from_concurrency([("a".into(), 1.0), ("a".into(), 2.0)]).unwrap().total(), 3.0);
    }
}
