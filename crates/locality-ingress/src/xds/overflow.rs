//! How a gateway finds, for each request, whether the pods can take it: clusters beside that of a
//! revision, and a few lines of Lua that choose between them.
//!
//! Envoy has no other way to send on what exceeds a limit. Its circuit breakers answer 503, which
//! no retry policy asks again; a limit for each endpoint counts connections only, and lets requests
//! wait behind them. A script that chooses the cluster can read how many requests a cluster has in
//! flight, but no number that could be told it without all routes being sent again. So the number
//! is in the name of a cluster: one without endpoints, to which no request ever goes.

use envoy_types::pb::envoy::config::cluster::v3::Cluster as EnvoyCluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source};
use envoy_types::pb::envoy::config::route::v3::ClusterSpecifierPlugin;
use envoy_types::pb::envoy::extensions::router::cluster_specifiers::lua::v3::LuaConfig;

use super::proto::any;
use crate::endpoints::overflow::STEPS;
use crate::routes::route_table::ClusterKey;

/// Between the name of a cluster and the limit of a gateway for it.
const LIMIT: &str = "/limit/";

/// The name of the cluster of the activators that hold what is too much for the pods of `cluster`.
pub(crate) fn overflow_name(cluster: impl std::fmt::Display) -> String {
    format!("{cluster}/overflow")
}

/// The name that says that a gateway may have `limit` requests in flight to the pods of `cluster`.
pub(super) fn limit_name(cluster: &str, limit: u32) -> String {
    format!("{cluster}{LIMIT}{limit}")
}

/// The cluster and the limit that `name` speaks of.
pub(super) fn read_limit_name(name: &str) -> Option<(&str, u32)> {
    let (cluster, limit) = name.rsplit_once(LIMIT)?;
    Some((cluster, limit.parse().ok()?))
}

/// The cluster of the activators, made of that of the pods.
pub(crate) fn overflow_cluster(pods: EnvoyCluster) -> EnvoyCluster {
    EnvoyCluster { name: overflow_name(&pods.name), ..pods }
}

/// The cluster whose name is all that it is for.
pub(super) fn limit_cluster(name: &str, of: &ClusterKey) -> EnvoyCluster {
    EnvoyCluster {
        name: name.to_owned(),
        alt_stat_name: of.service.to_string(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        ..EnvoyCluster::default()
    }
}

/// Chooses between the pods of `cluster` and the activators, by what is in flight to the pods.
pub(super) fn choice(cluster: &ClusterKey) -> ClusterSpecifierPlugin {
    let script = data_source::Specifier::InlineString(script(&cluster.to_string()));
    let config = LuaConfig {
        source_code: Some(DataSource { specifier: Some(script), ..DataSource::default() }),
        default_cluster: cluster.to_string(),
    };
    let extension = TypedExtensionConfig { name: cluster.to_string(), typed_config: Some(any(&config)) };
    ClusterSpecifierPlugin { extension: Some(extension), is_optional: false }
}

/// Requests that wait for a connection are in flight, too. Without a limit, or nobody to hold what
/// is more, everything goes to the pods.
fn script(cluster: &str) -> String {
    let steps = STEPS.map(|step| step.to_string()).join(",");
    let overflow = overflow_name(cluster);
    format!(
        r#"local pods, overflow, limit = "{cluster}", "{overflow}", "{cluster}{LIMIT}"
local steps = {{{steps}}}
function envoy_on_route(handle)
  local cluster = handle:getCluster(pods)
  if cluster then
    local in_flight = cluster:numRequests() + cluster:numPendingRequests()
    for _, step in ipairs(steps) do
      if step > in_flight then break end
      if handle:getCluster(limit .. step) then
        if handle:getCluster(overflow) then return overflow end
        break
      end
    end
  end
  return pods
end
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_it_was_written() {
        assert_eq!(read_limit_name(&limit_name("ns/a/80", 12)), Some(("ns/a/80", 12)));
        // A port may have any name.
        assert_eq!(read_limit_name(&limit_name("ns/a/limit/4", 3)), Some(("ns/a/limit/4", 3)));
        assert_eq!((read_limit_name("ns/a/80"), read_limit_name("ns/a/80/limit/x")), (None, None));
    }
}
