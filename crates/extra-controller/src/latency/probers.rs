//! Latency straight from the probers: each serves its own row of the matrix.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use placement::{NodeName, PairState, PairStats};
use serde::Deserialize;

use super::{LatencyError, LatencySource, Measurement};

/// Where a prober serves its row.
const ROW_PATH: &str = "/v1/row";
/// Longest row that is read: 10,000 peers at some 300 bytes.
const ROW_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// All probers that there are now.
pub struct Probers {
    http: reqwest::Client,
    addresses: Arc<dyn Fn() -> Vec<SocketAddr> + Send + Sync>,
}

impl Probers {
    /// The probers that `addresses` names whenever it is asked.
    pub fn new(http: reqwest::Client, addresses: impl Fn() -> Vec<SocketAddr> + Send + Sync + 'static) -> Self {
        Self { http, addresses: Arc::new(addresses) }
    }

    async fn row(&self, address: SocketAddr) -> Result<Vec<Measurement>, reqwest::Error> {
        let response = self.http.get(format!("http://{address}{ROW_PATH}")).send().await?.error_for_status()?;
        if response.content_length().is_some_and(|length| length > ROW_MAX_BYTES) {
            return Ok(Vec::new());
        }
        Ok(response.json::<Row>().await?.measurements())
    }
}

impl LatencySource for Probers {
    fn name(&self) -> &'static str {
        "the probers"
    }

    async fn read(&self) -> Result<Vec<Measurement>, LatencyError> {
        let addresses = (self.addresses)();
        let probers = addresses.len();
        let mut measurements = Vec::new();
        let (mut answered, mut last_error) = (false, None);
        for row in join_all(addresses.into_iter().map(|address| self.row(address))).await {
            match row {
                Ok(row) => {
                    answered = true;
                    measurements.extend(row);
                }
                Err(error) => last_error = Some(error),
            }
        }
        if answered { Ok(measurements) } else { Err(LatencyError::NoProber { probers, source: last_error }) }
    }
}

#[derive(Deserialize)]
struct Row {
    from: String,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    to: String,
    state: String,
    rtt_seconds: Option<RttSeconds>,
    jitter_seconds: Option<f64>,
    loss_ratio: Option<f64>,
    age_seconds: Option<f64>,
    samples: Option<u64>,
}

#[derive(Deserialize)]
struct RttSeconds {
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    ewma: f64,
}

impl Row {
    fn measurements(self) -> Vec<Measurement> {
        let from = NodeName::new(self.from);
        self.peers
            .into_iter()
            .map(|peer| Measurement { from: from.clone(), to: peer.to.as_str().into(), state: peer.state() })
            .collect()
    }
}

impl Peer {
    fn state(&self) -> PairState {
        let stats = || {
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
        };
        match (self.state.as_str(), stats()) {
            ("known", Some(stats)) => PairState::Known(stats),
            ("stale", Some(stats)) => PairState::Stale(stats),
            ("unreachable", _) => PairState::Unreachable,
            // A state that this program does not know, or numbers that are none.
            _ => PairState::Unknown,
        }
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
            {"to":"node5","state":"unknown"}]}"#;
        let row: Row = serde_json::from_str(row).unwrap();
        let states: Vec<PairState> = row.measurements().into_iter().map(|measurement| measurement.state).collect();
        assert!(matches!(states[0], PairState::Known(stats) if stats.p50 == 0.0011 && stats.samples == 30));
        assert_eq!(states[1..], [PairState::Unreachable, PairState::Unknown, PairState::Unknown]);
    }
}
