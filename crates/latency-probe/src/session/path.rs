//! What is known of the way to a peer beside its round-trip times. Pure.

use super::round_trip::Rtt;

/// The time to live that packets of ours, and echo replies of Linux, begin with.
pub(crate) const INITIAL_TTL: u8 = 64;
/// Weight of the newest value in an average.
const WEIGHT: f64 = 1.0 / 8.0;

/// The way to a peer, and the flows that go it.
#[derive(Clone, Debug, Default)]
pub struct Path {
    hops: Option<u8>,
    hop_changes: u32,
    forward_minus_back_seconds: Option<f64>,
    flows: Box<[Flow]>,
}

/// Probes that leave from one port: where routes of equal cost are chosen by ports, they go one of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// The newest outcomes, the last one in the lowest bit; 1 = lost.
    lost: u32,
    ended: u8,
    ewma_seconds: Option<f64>,
}

impl Path {
    /// A way of which nothing is known yet. A single flow is the pair itself, of which enough is kept elsewhere.
    pub(crate) fn new(flows: u8) -> Self {
        Self { flows: if flows > 1 { vec![Flow::default(); flows.into()].into() } else { [].into() }, ..Self::default() }
    }

    /// Number of routers on the way back, as far as the replies' time to live tells.
    #[must_use]
    pub const fn hops(&self) -> Option<u8> {
        self.hops
    }

    /// How often that number changed since the peer is one.
    #[must_use]
    pub const fn hop_changes(&self) -> u32 {
        self.hop_changes
    }

    /// Average of how much longer requests took than replies, by the clocks of both nodes. Twice the difference of the clocks is in
    /// it, so that only its changes tell something where the clocks are not synchronised well.
    #[must_use]
    pub const fn forward_minus_back_seconds(&self) -> Option<f64> {
        self.forward_minus_back_seconds
    }

    /// The flows, where there are several.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// An answer came with so much time to live left.
    pub(super) fn answered(&mut self, ttl: Option<u8>) {
        let hops = ttl.and_then(|ttl| INITIAL_TTL.checked_sub(ttl));
        let changed = self.hops.zip(hops).is_some_and(|(before, now)| before != now);
        self.hop_changes = self.hop_changes.saturating_add(u32::from(changed));
        self.hops = hops.or(self.hops);
    }

    /// A request took so much longer than its reply.
    #[expect(clippy::cast_precision_loss, reason = "differences of clocks are far below 2^53 ns")]
    pub(super) fn differed(&mut self, nanos: i64) {
        let seconds = nanos as f64 / 1e9;
        let average = self.forward_minus_back_seconds.get_or_insert(seconds);
        *average += WEIGHT * (seconds - *average);
    }

    /// A probe of that flow came back after that time, or did not.
    pub(super) fn flow_ended(&mut self, flow: u8, rtt: Option<Rtt>) {
        let Some(flow) = self.flows.get_mut(usize::from(flow)) else { return };
        flow.lost = flow.lost << 1 | u32::from(rtt.is_none());
        flow.ended = (flow.ended + 1).min(32);
        if let Some(seconds) = rtt.map(Rtt::as_seconds) {
            let average = flow.ewma_seconds.get_or_insert(seconds);
            *average += WEIGHT * (seconds - *average);
        }
    }
}

impl Flow {
    /// How many of the last probes were lost.
    #[must_use]
    pub const fn lost(&self) -> u32 {
        self.lost.count_ones()
    }

    /// How many of the last probes are known of: at most 32.
    #[must_use]
    pub const fn ended(&self) -> u32 {
        self.ended as u32
    }

    /// Exponentially weighted moving average of its round-trip times, weight 1/8 for the newest.
    #[must_use]
    pub const fn ewma_seconds(&self) -> Option<f64> {
        self.ewma_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_way_is_counted() {
        let mut path = Path::new(1);
        for ttl in [Some(64), Some(64), Some(62), None, Some(62), Some(64)] {
            path.answered(ttl);
        }
        // What a reply without a time to live says of the way is nothing.
        assert_eq!((path.hops(), path.hop_changes(), path.flows().len()), (Some(0), 2, 0));
    }

    #[test]
    fn a_flow_remembers_its_last_probes() {
        let mut path = Path::new(2);
        let rtt = Rtt::from_nanos(5_000_000);
        for probe in 0..100 {
            path.flow_ended(0, rtt);
            path.flow_ended(1, rtt.filter(|_| probe < 90));
        }
        path.flow_ended(9, None);
        let told: Vec<_> = path.flows().iter().map(|flow| (flow.lost(), flow.ended(), flow.ewma_seconds())).collect();
        assert_eq!(told, [(0, 32, Some(0.005)), (10, 32, Some(0.005))]);
    }
}
