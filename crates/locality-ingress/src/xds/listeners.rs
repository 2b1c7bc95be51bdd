//! The gateways' listeners and certificates.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::transport_socket;
use envoy_types::pb::envoy::config::core::v3::{
    DataSource, Http2ProtocolOptions, HttpProtocolOptions, TransportSocket, data_source,
};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
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

use super::access_log::json_on_standard_output;
use super::proto::{any, duration, number, over_ads, socket, truth};
use crate::objects::{ObjectName, SecretObject};
use crate::route_table::{Host, RouteTable};

/// Route configuration and listener of plain HTTP from outside.
pub const EXTERNAL: &str = "external";
/// Of plain HTTP from inside.
pub const INTERNAL: &str = "internal";
/// Of HTTPS from outside.
pub const EXTERNAL_TLS: &str = "external-tls";
/// Of HTTPS from inside.
pub const INTERNAL_TLS: &str = "internal-tls";

/// The ports that gateways listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayPorts {
    /// Plain HTTP from outside.
    pub external: u16,
    /// Plain HTTP from inside.
    pub internal: u16,
    /// HTTPS from outside.
    pub external_tls: u16,
    /// HTTPS from inside.
    pub internal_tls: u16,
}

impl Default for GatewayPorts {
    fn default() -> Self {
        Self { external: 8080, internal: 8081, external_tls: 8443, internal_tls: 8444 }
    }
}

/// How gateways listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where.
    pub ports: GatewayPorts,
    /// Whether they write a line of JSON per request to their standard output.
    pub access_log: bool,
}

/// The listeners of a gateway that listens on `address`. Those for HTTPS are there while there is a certificate for them.
#[must_use]
pub fn listeners(table: &RouteTable, settings: ListenerSettings, address: IpAddr) -> Vec<Listener> {
    let ListenerSettings { ports, access_log } = settings;
    let plain = |name: &str, port| Listener {
        name: name.to_owned(),
        address: socket(address, port),
        filter_chains: vec![FilterChain { filters: vec![http(name, access_log)], ..FilterChain::default() }],
        per_connection_buffer_limit_bytes: number(1024 * 1024),
        ..Listener::default()
    };
    let mut listeners = vec![plain(EXTERNAL, ports.external), plain(INTERNAL, ports.internal)];
    for (name, port, certificates) in [
        (EXTERNAL_TLS, ports.external_tls, &table.external_certificates),
        (INTERNAL_TLS, ports.internal_tls, &table.internal_certificates),
    ] {
        if certificates.is_empty() {
            continue;
        }
        let inspector = ListenerFilter {
            name: "envoy.filters.listener.tls_inspector".to_owned(),
            config_type: Some(listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
            ..ListenerFilter::default()
        };
        let chain = |(secret, hosts)| tls_chain(http(name, access_log), secret, hosts);
        listeners.push(Listener {
            filter_chains: by_secret(certificates).into_iter().map(chain).collect(),
            listener_filters: vec![inspector],
            ..plain(name, port)
        });
    }
    listeners
}

fn by_secret(certificates: &BTreeMap<Host, ObjectName>) -> BTreeMap<&ObjectName, Vec<&Host>> {
    let mut by_secret: BTreeMap<&ObjectName, Vec<&Host>> = BTreeMap::new();
    for (host, secret) in certificates {
        by_secret.entry(secret).or_default().push(host);
    }
    by_secret
}

fn tls_chain(http: Filter, secret: &ObjectName, hosts: Vec<&Host>) -> FilterChain {
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
        filter_chain_match: Some(FilterChainMatch {
            server_names: hosts.into_iter().cloned().collect(),
            ..FilterChainMatch::default()
        }),
        filters: vec![http],
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
        }),
        ..FilterChain::default()
    }
}

fn http(routes: &str, access_log: bool) -> Filter {
    let quiet = Router {
        // Envoy's own headers are of no use to the application or its clients.
        suppress_envoy_headers: true,
        // Counts per status code and a histogram of times, for each cluster, cost as much as a twentieth of a request. Who is answered how is
        // known from the reports of load.
        dynamic_stats: truth(false),
        ..Router::default()
    };
    let router = HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&quiet))),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: routes.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds { config_source: over_ads(), route_config_name: routes.to_owned() })),
        http_filters: vec![router],
        access_log: access_log.then(json_on_standard_output).into_iter().collect(),
        common_http_protocol_options: Some(HttpProtocolOptions {
            // Idle connections, not requests.
            idle_timeout: duration(Duration::from_secs(3600)),
            ..HttpProtocolOptions::default()
        }),
        // Web sockets over HTTP/2.
        http2_protocol_options: Some(Http2ProtocolOptions { allow_connect: true, ..Http2ProtocolOptions::default() }),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        // A quiet stream is not a dead one; the revision's own timeouts are kept behind us.
        stream_idle_timeout: duration(Duration::ZERO),
        request_timeout: duration(Duration::ZERO),
        drain_timeout: duration(Duration::from_secs(5)),
        // Who asks is what the connection says, whatever the client claims.
        use_remote_address: truth(true),
        // Making up an id costs as much as all that is decided about a request. A client's own passes.
        generate_request_id: truth(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        ..HttpConnectionManager::default()
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(&manager))),
    }
}

/// A TLS Secret as Envoy has it.
#[must_use]
pub fn certificate(name: &ObjectName, secret: &SecretObject) -> Secret {
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
