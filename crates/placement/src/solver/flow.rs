//! Minimum-cost routing of demand to servers: successive shortest paths with potentials.
//!
//! The network is `source -> server -> segments of the server's serving curve -> sink`. Sources are
//! routed one after the other. For each, a Dijkstra search over the servers finds the cheapest way
//! to a server with room, if need be by pushing other sources on to their next best server. What
//! finds no room goes to an imaginary last server that is dear and never full, so that this, too,
//! is decided by cost. A price per server (its potential) keeps all reduced costs non-negative, so
//! a search usually ends after the few servers nearest to the source. The result is an exact
//! optimum: no routing of the same demand to the same servers has a smaller total.
//!
//! Source: Edmonds and Karp 1972; Tomizawa 1971 (potentials); Ahuja, Magnanti, Orlin, *Network
//! Flows*, section 9.7.

mod drift;
mod network;
mod thinning;
mod ways;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::problem::Segment;
pub(crate) use drift::Drift;
use network::{Network, Scratch};
pub(crate) use thinning::Thinning;
use ways::Ways;

/// Seconds that a unit of demand costs which no server can take: far more than any network path, so
/// that as little as possible is left over.
pub const UNSERVED_SECONDS: f64 = 3600.0;

/// A server: a row of the cost matrix and how much it serves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Its row in the cost matrix.
    pub row: usize,
    /// Demand it serves at full utilisation.
    pub capacity: f64,
}

/// An optimal routing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routing {
    /// Per server, in the order given: the sources it serves and how much of each.
    pub tenants: Vec<Vec<(usize, f64)>>,
    /// Demand left over per source, because no server that it can reach has room.
    pub unserved: Vec<f64>,
    /// Sum of demand x network seconds.
    pub network: f64,
    /// Sum of demand x serving seconds.
    pub serving: f64,
    /// What one more unit of demand of each source would cost, seconds: the optimal dual prices, an
    /// upper estimate where a server is exactly full.
    pub source_prices: Vec<f64>,
}

impl Routing {
    /// What is minimised: network plus serving plus [`UNSERVED_SECONDS`] for what is left over.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.network + self.serving + UNSERVED_SECONDS * self.unserved.iter().sum::<f64>()
    }
}

/// Routes `supplies[source]` to `servers` at `costs[(server row, source)]` seconds (infinite: not
/// allowed) plus the serving time that `segments` give.
///
/// ```
/// use ndarray::array;
/// use placement::problem::Segment;
/// use placement::routing::{Server, route};
///
/// // Both sources are nearest to server 0, which can take one of them: the other goes where the
/// // detour is least, 5 instead of 9 ms.
/// let costs = array![[0.001, 0.001], [0.010, 0.006]];
/// let flat = [Segment { width: 1.0, marginal_seconds: 0.0 }];
/// let servers = [Server { row: 0, capacity: 1.0 }, Server { row: 1, capacity: 2.0 }];
/// let routing = route(&costs, &[1.0, 1.0], &servers, &flat);
/// assert_eq!(routing.tenants, [vec![(0, 1.0)], vec![(1, 1.0)]]);
/// assert!((routing.total() - 0.007).abs() < 1e-12);
/// ```
#[must_use]
pub fn route(costs: &Array2<f64>, supplies: &[f64], servers: &[Server], segments: &[Segment]) -> Routing {
    let ways = Ways::new(costs, supplies, servers, 0, segments);
    Network::filled(&ways, &mut Scratch::default(), servers, supplies).finish(&ways, servers.len())
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    const FLAT: [Segment; 1] = [Segment { width: 1.0, marginal_seconds: 0.0 }];

    #[test]
    fn what_cannot_be_reached_or_held_is_left_over() {
        let costs = array![[0.001, f64::INFINITY]];
        let routing = route(&costs, &[3.0, 1.0], &[Server { row: 0, capacity: 2.0 }], &FLAT);
        assert_eq!(routing.unserved, [1.0, 1.0]);
        assert_eq!(route(&costs, &[3.0, 1.0], &[], &FLAT).unserved, [3.0, 1.0]);
    }

    #[test]
    fn a_busy_server_sheds_load_to_a_farther_idle_one() {
        let costs = array![[0.000], [0.010]];
        let curve = [Segment { width: 0.5, marginal_seconds: 0.005 }, Segment { width: 0.5, marginal_seconds: 0.020 }];
        let servers = [Server { row: 0, capacity: 2.0 }, Server { row: 1, capacity: 2.0 }];
        let routing = route(&costs, &[2.0], &servers, &curve);
        assert_eq!(routing.tenants, [vec![(0, 1.0)], vec![(0, 1.0)]]);
        assert!((routing.total() - 0.020).abs() < 1e-12);
    }

    /// The least total over every way of sending whole units.
    fn brute_force(costs: &Array2<f64>, units: &[u8], room: &mut [u8]) -> f64 {
        let Some(source) = units.iter().position(|left| *left > 0) else { return 0.0 };
        let mut rest = units.to_vec();
        rest[source] -= 1;
        let mut best = UNSERVED_SECONDS + brute_force(costs, &rest, room);
        for server in 0..room.len() {
            if room[server] > 0 && costs[(server, source)].is_finite() {
                room[server] -= 1;
                best = best.min(costs[(server, source)] + brute_force(costs, &rest, room));
                room[server] += 1;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_other_routing_is_cheaper(
            cells in prop::collection::vec(prop_oneof![4 => 0.0..0.1_f64, 1 => Just(f64::INFINITY)], 9),
            units in prop::collection::vec(0..3_u8, 3),
            room in prop::collection::vec(0..3_u8, 3),
        ) {
            let costs = Array2::from_shape_vec((3, 3), cells).unwrap();
            let supplies: Vec<f64> = units.iter().map(|unit| f64::from(*unit)).collect();
            let servers: Vec<Server> =
                room.iter().enumerate().map(|(row, room)| Server { row, capacity: f64::from(*room) }).collect();
            let routing = route(&costs, &supplies, &servers, &FLAT);
            let best = brute_force(&costs, &units, &mut room.clone());
            prop_assert!((routing.total() - best).abs() < 1e-6, "{} against {best}", routing.total());
            for (server, tenants) in routing.tenants.iter().enumerate() {
                prop_assert!(tenants.iter().map(|held| held.1).sum::<f64>() <= servers[server].capacity + 1e-9);
            }
            for (source, supply) in supplies.iter().enumerate() {
                let sent: f64 = routing.tenants.iter().flatten().filter(|held| held.0 == source).map(|held| held.1).sum();
                prop_assert!((sent + routing.unserved[source] - supply).abs() < 1e-9);
            }
        }
    }
}
