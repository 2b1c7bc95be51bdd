//! The access log: a line of JSON per request on a gateway's standard output.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::{StdoutAccessLog, stdout_access_log};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value};
use prost::{Message as _, Name as _};

/// The fields of a line: key and Envoy operator. Numbers stay numbers, and missing values are
/// `null`.
const FIELDS: [(&str, &str); 17] = [
    ("time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("path", "%REQ(:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("client", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("status", "%RESPONSE_CODE%"),
    ("details", "%RESPONSE_CODE_DETAILS%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration_ms", "%DURATION%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("serving_pod", "%UPSTREAM_HOST%"),
];

/// The access log configuration.
#[must_use]
pub(super) fn json_on_standard_output() -> AccessLog {
    // The fields are a map with random order, but equal configurations must be encoded equally.
    // Concatenated encodings of one message are one message.
    let value = FIELDS.iter().flat_map(|(key, operator)| with_field(key, operator).encode_to_vec()).collect();
    AccessLog {
        name: "envoy.access_loggers.stdout".to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(Any { type_url: StdoutAccessLog::type_url(), value })),
    }
}

fn with_field(key: &str, operator: &str) -> StdoutAccessLog {
    let operator = Value { kind: Some(value::Kind::StringValue(operator.to_owned())) };
    let format = SubstitutionFormatString {
        format: Some(substitution_format_string::Format::JsonFormat(Struct { fields: [(key.to_owned(), operator)].into() })),
        ..SubstitutionFormatString::default()
    };
    StdoutAccessLog { access_log_format: Some(stdout_access_log::AccessLogFormat::LogFormat(format)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_are_in_it_and_it_is_the_same_each_time() {
        let log = json_on_standard_output();
        assert_eq!(log, json_on_standard_output());
        let Some(access_log::ConfigType::TypedConfig(any)) = log.config_type else { panic!("{log:?}") };
        let decoded = StdoutAccessLog::decode(&*any.value).unwrap();
        let Some(stdout_access_log::AccessLogFormat::LogFormat(format)) = decoded.access_log_format else { panic!("{any:?}") };
        let Some(substitution_format_string::Format::JsonFormat(json)) = format.format else { panic!("{any:?}") };
        assert_eq!(json.fields.len(), FIELDS.len());
    }
}
