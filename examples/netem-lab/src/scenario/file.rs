//! The shape of a scenario file, before anything is checked. Values keep their place in the text,
//! for the line in an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioTable {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) description: String,
    pub(super) nodes: Spanned<NodesTable>,
    pub(super) link_defaults: Option<LinkDefaultsTable>,
    #[serde(default)]
    pub(super) links: Vec<Spanned<LinkTable>>,
    pub(super) service: ServiceTable,
    #[serde(default)]
    pub(super) steps: StepsTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodesTable {
    pub(crate) names: Option<Vec<Spanned<String>>>,
    pub(crate) count: Option<Spanned<usize>>,
    pub(crate) prefix: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkDefaultsTable {
    pub(crate) rtt_ms: Spanned<f64>,
    pub(crate) jitter_ms: Option<Spanned<f64>>,
    pub(crate) loss_ratio: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkTable {
    pub(crate) between: Option<[Spanned<String>; 2]>,
    pub(crate) from: Option<Spanned<String>>,
    pub(crate) to: Option<Spanned<String>>,
    pub(crate) rtt_ms: Option<Spanned<f64>>,
    pub(crate) one_way_ms: Option<Spanned<f64>>,
    pub(crate) jitter_ms: Option<Spanned<f64>>,
    pub(crate) loss_ratio: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceTable {
    pub(super) name: Spanned<String>,
    pub(super) namespace: Option<Spanned<String>>,
    pub(super) image: Spanned<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) class: Option<Spanned<String>>,
    pub(super) window_seconds: Option<Spanned<u32>>,
    pub(super) target: Option<Spanned<f64>>,
    pub(super) container_concurrency: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepsTable {
    pub(super) far: Option<Spanned<String>>,
    pub(super) near: Option<Spanned<String>>,
    pub(super) load_path: Option<Spanned<String>>,
    pub(super) in_flight: Option<Spanned<u32>>,
    pub(super) load_seconds: Option<Spanned<f64>>,
    pub(super) settle_seconds: Option<Spanned<f64>>,
}
