//! Network coordinates: points in a small Euclidean space with a height each, so that distance plus
//! heights is about the round trip.
//!
//! Fitted to all measured pairs at once by gradient steps on the absolute logarithm of estimate
//! over measurement, which a few wild measurements cannot pull far. What the coordinates get wrong
//! about a pair they mostly also get wrong about its neighbours, so each estimate is corrected by
//! the errors measured between the neighbours of its two ends.
//!
//! Source: Dabek, Cox, Kaashoek, Morris 2004 (coordinates with heights, there by springs); Kingma,
//! Ba 2015 (the steps); Nadaraya 1964 (the correction).

use crate::latency::synthetic::Random;

/// Dimensions of the space, beside the height.
const DIMENSIONS: usize = 4;
/// A point with fewer measured peers than this has no place in so many dimensions.
const FEWEST_PEERS: usize = DIMENSIONS + 2;
/// Gradient steps at most, and how many pairs may be looked at in all.
const STEPS: usize = 400;
const WORK: usize = 40_000_000;
/// Neighbours whose errors correct an estimate.
const NEIGHBOURS: usize = 16;
/// The weight of a neighbour falls by e over this share of the median round trip.
const REACH: f64 = 0.015;
/// Errors below about this (logarithm of a ratio) pull less than in proportion.
const SOFT_ERROR: f64 = 0.05;

/// A measured pair of points, seconds.
pub(super) type Measured = (usize, usize, f64);

/// Fitted coordinates.
#[derive(Clone, Debug)]
pub(super) struct Coordinates {
    places: Vec<[f64; DIMENSIONS]>,
    heights: Vec<f64>,
    /// Keeps distances away from zero, where their gradient has no direction.
    soft: f64,
    placed: Vec<bool>,
    /// Per point: the measured peers and the logarithm of measured over estimated.
    errors: Vec<Vec<(usize, f64)>>,
    /// Per point: itself and its nearest points, with weights.
    neighbours: Vec<Vec<(usize, f64)>>,
}

/// What the neighbours of one point know about all others.
pub(super) struct Evidence {
    errors: Vec<f64>,
    weights: Vec<f64>,
}

impl Coordinates {
    /// Fits `points` points to measured pairs; seconds must be above 0.
    pub(super) fn fit(points: usize, measured: &[Measured]) -> Self {
        let mut peers = vec![0; points];
        for (one, other, _) in measured {
            peers[*one] += 1;
            peers[*other] += 1;
        }
        let placed: Vec<bool> = peers.iter().map(|count| *count >= FEWEST_PEERS).collect();
        let usable: Vec<Measured> = measured.iter().copied().filter(|(one, other, _)| placed[*one] && placed[*other]).collect();
        let mut lengths: Vec<f64> = usable.iter().map(|(.., seconds)| *seconds).collect();
        lengths.sort_by(f64::total_cmp);
        let scale = lengths.get(lengths.len() / 2).copied().unwrap_or(1.0);
        let mut random = Random::new(1);
        let mut coordinates = Self {
            places: (0..points).map(|_| std::array::from_fn(|_| random.normal() * scale / 2.0)).collect(),
            heights: vec![0.04 * scale; points],
            soft: 0.007 * scale,
            placed,
            errors: vec![Vec::new(); points],
            neighbours: Vec::new(),
        };
        if !usable.is_empty() {
            coordinates.descend(&usable, scale);
        }
        for (one, other, seconds) in &usable {
            let error = (seconds / coordinates.distance(*one, *other)).ln();
            coordinates.errors[*one].push((*other, error));
            coordinates.errors[*other].push((*one, error));
        }
        coordinates.neighbours = (0..points).map(|point| coordinates.nearest(point, REACH * scale)).collect();
        coordinates
    }

    fn distance(&self, one: usize, other: usize) -> f64 {
        self.plane(one, other) + self.heights[one] + self.heights[other]
    }

    fn plane(&self, one: usize, other: usize) -> f64 {
        let squares: f64 = self.places[one].iter().zip(&self.places[other]).map(|(x, y)| (x - y) * (x - y)).sum();
        (squares + self.soft * self.soft).sqrt()
    }

    fn descend(&mut self, measured: &[Measured], scale: f64) {
        let pairs: Vec<Measured> = measured.iter().map(|(one, other, seconds)| (*one, *other, seconds.ln())).collect();
        let steps = (WORK / pairs.len()).clamp(STEPS / 4, STEPS);
        let mut momentum = vec![[0.0; DIMENSIONS + 1]; self.places.len()];
        let mut squares = momentum.clone();
        let mut gradient = momentum.clone();
        for step in 1..=steps {
            gradient.fill([0.0; DIMENSIONS + 1]);
            for (one, other, wanted) in &pairs {
                let plane = self.plane(*one, *other);
                let estimate = plane + self.heights[*one] + self.heights[*other];
                let error = estimate.ln() - wanted;
                let pull = error / (error * error + SOFT_ERROR * SOFT_ERROR).sqrt() / estimate;
                let (here, there) = (self.places[*one], self.places[*other]);
                for (axis, (x, y)) in here.into_iter().zip(there).enumerate() {
                    let share = pull / plane * (x - y);
                    gradient[*one][axis] += share;
                    gradient[*other][axis] -= share;
                }
                gradient[*one][DIMENSIONS] += pull;
                gradient[*other][DIMENSIONS] += pull;
            }
            let pace = scale * (0.02 * (1.0 - step as f64 / steps as f64) + 1e-4);
            let bias = (1.0 - 0.9_f64.powi(step as i32), 1.0 - 0.99_f64.powi(step as i32));
            for point in 0..self.places.len() {
                for axis in 0..=DIMENSIONS {
                    let slope = gradient[point][axis];
                    let mean = &mut momentum[point][axis];
                    let square = &mut squares[point][axis];
                    *mean = 0.9 * *mean + 0.1 * slope;
                    *square = 0.99 * *square + 0.01 * slope * slope;
                    let change = pace * (*mean / bias.0) / ((*square / bias.1).sqrt() + 1e-12);
                    match self.places[point].get_mut(axis) {
                        Some(place) => *place -= change,
                        None => self.heights[point] = (self.heights[point] - change).max(1e-4 * scale),
                    }
                }
            }
        }
    }

    fn nearest(&self, point: usize, reach: f64) -> Vec<(usize, f64)> {
        if !self.placed[point] {
            return Vec::new();
        }
        let others = (0..self.places.len()).filter(|other| *other != point && self.placed[*other]);
        let mut near: Vec<(usize, f64)> = others.map(|other| (other, self.plane(point, other) - self.soft)).collect();
        if near.len() > NEIGHBOURS {
            near.select_nth_unstable_by(NEIGHBOURS, |one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
            near.truncate(NEIGHBOURS);
        }
        near.sort_by_key(|near| near.0);
        let weighed = near.into_iter().map(|(other, distance)| (other, (-distance / reach).exp()));
        std::iter::once((point, 1.0)).chain(weighed).collect()
    }

    /// What is known of the errors from a point to all others; none for a point without a place.
    pub(super) fn evidence(&self, from: usize) -> Option<Evidence> {
        if !self.placed[from] {
            return None;
        }
        let mut evidence = Evidence { errors: vec![0.0; self.places.len()], weights: vec![0.0; self.places.len()] };
        for (neighbour, weight) in &self.neighbours[from] {
            for (peer, error) in &self.errors[*neighbour] {
                evidence.errors[*peer] += weight * error;
                evidence.weights[*peer] += weight;
            }
        }
        Some(evidence)
    }

    /// The estimate in seconds and the weight of the measurements between neighbours that it rests
    /// on; none for a point without a place.
    pub(super) fn estimate(&self, from: usize, evidence: &Evidence, to: usize) -> Option<(f64, f64)> {
        if !self.placed[to] {
            return None;
        }
        let (mut error, mut weight) = (0.0, 0.0);
        for (neighbour, near) in &self.neighbours[to] {
            error += near * evidence.errors[*neighbour];
            weight += near * evidence.weights[*neighbour];
        }
        let correction = if weight > 1e-9 { error / weight } else { 0.0 };
        Some((self.distance(from, to) * correction.exp(), weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_plane_are_found_again() {
        let mut random = Random::new(9);
        let truth: Vec<(f64, f64)> = (0..60).map(|_| (random.between(0.0, 0.1), random.between(0.0, 0.1))).collect();
        let seconds = |one: usize, other: usize| {
            0.002 + ((truth[one].0 - truth[other].0).powi(2) + (truth[one].1 - truth[other].1).powi(2)).sqrt()
        };
        let measured: Vec<Measured> = (0..60)
            .flat_map(|one| (1..=12).map(move |step| (one, (one + step * step) % 60)))
            .filter(|(one, other)| one != other)
            .map(|(one, other)| (one, other, seconds(one, other)))
            .collect();
        let coordinates = Coordinates::fit(60, &measured);
        let mut errors = Vec::new();
        for from in 0..60 {
            let evidence = coordinates.evidence(from).unwrap();
            for to in (0..60).filter(|to| *to != from) {
                let (estimate, _) = coordinates.estimate(from, &evidence, to).unwrap();
                errors.push((estimate / seconds(from, to) - 1.0).abs());
            }
        }
        errors.sort_by(f64::total_cmp);
        assert!(errors[errors.len() / 2] < 0.03, "{}", errors[errors.len() / 2]);
        assert!(errors[errors.len() * 9 / 10] < 0.15, "{}", errors[errors.len() * 9 / 10]);
    }

    #[test]
    fn a_point_with_few_peers_has_no_place() {
        let coordinates = Coordinates::fit(3, &[(0, 1, 0.01), (1, 2, 0.02)]);
        assert!(coordinates.evidence(0).is_none());
        assert!(Coordinates::fit(0, &[]).places.is_empty());
    }
}
