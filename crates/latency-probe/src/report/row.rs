//! One node's row of the latency matrix as `/v1/row` serves it.

pub mod binary;

use serde::{Deserialize, Serialize};

use crate::clock::{Reading, Wall};
use crate::peers::{NodeName, Protocol};
use crate::session::pair::{PairState, Summary};
use crate::session::{Flow, Path, Session, SharedSession};

/// What one node measured to the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The probing node.
    pub from: NodeName,
    /// When the row was written, by the node's wall clock.
    pub measured_at_unix_seconds: f64,
    /// The probed nodes, in order of name.
    pub peers: Vec<PeerRow>,
}

/// What is known of the pair with one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The node.
    pub to: NodeName,
    /// The state of the pair.
    pub state: PairState,
    /// The protocol that the statistics come from.
    pub protocol: Protocol,
    /// RTTs, if the pair is known or stale.
    pub rtt_seconds: Option<RttSeconds>,
    /// Jitter as in RFC 3550, if the pair is known or stale.
    pub jitter_seconds: Option<f64>,
    /// Share of probes lost within the window, if any ended.
    pub loss_ratio: Option<f64>,
    /// Its 95 % confidence interval.
    #[serde(default)]
    pub loss_interval: Option<(f64, f64)>,
    /// Probes lost within the window.
    #[serde(default)]
    pub probes_lost: usize,
    /// Probes that ended within the window.
    #[serde(default)]
    pub probes_ended: usize,
    /// Time since the last reply, if there was one.
    pub age_seconds: Option<f64>,
    /// Number of RTTs that the statistics are computed from.
    pub samples: usize,
    /// Number of routers on the way back, from the time to live of replies.
    #[serde(default)]
    pub hops: Option<u8>,
    /// How often the number of hops changed since the peer was added.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hop_changes: u32,
    /// Average of how much longer requests took than replies, by the clocks of both nodes. It
    /// contains twice the clocks' offset; its jumps are route changes in one direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_minus_back_seconds: Option<f64>,
    /// The flows, if probes use several source ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowRow>,
    /// Replies overtaken by the reply to a later probe, since the peer was added.
    #[serde(default)]
    pub reordered: u32,
    /// Further replies to answered probes, since the peer was added.
    #[serde(default)]
    pub duplicates: u32,
}

/// RTTs over the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RttSeconds {
    /// The shortest RTT.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// Exponentially weighted moving average.
    pub ewma: f64,
}

/// Probes from one source port, which take one of several routes of equal cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Lost probes among the last ones.
    pub probes_lost: u32,
    /// Number of last probes, at most 32.
    pub probes_ended: u32,
    /// Exponentially weighted moving average of the RTTs, if there are any.
    pub ewma_seconds: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl PeerRow {
    /// The row entry of a pair.
    #[must_use]
    pub fn new(to: NodeName, protocol: Protocol, summary: &Summary, path: &Path) -> Self {
        let flow =
            |flow: &Flow| FlowRow { probes_lost: flow.lost(), probes_ended: flow.ended(), ewma_seconds: flow.ewma_seconds() };
        Self {
            to,
            state: summary.state,
            protocol,
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
        }
    }
}

impl Row {
    /// A row with these entries, written at `now`.
    #[must_use]
    pub fn new(from: NodeName, now: Wall, peers: Vec<PeerRow>) -> Self {
        Self { from, measured_at_unix_seconds: now.as_unix_seconds(), peers }
    }
}

impl Session {
    /// The node's row of the matrix as it stands at `now`.
    #[must_use]
    pub fn row(&self, now: Reading) -> Row {
        let peers = self.peers(now.mono).map(|peer| PeerRow::new(peer.node.clone(), peer.protocol, &peer.summary, peer.path));
        Row::new(self.own().clone(), now.wall, peers.collect())
    }
}

impl SharedSession {
    /// The node's row of the matrix as it stands now.
    #[must_use]
    pub fn row(&self) -> Row {
        self.with(|session| session.row(Reading::now()))
    }
}
