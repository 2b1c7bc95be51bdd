//! What was measured between the nodes: from Prometheus, or from the probers themselves where that
//! does not answer.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;

use crate::report::RttTable;

/// The metric of the probers: medians in milliseconds.
const METRIC: &str = "latency_between_nodes";

/// By way of the API server, which reaches every Service.
const PROMETHEUS: &str = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy";

const PROBERS: (&str, &str) = ("kantai-system", "app.kubernetes.io/name=latency-probe");
const PROBER_PORT: u16 = 9798;

/// What was measured, and who says so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    pub(super) table: RttTable,
    pub(super) source: &'static str,
}

/// The latest medians. Unknown pairs are absent.
pub(super) async fn measured(client: &Client) -> Result<Measured, kube::Error> {
    match ask(client, &format!("{PROMETHEUS}/api/v1/query?query={METRIC}")).await.map(|text| from_prometheus(&text)) {
        Ok(Some(table)) if !table.is_empty() => Ok(Measured { table, source: "Prometheus" }),
        _ => Ok(Measured { table: from_probers(client).await?, source: "the probers" }),
    }
}

pub(crate) async fn from_probers(client: &Client) -> Result<RttTable, kube::Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), PROBERS.0).list(&ListParams::default().labels(PROBERS.1)).await?;
    let mut table = RttTable::new();
    for pod in pods {
        let path = format!("/api/v1/namespaces/{}/pods/{}:{PROBER_PORT}/proxy/v1/row", PROBERS.0, pod.name_any());
        // A prober that does not answer leaves its row unknown.
        if let Ok(text) = ask(client, &path).await
            && let Ok(row) = serde_json::from_str::<Row>(&text)
        {
            let known = row.peers.into_iter().filter(|peer| peer.state == "known");
            let known = known.filter_map(|peer| Some((peer.to, peer.rtt_seconds?.p50 * 1e3)));
            table.entry(row.from).or_default().extend(known);
        }
    }
    Ok(table)
}

async fn ask(client: &Client, path: &str) -> Result<String, kube::Error> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request_text(request).await
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
    rtt_seconds: Option<Rtt>,
}

#[derive(Deserialize)]
struct Rtt {
    p50: f64,
}

#[derive(Deserialize)]
struct QueryAnswer {
    data: QueryData,
}

#[derive(Deserialize)]
struct QueryData {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Pair,
    value: (f64, String),
}

#[derive(Deserialize)]
struct Pair {
    from: String,
    to: String,
}

/// None when it is no answer to an instant query. Values that are no numbers are unknown, not zero.
fn from_prometheus(text: &str) -> Option<RttTable> {
    let answer: QueryAnswer = serde_json::from_str(text).ok()?;
    let mut table = RttTable::new();
    for Series { metric, value: (_, value) } in answer.data.result {
        if let Some(ms) = value.parse().ok().filter(|ms: &f64| ms.is_finite()) {
            table.entry(metric.from).or_default().insert(metric.to, ms);
        }
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_answers_are_read_and_nan_is_unknown() {
        let text = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"latency_between_nodes","from":"a","to":"b","pod":"p"},"value":[1.5,"50.25"]},
            {"metric":{"__name__":"latency_between_nodes","from":"b","to":"a"},"value":[1.5,"NaN"]}]}}"#;
        let table = from_prometheus(text).unwrap();
        assert_eq!(table["a"]["b"], 50.25);
        assert!(!table.contains_key("b"));
        assert_eq!(from_prometheus("no endpoints available"), None);
    }

    #[test]
    fn rows_of_probers_are_read() {
        let row: Row = serde_json::from_str(
            r#"{"from":"a","measured_at_unix_seconds":1.0,"peers":[
            {"to":"b","state":"known","rtt_seconds":{"min":0.04,"p50":0.05,"p90":0.06,"p99":0.07,"ewma":0.05},"jitter_seconds":0.0,"loss_ratio":0.0,"age_seconds":0.1,"samples":9},
            {"to":"c","state":"unknown","rtt_seconds":null,"jitter_seconds":null,"loss_ratio":null,"age_seconds":null,"samples":0}]}"#,
        )
        .unwrap();
        assert_eq!(row.peers[0].rtt_seconds.as_ref().unwrap().p50, 0.05);
        assert!(row.peers[1].rtt_seconds.is_none());
    }
}
