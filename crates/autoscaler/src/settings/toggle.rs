//! The switch: ConfigMap `config-ikukantai`.

use std::collections::BTreeMap;

/// What the ConfigMap says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toggle {
    /// Whether revisions that opted in by their class are ours to place. When it turns false every revision is handed back to the
    /// stock autoscaler, and taken over again when it turns true.
    pub enabled: bool,
    /// Whether a source node may earn a replica of its own beyond what the load alone asks for; see
    /// [`locality`](crate::earned).
    pub locality_replicas: bool,
}

impl Toggle {
    /// Name of the ConfigMap.
    pub const NAME: &'static str = "config-ikukantai";
    /// Its namespace.
    pub const NAMESPACE: &'static str = "default";
    /// Key of [`Self::enabled`].
    pub const ENABLED_KEY: &'static str = "ikukantai-miporin-enable-yukari";
    /// Key of [`Self::locality_replicas`].
    pub const LOCALITY_KEY: &'static str = "kantai-locality-replicas";

    /// Reads the ConfigMap's data. Absent (the map, or a key) means on: whoever names the class wants it. Only `"false"` switches off,
    /// so that a slip of the pen does not hand back a whole cluster.
    #[must_use]
    pub fn read(data: Option<&BTreeMap<String, String>>) -> Self {
        let on = |key| data.and_then(|data| data.get(key)).is_none_or(|text| !text.trim().eq_ignore_ascii_case("false"));
        Self { enabled: on(Self::ENABLED_KEY), locality_replicas: on(Self::LOCALITY_KEY) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, true)]
    #[case(Some("true"), true)]
    #[case(Some("false"), false)]
    #[case(Some(" False\n"), false)]
    #[case(Some("fasle"), true)]
    fn only_false_switches_off(#[case] text: Option<&str>, #[case] enabled: bool) {
        let data = text.map(|text| BTreeMap::from([(Toggle::ENABLED_KEY.to_owned(), text.to_owned())]));
        assert_eq!(Toggle::read(data.as_ref()).enabled, enabled);
    }
}
