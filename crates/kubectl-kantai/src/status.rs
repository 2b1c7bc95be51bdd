//! `status`: whether the daemons and gateways work, and where the revisions' pods are.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::daemons::{self, DECIDER, INGRESS, SEIKAS};
use crate::error::PluginError;
use crate::facts::{self, GatewayPods, Lag, Part, Served, Switch};
use crate::known::{self, Known};
use crate::options::StatusOptions;
use crate::output::Output;

/// Gateways that lag this long are behind; a change takes less than a second.
const BEHIND_SECONDS: f64 = 5.0;

#[derive(Debug, Serialize)]
struct Status {
    #[serde(serialize_with = "known::serialize")]
    parts: Known<Vec<Part>>,
    /// The pod that leads, by daemon; null where nobody does.
    leaders: BTreeMap<&'static str, Leader>,
    #[serde(serialize_with = "known::serialize")]
    switch: Known<Switch>,
    #[serde(serialize_with = "known::serialize")]
    gateways: Known<Vec<GatewayRow>>,
    #[serde(serialize_with = "known::serialize")]
    revisions: Known<Vec<Served>>,
}

#[derive(Debug, Serialize)]
struct Leader(#[serde(serialize_with = "known::serialize")] Known<Option<String>>);

#[derive(Debug, PartialEq, Serialize)]
struct GatewayRow {
    node: String,
    pods: Vec<String>,
    is_ready: bool,
    /// `None` where no replica of locality-ingress that answered knows this gateway.
    behind_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

pub(crate) async fn run(cluster: &Cluster, options: &StatusOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let scope = cluster.scope(&options.namespaces)?;
    let leaders = async {
        let leaders = futures::future::join_all([DECIDER, SEIKAS, INGRESS].map(|daemon| daemons::leader(cluster, daemon))).await;
        [DECIDER, SEIKAS, INGRESS].into_iter().zip(leaders.into_iter().map(|leader| Leader(leader.map_err(Into::into)))).collect()
    };
    let (parts, leaders, switch, pods, lag, revisions) = futures::join!(
        facts::parts(cluster),
        leaders,
        facts::switch(cluster),
        facts::gateway_pods(cluster),
        facts::lags(cluster),
        facts::served(cluster, &scope),
    );
    let status = Status {
        parts: parts.map_err(Into::into),
        leaders,
        switch: switch.map_err(Into::into),
        gateways: pods.map_err(Into::into).map(|pods| gateway_rows(&pods, &lag)),
        revisions: revisions.map_err(Into::into),
    };
    if options.form.is_json() { out.json(&status) } else { print(&status, out) }
}

fn gateway_rows(pods: &GatewayPods, lag: &Known<Lag>) -> Vec<GatewayRow> {
    let row = |(node, pods): (&String, &Vec<daemons::DaemonPod>)| {
        let behind_seconds = lag.as_ref().ok().and_then(|lag| lag.behind_seconds.get(node).copied());
        let unknown = match lag {
            Err(why) => Some(why.unknown.clone()),
            Ok(lag) if behind_seconds.is_none() => Some(match lag.silent.iter().next() {
                Some((replica, why)) => format!("connected to none that answers; {replica}: {why}"),
                None => format!("connected to no {INGRESS}"),
            }),
            Ok(_) => None,
        };
        let is_ready = pods.iter().any(|pod| pod.is_ready);
        let pods = pods.iter().map(|pod| pod.name.clone()).collect();
        GatewayRow { node: node.clone(), pods, is_ready, behind_seconds, unknown }
    };
    pods.iter().map(row).collect()
}

fn print(status: &Status, out: &mut Output<'_>) -> Result<(), PluginError> {
    match &status.parts {
        Err(why) => out.line(&format!("Daemons: unknown, {why}"))?,
        Ok(parts) if parts.is_empty() => out.line("Daemons: none; Kantai is not installed in this namespace.")?,
        Ok(parts) => {
            let rows: Vec<_> = parts
                .iter()
                .map(|part| vec![part.name.clone(), part.ready_of_desired(), leader_of(&status.leaders, &part.name)])
                .collect();
            out.table(&["DAEMON", "READY", "LEADER"], &rows)?;
        }
    }
    out.line("")?;
    match &status.switch {
        Ok(switch) => out.line(&format!("Switch: {}", switch.words()))?,
        Err(why) => out.line(&format!("Switch: unknown, {why}"))?,
    }
    out.line("")?;
    match &status.gateways {
        Err(why) => out.line(&format!("Gateways: unknown, {why}"))?,
        Ok(gateways) if gateways.is_empty() => out.line("Gateways: none.")?,
        Ok(gateways) => {
            let rows: Vec<_> = gateways.iter().map(gateway_row).collect();
            out.table(&["GATEWAY ON", "READY", "IN SYNC"], &rows)?;
        }
    }
    out.line("")?;
    match &status.revisions {
        Err(why) => out.line(&format!("Revisions: unknown, {why}"))?,
        Ok(revisions) if revisions.is_empty() => out.line("Revisions: none of our class here; -A looks everywhere.")?,
        Ok(revisions) => {
            let rows: Vec<_> = revisions.iter().map(Served::row).collect();
            out.table(&["NAMESPACE", "REVISION", "READY", "PODS", "NODES", "WHY"], &rows)?;
        }
    }
    Ok(())
}

fn leader_of(leaders: &BTreeMap<&'static str, Leader>, daemon: &str) -> String {
    match leaders.get(daemon).map(|leader| &leader.0) {
        None => "-".to_owned(),
        Some(Ok(Some(pod))) => pod.clone(),
        Some(Ok(None)) => "nobody".to_owned(),
        Some(Err(why)) => format!("unknown, {why}"),
    }
}

fn gateway_row(gateway: &GatewayRow) -> Vec<String> {
    let sync = match (gateway.behind_seconds, &gateway.unknown) {
        (Some(seconds), _) if seconds < BEHIND_SECONDS => "yes".to_owned(),
        (Some(seconds), _) => format!("no, for {seconds:.0} s"),
        (None, Some(why)) => format!("unknown, {why}"),
        (None, None) => "unknown".to_owned(),
    };
    vec![gateway.node.clone(), if gateway.is_ready { "yes" } else { "no" }.to_owned(), sync]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemons::DaemonPod;
    use crate::known::Unread;

    #[test]
    fn a_gateway_that_nobody_knows_is_neither_in_sync_nor_behind() {
        let pod =
            |node: &str| DaemonPod { name: format!("gateway-{node}"), node: node.to_owned(), is_ready: true, is_started: true };
        let pods = GatewayPods::from(["node1", "node2", "node3"].map(|node| (node.to_owned(), vec![pod(node)])));
        let behind_seconds = [("node1".to_owned(), 0.2), ("node2".to_owned(), 61.0)].into();
        let rows = gateway_rows(&pods, &Ok(Lag { behind_seconds, silent: BTreeMap::new() }));
        let rows: Vec<_> = rows.iter().map(gateway_row).collect();
        assert_eq!(rows[0], ["node1", "yes", "yes"]);
        assert_eq!(rows[1], ["node2", "yes", "no, for 61 s"]);
        assert_eq!(rows[2], ["node3", "yes", "unknown, connected to no locality-ingress"]);
        let unread = gateway_rows(&pods, &Err(Unread::because("forbidden")));
        assert_eq!(gateway_row(&unread[0])[2], "unknown, forbidden");
        let json = serde_json::to_value(&unread[0]).unwrap();
        assert!(json["behind_seconds"].is_null() && json["unknown"] == "forbidden");
    }
}
