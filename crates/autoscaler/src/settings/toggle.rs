//! The switch: ConfigMap `config-ikukantai`.

use std::collections::BTreeMap;

use super::go_value::parse_bool;

/// What the ConfigMap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toggle {
    is_on: bool,
    /// Namespaces, and services as `namespace.service`, that have a value of their own.
    own: BTreeMap<String, bool>,
    /// Whether a source node may earn a replica of its own beyond what demand alone asks for; see
    /// [`earned`](crate::earned).
    pub earns_locality: bool,
}

impl Toggle {
    /// Name of the ConfigMap.
    pub const NAME: &'static str = "config-ikukantai";
    /// Its namespace.
    pub const NAMESPACE: &'static str = "default";
    /// The key that switches all revisions of the class on or off. With `.NAMESPACE` or
    /// `.NAMESPACE.SERVICE` after it, those of one namespace or one Knative Service.
    pub const ENABLED_KEY: &'static str = "ikukantai-miporin-enable-yukari";
    /// The key of [`Self::earns_locality`].
    pub const LOCALITY_KEY: &'static str = "kantai-locality-replicas";

    /// Reads the ConfigMap's data. Absent (the map, or a key) means on: the class was chosen
    /// explicitly. Only `"false"`, in any of Go's spellings or any case, switches off, so that a
    /// misspelling does not hand back a whole cluster.
    #[must_use]
    pub fn read(data: Option<&BTreeMap<String, String>>) -> Self {
        let is_off = |text: &str| text.eq_ignore_ascii_case("false") || parse_bool(text) == Some(false);
        let is_on = |text: &str| !is_off(text.trim());
        let on = |key| data.and_then(|data| data.get(key)).is_none_or(|text| is_on(text));
        let own = data.into_iter().flatten().filter_map(|(key, text)| {
            let scope = key.strip_prefix(Self::ENABLED_KEY)?.strip_prefix('.')?;
            Some((scope.to_owned(), is_on(text)))
        });
        Self { is_on: on(Self::ENABLED_KEY), own: own.collect(), earns_locality: on(Self::LOCALITY_KEY) }
    }

    /// Whether revisions of the class in this namespace and Knative Service are ours to place. When
    /// it turns false they are handed back to the stock autoscaler, and taken over when it turns
    /// true.
    #[must_use]
    pub fn is_on(&self, namespace: &str, service: &str) -> bool {
        let own = self.own.get(&format!("{namespace}.{service}")).or_else(|| self.own.get(namespace));
        own.copied().unwrap_or(self.is_on)
    }
}

impl Default for Toggle {
    fn default() -> Self {
        Self::read(None)
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
    #[case(Some("fAlSe"), false)]
    #[case(Some("0"), false)]
    #[case(Some("f"), false)]
    #[case(Some("1"), true)]
    #[case(Some(""), true)]
    #[case(Some("fasle"), true)]
    fn only_false_switches_off(#[case] text: Option<&str>, #[case] enabled: bool) {
        let data = text.map(|text| BTreeMap::from([(Toggle::ENABLED_KEY.to_owned(), text.to_owned())]));
        assert_eq!(Toggle::read(data.as_ref()).is_on("default", "hello"), enabled);
    }

    #[test]
    fn the_narrower_key_wins() {
        let data = [("", "false"), (".blue", "true"), (".blue.hello", "false"), (".green.hello", "true")];
        let data = data.map(|(scope, text)| (format!("{}{scope}", Toggle::ENABLED_KEY), text.to_owned()));
        let toggle = Toggle::read(Some(&BTreeMap::from(data)));
        let on = [("red", "hello"), ("blue", "hello"), ("blue", "other"), ("green", "hello"), ("green", "other")];
        assert_eq!(on.map(|(namespace, service)| toggle.is_on(namespace, service)), [false, false, true, true, false]);
    }
}
