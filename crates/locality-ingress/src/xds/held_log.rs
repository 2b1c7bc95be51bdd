//! The access log of requests that a gateway hands to an activator, sent as they happen: it wakes a
//! revision at zero.
//!
//! Load reports come at intervals, and listing thousands of revisions at zero in each of them would
//! be most of the traffic. So those are listed rarely, and a request for an activator is logged at
//! once in Envoy's gRPC access log, on the connection of the configuration. Requests for pods are
//! not logged.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, LogTypeFilter, access_log, extension_filter,
};
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{ApiVersion, GrpcService, Metadata};
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig};
use envoy_types::pb::google::protobuf::{Struct, Value, value};

use super::proto::{any, duration, number};

/// The cluster in the gateways' bootstrap that leads to this daemon.
const OURSELVES: &str = "locality-ingress";
/// The metadata key that marks an endpoint as an activator.
const METADATA: &str = "kantai.stand_in";

/// The metadata of an activator's endpoint.
pub(super) fn stand_in_metadata() -> Metadata {
    let yes = Value { kind: Some(value::Kind::BoolValue(true)) };
    let holds = Struct { fields: HashMap::from([("holds".to_owned(), yes)]) };
    Metadata { filter_metadata: HashMap::from([(METADATA.to_owned(), holds)]), ..Metadata::default() }
}

/// The access log of held requests.
pub(super) fn held_requests() -> AccessLog {
    let grpc = EnvoyGrpc { cluster_name: OURSELVES.to_owned(), ..EnvoyGrpc::default() };
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(CommonGrpcAccessLogConfig {
            log_name: "held".to_owned(),
            grpc_service: Some(GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
                ..GrpcService::default()
            }),
            transport_api_version: ApiVersion::V3.into(),
            // Each entry is sent at once.
            buffer_size_bytes: number(0),
            buffer_flush_interval: duration(Duration::from_millis(100)),
            ..CommonGrpcAccessLogConfig::default()
        }),
        ..HttpGrpcAccessLogConfig::default()
    };
    let sent = LogTypeFilter { types: vec![AccessLogType::UpstreamPoolReady.into()], exclude: false };
    let to_stand_in = ExpressionFilter {
        expression: format!("'{METADATA}' in xds.upstream_host_metadata.filter_metadata"),
        ..ExpressionFilter::default()
    };
    let to_stand_in = ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(any(&to_stand_in))),
    };
    let one = |specifier| AccessLogFilter { filter_specifier: Some(specifier) };
    let filters = vec![one(FilterSpecifier::LogTypeFilter(sent)), one(FilterSpecifier::ExtensionFilter(to_stand_in))];
    AccessLog {
        name: "envoy.access_loggers.http_grpc".to_owned(),
        filter: Some(one(FilterSpecifier::AndFilter(AndFilter { filters }))),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&config))),
    }
}
