//! One question to one gateway: do you have this version?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::network_hash::{HASH_HEADER, HASH_OVERRIDE, PROBE_HEADER, PROBE_USER_AGENT, PROBE_VALUE};
use crate::world::ProbeTarget;
use crate::xds::listeners::GatewayPorts;

/// How long a gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The version is there.
    Proved,
    /// Another, or none, or a backend that does not answer yet.
    NotYet(String),
    /// The gateway cannot be reached.
    Unreachable(String),
}

/// Asks gateways.
#[derive(Clone, Debug)]
pub struct Prober {
    client: reqwest::Client,
    ports: GatewayPorts,
}

impl Prober {
    /// Asks gateways that listen on `ports`.
    ///
    /// # Errors
    /// Where no HTTP client can be had.
    pub fn new(ports: GatewayPorts) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(PROBE_USER_AGENT)
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { client, ports })
    }

    /// Asks the gateway at `address` for `target` with `hash`. `confirmed`: the gateway has told us that it has the version.
    pub async fn ask(&self, address: IpAddr, target: &ProbeTarget, hash: &str, confirmed: bool) -> Found {
        let port = if target.external { self.ports.external } else { self.ports.internal };
        let url = format!("http://{}{}", SocketAddr::new(address, port), target.path);
        let mut request = self
            .client
            .get(url)
            .header(reqwest::header::HOST, &target.host)
            .header(HASH_HEADER, HASH_OVERRIDE)
            .header(PROBE_HEADER, PROBE_VALUE);
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Err(error) => Found::Unreachable(error.to_string()),
            Ok(response) => {
                let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
                let by_backend = header("x-envoy-upstream-service-time").is_some();
                judge(response.status().as_u16(), header(HASH_HEADER).as_deref(), hash, confirmed && by_backend)
            }
        }
    }
}

/// What an answer means. `by_confirmed_route`: the gateway has confirmed the version, and a backend gave the answer, so the version's
/// route was taken.
fn judge(status: u16, answered: Option<&str>, hash: &str, by_confirmed_route: bool) -> Found {
    match (status, answered) {
        (200, Some(answered)) if answered == hash => Found::Proved,
        (200, Some(answered)) => Found::NotYet(format!("has another version ({answered})")),
        // No backend, or one that drains.
        (503, _) => Found::NotYet("answers 503".to_owned()),
        // The gateway itself, which does not know the host; or a backend that knows neither probes nor the path.
        (404, _) if !by_confirmed_route => Found::NotYet("answers 404".to_owned()),
        // A backend that knows nothing of probes. Better ready a moment early than never.
        _ => Found::Proved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_hash_or_a_backend_without_one_proves() {
        let proved = |status, answered, confirmed| judge(status, answered, "h", confirmed) == Found::Proved;
        assert!(proved(200, Some("h"), false));
        assert!(!proved(200, Some("other"), true));
        assert!(proved(200, None, false));
        assert!(!proved(404, None, false));
        assert!(proved(404, None, true));
        assert!(!proved(503, Some("h"), true));
        assert!(proved(302, None, false));
    }
}
