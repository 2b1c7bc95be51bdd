//! What is known of the path to a peer beside its RTT. Pure.

use super::round_trip::RttSample;

/// Initial time to live of our packets, and of replies from Linux.
pub(crate) const INITIAL_TTL: u8 = 64;
/// Weight of the newest value in an average.
const WEIGHT: f64 = 1.0 / 8.0;

/// The path to a peer and the flows on it.
#[derive(Clone, Debug, Default)]
pub struct Path {
    hops: Option<u8>,
    hop_changes: u32,
    forward_minus_back_seconds: Option<f64>,
    flows: Box<[ProbeFlow]>,
}

/// Probes from one source port. Routers that choose among routes of equal cost by port send them
/// along one route.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbeFlow {
    /// The newest outcomes, one bit each, the last one in the lowest bit; 1 = lost.
    lost: u32,
    ended: u8,
    ewma_seconds: Option<f64>,
}

impl Path {
    /// A new path. A single flow is not kept: it is the pair itself.
    pub(crate) fn new(flows: u8) -> Self {
        Self { flows: if flows > 1 { vec![ProbeFlow::default(); flows.into()].into() } else { [].into() }, ..Self::default() }
    }

    /// Number of routers on the way back, from the time to live of replies.
    #[must_use]
    pub const fn hops(&self) -> Option<u8> {
        self.hops
    }

    /// How often the number of hops changed since the peer was added.
    #[must_use]
    pub const fn hop_changes(&self) -> u32 {
        self.hop_changes
    }

    /// Average of how much longer requests took than replies, in seconds, by the clocks of both
    /// nodes. It contains twice the clocks' offset, so only its changes are meaningful unless the
    /// clocks are well synchronised.
    #[must_use]
    pub const fn forward_minus_back_seconds(&self) -> Option<f64> {
        self.forward_minus_back_seconds
    }

    /// The flows, if there are several.
    #[must_use]
    pub fn flows(&self) -> &[ProbeFlow] {
        &self.flows
    }

    /// Records the time to live of a reply.
    pub(super) fn answered(&mut self, ttl: Option<u8>) {
        let hops = ttl.and_then(|ttl| INITIAL_TTL.checked_sub(ttl));
        let changed = self.hops.zip(hops).is_some_and(|(before, now)| before != now);
        self.hop_changes = self.hop_changes.saturating_add(u32::from(changed));
        self.hops = hops.or(self.hops);
    }

    /// Records how much longer a request took than its reply.
    #[expect(clippy::cast_precision_loss, reason = "differences of clocks are far below 2^53 ns")]
    pub(super) fn differed(&mut self, nanos: i64) {
        let seconds = nanos as f64 / 1e9;
        let average = self.forward_minus_back_seconds.get_or_insert(seconds);
        *average += WEIGHT * (seconds - *average);
    }

    /// Records the outcome of a probe of that flow; none = lost.
    pub(super) fn flow_ended(&mut self, flow: u8, rtt: Option<RttSample>) {
        let Some(flow) = self.flows.get_mut(usize::from(flow)) else { return };
        flow.lost = flow.lost << 1 | u32::from(rtt.is_none());
        flow.ended = (flow.ended + 1).min(32);
        if let Some(seconds) = rtt.map(RttSample::as_seconds) {
            let average = flow.ewma_seconds.get_or_insert(seconds);
            *average += WEIGHT * (seconds - *average);
        }
    }
}

impl ProbeFlow {
    /// Number of lost probes among the last 32.
    #[must_use]
    pub const fn lost(&self) -> u32 {
        self.lost.count_ones()
    }

    /// Number of ended probes among the last 32.
    #[must_use]
    pub const fn ended(&self) -> u32 {
        self.ended as u32
    }

    /// Exponentially weighted moving average of the RTTs, weight 1/8 for the newest.
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
        let rtt = RttSample::from_nanos(5_000_000);
        for probe in 0..100 {
            path.flow_ended(0, rtt);
            path.flow_ended(1, rtt.filter(|_| probe < 90));
        }
        path.flow_ended(9, None);
        let told: Vec<_> = path.flows().iter().map(|flow| (flow.lost(), flow.ended(), flow.ewma_seconds())).collect();
        assert_eq!(told, [(0, 32, Some(0.005)), (10, 32, Some(0.005))]);
    }
}
