//! One node's row of the matrix, as a prober serves it at `GET /v1/row` (JSON).

use serde::{Deserialize, Serialize};

use crate::book::Measurement;
use crate::node::NodeName;
use crate::pair::{PairState, PairStats};

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
    /// The other nodes, in name order.
    pub peers: Vec<PeerRow>,
}

/// What one node measured of its round trips to one other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The other node.
    pub to: NodeName,
    /// `known`, `stale`, `unknown` or `unreachable`. A reader takes any other text for `unknown`.
    pub state: String,
    /// Round-trip times, where the pair is known or stale.
    #[serde(default)]
    pub rtt_seconds: Option<RttSeconds>,
    /// Jitter by RFC 3550, in seconds, where the pair is known or stale.
    #[serde(default)]
    pub jitter_seconds: Option<f64>,
    /// Lost probes over sent probes within the window, 0 to 1, where any probe ended.
    #[serde(default)]
    pub loss_ratio: Option<f64>,
    /// Seconds since the last answer, if one ever came.
    #[serde(default)]
    pub age_seconds: Option<f64>,
    /// Answers within the window.
    #[serde(default)]
    pub samples: Option<u64>,
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
    /// The state that a matrix holds. Numbers that no real link has become [`PairState::Unknown`].
    #[must_use]
    pub fn pair_state(&self) -> PairState {
        match (self.state.as_str(), self.stats()) {
            ("known", Some(stats)) => PairState::Known(stats),
            ("stale", Some(stats)) => PairState::Stale(stats),
            ("unreachable", _) => PairState::Unreachable,
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
            samples: self.samples.unwrap_or(1),
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
            {"to":"node6","state":"a state of a later release"}]}"#;
        let row: Row = serde_json::from_str(row).unwrap();
        assert!(row.measurements().all(|one| one.from.as_str() == "node1" && one.reported_seconds_ago == 0.0));
        let states: Vec<PairState> = row.measurements().map(|one| one.state).collect();
        assert!(matches!(states[0], PairState::Known(stats) if stats.p50 == 0.0011 && stats.samples == 30));
        assert_eq!(states[1], PairState::Unreachable);
        assert_eq!(states[2..], [PairState::Unknown, PairState::Unknown, PairState::Unknown]);
    }
}
