//! Minimum-cost routing of demand to servers: successive shortest paths with potentials.
//!
//! The network is `source -> server -> segments of the server's serving curve -> sink`. Sources are routed one after the other. For each, a
//! Dijkstra search over the servers finds the cheapest way to a server with room, if need be by pushing other sources on to their next
//! best server. What finds no room goes to an imaginary last server that is dear and never full, so that this, too, is decided by cost. A price per server (its potential) keeps all reduced costs non-negative, so a search usually ends after the few servers nearest
//! to the source. The result is an exact optimum: no routing of the same demand to the same servers has a smaller total.
//!
//! Source: Edmonds and Karp 1972; Tomizawa 1971 (potentials); Ahuja, Magnanti, Orlin, *Network Flows*, section 9.7.

use ndarray::Array2;

use crate::serving::Segment;

/// Seconds that a unit of demand costs which no server can take: far more than any network path, so that as little as possible is left over.
pub const UNSERVED_SECONDS: f64 = 3600.0;

/// Shares of the total demand below this are rounding dust.
const DUST: f64 = 1e-12;

/// A server: a row of the cost matrix and how much it serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server {
    /// Its row in the cost matrix.
    pub row: usize,
    /// Demand it serves at full utilisation.
    pub capacity: f64,
}

/// An optimal routing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Per server, in the order given: the sources it serves and how much of each.
    pub tenants: Vec<Vec<(usize, f64)>>,
    /// Demand left over per source, because no server that it can reach has room.
    pub unserved: Vec<f64>,
    /// Sum of demand x network seconds.
    pub network: f64,
    /// Sum of demand x serving seconds.
    pub serving: f64,
    /// What one more unit of demand of each source would cost, seconds: the optimal dual prices, an upper estimate where a server is exactly full.
    pub source_prices: Vec<f64>,
}

impl Routing {
    /// What is minimised: network plus serving plus [`UNSERVED_SECONDS`] for what is left over.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.network + self.serving + UNSERVED_SECONDS * self.unserved.iter().sum::<f64>()
    }
}

/// Routes `supplies[source]` to `servers` at `costs[(server row, source)]` seconds (infinite: not allowed) plus the serving time that
/// `segments` give.
///
/// ```
/// use ndarray::array;
/// use placement::{Segment, flow::{Server, route}};
///
/// // Both sources are nearest to server 0, which can take one of them: the other goes where the detour is least, 5 instead of 9 ms.
/// let costs = array![[0.001, 0.001], [0.010, 0.006]];
/// let flat = [Segment { width: 1.0, marginal_seconds: 0.0 }];
/// let servers = [Server { row: 0, capacity: 1.0 }, Server { row: 1, capacity: 2.0 }];
/// let routing = route(&costs, &[1.0, 1.0], &servers, &flat);
/// assert_eq!(routing.tenants, [vec![(0, 1.0)], vec![(1, 1.0)]]);
/// assert!((routing.total() - 0.007).abs() < 1e-12);
/// ```
#[must_use]
pub fn route(costs: &Array2<f64>, supplies: &[f64], servers: &[Server], segments: &[Segment]) -> Routing {
    let mut network = Network::new(costs, supplies, servers, segments);
    for (source, supply) in supplies.iter().enumerate() {
        network.send(source, *supply);
    }
    network.finish()
}

struct Network<'a> {
    /// `costs[source * count + server]`: the rows that matter, gathered so that a search reads memory in order. The last of the
    /// `count` servers is the imaginary one.
    costs: Vec<f64>,
    count: usize,
    servers: &'a [Server],
    segments: &'a [Segment],
    prices: Vec<f64>,
    load: Vec<f64>,
    tenants: Vec<Vec<(usize, f64)>>,
    dust: f64,
    distance: Vec<f64>,
    parent: Vec<Option<(usize, usize)>>,
    done: Vec<bool>,
    visited: Vec<usize>,
}

impl<'a> Network<'a> {
    fn new(costs: &Array2<f64>, supplies: &[f64], servers: &'a [Server], segments: &'a [Segment]) -> Self {
        let count = servers.len() + 1;
        let mut gathered = vec![UNSERVED_SECONDS; supplies.len() * count];
        for (position, server) in servers.iter().enumerate() {
            for (source, cost) in costs.row(server.row).iter().enumerate() {
                gathered[source * count + position] = *cost;
            }
        }
        let mut prices = vec![segments.first().map_or(0.0, |segment| segment.marginal_seconds); count];
        prices[count - 1] = 0.0;
        Self {
            costs: gathered,
            count,
            servers,
            segments,
            prices,
            load: vec![0.0; count],
            tenants: vec![Vec::new(); count],
            dust: DUST * supplies.iter().sum::<f64>(),
            distance: vec![f64::INFINITY; count],
            parent: vec![None; count],
            done: vec![false; count],
            visited: Vec::with_capacity(count),
        }
    }

    fn cost(&self, source: usize, server: usize) -> f64 {
        self.costs[source * self.count + server]
    }

    /// The cheapest segment of a server with room: its marginal seconds and the room.
    fn room(&self, server: usize) -> Option<(f64, f64)> {
        if server == self.servers.len() {
            return Some((0.0, f64::INFINITY));
        }
        let mut end = 0.0;
        for segment in self.segments {
            end += segment.width * self.servers[server].capacity;
            if end - self.load[server] > self.dust {
                return Some((segment.marginal_seconds, end - self.load[server]));
            }
        }
        None
    }

    fn send(&mut self, source: usize, supply: f64) {
        let mut left = supply;
        while left > self.dust {
            let (end, length) = self.search(source);
            for server in &self.visited {
                self.prices[*server] += (length - self.distance[*server]).max(0.0);
            }
            left -= self.push(source, end, left);
        }
    }

    /// Dijkstra from a source over the servers; returns the server where the shortest path leaves to the sink and the path's length.
    fn search(&mut self, source: usize) -> (usize, f64) {
        let count = self.count;
        for server in 0..count {
            self.distance[server] = self.cost(source, server) + self.prices[server];
            self.parent[server] = None;
            self.done[server] = false;
        }
        self.visited.clear();
        // The imaginary server is always an end; only what is shorter is of interest.
        let mut best = (count - 1, self.distance[count - 1]);
        loop {
            let mut nearest = None;
            let mut least = best.1;
            for server in 0..count {
                if !self.done[server] && self.distance[server] < least {
                    least = self.distance[server];
                    nearest = Some(server);
                }
            }
            let Some(here) = nearest else { break };
            self.done[here] = true;
            self.visited.push(here);
            if let Some((marginal, _)) = self.room(here) {
                let length = least + (marginal - self.prices[here]).max(0.0);
                if length < best.1 {
                    best = (here, length);
                }
            }
            for &(tenant, _) in &self.tenants[here] {
                let paid = self.costs[tenant * count + here] + self.prices[here];
                for next in 0..count {
                    if !self.done[next] {
                        let step = self.costs[tenant * count + next] + self.prices[next] - paid;
                        let length = least + step.max(0.0);
                        if length < self.distance[next] {
                            self.distance[next] = length;
                            self.parent[next] = Some((here, tenant));
                        }
                    }
                }
            }
        }
        best
    }

    /// Pushes as much as fits along the path just found; returns how much that was.
    fn push(&mut self, source: usize, end: usize, left: f64) -> f64 {
        let mut amount = self.room(end).map_or(0.0, |(_, room)| room).min(left);
        let mut here = end;
        while let Some((before, tenant)) = self.parent[here] {
            let held = self.tenants[before].iter().find(|held| held.0 == tenant).map_or(0.0, |held| held.1);
            amount = amount.min(held);
            here = before;
        }
        here = end;
        while let Some((before, tenant)) = self.parent[here] {
            self.take(before, tenant, amount);
            self.give(here, tenant, amount);
            here = before;
        }
        self.give(here, source, amount);
        self.load[end] += amount;
        amount
    }

    fn give(&mut self, server: usize, source: usize, amount: f64) {
        match self.tenants[server].iter_mut().find(|held| held.0 == source) {
            Some(held) => held.1 += amount,
            None => self.tenants[server].push((source, amount)),
        }
    }

    fn take(&mut self, server: usize, source: usize, amount: f64) {
        let dust = self.dust;
        if let Some(position) = self.tenants[server].iter().position(|held| held.0 == source) {
            let held = &mut self.tenants[server][position];
            held.1 -= amount;
            if held.1 <= dust {
                self.tenants[server].swap_remove(position);
            }
        }
    }

    fn finish(mut self) -> Routing {
        let count = self.count;
        let mut network = 0.0;
        let mut serving = 0.0;
        for server in 0..self.servers.len() {
            self.tenants[server].sort_by_key(|held| held.0);
            network += self.tenants[server].iter().map(|(source, held)| held * self.costs[source * count + server]).sum::<f64>();
            let mut left = self.load[server];
            for segment in self.segments {
                let part = (segment.width * self.servers[server].capacity).min(left);
                serving += part * segment.marginal_seconds;
                left -= part;
            }
        }
        let sources = self.costs.len() / count;
        let source_prices = (0..sources)
            .map(|source| (0..count).map(|server| self.cost(source, server) + self.prices[server]).fold(f64::INFINITY, f64::min))
            .collect();
        let mut unserved = vec![0.0; sources];
        for (source, left) in self.tenants.pop().unwrap_or_default() {
            unserved[source] += left;
        }
        Routing { tenants: self.tenants, unserved, network, serving, source_prices }
    }
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
