//! The gateways' listeners and certificates.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::transport_socket;
use envoy_types::pb::envoy::config::core::v3::{
    DataSource, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TransportSocket, data_source,
};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use envoy_types::pb::envoy::config::route::v3::route::Action as EnvoyAction;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route as EnvoyRoute, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::router::UpstreamAccessLogOptions;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, ServerHeaderTransformation, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, TlsParameters, secret, tls_parameters,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::access_log::json_on_standard_output;
use super::held_log::held_requests;
use super::proto::{any, duration, number, over_ads, socket, truth};
use super::route_configuration::exactly;
use crate::kubernetes::objects::{ObjectName, SecretObject};
use crate::routes::route_table::{Host, RouteTable};

/// Route configuration and listener of external HTTP.
pub(crate) const EXTERNAL: &str = "external";
/// Of internal HTTP.
pub(crate) const INTERNAL: &str = "internal";
/// Of external HTTPS.
pub(crate) const EXTERNAL_TLS: &str = "external-tls";
/// Of internal HTTPS.
pub(crate) const INTERNAL_TLS: &str = "internal-tls";

/// The listener of the statistics page, if that of the bootstrap is not enough.
pub(crate) const STATISTICS: &str = "statistics";
/// Its port and the admin cluster of the bootstrap.
const STATISTICS_PORT: u16 = 9000;
const ADMINISTRATION: &str = "admin";

/// The ports that gateways listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct GatewayPorts {
    /// Port of the gateways' external HTTP listener.
    #[arg(long = "external-port", value_name = "PORT", env = "KANTAI_EXTERNAL_PORT", default_value_t = Self::default().external)]
    pub external: u16,
    /// Port of the gateways' internal HTTP listener.
    #[arg(long = "internal-port", value_name = "PORT", env = "KANTAI_INTERNAL_PORT", default_value_t = Self::default().internal)]
    pub internal: u16,
    /// Port of the gateways' external HTTPS listener.
    #[arg(long = "external-tls-port", value_name = "PORT", env = "KANTAI_EXTERNAL_TLS_PORT", default_value_t = Self::default().external_tls)]
    pub external_tls: u16,
    /// Port of the gateways' internal HTTPS listener.
    #[arg(long = "internal-tls-port", value_name = "PORT", env = "KANTAI_INTERNAL_TLS_PORT", default_value_t = Self::default().internal_tls)]
    pub internal_tls: u16,
}

impl Default for GatewayPorts {
    fn default() -> Self {
        Self { external: 8080, internal: 8081, external_tls: 8443, internal_tls: 8444 }
    }
}

/// Settings of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct ListenerSettings {
    /// The ports.
    #[command(flatten)]
    pub ports: GatewayPorts,
    /// Make gateways log each request as a line of JSON on standard output.
    #[arg(long, env = "KANTAI_ACCESS_LOG")]
    pub access_log: bool,
    /// Number of trusted proxies in front of the gateways' external ports, such as 1 for a load
    /// balancer that terminates TLS. Their X-Forwarded-For and X-Forwarded-Proto are used. A client
    /// that bypasses them can claim any address.
    #[arg(long, env = "KANTAI_TRUSTED_HOPS", default_value_t = 0)]
    pub trusted_hops: u32,
    /// Accept the PROXY protocol, version 1 or 2, on the gateways' external ports. Connections
    /// without its header are accepted too.
    #[arg(long, env = "KANTAI_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,
    /// Maximum size of all headers of a request, in KiB. Requests above it are answered with 431.
    #[arg(
        long,
        env = "KANTAI_REQUEST_HEADERS_KIB",
        default_value_t = DEFAULT_REQUEST_HEADERS_KIB,
        value_parser = clap::value_parser!(u32).range(1..=8192)
    )]
    pub request_headers_kib: u32,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            ports: GatewayPorts::default(),
            access_log: false,
            trusted_hops: 0,
            proxy_protocol: false,
            request_headers_kib: DEFAULT_REQUEST_HEADERS_KIB,
        }
    }
}

/// More than clients are known to send (a token of a person in a thousand groups), less than a
/// queue-proxy accepts (1 MiB).
pub const DEFAULT_REQUEST_HEADERS_KIB: u32 = 96;
/// A client that sends headers more slowly only occupies a connection.
const REQUEST_HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent requests of an external connection. Envoy's edge guide advises 100 for one client; a
/// load balancer in front multiplexes many clients.
const EXTERNAL_STREAMS: u32 = 1_000;
/// Unread bytes of one request, and of a connection. Envoy's edge guide advises 64 KiB and 1 MiB;
/// with 64 KiB an upload over 100 ms is limited to 5 Mbit/s.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// The listeners of a gateway at `address`. Those of HTTPS exist while there is a certificate for
/// them.
#[must_use]
pub fn listeners(table: &RouteTable, settings: ListenerSettings, address: IpAddr) -> Vec<Listener> {
    let ports = settings.ports;
    let plain = |side: Side, name: &str, port| Listener {
        name: name.to_owned(),
        address: socket(address, port),
        filter_chains: vec![FilterChain { filters: vec![http(side, name, settings)], ..FilterChain::default() }],
        listener_filters: (side == Side::External && settings.proxy_protocol).then(proxy_protocol).into_iter().collect(),
        per_connection_buffer_limit_bytes: number(1024 * 1024),
        ..Listener::default()
    };
    let mut listeners = vec![plain(Side::External, EXTERNAL, ports.external), plain(Side::Internal, INTERNAL, ports.internal)];
    let fallback = table.fallback_certificate.as_ref();
    for (side, name, port, certificates, fallback) in [
        (Side::External, EXTERNAL_TLS, ports.external_tls, &table.external_certificates, fallback),
        (Side::Internal, INTERNAL_TLS, ports.internal_tls, &table.internal_certificates, None),
    ] {
        if certificates.is_empty() && fallback.is_none() {
            continue;
        }
        let mut listener = plain(side, name, port);
        listener.listener_filters.push(listener_filter("envoy.filters.listener.tls_inspector", &TlsInspector::default()));
        let chain = |(secret, hosts): (_, Vec<&Host>)| FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                server_names: hosts.into_iter().cloned().collect(),
                ..FilterChainMatch::default()
            }),
            ..tls_chain(http(side, name, settings), secret)
        };
        listener.filter_chains = by_secret(certificates).into_iter().map(chain).collect();
        // For clients whose SNI is missing or unknown.
        listener.default_filter_chain = fallback.map(|secret| FilterChain {
            name: format!("{secret} as the fallback"),
            ..tls_chain(http(side, name, settings), secret)
        });
        listeners.push(listener);
    }
    listeners
}

/// The side that requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Outside the cluster.
    External,
    /// Inside the cluster.
    Internal,
}

fn listener_filter<M: prost::Message + prost::Name>(name: &str, filter: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(filter))),
        ..ListenerFilter::default()
    }
}

/// Readiness probes come without such a header, so it is optional.
fn proxy_protocol() -> ListenerFilter {
    let filter = ProxyProtocol { allow_requests_without_proxy_protocol: true, ..ProxyProtocol::default() };
    listener_filter("envoy.filters.listener.proxy_protocol", &filter)
}

/// The statistics page of the bootstrap, which listens on IPv4 only, for a pod whose first address
/// is IPv6.
#[must_use]
pub(crate) fn statistics(pod_address: Option<IpAddr>) -> Option<Listener> {
    let address = pod_address.filter(IpAddr::is_ipv6)?;
    let get = |(path, asked): (&str, &str)| EnvoyRoute {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(path.to_owned())),
            headers: vec![exactly(":method", "GET")],
            ..RouteMatch::default()
        }),
        action: Some(EnvoyAction::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(ADMINISTRATION.to_owned())),
            prefix_rewrite: asked.to_owned(),
            ..RouteAction::default()
        })),
        ..EnvoyRoute::default()
    };
    let routes = [("/stats", ""), ("/ready", ""), ("/live", "/hot_restart_version")].map(get);
    let host = VirtualHost {
        name: STATISTICS.to_owned(),
        domains: vec!["*".to_owned()],
        routes: routes.into(),
        ..VirtualHost::default()
    };
    let config = RouteConfiguration { name: STATISTICS.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() };
    let manager = HttpConnectionManager {
        stat_prefix: STATISTICS.to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(config)),
        http_filters: vec![router(&Router::default())],
        ..HttpConnectionManager::default()
    };
    Some(Listener {
        name: STATISTICS.to_owned(),
        address: socket(address, STATISTICS_PORT),
        filter_chains: vec![FilterChain { filters: vec![connection_manager(&manager)], ..FilterChain::default() }],
        bypass_overload_manager: true,
        ..Listener::default()
    })
}

fn by_secret(certificates: &BTreeMap<Host, ObjectName>) -> BTreeMap<&ObjectName, Vec<&Host>> {
    let mut by_secret: BTreeMap<&ObjectName, Vec<&Host>> = BTreeMap::new();
    for (host, secret) in certificates {
        by_secret.entry(secret).or_default().push(host);
    }
    by_secret
}

fn tls_chain(http: Filter, secret: &ObjectName) -> FilterChain {
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                tls_minimum_protocol_version: tls_parameters::TlsProtocol::TlSv12.into(),
                ..TlsParameters::default()
            }),
            tls_certificate_sds_secret_configs: vec![SdsSecretConfig { name: secret.to_string(), sds_config: over_ads() }],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    FilterChain {
        name: secret.to_string(),
        filters: vec![http],
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
        }),
        ..FilterChain::default()
    }
}

fn router(settings: &Router) -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(settings))),
        ..HttpFilter::default()
    }
}

fn connection_manager(manager: &HttpConnectionManager) -> Filter {
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(manager))),
    }
}

fn http(side: Side, routes: &str, settings: ListenerSettings) -> Filter {
    let quiet = Router {
        // Envoy's own headers are useless to applications and clients.
        suppress_envoy_headers: true,
        // Status codes and histograms per cluster cost up to a twentieth of a request. Load reports
        // have the outcomes.
        dynamic_stats: truth(false),
        upstream_log: vec![held_requests()],
        upstream_log_options: Some(UpstreamAccessLogOptions {
            flush_upstream_log_on_upstream_stream: true,
            ..UpstreamAccessLogOptions::default()
        }),
        ..Router::default()
    };
    // Paths are forwarded unchanged, slashes and dots included: applications sign them, and no
    // Knative rule protects one path from those who may request another. So are headers with
    // underscores, which applications may read.
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: routes.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds { config_source: over_ads(), route_config_name: routes.to_owned() })),
        http_filters: vec![router(&quiet)],
        access_log: settings.access_log.then(json_on_standard_output).into_iter().collect(),
        common_http_protocol_options: Some(HttpProtocolOptions {
            // Idle connections, not requests.
            idle_timeout: duration(Duration::from_secs(3600)),
            ..HttpProtocolOptions::default()
        }),
        http_protocol_options: Some(Http1ProtocolOptions {
            // Other proxies and old tools speak it by default.
            accept_http_10: true,
            // Some clients offer an upgrade to TLS. It may be ignored; by default Envoy refuses the
            // request.
            ignore_http_11_upgrade: vec![StringMatcher {
                ignore_case: true,
                match_pattern: Some(MatchPattern::Prefix("TLS/".to_owned())),
            }],
            ..Http1ProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            // WebSockets over HTTP/2.
            allow_connect: true,
            max_concurrent_streams: (side == Side::External).then_some(EXTERNAL_STREAMS).and_then(number),
            initial_stream_window_size: number(STREAM_WINDOW_BYTES),
            initial_connection_window_size: number(CONNECTION_WINDOW_BYTES),
            ..Http2ProtocolOptions::default()
        }),
        // A final dot skips the search domains: `hello.default.svc.cluster.local.`.
        strip_trailing_host_dot: true,
        max_request_headers_kb: number(settings.request_headers_kib),
        request_headers_timeout: duration(REQUEST_HEADERS_TIMEOUT),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        // A quiet stream is not a dead one; the revision's own time-outs apply behind the gateway.
        stream_idle_timeout: duration(Duration::ZERO),
        request_timeout: duration(Duration::ZERO),
        drain_timeout: duration(Duration::from_secs(5)),
        // The client's address is that of the connection, whatever headers claim, unless trusted
        // proxies are configured.
        use_remote_address: truth(true),
        xff_num_trusted_hops: if side == Side::External { settings.trusted_hops } else { 0 },
        // Generating an id costs as much as all routing of a request. A client's own id is
        // forwarded.
        generate_request_id: truth(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..HttpConnectionManager::default()
    };
    connection_manager(&manager)
}

/// A TLS Secret as an Envoy Secret.
#[must_use]
pub(crate) fn certificate(name: &ObjectName, secret: &SecretObject) -> Secret {
    let inline = |bytes: &[u8]| {
        Some(DataSource { specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() })
    };
    Secret {
        name: name.to_string(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&secret.certificate_pem),
            private_key: inline(&secret.key_pem),
            ..TlsCertificate::default()
        })),
    }
}
