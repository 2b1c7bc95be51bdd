//! Shared parts of resources.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, HeaderValue, HeaderValueOption, SocketAddress, address,
};
use envoy_types::pb::google::protobuf::{self, Any, BoolValue, UInt32Value};

/// An optional number.
#[must_use]
pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// An optional boolean.
#[must_use]
pub(crate) fn truth(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// An optional duration.
#[must_use]
pub(crate) fn duration(value: Duration) -> Option<protobuf::Duration> {
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    Some(protobuf::Duration { seconds, nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default() })
}

/// A message as `Any`.
pub(crate) fn any<M: prost::Message + prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A map of extensions with one entry.
pub(crate) fn one_extension<M: prost::Message + prost::Name>(name: &str, message: &M) -> HashMap<String, Any> {
    HashMap::from([(name.to_owned(), any(message))])
}

/// The config source "over this ADS stream". Envoy waits for such a resource without a time limit:
/// a gateway is not ready without it.
#[must_use]
pub(crate) fn over_ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        initial_fetch_timeout: duration(Duration::ZERO),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    })
}

/// A TCP address.
#[must_use]
pub(crate) fn socket(address: IpAddr, port: u16) -> Option<Address> {
    let mut socket = named_socket(&address.to_string(), port)?;
    if let Some(address::Address::SocketAddress(socket)) = &mut socket.address {
        // The IPv6 wildcard includes IPv4.
        socket.ipv4_compat = address == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    }
    Some(socket)
}

/// A TCP address with a DNS name.
#[must_use]
pub(crate) fn named_socket(address: &str, port: u16) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    })
}

/// Sets a header, replacing existing values.
#[must_use]
pub(crate) fn set_header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        // A percent sign starts an operator in Envoy's header values; here it is always literal.
        header: Some(HeaderValue { key: name.to_owned(), value: value.replace('%', "%%"), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    }
}
