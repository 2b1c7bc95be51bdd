//! Gateways at the level of the protocol: they subscribe and confirm as Envoy does, and forget what
//! they are sent.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use locality_ingress::xds::ResourceKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::reporter;
use crate::scale::INGRESSES;

/// The first argument of a process that is all gateways. The address of the server and their number
/// follow, and whether they report their load; then the bytes of all reports so far are written
/// once a second.
pub(crate) const ARGUMENT: &str = "gateways";

/// Runs until the server goes.
pub(crate) async fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let address = arguments.next().context("no address")?;
    let count: u32 = arguments.next().context("no number")?.parse()?;
    let reports: bool = arguments.next().context("not said whether to report")?.parse()?;
    let mut gateways = tokio::task::JoinSet::new();
    for number in 0..count {
        gateways.spawn(gateway(endpoint(&address, number)?, format!("node{number}")));
    }
    if reports {
        let all = Arc::new((0..INGRESSES).map(|number| format!("default/service-{number:05}-00001/80")).collect());
        let sent = Arc::new(AtomicU64::new(0));
        for number in 0..count {
            gateways.spawn(reporter::report(endpoint(&address, number)?, number, Arc::clone(&all), sent.clone()));
        }
        gateways.spawn(async move {
            loop {
                println!("{}", sent.load(Ordering::Relaxed));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    while let Some(ended) = gateways.join_next().await {
        ended??;
    }
    Ok(())
}

fn subscribe(kind: ResourceKind, names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}

/// The server, from an address of the gateway's own: connections are limited by address.
fn endpoint(address: &str, number: u32) -> anyhow::Result<Endpoint> {
    let own = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 1)) + number);
    Ok(Endpoint::from_shared(format!("http://{address}"))?.local_address(Some(own.into())))
}

async fn gateway(endpoint: Endpoint, node: String) -> anyhow::Result<()> {
    let client = AggregatedDiscoveryServiceClient::new(endpoint.connect().await?);
    let (requests, outgoing) = mpsc::channel(64);
    let node = Some(Node { id: node, ..Node::default() });
    requests.send(DeltaDiscoveryRequest { node, ..subscribe(ResourceKind::Cluster, Vec::new()) }).await?;
    requests.send(subscribe(ResourceKind::Listener, Vec::new())).await?;
    let mut client = client.max_decoding_message_size(256 * 1024 * 1024);
    let mut answers = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let kind = ResourceKind::from_type_url(&answer.type_url).context("an unknown kind")?;
        let names: Vec<_> = answer.resources.into_iter().map(|resource| resource.name).collect();
        let confirmation = DeltaDiscoveryRequest { response_nonce: answer.nonce, ..subscribe(kind, Vec::new()) };
        // As Envoy does: what follows from an answer is asked for before the answer is confirmed.
        match kind {
            ResourceKind::Cluster => requests.send(subscribe(ResourceKind::Assignment, names)).await?,
            ResourceKind::Listener => requests.send(subscribe(ResourceKind::Routes, names)).await?,
            _ => {}
        }
        requests.send(confirmation).await?;
    }
    Ok(())
}
