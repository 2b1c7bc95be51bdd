//! A routing in the making: sources are added, servers shrink and grow, and after each step it is
//! an optimal one.
//!
//! Every server has a price (its potential): what one more unit of demand there would cost. A
//! source's way to a server costs its network time plus that price, so all reduced costs along ways
//! that could be changed are at least 0, and Dijkstra's algorithm finds the cheapest change.

use super::{Routing, Server, UNSERVED_SECONDS, Ways};

/// Seconds that a detour must gain per unit of demand to be one.
const EVEN_SECONDS: f64 = 1e-12;

/// Who is served where, and the prices that prove it optimal.
#[derive(Clone, Default)]
pub(super) struct Network {
    capacity: Vec<f64>,
    /// Infinite for a slot without a server.
    prices: Vec<f64>,
    load: Vec<f64>,
    tenants: Vec<Vec<(usize, f64)>>,
}

/// Room for a search, so that searching allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    distance: Vec<f64>,
    /// The server before (or, on the way to a server that grows, after) and the source that moves
    /// between the two.
    parent: Vec<Option<(usize, usize)>>,
    done: Vec<bool>,
    visited: Vec<usize>,
}

impl Scratch {
    fn clear(&mut self, count: usize) {
        self.distance.clear();
        self.distance.resize(count, f64::INFINITY);
        self.parent.clear();
        self.parent.resize(count, None);
        self.done.clear();
        self.done.resize(count, false);
        self.visited.clear();
    }

    /// The nearest server that is not done, if it is nearer than `limit`.
    fn nearest(&self, limit: f64) -> Option<usize> {
        let mut nearest = None;
        let mut least = limit;
        for (server, (distance, done)) in self.distance.iter().zip(&self.done).enumerate() {
            if *distance < least && !done {
                least = *distance;
                nearest = Some(server);
            }
        }
        nearest
    }
}

impl Network {
    /// Servers of these capacities in the first slots, and no demand yet.
    fn new(ways: &Ways<'_>, servers: &[Server]) -> Self {
        let first = ways.segments.first().map_or(0.0, |segment| segment.marginal_seconds);
        let mut capacity = vec![0.0; ways.count];
        let mut prices = vec![f64::INFINITY; ways.count];
        for (slot, server) in servers.iter().enumerate() {
            capacity[slot] = server.capacity;
            prices[slot] = first;
        }
        prices[ways.count - 1] = 0.0;
        Self { capacity, prices, load: vec![0.0; ways.count], tenants: vec![Vec::new(); ways.count] }
    }

    /// All demand on its best way to these servers.
    pub(super) fn filled(ways: &Ways<'_>, scratch: &mut Scratch, servers: &[Server], supplies: &[f64]) -> Self {
        let mut network = Self::new(ways, servers);
        for (source, supply) in supplies.iter().enumerate() {
            network.send(ways, scratch, source, *supply);
        }
        network
    }

    /// Copies another one without giving up the memory already held.
    pub(super) fn copy(&mut self, other: &Self) {
        self.capacity.clone_from(&other.capacity);
        self.prices.clone_from(&other.prices);
        self.load.clone_from(&other.load);
        self.tenants.clone_from(&other.tenants);
    }

    /// The cheapest segment of a server with room: its marginal seconds and the room.
    fn room(&self, ways: &Ways<'_>, server: usize) -> Option<(f64, f64)> {
        if server + 1 == ways.count {
            return Some((0.0, f64::INFINITY));
        }
        let mut end = 0.0;
        for segment in ways.segments {
            end += segment.width * self.capacity[server];
            if end - self.load[server] > ways.dust {
                return Some((segment.marginal_seconds, end - self.load[server]));
            }
        }
        None
    }

    /// The dearest segment of a server in use: its marginal seconds and the load in it.
    fn last_used(&self, ways: &Ways<'_>, server: usize) -> Option<(f64, f64)> {
        if server + 1 == ways.count {
            let held: f64 = self.tenants[server].iter().map(|held| held.1).sum();
            return (held > ways.dust).then_some((0.0, held));
        }
        let mut start = 0.0;
        let mut last = None;
        for segment in ways.segments {
            if self.load[server] - start <= ways.dust {
                break;
            }
            let end = start + segment.width * self.capacity[server];
            last = Some((segment.marginal_seconds, self.load[server].min(end) - start));
            start = end;
        }
        last
    }

    /// Adds demand of a source, and moves others on where that is cheaper.
    fn send(&mut self, ways: &Ways<'_>, scratch: &mut Scratch, source: usize, supply: f64) {
        let mut left = supply;
        while left > ways.dust {
            let (end, length) = self.search(ways, scratch, source);
            for server in &scratch.visited {
                self.prices[*server] += (length - scratch.distance[*server]).max(0.0);
            }
            left -= self.push(ways, scratch, source, end, left);
        }
    }

    /// Dijkstra from a source over the servers; returns the server where the shortest path leaves
    /// to the sink and the path's length.
    fn search(&self, ways: &Ways<'_>, scratch: &mut Scratch, source: usize) -> (usize, f64) {
        let imaginary = ways.count - 1;
        scratch.clear(ways.count);
        for ((distance, cost), price) in scratch.distance.iter_mut().zip(ways.row(source)).zip(&self.prices) {
            *distance = cost + price;
        }
        // The imaginary server is always an end; only what is shorter is of interest.
        let mut best = (imaginary, scratch.distance[imaginary]);
        while let Some(here) = scratch.nearest(best.1) {
            let least = scratch.distance[here];
            scratch.done[here] = true;
            scratch.visited.push(here);
            if let Some((marginal, _)) = self.room(ways, here) {
                let length = least + (marginal - self.prices[here]).max(0.0);
                if length < best.1 {
                    best = (here, length);
                }
            }
            if best.1 <= least {
                break;
            }
            for &(tenant, _) in &self.tenants[here] {
                let costs = ways.row(tenant);
                let paid = costs[here] + self.prices[here];
                for (next, (cost, price)) in costs.iter().zip(&self.prices).enumerate() {
                    let length = least + (cost + price - paid).max(0.0);
                    if length < scratch.distance[next] && !scratch.done[next] {
                        scratch.distance[next] = length;
                        scratch.parent[next] = Some((here, tenant));
                    }
                }
            }
        }
        best
    }

    /// Pushes as much as fits along the path just found; returns how much that was.
    fn push(&mut self, ways: &Ways<'_>, scratch: &Scratch, source: usize, end: usize, left: f64) -> f64 {
        let room = self.room(ways, end).map_or(0.0, |(_, room)| room).min(left);
        let (amount, start) = self.movable(scratch, end, room, |_, before| before);
        self.shift(ways, scratch, end, amount, |here, before| (before, here));
        self.give(start, source, amount);
        self.load[end] += amount;
        amount
    }

    /// Lowers the capacity of a server, to 0 if it is to go, and sends what it can no longer hold
    /// elsewhere.
    pub(super) fn shrink(&mut self, ways: &Ways<'_>, scratch: &mut Scratch, slot: usize, capacity: f64) {
        self.capacity[slot] = capacity;
        // At its price it goes on filling the segments that cost no more.
        let price = self.prices[slot] + EVEN_SECONDS;
        let kept = ways.segments.iter().take_while(|segment| segment.marginal_seconds <= price);
        let most = if capacity > 0.0 { capacity * kept.map(|segment| segment.width).sum::<f64>() } else { 0.0 };
        if capacity <= 0.0 {
            self.prices[slot] = f64::INFINITY;
        }
        let mut homeless = Vec::new();
        while self.load[slot] - most > ways.dust {
            let Some(&(tenant, held)) = self.tenants[slot].last() else { break };
            let amount = held.min(self.load[slot] - most);
            self.take(ways, slot, tenant, amount);
            self.load[slot] -= amount;
            homeless.push((tenant, amount));
        }
        if capacity <= 0.0 {
            self.tenants[slot].clear();
            self.load[slot] = 0.0;
        }
        for (source, amount) in homeless {
            self.send(ways, scratch, source, amount);
        }
    }

    /// Raises the capacity of a server, also of one that was not there before, and moves to it what
    /// is served more cheaply there, as long as the total may come below `limit`; false, with a
    /// part of the moves made, where it cannot.
    pub(super) fn grow_below(&mut self, ways: &Ways<'_>, scratch: &mut Scratch, slot: usize, capacity: f64, limit: f64) -> bool {
        self.capacity[slot] = capacity;
        // What the server has is served more cheaply with the greater capacity already.
        let needed = if limit < f64::INFINITY { self.total(ways) - limit } else { f64::NEG_INFINITY };
        if self.prices[slot].is_infinite() {
            // The lowest price at which no tenant of another server would gain by moving here.
            let mut price = ways.segments.first().map_or(0.0, |segment| segment.marginal_seconds);
            for (server, tenants) in self.tenants.iter().enumerate() {
                for (tenant, _) in tenants {
                    let costs = ways.row(*tenant);
                    price = price.max(costs[server] + self.prices[server] - costs[slot]);
                }
            }
            self.prices[slot] = price;
        }
        let mut gained = 0.0;
        while let Some((marginal, room)) = self.room(ways, slot) {
            // By how much a unit here is cheaper than the price of the server.
            let gain = self.prices[slot] - marginal;
            if gain <= EVEN_SECONDS {
                break;
            }
            let end = self.draw(ways, scratch, slot, gain);
            let length = end.map_or(gain, |(_, length)| length);
            for server in &scratch.visited {
                self.prices[*server] -= (length - scratch.distance[*server]).max(0.0);
            }
            let Some((from, _)) = end else { break };
            // No later unit gains more than this one, and no more are served than there is room
            // for.
            let each = gain - length;
            if gained + each * (capacity - self.load[slot]) < needed {
                return false;
            }
            gained += each * self.pull(ways, scratch, slot, from, room);
        }
        true
    }

    /// Dijkstra toward a server that has become cheaper by `gain`: the server to unload, by moving
    /// tenants from server to server, and what that costs; none if nothing costs less than is
    /// gained.
    fn draw(&self, ways: &Ways<'_>, scratch: &mut Scratch, slot: usize, gain: f64) -> Option<(usize, f64)> {
        scratch.clear(ways.count);
        scratch.distance[slot] = 0.0;
        let mut best = None;
        let mut limit = gain - EVEN_SECONDS;
        while let Some(here) = scratch.nearest(limit) {
            let least = scratch.distance[here];
            scratch.done[here] = true;
            scratch.visited.push(here);
            if here != slot
                && let Some((marginal, _)) = self.last_used(ways, here)
            {
                let length = least + (self.prices[here] - marginal).max(0.0);
                if length < limit {
                    limit = length;
                    best = Some((here, length));
                }
            }
            for (server, tenants) in self.tenants.iter().enumerate() {
                if scratch.done[server] {
                    continue;
                }
                for (tenant, _) in tenants {
                    let costs = ways.row(*tenant);
                    let step = costs[here] + self.prices[here] - costs[server] - self.prices[server];
                    let length = least + step.max(0.0);
                    if length < scratch.distance[server] {
                        scratch.distance[server] = length;
                        scratch.parent[server] = Some((here, *tenant));
                    }
                }
            }
        }
        best
    }

    /// Moves as much as there is along the path just found; returns how much that was.
    fn pull(&mut self, ways: &Ways<'_>, scratch: &Scratch, slot: usize, from: usize, room: f64) -> f64 {
        let used = self.last_used(ways, from).map_or(0.0, |(_, used)| used).min(room);
        let (amount, _) = self.movable(scratch, from, used, |here, _| here);
        self.shift(ways, scratch, from, amount, |here, next| (here, next));
        self.load[from] -= amount;
        self.load[slot] += amount;
        amount
    }

    /// How much, and no more than `most`, all tenants on the path from `end` can move, and where
    /// the path starts; each is held by that one of the two servers of its step that `holder`
    /// names.
    fn movable(&self, scratch: &Scratch, end: usize, most: f64, holder: impl Fn(usize, usize) -> usize) -> (f64, usize) {
        let (mut amount, mut here) = (most, end);
        while let Some((other, tenant)) = scratch.parent[here] {
            amount = amount.min(self.held(holder(here, other), tenant));
            here = other;
        }
        (amount, here)
    }

    /// Moves so much of each tenant on the path from `end`: of the two servers of a step, `way`
    /// names that which gives it and that which gets it.
    fn shift(
        &mut self,
        ways: &Ways<'_>,
        scratch: &Scratch,
        end: usize,
        amount: f64,
        way: impl Fn(usize, usize) -> (usize, usize),
    ) {
        let mut here = end;
        while let Some((other, tenant)) = scratch.parent[here] {
            let (from, to) = way(here, other);
            self.take(ways, from, tenant, amount);
            self.give(to, tenant, amount);
            here = other;
        }
    }

    /// Who is served in a slot, and how much of each.
    pub(super) fn tenants(&self, slot: usize) -> &[(usize, f64)] {
        &self.tenants[slot]
    }

    fn held(&self, server: usize, source: usize) -> f64 {
        self.tenants[server].iter().find(|held| held.0 == source).map_or(0.0, |held| held.1)
    }

    fn give(&mut self, server: usize, source: usize, amount: f64) {
        match self.tenants[server].iter_mut().find(|held| held.0 == source) {
            Some(held) => held.1 += amount,
            None => self.tenants[server].push((source, amount)),
        }
    }

    fn take(&mut self, ways: &Ways<'_>, server: usize, source: usize, amount: f64) {
        if let Some(position) = self.tenants[server].iter().position(|held| held.0 == source) {
            let held = &mut self.tenants[server][position];
            held.1 -= amount;
            if held.1 <= ways.dust {
                self.tenants[server].swap_remove(position);
            }
        }
    }

    /// Sums of demand x network seconds and demand x serving seconds over all servers but the
    /// imaginary one.
    fn sums(&self, ways: &Ways<'_>) -> (f64, f64) {
        let mut network = 0.0;
        let mut serving = 0.0;
        for server in 0..ways.count - 1 {
            network += self.tenants[server].iter().map(|(source, held)| held * ways.row(*source)[server]).sum::<f64>();
            let mut left = self.load[server];
            for segment in ways.segments {
                let part = (segment.width * self.capacity[server]).min(left);
                serving += part * segment.marginal_seconds;
                left -= part;
            }
        }
        (network, serving)
    }

    /// What is minimised; see [`Routing::total`].
    pub(super) fn total(&self, ways: &Ways<'_>) -> f64 {
        let (network, serving) = self.sums(ways);
        let left: f64 = self.tenants[ways.count - 1].iter().map(|held| held.1).sum();
        network + serving + UNSERVED_SECONDS * left
    }

    /// What one more unit of demand of each source would cost.
    pub(super) fn source_prices(&self, ways: &Ways<'_>) -> Vec<f64> {
        ways.costs.chunks_exact(ways.count).map(|row| least_sum(row, &self.prices)).collect()
    }

    /// The result, with a list of tenants for each of the first `servers` slots.
    pub(super) fn finish(mut self, ways: &Ways<'_>, servers: usize) -> Routing {
        for tenants in &mut self.tenants {
            tenants.sort_by_key(|held| held.0);
        }
        let (network, serving) = self.sums(ways);
        let source_prices = self.source_prices(ways);
        let mut unserved = vec![0.0; source_prices.len()];
        for (source, left) in self.tenants.pop().unwrap_or_default() {
            unserved[source] += left;
        }
        self.tenants.truncate(servers);
        Routing { tenants: self.tenants, unserved, network, serving, source_prices }
    }
}

/// The least sum of a pair, looked for side by side: no sum is NaN.
fn least_sum(costs: &[f64], prices: &[f64]) -> f64 {
    const LANES: usize = 4;
    let mut least = [f64::INFINITY; LANES];
    let (costs, other_costs) = costs.as_chunks::<LANES>();
    let (prices, other_prices) = prices.as_chunks::<LANES>();
    for (costs, prices) in costs.iter().zip(prices) {
        for ((least, cost), price) in least.iter_mut().zip(costs).zip(prices) {
            let sum = cost + price;
            *least = if sum < *least { sum } else { *least };
        }
    }
    let others = other_costs.iter().zip(other_prices).map(|(cost, price)| cost + price);
    others.chain(least).fold(f64::INFINITY, f64::min)
}
