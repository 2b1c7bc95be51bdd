//! One readiness probe of one gateway: does it serve this version?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::progress::ProbeTarget;
use crate::routes::network_hash::{HASH_HEADER, HASH_OVERRIDE, PROBE_HEADER, PROBE_USER_AGENT, PROBE_VALUE};
use crate::xds::listeners::GatewayPorts;

/// How long a gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeResult {
    /// The gateway serves the version.
    Proved,
    /// It serves another version or none, with the reason.
    NotYet(String),
    /// It cannot be reached, with the reason.
    Unreachable(String),
}

/// Probes gateways.
#[derive(Clone, Debug)]
pub(crate) struct GatewayProber {
    client: reqwest::Client,
    ports: GatewayPorts,
}

impl GatewayProber {
    /// Probes gateways that listen on `ports`.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub(crate) fn new(ports: GatewayPorts) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(PROBE_USER_AGENT)
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { client, ports })
    }

    /// Probes the gateway at `address` for `target` with `hash`.
    pub(crate) async fn probe(&self, address: IpAddr, target: &ProbeTarget, hash: &str) -> ProbeResult {
        let port = if target.external { self.ports.external } else { self.ports.internal };
        let request = self
            .client
            .get(format!("http://{}/healthz", SocketAddr::new(address, port)))
            .header(reqwest::header::HOST, &target.host)
            .header(HASH_HEADER, HASH_OVERRIDE)
            .header(PROBE_HEADER, PROBE_VALUE);
        match request.send().await {
            Err(error) => ProbeResult::Unreachable(error.to_string()),
            Ok(response) => {
                let answered = response.headers().get(HASH_HEADER).and_then(|value| value.to_str().ok());
                compare_hash(response.status().as_u16(), answered, hash)
            }
        }
    }
}

/// Interprets an answer. The gateway itself gives it, from its routes.
fn compare_hash(status: u16, answered: Option<&str>, hash: &str) -> ProbeResult {
    match answered {
        Some(answered) if answered == hash => ProbeResult::Proved,
        Some(answered) => ProbeResult::NotYet(format!("has another version ({answered})")),
        None => ProbeResult::NotYet(format!("answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_version_proves() {
        let proved = |answered| compare_hash(200, answered, "h") == ProbeResult::Proved;
        assert!(proved(Some("h")));
        assert!(!proved(Some("other")));
        assert!(!proved(None));
    }
}
