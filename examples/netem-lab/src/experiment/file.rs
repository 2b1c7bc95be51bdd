//! The shape of an experiment's file, before anything is checked. Values keep their place in the
//! text, for the line in an error.

use serde::Deserialize;
use toml::Spanned;

use super::column::Column;
use super::goal::Measure;
use crate::load::Connections;
use crate::scenario::file::{LinkDefaultsTable, LinkTable, NodesTable};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExperimentTable {
    pub(super) name: Spanned<String>,
    pub(super) title: String,
    pub(super) reproduces: String,
    pub(super) differs: String,
    pub(super) columns: Option<Spanned<Vec<Column>>>,
    pub(super) repeat: Option<Spanned<u32>>,
    pub(super) nodes: Spanned<NodesTable>,
    pub(super) link_defaults: Option<LinkDefaultsTable>,
    #[serde(default)]
    pub(super) links: Vec<Spanned<LinkTable>>,
    #[serde(default)]
    pub(super) service: ServiceTable,
    #[serde(default)]
    pub(super) phases: Vec<Spanned<PhaseTable>>,
    pub(super) starts: Option<Spanned<StartsTable>>,
    #[serde(default)]
    pub(super) goals: Vec<Spanned<GoalTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceTable {
    pub(super) wait_ms: Option<Spanned<f64>>,
    pub(super) busy_ms: Option<Spanned<f64>>,
    pub(super) works_on: Option<Spanned<u32>>,
    pub(super) target: Option<Spanned<f64>>,
    pub(super) container_concurrency: Option<Spanned<u32>>,
    pub(super) min_pods: Option<Spanned<u32>>,
    pub(super) max_pods: Option<Spanned<u32>>,
    pub(super) window_seconds: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PhaseTable {
    pub(super) name: Spanned<String>,
    pub(super) seconds: Spanned<f64>,
    #[serde(default)]
    pub(super) from_zero: bool,
    pub(super) load: Vec<Spanned<LoadTable>>,
    pub(super) cut_off: Option<Spanned<String>>,
    pub(super) link_down: Option<[Spanned<String>; 2]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadTable {
    pub(super) from: Spanned<String>,
    pub(super) per_second: Option<Spanned<f64>>,
    pub(super) at_a_time: Option<Spanned<u32>>,
    pub(super) timeout_seconds: Option<Spanned<f64>>,
    pub(super) connections: Option<Connections>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartsTable {
    pub(super) services: Spanned<u32>,
    pub(super) rounds: Spanned<u32>,
    pub(super) from: Vec<Spanned<String>>,
    pub(super) pause_seconds: Spanned<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GoalTable {
    pub(super) name: Spanned<String>,
    pub(super) measure: Measure,
    pub(super) column: Spanned<Column>,
    pub(super) phase: Option<Spanned<String>>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) over: Option<Spanned<Column>>,
    pub(super) at_most: Option<Spanned<f64>>,
    pub(super) at_least: Option<Spanned<f64>>,
}
