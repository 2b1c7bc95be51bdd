//! The switch, and what it says of single namespaces and services.

use std::collections::BTreeMap;

use autoscaler::settings::Toggle;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;

use crate::cluster::{Cluster, Scope};
use crate::error::PluginError;

/// What the switch says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Switch {
    /// Whether revisions are placed that no narrower key names.
    pub(crate) is_on: bool,
    /// What narrower keys say, by `NAMESPACE` or `NAMESPACE.SERVICE`.
    pub(crate) exceptions: BTreeMap<String, bool>,
    /// Whether the ConfigMap is there; without it the switch is on.
    pub(crate) is_set: bool,
}

impl Switch {
    fn of(map: Option<&ConfigMap>) -> Self {
        let data = map.and_then(|map| map.data.as_ref());
        let toggle = Toggle::read(data);
        let scopes = data.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix(Toggle::ENABLED_KEY)?.strip_prefix('.'));
        let exceptions = scopes.map(|scope| {
            let (namespace, service) = scope.split_once('.').unwrap_or((scope, ""));
            (scope.to_owned(), toggle.is_on(namespace, service))
        });
        // No namespace and no service has an empty name.
        Self { is_on: toggle.is_on("", ""), exceptions: exceptions.collect(), is_set: map.is_some() }
    }

    /// The switch in words.
    pub(crate) fn words(&self) -> String {
        let on = |is_on| if is_on { "on" } else { "off" };
        let exceptions: Vec<String> = self.exceptions.iter().map(|(scope, is_on)| format!("{scope} {}", on(*is_on))).collect();
        match exceptions.is_empty() {
            true => on(self.is_on).to_owned(),
            false => format!("{}, but {}", on(self.is_on), exceptions.join(", ")),
        }
    }
}

/// Reads the switch.
pub(crate) async fn switch(cluster: &Cluster) -> Result<Switch, PluginError> {
    let maps = cluster.api::<ConfigMap>(&Scope::One(Toggle::NAMESPACE.to_owned()));
    let map = cluster.get(&format!("read the ConfigMap {}/{}", Toggle::NAMESPACE, Toggle::NAME), maps, Toggle::NAME).await?;
    Ok(Switch::of(map.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_named_and_nothing_means_on() {
        assert_eq!(Switch::of(None).words(), "on");
        let data = [("", "false"), (".blue", "true"), (".blue.hello", "false")];
        let data = data.map(|(scope, text)| (format!("{}{scope}", Toggle::ENABLED_KEY), text.to_owned()));
        let switch = Switch::of(Some(&ConfigMap { data: Some(data.into()), ..ConfigMap::default() }));
        assert_eq!(switch.words(), "off, but blue on, blue.hello off");
    }
}
