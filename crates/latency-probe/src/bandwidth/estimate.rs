//! The bandwidth of a path from when the packets of short trains arrived. Pure.
//!
//! Packets that leave together are spread by the narrowest link on the path: between two arrivals
//! that link carried the packets in between. One train gives one rate; the median over the trains
//! is the estimate, and its confidence interval the error. The interval is that of the median by
//! ranks, which assumes nothing about how errors are distributed.

use std::time::Duration;

use latency_matrix::BandwidthRow;

use crate::net::train::Train;

/// Fewer arrivals in the second half of a train are no rate.
const FEWEST_ARRIVALS: usize = 8;
/// A train that arrives at more than this share of the rate at which it was sent was not spread by
/// the path: the path may carry more.
const NOT_SPREAD: f64 = 0.7;

impl Train {
    /// The first half passes a shaper's token bucket at the speed of the link before it, so that
    /// only the second half counts. Packets that the narrowest link dropped leave it busy with
    /// others, so losses do not matter.
    fn bits_per_second(&self) -> Option<f64> {
        let mut arrived = self.arrived.clone();
        arrived.sort_unstable_by_key(|at| at.as_nanos());
        let counted = &arrived[arrived.len() / 2..];
        let (first, last) = (counted.first()?, counted.last()?);
        let seconds = seconds(Duration::from_nanos(last.as_nanos() - first.as_nanos()))?;
        (counted.len() >= FEWEST_ARRIVALS).then(|| self.bits(counted.len() - 1) / seconds)
    }

    fn sent_bits_per_second(&self) -> Option<f64> {
        seconds(self.took).map(|seconds| self.bits(self.sent.saturating_sub(1) as usize) / seconds)
    }

    #[expect(clippy::cast_precision_loss, reason = "some dozens of packets")]
    fn bits(&self, packets: usize) -> f64 {
        packets as f64 * f64::from(self.packet_bytes) * 8.0
    }
}

fn seconds(duration: Duration) -> Option<f64> {
    Some(duration.as_secs_f64()).filter(|seconds| *seconds > 0.0)
}

/// The estimate over all trains; none if none of them has a rate.
#[must_use]
pub(crate) fn estimate(trains: &[Train]) -> Option<BandwidthRow> {
    let mut rates: Vec<f64> = trains.iter().filter_map(Train::bits_per_second).collect();
    rates.sort_unstable_by(f64::total_cmp);
    let spread_by_the_path = |train: &Train| {
        let (arrived, sent) = train.bits_per_second().zip(train.sent_bits_per_second())?;
        Some(arrived < sent * NOT_SPREAD)
    };
    let judged: Vec<bool> = trains.iter().filter_map(spread_by_the_path).collect();
    let spread = judged.iter().filter(|spread| **spread).count();
    let rank = rank_of_the_interval(rates.len());
    let sum = |of: fn(&Train) -> u64| trains.iter().map(of).sum::<u64>();
    Some(BandwidthRow {
        bits_per_second: median(&rates)?,
        low: *rates.get(rank)?,
        high: *rates.get(rates.len() - 1 - rank)?,
        is_lower_bound: 2 * spread <= judged.len(),
        trains: u32::try_from(rates.len()).unwrap_or(u32::MAX),
        packets_lost: sum(|train| u64::from(train.sent).saturating_sub(train.arrived.len() as u64)),
        bytes_sent: sum(|train| u64::from(train.sent) * u64::from(train.packet_bytes)),
    })
}

fn median(sorted: &[f64]) -> Option<f64> {
    let (below, above) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*below, *above))
}

/// The rank, from 0, of the lower end of the 95 % confidence interval of the median of so many
/// values; 0 where there are too few for 95 %.
fn rank_of_the_interval(count: usize) -> usize {
    // Each value is below the median with probability 1/2: the tail of a binomial distribution.
    let count = u32::try_from(count.min(100)).unwrap_or(100);
    let mut probability = 0.5_f64.powi(count.cast_signed());
    let mut tail = 0.0;
    for rank in 0..count / 2 {
        tail += probability;
        if tail > 0.025 {
            return rank.saturating_sub(1) as usize;
        }
        probability *= f64::from(count - rank) / f64::from(rank + 1);
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Wall;

    /// A train of 64 packets of 1,280 bytes whose arrivals are this far apart, after a bucket that
    /// lets some pass at once.
    fn train(gap_nanos: u64, at_once: u64, lost: &[u64]) -> Train {
        let arrived = (0..64).filter(|packet| !lost.contains(packet));
        let arrived = arrived.map(|packet| Wall::from_nanos(1_000 + packet.saturating_sub(at_once) * gap_nanos)).collect();
        Train { sent: 64, packet_bytes: 1_280, took: Duration::from_micros(100), arrived }
    }

    #[test]
    fn a_link_is_estimated_whatever_its_bucket_and_its_losses() {
        // 1,280 bytes in 512 us are 20 Mbit/s.
        let trains = [train(512_000, 0, &[]), train(512_000, 20, &[]), train(512_000, 0, &[1, 2, 40])];
        let found = estimate(&trains).unwrap();
        assert!((found.bits_per_second - 20e6).abs() < 1.0 && !found.is_lower_bound, "{found:?}");
        assert_eq!((found.trains, found.packets_lost, found.bytes_sent), (3, 3, 3 * 64 * 1_280));
        // The two losses in the first half do not matter; the one in the second half costs a 32nd.
        assert!(found.low > 19e6 && found.high < 20.01e6, "{found:?}");
    }

    #[test]
    fn a_train_that_the_path_does_not_spread_is_a_lower_bound() {
        let quick = Train { took: Duration::from_nanos(63 * 2_000), ..train(2_000, 0, &[]) };
        let found = estimate(&[quick.clone(), quick]).unwrap();
        assert!(found.is_lower_bound && (found.bits_per_second - 5.12e9).abs() < 1e3, "{found:?}");
    }

    #[test]
    fn without_arrivals_or_with_all_at_one_instant_there_is_no_estimate() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[Train { arrived: Vec::new(), ..train(1, 0, &[]) }]), None);
        assert_eq!(estimate(&[train(0, 0, &[])]), None);
    }

    #[test]
    fn the_interval_has_the_ranks_of_the_tables() {
        // Conover, Practical Nonparametric Statistics: sign test at 5 %, two-sided.
        for (count, rank) in [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (40, 13)] {
            assert_eq!(rank_of_the_interval(count), rank, "{count} values");
        }
    }

    proptest! {
        #[test]
        fn the_estimate_lies_in_its_interval(
            nanos in proptest::collection::vec(proptest::collection::vec(0_u64..1 << 40, 0..70), 0..14),
        ) {
            let trains: Vec<Train> = nanos
                .into_iter()
                .map(|at| Train {
                    sent: 64,
                    packet_bytes: 1_280,
                    took: Duration::from_micros(50),
                    arrived: at.into_iter().map(Wall::from_nanos).collect(),
                })
                .collect();
            if let Some(found) = estimate(&trains) {
                prop_assert!(found.low <= found.bits_per_second && found.bits_per_second <= found.high, "{found:?}");
                prop_assert!(found.low > 0.0 && found.high.is_finite());
            }
        }
    }
}
