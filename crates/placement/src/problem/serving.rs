//! How long a replica takes to serve, by how busy it is.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A stretch of a replica's utilisation over which each further request costs the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Segment {
    /// Width of the stretch, as a share of the replica's capacity.
    pub width: f64,
    /// Seconds that one more unit of demand costs in it, what it adds to the others' waiting
    /// included.
    pub marginal_seconds: f64,
}

/// Why segments make no serving curve.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ServingError {
    /// A serving time that is NaN, negative or more than [`ServingCurve::LONGEST_SECONDS`].
    #[error("failed to make a serving curve: {0} seconds is not a time from 0 to {longest} seconds", longest = ServingCurve::LONGEST_SECONDS)]
    Time(f64),
    /// Segments that do not cover utilisation 0 to 1 with positive widths.
    #[error("failed to make a serving curve: widths sum to {0}, not 1, or one is not positive")]
    Widths(f64),
    /// A curve on which more load is served faster; no optimum is promised for it.
    #[error("failed to make a serving curve: {later} seconds follow {earlier} seconds, but more load cannot be served faster")]
    NotConvex {
        /// The marginal time of a segment.
        earlier: f64,
        /// The smaller marginal time of the segment after it.
        later: f64,
    },
}

/// The serving time of a replica as a function of its utilisation, in segments: the total time
/// spent by all requests is piecewise linear and convex in the load, which is what makes an optimal
/// routing computable exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Segment>", into = "Vec<Segment>")]
pub struct ServingCurve {
    segments: Vec<Segment>,
}

/// Beyond so many places the queue's waiting time at any utilisation of the curve is that of
/// endlessly many, to nine digits.
const MANY_SERVERS: u32 = 100_000;

impl ServingCurve {
    /// No request is served for longer than this: thirty years.
    pub const LONGEST_SECONDS: f64 = 1e9;

    /// Always the same time, up to full utilisation.
    ///
    /// # Errors
    /// When the time is NaN, infinite or negative.
    pub fn flat(seconds: f64) -> Result<Self, ServingError> {
        Self::from_segments(vec![Segment { width: 1.0, marginal_seconds: seconds }])
    }

    /// A queue with `servers` places (an M/M/c queue): requests arrive at random, take
    /// `service_seconds` on average once they are in a place, and wait while all places are taken.
    /// More places wait less at the same utilisation.
    ///
    /// The curve follows Erlang's C formula exactly at the utilisations 0, 0.1 .. 0.9, 0.95 and
    /// 0.98 and is linear in total time between them; beyond 0.98, where the formula goes to
    /// infinity, one more request costs twice what it costs just before.
    ///
    /// ```
    /// use placement::problem::ServingCurve;
    ///
    /// let one_place = ServingCurve::queue(0.010, 1)?;
    /// // service time / (1 - utilisation)
    /// assert!((one_place.mean_seconds(0.5) - 0.020).abs() < 1e-9);
    /// let ten_places = ServingCurve::queue(0.010, 10)?;
    /// assert!(ten_places.mean_seconds(0.5) < 0.011);
    /// # Ok::<(), placement::problem::ServingError>(())
    /// ```
    ///
    /// # Errors
    /// When the service time is NaN or negative, or some request would wait for more than
    /// [`ServingCurve::LONGEST_SECONDS`].
    pub fn queue(service_seconds: f64, servers: u32) -> Result<Self, ServingError> {
        if !is_time(service_seconds) {
            return Err(ServingError::Time(service_seconds));
        }
        let servers = servers.clamp(1, MANY_SERVERS);
        let mut points = Vec::with_capacity(13);
        for utilisation in [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98] {
            let waiting = erlang_c(utilisation, servers) / (f64::from(servers) * (1.0 - utilisation));
            points.push((utilisation, service_seconds * (1.0 + waiting)));
        }
        // Rounding may make a chord a hair less steep than the one before.
        let mut segments = convex(chords(&points));
        let steepest = segments.last().map_or(service_seconds, |segment| segment.marginal_seconds);
        segments.push(Segment { width: 1.0 - 0.98, marginal_seconds: 2.0 * steepest });
        Self::from_segments(segments)
    }

    /// From measured points: utilisation (above 0, up to 1, increasing) and mean serving time in
    /// seconds at it. The curve is the greatest convex one that is nowhere above the measured total
    /// times, so a measurement of "more load, served faster" is smoothed away; beyond the
    /// last point it goes on as steeply as before it.
    ///
    /// # Errors
    /// When a time is invalid, or utilisations are not increasing within (0, 1].
    pub fn measured(points: &[(f64, f64)]) -> Result<Self, ServingError> {
        let mut before = 0.0;
        for (utilisation, seconds) in points {
            if !is_time(*seconds) {
                return Err(ServingError::Time(*seconds));
            }
            if !(*utilisation > before && *utilisation <= 1.0) {
                return Err(ServingError::Widths(*utilisation));
            }
            before = *utilisation;
        }
        let mut hull = convex(chords(points));
        match hull.last_mut() {
            Some(last) => last.width += 1.0 - before,
            None => return Err(ServingError::Widths(0.0)),
        }
        // Measured totals that fall would make a marginal time negative.
        for segment in &mut hull {
            segment.marginal_seconds = segment.marginal_seconds.max(0.0);
        }
        Self::from_segments(hull)
    }

    /// From segments that cover utilisation 0 to 1, each costing at least as much as the one
    /// before.
    ///
    /// # Errors
    /// When a time is invalid, the widths do not sum to 1, or times decrease.
    pub fn from_segments(segments: Vec<Segment>) -> Result<Self, ServingError> {
        let sum: f64 = segments.iter().map(|segment| segment.width).sum();
        let positive = segments.iter().all(|segment| segment.width > 0.0);
        if !positive || (sum - 1.0).is_nan() || (sum - 1.0).abs() > 1e-9 {
            return Err(ServingError::Widths(sum));
        }
        let mut earlier = 0.0;
        for segment in &segments {
            let time = segment.marginal_seconds;
            if !is_time(time) {
                return Err(ServingError::Time(time));
            }
            if time < earlier {
                return Err(ServingError::NotConvex { earlier, later: time });
            }
            earlier = time;
        }
        Ok(Self { segments })
    }

    /// The segments, cheapest first.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Mean serving time in seconds at a utilisation (held at 0 and 1 outside of it).
    #[must_use]
    pub fn mean_seconds(&self, utilisation: f64) -> f64 {
        let load = utilisation.clamp(0.0, 1.0);
        let mut left = load;
        let mut total = 0.0;
        for segment in &self.segments {
            let part = segment.width.min(left);
            total += part * segment.marginal_seconds;
            left -= part;
        }
        if load > 0.0 { total / load } else { self.segments.first().map_or(0.0, |segment| segment.marginal_seconds) }
    }
}

fn is_time(seconds: f64) -> bool {
    (0.0..=ServingCurve::LONGEST_SECONDS).contains(&seconds)
}

/// The segments of the total time (utilisation x mean seconds) between points, from the origin on.
fn chords(points: &[(f64, f64)]) -> Vec<Segment> {
    let mut before = (0.0, 0.0);
    let mut segments = Vec::with_capacity(points.len());
    for (utilisation, seconds) in points {
        let total = utilisation * seconds;
        let width = utilisation - before.0;
        segments.push(Segment { width, marginal_seconds: (total - before.1) / width });
        before = (*utilisation, total);
    }
    segments
}

/// Joins segments that are followed by cheaper ones, so that none is left.
fn convex(chords: Vec<Segment>) -> Vec<Segment> {
    let mut hull: Vec<Segment> = Vec::with_capacity(chords.len());
    for mut chord in chords {
        while let Some(last) = hull.pop_if(|last| last.marginal_seconds >= chord.marginal_seconds) {
            let width = last.width + chord.width;
            let total = last.width * last.marginal_seconds + chord.width * chord.marginal_seconds;
            chord = Segment { width, marginal_seconds: total / width };
        }
        hull.push(chord);
    }
    hull
}

/// The probability that a request has to wait in an M/M/c queue, by the recurrence of Erlang's B
/// formula.
fn erlang_c(utilisation: f64, servers: u32) -> f64 {
    let offered = utilisation * f64::from(servers);
    let mut blocked = 1.0;
    for server in 1..=servers {
        blocked = offered * blocked / (f64::from(server) + offered * blocked);
    }
    blocked / (1.0 - utilisation * (1.0 - blocked))
}

impl Default for ServingCurve {
    /// Serving takes no time: only the network counts.
    fn default() -> Self {
        Self { segments: vec![Segment { width: 1.0, marginal_seconds: 0.0 }] }
    }
}

impl TryFrom<Vec<Segment>> for ServingCurve {
    type Error = ServingError;

    fn try_from(segments: Vec<Segment>) -> Result<Self, ServingError> {
        Self::from_segments(segments)
    }
}

impl From<ServingCurve> for Vec<Segment> {
    fn from(curve: ServingCurve) -> Self {
        curve.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_segments() {
        let half = |seconds| Segment { width: 0.5, marginal_seconds: seconds };
        let curve = ServingCurve::from_segments(vec![half(0.010), half(0.030)]).unwrap();
        assert_eq!(curve.mean_seconds(0.0), 0.010);
        assert_eq!(curve.mean_seconds(0.5), 0.010);
        assert_eq!(curve.mean_seconds(1.0), 0.020);
        assert!(ServingCurve::from_segments(vec![half(0.030), half(0.010)]).is_err());
        assert!(ServingCurve::from_segments(vec![half(0.030)]).is_err());
        assert!(ServingCurve::flat(f64::NAN).is_err());
    }

    #[test]
    fn queues_wait_more_when_busier_and_less_with_more_places() {
        let seconds = |servers, utilisation| ServingCurve::queue(0.004, servers).unwrap().mean_seconds(utilisation);
        for servers in [1, 2, 10, 100, 1000] {
            assert!(seconds(servers, 0.9) >= seconds(servers, 0.5));
            assert!(seconds(servers + 1, 0.9) <= seconds(servers, 0.9));
        }
        // M/M/2 at 0.5: waiting probability 1/3, waiting time 1/3 of the service time.
        assert!((seconds(2, 0.5) - 0.004 * (1.0 + 1.0 / 3.0)).abs() < 1e-12);
        assert!(ServingCurve::queue(-1.0, 1).is_err());
    }

    #[test]
    fn a_queue_of_any_number_of_places_is_worked_out_at_once() {
        let endless = ServingCurve::queue(0.004, u32::MAX).unwrap();
        assert!((endless.mean_seconds(0.9) - 0.004).abs() < 1e-12);
        assert!(ServingCurve::queue(1e308, 1).is_err());
    }

    #[test]
    fn a_measured_curve_is_smoothed_to_a_convex_one() {
        let curve = ServingCurve::measured(&[(0.25, 0.010), (0.5, 0.009), (0.75, 0.020)]).unwrap();
        assert!((curve.mean_seconds(0.5) - 0.009).abs() < 1e-12);
        assert!((curve.mean_seconds(0.75) - 0.020).abs() < 1e-12);
        assert!(curve.mean_seconds(1.0) > 0.020);
        assert!(ServingCurve::measured(&[]).is_err());
        assert!(ServingCurve::measured(&[(0.5, 0.01), (0.5, 0.02)]).is_err());
        assert!(ServingCurve::measured(&[(0.5, f64::NAN)]).is_err());
    }
}
