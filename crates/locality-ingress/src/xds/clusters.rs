//! Backends as Envoy's `Cluster`.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster as EnvoyCluster, OutlierDetection, UpstreamConnectionOptions,
};
use envoy_types::pb::envoy::config::core::v3::socket_option::{self, SocketState};
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, DataSource, Http1ProtocolOptions, Http2ProtocolOptions, SocketOption, TcpKeepalive, TransportSocket, data_source,
    transport_socket,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, Secret, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext, secret, subject_alt_name_matcher, tls_parameters,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::Percent;

use super::proto::{any, duration, named_socket, number, one_extension, over_ads};
use crate::endpoints::locality::LocalityPolicy;
use crate::kubernetes::kernel::TCP_RTO_MAX_MS;
use crate::routes::route_table::{Cluster, ClusterKey, ClusterTarget};

/// Envoy's own limits (1,024 connections, requests, waiting requests and 3 retries per cluster)
/// answer 503 long before an activator that holds requests for a cold revision is full. Concurrency
/// is limited by the queue-proxy and the activator, not here.
const NO_LIMIT: u32 = 1_000_000;

/// How long a connection attempt may take before another endpoint is tried: more than a round trip
/// over a satellite.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long sent data may stay unacknowledged before a connection is closed, on kernels without
/// `TCP_RTO_MAX_MS`. It also counts against a live peer that does not read: an activator that holds
/// an upload for a cold revision, a queue-proxy without free slots, an application that pauses. So
/// it is longer than 30 s.
const UNCONFIRMED_TIMEOUT: Duration = Duration::from_millis(30_250);
/// The maximum wait before a retransmission, on kernels with `TCP_RTO_MAX_MS`. A vanished peer is
/// given up after 15 retransmissions, about 15 s; a live peer that does not read is probed for as
/// long as it likes.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(1);
/// `IPPROTO_TCP`.
const TCP: i64 = 6;
/// `TCP_USER_TIMEOUT`, in milliseconds.
const TCP_USER_TIMEOUT: i64 = 18;

/// `cluster` as an Envoy cluster.
///
/// Its statistics name is `<namespace>/<service>` for all ports, so that it names the revision. The
/// part that depends on the gateway's node is `lost_peers`.
#[must_use]
pub fn cluster(key: &ClusterKey, cluster: &Cluster, policy: LocalityPolicy) -> EnvoyCluster {
    let name = key.to_string();
    let (discovery, eds_cluster_config, load_assignment) = match &cluster.target {
        ClusterTarget::Endpoints { .. } | ClusterTarget::OwnInternalListener => {
            (DiscoveryType::Eds, Some(EdsClusterConfig { eds_config: over_ads(), ..EdsClusterConfig::default() }), None)
        }
        ClusterTarget::Name { host, port } => (DiscoveryType::LogicalDns, None, Some(by_name(&name, host, *port))),
    };
    let locality_weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default());
    EnvoyCluster {
        alt_stat_name: key.service.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        eds_cluster_config,
        load_assignment,
        connect_timeout: duration(CONNECT_TIMEOUT),
        // Locality weights make the shares of nodes exact; within a node the less busy pod is
        // chosen.
        lb_policy: match policy {
            LocalityPolicy::Locality => LbPolicy::LeastRequest.into(),
            LocalityPolicy::Spread => LbPolicy::RoundRobin.into(),
        },
        common_lb_config: Some(CommonLbConfig {
            // If all endpoints are ejected, trying one is better than failing; otherwise the others
            // get all requests.
            healthy_panic_threshold: Some(Percent { value: 1.0 }),
            // By default Envoy merges changes within a second. Weights that follow the load, and
            // unreachable endpoints, must not wait.
            update_merge_window: duration(Duration::ZERO),
            locality_config_specifier: (policy == LocalityPolicy::Locality).then_some(locality_weighted),
            ..CommonLbConfig::default()
        }),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: number(NO_LIMIT),
                max_pending_requests: number(NO_LIMIT),
                max_requests: number(NO_LIMIT),
                max_retries: number(NO_LIMIT),
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        outlier_detection: Some(unreachable_endpoints()),
        transport_socket: cluster.tls.then(|| internal_encryption(&key.service.namespace, cluster.http2)),
        typed_extension_protocol_options: one_extension(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            &protocol(cluster.http2),
        ),
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(TcpKeepalive {
                keepalive_probes: number(3),
                keepalive_time: number(10),
                keepalive_interval: number(2),
            }),
            ..UpstreamConnectionOptions::default()
        }),
        name,
        ..EnvoyCluster::default()
    }
}

/// The part of every cluster that detects silently vanished backends, by whether the gateway's
/// kernel accepts `TCP_RTO_MAX_MS`. A kernel without the option would fail every connection.
#[must_use]
pub(crate) fn lost_peers(bounds_retransmissions: bool) -> EnvoyCluster {
    let (description, name, time) = match bounds_retransmissions {
        true => ("TCP_RTO_MAX_MS", TCP_RTO_MAX_MS.into(), RETRANSMISSION_TIMEOUT),
        false => ("TCP_USER_TIMEOUT", TCP_USER_TIMEOUT, UNCONFIRMED_TIMEOUT),
    };
    let option = SocketOption {
        description: description.to_owned(),
        level: TCP,
        name,
        state: SocketState::StatePrebind.into(),
        value: Some(socket_option::Value::IntValue(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))),
        ..SocketOption::default()
    };
    EnvoyCluster {
        upstream_bind_config: Some(BindConfig { socket_options: vec![option], ..BindConfig::default() }),
        ..EnvoyCluster::default()
    }
}

/// The name of the Secret resource with the authority of internal encryption.
pub(crate) const INTERNAL_AUTHORITY: &str = "internal-authority";

/// The authority of internal encryption, in PEM.
#[must_use]
pub(crate) fn internal_authority(pem: &[u8]) -> Secret {
    let inline = data_source::Specifier::InlineBytes(pem.to_vec());
    Secret {
        name: INTERNAL_AUTHORITY.to_owned(),
        r#type: Some(secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(DataSource { specifier: Some(inline), ..DataSource::default() }),
            ..CertificateValidationContext::default()
        })),
    }
}

/// TLS to activators and queue-proxies: activators share one certificate name, queue-proxies have
/// one per namespace.
fn internal_encryption(namespace: &str, http2: bool) -> TransportSocket {
    let name = |name: String| SubjectAltNameMatcher {
        san_type: subject_alt_name_matcher::SanType::Dns.into(),
        matcher: Some(StringMatcher { match_pattern: Some(MatchPattern::Exact(name)), ..StringMatcher::default() }),
        ..SubjectAltNameMatcher::default()
    };
    let version = tls_parameters::TlsProtocol::TlSv13.into();
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                tls_minimum_protocol_version: version,
                tls_maximum_protocol_version: version,
                ..TlsParameters::default()
            }),
            alpn_protocols: http2.then(|| "h2".to_owned()).into_iter().collect(),
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                CombinedCertificateValidationContext {
                    default_validation_context: Some(CertificateValidationContext {
                        match_typed_subject_alt_names: vec![name("kn-routing".to_owned()), name(format!("kn-user-{namespace}"))],
                        ..CertificateValidationContext::default()
                    }),
                    validation_context_sds_secret_config: Some(SdsSecretConfig {
                        name: INTERNAL_AUTHORITY.to_owned(),
                        sds_config: over_ads(),
                    }),
                    ..CombinedCertificateValidationContext::default()
                },
            )),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    }
}

fn protocol(http2: bool) -> HttpProtocolOptions {
    let protocol = if http2 {
        // Extended CONNECT carries WebSockets if the backend supports it.
        ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions { allow_connect: true, ..Http2ProtocolOptions::default() })
    } else {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    };
    HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })),
        ..HttpProtocolOptions::default()
    }
}

/// Ejects unreachable endpoints, at first for a second. One failure is enough, so that the retry
/// goes elsewhere. Responses never count: a full pod is not a failing one.
fn unreachable_endpoints() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: number(1),
        enforcing_consecutive_local_origin_failure: number(100),
        interval: duration(Duration::from_millis(500)),
        base_ejection_time: duration(Duration::from_secs(1)),
        max_ejection_time: duration(Duration::from_secs(30)),
        max_ejection_percent: number(100),
        enforcing_consecutive_5xx: number(0),
        enforcing_consecutive_gateway_failure: number(0),
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..OutlierDetection::default()
    }
}

fn by_name(cluster_name: &str, host: &str, port: u16) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: named_socket(host, port), ..Endpoint::default() };
    let lb_endpoint = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    ClusterLoadAssignment {
        cluster_name: cluster_name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint],
            load_balancing_weight: number(1),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}
