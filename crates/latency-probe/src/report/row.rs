//! This node's row of the latency matrix as `/v1/row` serves it.

pub mod binary;

use latency_matrix::{FlowRow, NodeName, PeerRow, Protocol, Row, RttSeconds};

use crate::clock::ClockReading;
use crate::session::pair::Summary;
use crate::session::{Path, ProbeFlow, Session, SharedSession};

/// The row entry of a pair.
fn peer_row(to: NodeName, protocol: Protocol, summary: &Summary, path: &Path) -> PeerRow {
    let flow =
        |flow: &ProbeFlow| FlowRow { probes_lost: flow.lost(), probes_ended: flow.ended(), ewma_seconds: flow.ewma_seconds() };
    PeerRow {
        to,
        state: summary.state,
        protocol: Some(protocol),
        rtt_seconds: summary.rtt.map(|rtt| RttSeconds {
            min: rtt.min.as_seconds(),
            p50: rtt.p50.as_seconds(),
            p90: rtt.p90.as_seconds(),
            p99: rtt.p99.as_seconds(),
            ewma: rtt.ewma_seconds,
        }),
        jitter_seconds: summary.rtt.map(|rtt| rtt.jitter_seconds),
        loss_ratio: summary.loss.map(|loss| loss.ratio),
        loss_interval: summary.loss.map(|loss| (loss.low, loss.high)),
        probes_lost: summary.loss.map_or(0, |loss| loss.lost),
        probes_ended: summary.loss.map_or(0, |loss| loss.ended),
        age_seconds: summary.age.map(|age| age.as_secs_f64()),
        samples: summary.samples,
        hops: path.hops(),
        hop_changes: path.hop_changes(),
        forward_minus_back_seconds: path.forward_minus_back_seconds(),
        flows: path.flows().iter().map(flow).collect(),
        reordered: summary.reordered,
        duplicates: summary.duplicates,
        bandwidth: None,
    }
}

impl Session {
    /// The node's row of the matrix as it stands at `now`.
    #[must_use]
    pub fn row(&self, now: ClockReading) -> Row {
        let peers = self.peers(now.mono).map(|peer| peer_row(peer.node.clone(), peer.protocol, &peer.summary, peer.path));
        Row { from: self.own().clone(), measured_at_unix_seconds: now.wall.as_unix_seconds(), peers: peers.collect() }
    }
}

impl SharedSession {
    /// The node's row of the matrix as it stands now.
    #[must_use]
    pub fn row(&self) -> Row {
        self.with(|session| session.row(ClockReading::now()))
    }
}
