//! The emulator's core, without a clock or a device: packets go in with the time of their arrival
//! and come out when they are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::links::{Link, LinkMatrix};

/// Nanoseconds on the emulator's own clock.
pub(super) type Nanos = u64;

/// How long a drawn offset of a jittering link lasts. A new offset for every packet would, because
/// packets of a pair keep their order, push the mean towards the largest offset.
const JITTER_HOLD: Nanos = 200_000_000;

/// What became of a packet that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is under way.
    Queued,
    /// The link's loss took it.
    Lost,
    /// Too many packets of its pair are under way.
    Overflowed,
}

/// A packet that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// When it was due.
    pub(super) due: Nanos,
    /// The node to hand it to.
    pub(super) to: usize,
    /// The packet.
    pub(super) packet: Vec<u8>,
}

#[derive(Debug)]
struct Pair {
    link: Link,
    /// When the last queued packet is due: the next one never overtakes it.
    last_due: Nanos,
    under_way: usize,
    jitter_offset_seconds: f64,
    jitter_until: Nanos,
}

/// All packets under way, ordered by when they are due.
#[derive(Debug)]
pub(super) struct DelayQueue {
    node_count: usize,
    pairs: Vec<Pair>,
    heap: BinaryHeap<Reverse<Due>>,
    arrivals: u64,
    per_pair_limit: usize,
    compensation: Nanos,
    rng: SmallRng,
}

#[derive(Debug, PartialEq, Eq)]
struct Due {
    at: Nanos,
    /// Orders packets that are due at the same moment by arrival.
    arrival: u64,
    pair: usize,
    packet: Vec<u8>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.arrival).cmp(&(other.at, other.arrival))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl DelayQueue {
    pub(super) fn new(links: &LinkMatrix, per_pair_limit: usize, seed: u64) -> Self {
        let node_count = links.nodes().len();
        let pairs = (0..node_count * node_count)
            .map(|pair| Pair {
                link: links.at(pair / node_count, pair % node_count),
                last_due: 0,
                under_way: 0,
                jitter_offset_seconds: 0.0,
                jitter_until: 0,
            })
            .collect();
        Self {
            node_count,
            pairs,
            heap: BinaryHeap::new(),
            arrivals: 0,
            per_pair_limit,
            compensation: 0,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Other delays from now on; packets under way keep the time they were given. The matrix must
    /// have as many nodes as before.
    pub(super) fn set_links(&mut self, links: &LinkMatrix) {
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            pair.link = links.at(index / self.node_count, index % self.node_count);
            pair.jitter_until = 0;
        }
    }

    /// How much sooner than the link says packets are let go, to make up for the constant cost of
    /// the way through the emulator.
    pub(super) fn set_compensation(&mut self, compensation: Nanos) {
        self.compensation = compensation;
    }

    /// Takes a packet in. Gives it back when it will not be delivered, so that its memory can be
    /// used again.
    pub(super) fn push(&mut self, now: Nanos, from: usize, to: usize, packet: Vec<u8>) -> (Verdict, Option<Vec<u8>>) {
        let index = from * self.node_count + to;
        let pair = &mut self.pairs[index];
        if pair.link.loss_ratio > 0.0 && self.rng.random::<f64>() < pair.link.loss_ratio {
            return (Verdict::Lost, Some(packet));
        }
        if pair.under_way >= self.per_pair_limit {
            return (Verdict::Overflowed, Some(packet));
        }
        if pair.link.jitter_seconds > 0.0 && now >= pair.jitter_until {
            pair.jitter_offset_seconds = (self.rng.random::<f64>() * 2.0 - 1.0) * pair.link.jitter_seconds;
            pair.jitter_until = now + JITTER_HOLD;
        }
        let offset = if pair.link.jitter_seconds > 0.0 { pair.jitter_offset_seconds } else { 0.0 };
        let delay = nanos(pair.link.delay_seconds + offset).saturating_sub(self.compensation);
        let at = (now + delay).max(pair.last_due);
        pair.last_due = at;
        pair.under_way += 1;
        self.arrivals += 1;
        self.heap.push(Reverse(Due { at, arrival: self.arrivals, pair: index, packet }));
        (Verdict::Queued, None)
    }

    /// When the next packet is due, if any is under way.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// The next packet that is due by `now`.
    pub(super) fn pop_due(&mut self, now: Nanos) -> Option<Delivery> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(due) = self.heap.pop()?;
        self.pairs[due.pair].under_way -= 1;
        Some(Delivery { due: due.at, to: due.pair % self.node_count, packet: due.packet })
    }
}

/// Seconds of a checked link as nanoseconds; a negative sum (delay and jitter) counts as none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn nanos(seconds: f64) -> Nanos {
    (seconds.max(0.0) * 1e9).round() as Nanos
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links(link: Link) -> LinkMatrix {
        LinkMatrix::uniform(vec!["a".into(), "b".into(), "c".into()], link)
    }

    fn delayed(delay_seconds: f64) -> Link {
        Link { delay_seconds, ..Link::default() }
    }

    #[test]
    fn a_packet_comes_out_when_it_is_due_and_not_before() {
        let mut queue = DelayQueue::new(&links(delayed(0.025)), 10, 1);
        assert_eq!(queue.push(1_000, 0, 2, vec![7]), (Verdict::Queued, None));
        assert_eq!(queue.next_due(), Some(25_001_000));
        assert_eq!(queue.pop_due(25_000_999), None);
        assert_eq!(queue.pop_due(25_001_000), Some(Delivery { due: 25_001_000, to: 2, packet: vec![7] }));
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_full_pair_drops_and_leaves_other_pairs_alone() {
        let mut queue = DelayQueue::new(&links(delayed(1.0)), 1, 1);
        assert_eq!(queue.push(0, 0, 1, vec![1]).0, Verdict::Queued);
        assert_eq!(queue.push(0, 0, 1, vec![2]), (Verdict::Overflowed, Some(vec![2])));
        assert_eq!(queue.push(0, 1, 0, vec![3]).0, Verdict::Queued);
        assert!(queue.pop_due(nanos(1.0)).is_some());
        assert_eq!(queue.push(0, 0, 1, vec![4]).0, Verdict::Queued);
    }

    #[test]
    fn shorter_delays_from_now_on_do_not_overtake() {
        let mut queue = DelayQueue::new(&links(delayed(1.0)), 10, 1);
        queue.push(0, 0, 1, vec![1]);
        queue.set_links(&links(delayed(0.1)));
        queue.push(1, 0, 1, vec![2]);
        queue.push(1, 1, 0, vec![3]);
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop_due(nanos(2.0))).map(|delivery| delivery.packet[0]).collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn compensation_never_goes_below_no_delay() {
        let mut queue = DelayQueue::new(&links(delayed(0.000_05)), 10, 1);
        queue.set_compensation(100_000);
        queue.push(500, 0, 1, vec![1]);
        assert_eq!(queue.next_due(), Some(500));
    }

    #[test]
    fn loss_is_near_what_was_asked_for() {
        let mut queue = DelayQueue::new(&links(Link { loss_ratio: 0.2, ..delayed(0.0) }), 100_000, 42);
        let lost = (0..10_000).filter(|_| queue.push(0, 0, 1, Vec::new()).0 == Verdict::Lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
    }

    #[test]
    fn jitter_strays_to_both_sides_and_no_further_than_asked_for() {
        let link = Link { jitter_seconds: 0.010, ..delayed(0.050) };
        let mut queue = DelayQueue::new(&links(link), 100_000, 42);
        let (mut least, mut most) = (Nanos::MAX, 0);
        for draw in 0..500 {
            // Far enough apart that packets of one draw never wait for those of the one before.
            let now = draw * 2 * JITTER_HOLD;
            queue.push(now, 0, 1, Vec::new());
            let delay = queue.pop_due(Nanos::MAX).unwrap().due - now;
            (least, most) = (least.min(delay), most.max(delay));
        }
        assert!((40_000_000..42_000_000).contains(&least), "{least}");
        assert!((58_000_000..=60_000_000).contains(&most), "{most}");
    }

    proptest! {
        #[test]
        fn packets_of_a_pair_keep_their_order(arrivals in proptest::collection::vec((0_u64..1_000_000, 0_usize..3, 0_usize..3), 1..200)) {
            let link = Link { jitter_seconds: 0.0005, ..delayed(0.001) };
            let mut queue = DelayQueue::new(&links(link), 1_000, 7);
            let mut now = 0;
            for (number, (gap, from, to)) in arrivals.iter().enumerate() {
                now += gap;
                queue.push(now, *from, *to, vec![u8::try_from(*from).unwrap(), u8::try_from(number).unwrap()]);
            }
            let mut last = [[None; 3]; 3];
            let mut out = 0;
            let mut last_due = 0;
            while let Some(delivery) = queue.pop_due(Nanos::MAX) {
                let (from, number) = (usize::from(delivery.packet[0]), delivery.packet[1]);
                prop_assert!(last[from][delivery.to] < Some(number));
                last[from][delivery.to] = Some(number);
                prop_assert!(delivery.due >= last_due);
                last_due = delivery.due;
                out += 1;
            }
            prop_assert_eq!(out, arrivals.len());
        }
    }
}
