//! One node's row of the matrix, as a prober serves it at `GET /v1/row` (JSON).

use serde::{Deserialize, Deserializer, Serialize};

use crate::book::Measurement;
use crate::node::NodeName;
use crate::pair::{PairState, PairStats, StateKind};

/// What one node measured of its round trips to the others. Readers ignore fields that they do not
/// know.
///
/// ```
/// use latency_matrix::{PairState, Row};
///
/// let row: Row = serde_json::from_str(
///     r#"{"from":"node1","peers":[
///         {"to":"node2","state":"known","age_seconds":0.4,"samples":30,
///          "loss_ratio":0.0,"jitter_seconds":0.0001,
///          "rtt_seconds":{"min":0.001,"p50":0.0011,"p90":0.0012,"p99":0.002,"ewma":0.0011}},
///         {"to":"node3","state":"unreachable","loss_ratio":1.0}]}"#,
/// )?;
/// assert!(matches!(row.peers[0].pair_state(), PairState::Known(stats) if stats.p50 == 0.0011));
/// assert_eq!(row.peers[1].pair_state(), PairState::Unreachable);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The node that measured.
    pub from: NodeName,
    /// When the row was written, by the wall clock of that node; 0 where it does not say.
    #[serde(default)]
    pub measured_at_unix_seconds: f64,
    /// The other nodes, in name order.
    pub peers: Vec<PeerRow>,
}

/// What one node measured of its round trips to one other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The other node.
    pub to: NodeName,
    /// The state of the pair.
    pub state: StateKind,
    /// The protocol that the statistics come from; none where the prober does not say, or names one
    /// of a later release.
    #[serde(default, deserialize_with = "protocol_if_known")]
    pub protocol: Option<Protocol>,
    /// Round-trip times, where the pair is known or stale.
    #[serde(default)]
    pub rtt_seconds: Option<RttSeconds>,
    /// Jitter by RFC 3550, in seconds, where the pair is known or stale.
    #[serde(default)]
    pub jitter_seconds: Option<f64>,
    /// Lost probes over sent probes within the window, 0 to 1, where any probe ended.
    #[serde(default)]
    pub loss_ratio: Option<f64>,
    /// Its 95 % confidence interval.
    #[serde(default)]
    pub loss_interval: Option<(f64, f64)>,
    /// Probes lost within the window.
    #[serde(default)]
    pub probes_lost: u64,
    /// Probes that ended within the window.
    #[serde(default)]
    pub probes_ended: u64,
    /// Seconds since the last reply, if one ever came.
    #[serde(default)]
    pub age_seconds: Option<f64>,
    /// Round trips that the statistics are computed from; 1 where the prober does not say.
    #[serde(default = "one_sample")]
    pub samples: u64,
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
    /// Bandwidth to the peer, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthRow>,
}

/// An estimate of the bandwidth from the row's node to a peer, from trains of packets that left
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandwidthRow {
    /// The estimate, counting IP packets.
    pub bits_per_second: f64,
    /// Lower end of its 95 % confidence interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Whether the path did not spread the trains, and so carries at least this.
    pub is_lower_bound: bool,
    /// Trains that the estimate is computed from.
    pub trains: u32,
    /// Packets of trains that did not arrive, or whose reply did not.
    pub packets_lost: u64,
    /// Bytes that were sent to measure it.
    pub bytes_sent: u64,
}

/// Round-trip times over the prober's window, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RttSeconds {
    /// The shortest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The exponentially weighted mean.
    pub ewma: f64,
}

/// Probes from one source port, which take one of several routes of equal cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Lost probes among the last ones.
    pub probes_lost: u32,
    /// Number of last probes, at most 32.
    pub probes_ended: u32,
    /// Exponentially weighted mean of the round trips, if there are any.
    pub ewma_seconds: Option<f64>,
}

/// How a peer is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// UDP echo, answered by the peer's responder.
    Udp,
    /// ICMP echo, answered by the peer's kernel.
    Icmp,
    /// TCP handshake, answered by the peer's kernel where a program listens.
    Tcp,
    /// HTTP GET over a new connection, from the request to the first byte of the response. Includes
    /// the server's own time.
    Http,
}

impl Protocol {
    /// Number of protocols.
    pub const COUNT: usize = 4;
    /// All protocols.
    pub const ALL: [Self; Self::COUNT] = [Self::Udp, Self::Icmp, Self::Tcp, Self::Http];

    /// The name in labels and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }

    /// Whether each probe opens a connection of its own.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Http)
    }
}

fn protocol_if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Protocol>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    Ok(name.and_then(|name| Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == name)))
}

const fn one_sample() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Row {
    /// The measurements of a row that was just read from its prober: reported now.
    pub fn measurements(&self) -> impl Iterator<Item = Measurement> {
        self.peers.iter().map(|peer| Measurement {
            from: self.from.clone(),
            to: peer.to.clone(),
            state: peer.pair_state(),
            reported_seconds_ago: 0.0,
        })
    }
}

impl PeerRow {
    /// A row without any measurement.
    #[must_use]
    pub const fn unmeasured(to: NodeName, state: StateKind) -> Self {
        Self {
            to,
            state,
            protocol: None,
            rtt_seconds: None,
            jitter_seconds: None,
            loss_ratio: None,
            loss_interval: None,
            probes_lost: 0,
            probes_ended: 0,
            age_seconds: None,
            samples: 0,
            hops: None,
            hop_changes: 0,
            forward_minus_back_seconds: None,
            flows: Vec::new(),
            reordered: 0,
            duplicates: 0,
            bandwidth: None,
        }
    }

    /// The state that a matrix holds. Numbers that no real link has become [`PairState::Unknown`].
    #[must_use]
    pub fn pair_state(&self) -> PairState {
        match (self.state, self.stats()) {
            (StateKind::Known, Some(stats)) => PairState::Known(stats),
            (StateKind::Stale, Some(stats)) => PairState::Stale(stats),
            (StateKind::Unreachable, _) => PairState::Unreachable,
            _ => PairState::Unknown,
        }
    }

    fn stats(&self) -> Option<PairStats> {
        let rtt = self.rtt_seconds.as_ref()?;
        let stats = PairStats {
            min: rtt.min,
            p50: rtt.p50,
            p90: rtt.p90,
            p99: rtt.p99,
            ewma: rtt.ewma,
            jitter: self.jitter_seconds.unwrap_or(0.0),
            loss_ratio: self.loss_ratio.unwrap_or(0.0),
            age_seconds: self.age_seconds?,
            samples: self.samples,
        };
        stats.is_credible().then_some(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_in_the_probers_form_is_read_and_nonsense_in_it_is_unknown() {
        let row = r#"{"from":"node1","measured_at_unix_seconds":1.5e9,"peers":[
            {"to":"node2","state":"known","rtt_seconds":{"min":0.001,"p50":0.0011,"p90":0.0012,"p99":0.002,"ewma":0.0011},
             "jitter_seconds":0.0001,"loss_ratio":0.0,"age_seconds":0.4,"samples":30},
            {"to":"node3","state":"unreachable","rtt_seconds":null,"jitter_seconds":null,"loss_ratio":1.0,"age_seconds":null,"samples":0},
            {"to":"node4","state":"known","rtt_seconds":{"min":-1,"p50":0,"p90":0,"p99":0,"ewma":0},"age_seconds":0.1,"samples":3},
            {"to":"node5","state":"unknown"},
            {"to":"node6","state":"a state of a later release","protocol":"sctp"}]}"#;
        let row: Row = serde_json::from_str(row).unwrap();
        assert!(row.measurements().all(|one| one.from.as_str() == "node1" && one.reported_seconds_ago == 0.0));
        assert_eq!((row.peers[4].state, row.peers[4].protocol), (StateKind::Unknown, None));
        let states: Vec<PairState> = row.measurements().map(|one| one.state).collect();
        assert!(matches!(states[0], PairState::Known(stats) if stats.p50 == 0.0011 && stats.samples == 30));
        assert_eq!(states[1], PairState::Unreachable);
        assert_eq!(states[2..], [PairState::Unknown, PairState::Unknown, PairState::Unknown]);
    }
}
