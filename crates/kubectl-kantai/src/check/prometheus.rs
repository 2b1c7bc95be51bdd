//! Whether a Prometheus that extra-controller is told to ask has what it asks for.

use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;

use crate::cluster::{Cluster, Scope, Target, TargetKind, name};
use crate::error::PluginError;

/// What the probers' series are called.
const SERIES: &str = "latency_between_nodes";
/// Of an answer that is not understood, so many characters are shown.
const SHOWN: usize = 200;

/// What became of a question to one Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    /// It answers, and has this many series of pairs.
    Answers { pairs: f64 },
    /// There is no Service of the name in the address. `is_certain` where the address can mean
    /// nothing but a Service.
    NoService { service: String, is_certain: bool },
    /// It, or the way to it, gives an error.
    Refuses(String),
    /// It wants credentials, which only the daemon has.
    WantsCredentials,
    /// The address is outside the cluster, where the API server does not lead.
    Outside,
    /// The address is none.
    NoAddress(String),
    /// Nobody was able to ask.
    Unread(String),
}

/// Where an address leads to inside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inside {
    target: Target,
    path: String,
    is_certain: bool,
}

/// Asks the Prometheus at `url` through the API server's proxy, with the daemon's own query where
/// it has one.
pub(super) async fn ask(cluster: &Cluster, url: &str, query: Option<&str>) -> Asked {
    let inside = match inside(url, &cluster.system) {
        Ok(Some(inside)) => inside,
        Ok(None) => return Asked::Outside,
        Err(why) => return Asked::NoAddress(why),
    };
    let query = format!("count({})", query.unwrap_or(SERIES));
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
    let path = format!("{}/api/v1/query?{query}", inside.path.trim_end_matches('/'));
    let service = format!("{}/{}", inside.target.namespace, inside.target.name);
    match cluster.proxied(&inside.target, &path).await {
        Ok(answer) if answer.status == 401 || answer.status == 403 => Asked::WantsCredentials,
        Ok(answer) => match pairs(&answer.body) {
            Some(pairs) if answer.status == 200 => Asked::Answers { pairs },
            _ => {
                let said: String = String::from_utf8_lossy(&answer.body).trim().chars().take(SHOWN).collect();
                Asked::Refuses(format!("status {}, {said}", answer.status))
            }
        },
        // The API server names the kind that it does not find; it may be the Service's endpoints.
        Err(PluginError::Daemon { status: 404, says, .. }) if says.starts_with("services ") => {
            Asked::NoService { service, is_certain: inside.is_certain }
        }
        Err(PluginError::Daemon { status: 403, says, .. }) => Asked::Unread(says),
        Err(PluginError::Daemon { status: 503, says, .. }) if !has_selector(cluster, &inside.target).await => {
            Asked::Unread(format!("its endpoints are no pods, and the API server leads to pods only ({says})"))
        }
        Err(PluginError::Daemon { status, says, .. }) => Asked::Refuses(format!("status {status}, {says}")),
        Err(error) => Asked::Unread(error.in_full()),
    }
}

/// Whether a Service chooses pods; so it does where that is not known.
async fn has_selector(cluster: &Cluster, target: &Target) -> bool {
    let services = cluster.api::<Service>(&Scope::One(target.namespace.clone()));
    match cluster.get("read the Service of Prometheus", services, &target.name).await {
        Ok(Some(service)) => service.spec.and_then(|spec| spec.selector).is_some_and(|selector| !selector.is_empty()),
        _ => true,
    }
}

/// The Service that an address names; `None` where it leads out of the cluster.
fn inside(url: &str, own_namespace: &str) -> Result<Option<Inside>, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(format!("{url:?} begins with neither http:// nor https://")),
    };
    let host = uri.host().unwrap_or_default();
    if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        return Ok(None);
    }
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let (service, namespace, is_certain) = match labels[..] {
        [service] => (service, own_namespace, true),
        [service, namespace] => (service, namespace, false),
        [service, namespace, "svc", ..] => (service, namespace, true),
        _ => return Ok(None),
    };
    name("a Service", service).map_err(|error| error.to_string())?;
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let target = Target { kind: TargetKind::Service { is_tls }, namespace: namespace.to_owned(), name: service.to_owned(), port };
    Ok(Some(Inside { target, path: uri.path().to_owned(), is_certain }))
}

/// The number that an instant query for a count gives: none at all means zero. `None` where it is
/// no answer of Prometheus.
fn pairs(body: &[u8]) -> Option<f64> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        result: Vec<Sample>,
    }
    #[derive(Deserialize)]
    struct Sample {
        value: (f64, String),
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    match answer.data.result.first() {
        None => Some(0.0),
        Some(sample) => sample.value.1.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Option<(String, String, u16, String, bool)> {
        let inside = inside(url, "kantai-system").unwrap()?;
        Some((inside.target.name, inside.target.namespace, inside.target.port, inside.path, inside.is_certain))
    }

    #[test]
    fn addresses_of_services_are_told_from_others() {
        let of = |service: &str, namespace: &str, port, path: &str, is_certain| {
            Some((service.to_owned(), namespace.to_owned(), port, path.to_owned(), is_certain))
        };
        assert_eq!(target("http://prometheus.monitoring:9090"), of("prometheus", "monitoring", 9090, "/", false));
        assert_eq!(target("http://p.m.svc.cluster.local:80/select/0/prometheus"), of("p", "m", 80, "/select/0/prometheus", true));
        assert_eq!(target("https://prometheus"), of("prometheus", "kantai-system", 443, "/", true));
        for outside in ["http://10.0.0.1:9090", "https://prometheus.example.com", "http://[::1]:9090"] {
            assert_eq!(target(outside), None, "{outside}");
        }
        for nonsense in ["", "prometheus:9090", "ftp://a.b", "http://a b"] {
            assert!(inside(nonsense, "kantai-system").is_err(), "{nonsense}");
        }
    }

    #[test]
    fn no_series_are_zero_and_other_pages_are_no_answer() {
        assert_eq!(pairs(br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#), Some(0.0));
        let six = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.7e9,"6"]}]}}"#;
        assert_eq!(pairs(six), Some(6.0));
        assert_eq!(pairs(b"<html>welcome</html>"), None);
    }
}
