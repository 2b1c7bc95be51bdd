//! The gateways' server over real connections, with gateways at the level of the protocol.

#![allow(clippy::unwrap_used)] // A test may.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::rpc::Status;
use hyper_util::rt::TokioIo;
use locality_ingress::demand::{Reports, SharedLoadBoard};
use locality_ingress::endpoints::LocalityPolicy;
use locality_ingress::xds::{
    Ads, ClusterEndpoints, ConfigStore, Connected, Encoded, ListenerSettings, NackReport, ResourceKind, Update,
};
use locality_ingress::{Metrics, ServerTls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

/// A server of a store, until it is dropped.
struct Server {
    store: Arc<ConfigStore>,
    nacks: mpsc::Receiver<NackReport>,
    address: SocketAddr,
    metrics: Metrics,
    stop: CancellationToken,
    _stopped_with_this: DropGuard,
}

impl Server {
    async fn start(tls: Option<&ServerTls>) -> Self {
        let store = Arc::new(ConfigStore::new(LocalityPolicy::Locality, ListenerSettings::default()));
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let (nack, nacks) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (changes, _no_loads) = mpsc::channel(1);
        let reports = Reports::new(SharedLoadBoard::default(), store.clone(), Duration::from_secs(1), changes, stop.clone());
        let ads = Ads::new(store.clone(), Connected::default(), metrics.clone(), nack, stop.clone());
        tokio::spawn(ads.serve(listener, tls.map(ServerTls::watch), reports.services()));
        let stopped = stop.clone().drop_guard();
        Self { store, nacks, address, metrics, stop, _stopped_with_this: stopped }
    }

    fn publish(&self, clusters: &[String]) {
        let mut update = Update::default();
        for cluster in clusters {
            update.shared.insert((ResourceKind::Cluster, cluster.clone()), Some(Encoded::from(cluster.clone().into_bytes())));
            let pods = ClusterEndpoints::Pods { endpoints: Vec::new(), rows: None, limits: None };
            update.endpoints.insert(cluster.clone(), Some(pods));
        }
        self.store.publish(update);
    }
}

fn subscribe(kind: ResourceKind, names: &[String]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: names.to_vec(),
        ..DeltaDiscoveryRequest::default()
    }
}

struct Gateway {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse>,
}

impl Gateway {
    async fn of(channel: Channel) -> Result<Self, tonic::Status> {
        let (requests, outgoing) = mpsc::channel(64);
        let node = Some(Node { id: "node1".into(), ..Node::default() });
        requests.send(DeltaDiscoveryRequest { node, ..subscribe(ResourceKind::Cluster, &[]) }).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let answers = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { requests, answers })
    }
}

#[tokio::test]
async fn a_refusal_that_names_nobody_is_searched_by_halves_and_the_others_go_on() {
    let mut server = Server::start(None).await;
    let clusters: Vec<String> = (0..40).map(|number| format!("ns/s{number}/80")).collect();
    let (bad, good): (BTreeSet<_>, BTreeSet<_>) =
        clusters.iter().cloned().partition(|name| name == "ns/s17/80" || name == "ns/s18/80");
    server.publish(&clusters);
    let channel = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut gateway = Gateway::of(channel).await.unwrap();
    gateway.requests.send(subscribe(ResourceKind::Assignment, &clusters)).await.unwrap();
    let mut taken = BTreeSet::new();
    let mut refusals = 0;
    while taken != good {
        let answer = gateway.answers.message().await.unwrap().unwrap();
        let kind = ResourceKind::from_type_url(&answer.type_url).unwrap();
        let names: Vec<String> = answer.resources.into_iter().map(|resource| resource.name).collect();
        let mut verdict = DeltaDiscoveryRequest { response_nonce: answer.nonce, ..subscribe(kind, &[]) };
        if kind == ResourceKind::Assignment && names.iter().any(|name| bad.contains(name)) {
            refusals += 1;
            verdict.error_detail = Some(Status { message: "load balancing weight must not be 0".into(), ..Status::default() });
        } else if kind == ResourceKind::Assignment {
            taken.extend(names);
        }
        gateway.requests.send(verdict).await.unwrap();
    }
    let mut at_fault = BTreeSet::new();
    for _ in 0..refusals {
        at_fault.extend(server.nacks.recv().await.unwrap().nack.at_fault);
    }
    assert_eq!(at_fault, bad);
    assert!(refusals <= 12, "{refusals} refusals");
}

#[tokio::test]
async fn a_gateway_at_a_known_address_is_served_for_its_own_node_only() {
    let server = Server::start(None).await;
    server.publish(&["ns/a/80".to_owned()]);
    let connect = async || {
        let channel = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
        Gateway::of(channel).await.unwrap()
    };
    let at = |node: &str| Some([([127, 0, 0, 1].into(), node.to_owned())].into());
    // It says that it is on node1. Nothing is known of its address, then the same, and then
    // something else.
    assert!(connect().await.answers.message().await.unwrap().is_some());
    server.store.publish(Update { gateway_nodes: at("node1"), ..Update::default() });
    assert!(connect().await.answers.message().await.unwrap().is_some());
    server.store.publish(Update { gateway_nodes: at("node2"), ..Update::default() });
    let refused = connect().await.answers.message().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

/// An authority, and what it signs.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn write_server(&self, folder: &std::path::Path) -> TlsFiles {
        let (certificate, key) = self.sign("server.example");
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            certificate: write("tls.crt", certificate.pem()),
            key: write("tls.key", key.serialize_pem()),
            client_authorities: Some(write("ca.crt", self.certificate.pem())),
        }
    }

    /// What a gateway connects with that trusts this authority and, where there is one, shows a
    /// certificate of `own`.
    fn client(&self, own: Option<&Authority>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            Some(own) => {
                let (certificate, key) = own.sign("gateway.example");
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// Whether a gateway that connects so gets an answer.
async fn is_served(server: &Server, connector: TlsConnector) -> bool {
    let address = server.address;
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("server.example").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let Ok(channel) = Endpoint::from_static("http://server.example").connect_with_connector(connect).await else { return false };
    let Ok(mut gateway) = Gateway::of(channel).await else { return false };
    matches!(gateway.answers.message().await, Ok(Some(_)))
}

#[tokio::test]
async fn only_who_shows_a_certificate_is_served_and_a_new_authority_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let tls = ServerTls::load(old.write_server(folder.path())).await.unwrap();
    let server = Server::start(Some(&tls)).await;
    server.publish(&["ns/a/80".to_owned()]);
    assert!(is_served(&server, old.client(Some(&old))).await);
    // Without a certificate, with one of somebody else, or without TLS at all nobody is.
    assert!(!is_served(&server, old.client(None)).await);
    assert!(!is_served(&server, old.client(Some(&new))).await);
    let plain = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy();
    assert!(Gateway::of(plain).await.is_err());

    let mut current = tls.watch();
    current.mark_unchanged();
    tokio::spawn(tls.follow(server.metrics.clone(), server.stop.clone()));
    new.write_server(folder.path());
    current.changed().await.unwrap();
    assert!(is_served(&server, new.client(Some(&new))).await);
    assert!(!is_served(&server, old.client(Some(&old))).await);
}
