//! Made-up networks with the structure of real ones, for tests, benches and simulation.
//!
//! Sites lie on a plane; the round trip between two sites is their distance times a detour that is
//! the pair's own. Every node has an access term of its own, paid at both ends. A measurement is
//! the true round trip times a little noise. All of it is a function of the seed: nothing is stored
//! but positions, so ten thousand nodes cost nothing to describe.

use serde::{Deserialize, Serialize};

/// SplitMix64 (Steele, Lea, Flood 2014): a small generator that is the same everywhere.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; 0 when `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        // The bias of the remainder is far below anything a simulation shows.
        if count == 0 { 0 } else { (self.bits() % count as u64) as usize }
    }

    /// About normal with mean 0 and standard deviation 1: the sum of twelve uniforms less six,
    /// within +-6.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Puts a list in random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

/// What kind of network to make.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Number of sites.
    pub sites: usize,
    /// Nodes at each site.
    pub nodes_per_site: usize,
    /// Round trip from one end of the plane to the other, seconds.
    pub width_seconds: f64,
    /// Longest access term of a node, seconds, one end.
    pub access_seconds: f64,
    /// Relative standard deviation of a measurement.
    pub noise: f64,
}

impl Default for Shape {
    /// 40 sites of 125 nodes across 150 ms, access terms of 20 to 150 microseconds, 2 % noise.
    fn default() -> Self {
        Self { sites: 40, nodes_per_site: 125, width_seconds: 0.150, access_seconds: 0.000_150, noise: 0.02 }
    }
}

/// A made-up network.
#[derive(Clone, Debug)]
pub struct SyntheticNetwork {
    shape: Shape,
    seed: u64,
    places: Vec<(f64, f64)>,
    access: Vec<f64>,
}

impl SyntheticNetwork {
    /// The network of a seed.
    ///
    /// ```
    /// use placement::latency::synthetic::{Shape, SyntheticNetwork};
    ///
    /// let shape = Shape { sites: 3, nodes_per_site: 2, ..Shape::default() };
    /// let network = SyntheticNetwork::new(shape, 1);
    /// assert_eq!(network.nodes(), 6);
    /// assert_eq!(network.rtt_seconds(0, 0), 0.0);
    /// assert!(network.rtt_seconds(0, 1) < 0.001); // same site
    /// assert_eq!(network.rtt_seconds(0, 5), network.rtt_seconds(5, 0));
    /// ```
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let places = (0..shape.sites).map(|_| (random.unit(), random.unit())).collect();
        let access = (0..shape.sites * shape.nodes_per_site)
            .map(|_| {
                let share = random.unit();
                // Many near, few far: squared uniform.
                shape.access_seconds * (0.13 + 0.87 * share * share)
            })
            .collect();
        Self { shape, seed, places, access }
    }

    /// Number of nodes; node `n` is at site `n / nodes_per_site`.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.access.len()
    }

    /// The site of a node.
    #[must_use]
    pub fn site(&self, node: usize) -> usize {
        node / self.shape.nodes_per_site.max(1)
    }

    /// The true round trip, seconds; the same both ways.
    #[must_use]
    pub fn rtt_seconds(&self, from: usize, to: usize) -> f64 {
        if from == to {
            return 0.0;
        }
        self.site_seconds(self.site(from), self.site(to)) + self.access[from] + self.access[to]
    }

    /// What a node adds to each of its round trips, seconds.
    #[must_use]
    pub fn access_seconds(&self, node: usize) -> f64 {
        self.access[node]
    }

    /// The round trip between two sites, or inside one, without the nodes' access terms, seconds.
    #[must_use]
    pub fn site_seconds(&self, one: usize, other: usize) -> f64 {
        if one == other {
            return 0.000_05;
        }
        let (low, high) = (one.min(other), one.max(other));
        let detour = 1.05 + 0.6 * Random::new(self.seed ^ ((low * self.shape.sites + high) as u64) << 20).unit();
        let ((x, y), (u, v)) = (self.places[low], self.places[high]);
        let distance = ((x - u).powi(2) + (y - v).powi(2)).sqrt();
        0.000_3 + self.shape.width_seconds / std::f64::consts::SQRT_2 * distance * detour
    }

    /// A measurement of the pair: the truth times the noise of this attempt, seconds.
    #[must_use]
    pub fn measured_seconds(&self, from: usize, to: usize, attempt: u64) -> f64 {
        let pair = (from * self.nodes() + to) as u64;
        let noise = Random::new(self.seed ^ pair.rotate_left(17) ^ attempt.rotate_left(43)).normal() * self.shape.noise;
        self.rtt_seconds(from, to) * (1.0 + noise).max(0.5)
    }
}

/// Zipf-distributed demand over `count` sources with exponent 1, in random order; sums to `total`.
#[must_use]
pub fn zipf_demand(count: usize, total: f64, random: &mut Random) -> Vec<f64> {
    let sum: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
    let mut demand: Vec<f64> = (1..=count).map(|rank| total / (rank as f64 * sum)).collect();
    random.shuffle(&mut demand);
    demand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_near_inside_and_far_between_and_noise_is_small() {
        let network = SyntheticNetwork::new(Shape::default(), 7);
        assert_eq!(network.nodes(), 5000);
        assert!(network.rtt_seconds(0, 124) < 0.000_4);
        assert!(network.rtt_seconds(0, 4999) > 0.001);
        let measured = network.measured_seconds(0, 4999, 3);
        assert!((measured / network.rtt_seconds(0, 4999) - 1.0).abs() < 0.13);
        assert_eq!(measured, network.measured_seconds(0, 4999, 3));
        assert_ne!(measured, network.measured_seconds(0, 4999, 4));
    }

    #[test]
    fn zipf_demand_adds_up() {
        let demand = zipf_demand(10, 5.0, &mut Random::new(1));
        assert!((demand.iter().sum::<f64>() - 5.0).abs() < 1e-12);
    }
}
