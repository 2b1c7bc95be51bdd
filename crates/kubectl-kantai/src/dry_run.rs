//! `dry-run`: where pods would end after a change that is not made.

use std::collections::BTreeMap;

use autoscaler::forecast::{Change, Forecast, forecast};
use autoscaler::trace::{self, TracedCall};
use gateway_link::RevisionKey;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::daemons;
use crate::error::PluginError;
use crate::options::{DryChange, DryRunOptions, DryShown};
use crate::output::Output;

/// The decision-maker's recording.
const TRACE: &str = "/v1/trace";
/// As many decisions about all revisions are read: the demand of the last second may be late.
const TICKS: usize = 4;

/// One revision, for programs.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    namespace: String,
    revision: String,
    /// Ready pods per node now.
    before: BTreeMap<String, u32>,
    /// And after the change.
    after: BTreeMap<String, u32>,
    /// Pods that would find no node.
    unplaced: u32,
}

pub(crate) async fn run(cluster: &Cluster, options: &DryRunOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let (change, shown) = change(&options.change);
    let scope = cluster.scope(&shown.namespaces)?;
    let lines = record(cluster).await?;
    let odd = |says: String| PluginError::Odd { doing: "decide ahead".to_owned(), says };
    let (picture, memory) = trace::state(lines.iter().map(String::as_str)).map_err(|error| odd(error.to_string()))?;
    let seconds = u32::try_from(shown.ahead.as_secs()).unwrap_or(u32::MAX);
    let forecasts = forecast(&picture, &memory, Some(&change), seconds)
        .map_err(|error| PluginError::Nobody { doing: "decide ahead".to_owned(), says: error.to_string() })?;
    let of_scope = forecasts.iter().filter(|(key, _)| scope.holds(&key.namespace));
    let all: Vec<Shown> = of_scope.map(|(key, forecast)| of(key, forecast)).collect();
    if shown.form.is_json() {
        return out.json(&all);
    }
    if all.is_empty() {
        return Ok(out.line("No revision here is placed by Kantai; -A looks everywhere.")?);
    }
    let rows: Vec<_> = all.iter().map(Shown::row).collect();
    out.table(&["NAMESPACE", "REVISION", "PODS NOW", "PODS THEN", "CHANGES"], &rows)?;
    out.line("")?;
    Ok(out.line("Nothing was changed. Demand is taken to stay as it is, and new pods to start.")?)
}

fn change(given: &DryChange) -> (Change, &DryShown) {
    match given {
        DryChange::Drain { node, shown } => (Change::Drain(node.as_str().into()), shown),
        DryChange::Link { one, other, round_trip, shown } => {
            let seconds = round_trip.as_secs_f64();
            (Change::Link { one: one.as_str().into(), other: other.as_str().into(), seconds }, shown)
        }
    }
}

/// What the decision-maker decides from now on, for a few seconds.
async fn record(cluster: &Cluster) -> Result<Vec<String>, PluginError> {
    #[derive(Deserialize)]
    struct Kind {
        call: TracedCall,
    }
    let target = daemons::decider(cluster).await?;
    let doing = format!("follow the decisions of {target}");
    let mut stream = std::pin::pin!(cluster.proxied_lines(&target, TRACE).await?);
    let (mut lines, mut ticks) = (Vec::new(), 0);
    while ticks < TICKS {
        let Some(line) = cluster.next_line(&mut stream, &doing).await? else {
            return Err(PluginError::Odd { doing, says: "the recording has ended".to_owned() });
        };
        let kind: Kind =
            serde_json::from_str(&line).map_err(|error| PluginError::Odd { doing: doing.clone(), says: error.to_string() })?;
        ticks += usize::from(kind.call == TracedCall::Tick);
        lines.push(line);
    }
    Ok(lines)
}

fn of(key: &RevisionKey, forecast: &Forecast) -> Shown {
    let plain = |counts: &autoscaler::rollout::Counts| counts.iter().map(|(node, count)| (node.to_string(), *count)).collect();
    Shown {
        namespace: key.namespace.clone(),
        revision: key.revision.clone(),
        before: plain(&forecast.before),
        after: plain(&forecast.after),
        unplaced: forecast.unplaced,
    }
}

impl Shown {
    fn row(&self) -> Vec<String> {
        let total = |counts: &BTreeMap<String, u32>| counts.values().sum::<u32>().to_string();
        let nodes = self.before.keys().chain(self.after.keys()).collect::<std::collections::BTreeSet<_>>();
        let of = |counts: &BTreeMap<String, u32>, node: &String| counts.get(node).copied().unwrap_or(0);
        let changed = nodes.into_iter().filter(|node| of(&self.before, node) != of(&self.after, node));
        let mut changes: Vec<String> =
            changed.map(|node| format!("{node} {} -> {}", of(&self.before, node), of(&self.after, node))).collect();
        if self.unplaced > 0 {
            changes.push(format!("{} find no node", self.unplaced));
        }
        let changes = if changes.is_empty() { "none".to_owned() } else { changes.join(", ") };
        vec![self.namespace.clone(), self.revision.clone(), total(&self.before), total(&self.after), changes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_whose_count_changes_are_named() {
        let counts = |pairs: &[(&str, u32)]| pairs.iter().map(|(node, count)| ((*node).into(), *count)).collect();
        let key = RevisionKey::new("default", "hello-00001");
        let mut forecast =
            Forecast { before: counts(&[("node1", 2), ("node2", 1)]), after: counts(&[("node2", 1), ("node3", 2)]), unplaced: 0 };
        assert_eq!(of(&key, &forecast).row()[2..], ["3", "3", "node1 2 -> 0, node3 0 -> 2"]);
        (forecast.after, forecast.unplaced) = (forecast.before.clone(), 1);
        assert_eq!(of(&key, &forecast).row()[2..], ["3", "3", "1 find no node"]);
        forecast.unplaced = 0;
        assert_eq!(of(&key, &forecast).row()[4], "none");
    }
}
