//! Which nodes every prober should measure, also in a fleet that is too large to measure every
//! pair: those that serve or send, or did lately. Told to the probers by a ConfigMap that they
//! mount, so that none of them needs the API server for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::Client;
use kube::api::{Patch, PatchParams};
use latency_matrix::NodeName;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::{FIELD_MANAGER, WriteError};

/// Name of the ConfigMap, in the program's own namespace. The manifests make it; only its content
/// is written here.
pub const CONFIG_MAP: &str = "latency-probe-pins";
/// Its key, which the probers see as a file: a node a line, in name order.
pub const KEY: &str = "nodes";

/// How long a node that is no longer used stays pinned: it may be used again, and series that come
/// and go are useless.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Every prober measures all of them, so there must not be too many. Those in use go before those
/// that were.
const MOST: usize = 128;
/// How often it is looked who serves and who sends.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long after a write that failed.
const RETRY: Duration = Duration::from_secs(30);

/// When each node was last used.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    used: BTreeMap<NodeName, Duration>,
}

impl Pins {
    /// Those that are pinned, given who is used at `now`.
    ///
    /// ```
    /// use extra_controller::pins::Pins;
    /// use std::time::Duration;
    /// let mut pins = Pins::default();
    /// pins.update(["a".into()], Duration::ZERO);
    /// let pinned: Vec<_> =
    ///     pins.update(["b".into()], Duration::from_secs(60)).into_iter().collect();
    /// assert_eq!(pinned, ["a".into(), "b".into()]);
    /// assert_eq!(
    ///     pins.update([], Duration::from_secs(610)).len(),
    ///     1,
    ///     "ten minutes after its last use a node is let go"
    /// );
    /// ```
    pub fn update(&mut self, used: impl IntoIterator<Item = NodeName>, now: Duration) -> BTreeSet<NodeName> {
        self.used.extend(used.into_iter().map(|node| (node, now)));
        self.used.retain(|_, last| now.saturating_sub(*last) < KEPT);
        let mut latest: Vec<(&NodeName, &Duration)> = self.used.iter().collect();
        // Among equals the name decides, so that the choice does not change by itself.
        latest.sort_by(|(a_name, a), (b_name, b)| (b, a_name).cmp(&(a, b_name)));
        latest.into_iter().take(MOST).map(|(node, _)| node.clone()).collect()
    }
}

/// As the probers read it.
fn text(pinned: &BTreeSet<NodeName>) -> String {
    pinned.iter().map(|node| format!("{node}\n")).collect()
}

/// Writes the pinned nodes whenever they change. Nodes that are pinned already count as used now,
/// so that a new leader forgets none.
///
/// `used` has the nodes in use; `start` is the origin of the clock. Writes only while `leads` is
/// true.
pub(crate) async fn keep(
    client: Client,
    namespace: String,
    used: watch::Receiver<BTreeSet<NodeName>>,
    leads: watch::Receiver<bool>,
    start: Instant,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let context = Keeping { namespace, used, start };
    let mut pins = Pins::default();
    let mut written: Option<String> = None;
    loop {
        if !*leads.borrow() {
            // Another instance writes meanwhile.
            written = None;
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let written_now = match &written {
            None => begin(&api, &mut pins, &context).await.map(Some),
            Some(held) => write(&api, &mut pins, held, &context).await,
        };
        match written_now {
            Ok(changed) => {
                written = changed.or(written);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "failed to write the pinned nodes, retrying");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

struct Keeping {
    namespace: String,
    used: watch::Receiver<BTreeSet<NodeName>>,
    start: Instant,
}

/// Takes over what is pinned, and gives it as it is written.
async fn begin(api: &Api<ConfigMap>, pins: &mut Pins, context: &Keeping) -> Result<String, WriteError> {
    let held = api.get(CONFIG_MAP).await.map_err(|source| failed("read", context, source))?;
    let text = held.data.unwrap_or_default().remove(KEY).unwrap_or_default();
    pins.update(text.lines().map(NodeName::from), context.start.elapsed());
    Ok(text)
}

/// Writes who is pinned now where that is not what is `held`, and gives what was written.
async fn write(api: &Api<ConfigMap>, pins: &mut Pins, held: &str, context: &Keeping) -> Result<Option<String>, WriteError> {
    let used = context.used.borrow().clone();
    let text = text(&pins.update(used, context.start.elapsed()));
    if text == held {
        return Ok(None);
    }
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, "data": {KEY: text}});
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(CONFIG_MAP, &params, &Patch::Apply(&body)).await.map_err(|source| failed("apply", context, source))?;
    Ok(Some(text))
}

fn failed(action: &'static str, context: &Keeping, source: kube::Error) -> WriteError {
    let (namespace, name) = (context.namespace.clone(), CONFIG_MAP.to_owned());
    WriteError { action, kind: "ConfigMap", namespace, name, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(names: impl IntoIterator<Item = u32>) -> Vec<NodeName> {
        names.into_iter().map(|number| NodeName::from(format!("n{number:04}"))).collect()
    }

    #[test]
    fn who_is_in_use_goes_before_who_was() {
        let mut pins = Pins::default();
        pins.update(nodes(0..200), Duration::ZERO);
        let pinned = pins.update(nodes(150..250), Duration::from_secs(5));
        assert_eq!(pinned.len(), MOST);
        assert!(nodes(150..250).iter().all(|node| pinned.contains(node)));
        assert_eq!(text(&nodes(0..2).into_iter().collect()), "n0000\nn0001\n");
    }

    proptest! {
        /// At most the limit, all nodes in use if they fit, only nodes that were used, and
        /// idempotent.
        #[test]
        fn pins_are_of_those_used_lately(looks in prop::collection::vec((prop::collection::btree_set(0_u32..300, 0..180), 1_u64..400), 1..12)) {
            let (mut pins, mut now, mut last) = (Pins::default(), Duration::ZERO, BTreeMap::new());
            for (used, after) in looks {
                now += Duration::from_secs(after);
                let used = nodes(used);
                last.extend(used.iter().map(|node| (node.clone(), now)));
                let pinned = pins.update(used.clone(), now);
                prop_assert!(pinned.len() <= MOST && (used.len() > MOST || used.iter().all(|node| pinned.contains(node))));
                prop_assert!(pinned.iter().all(|node| now - last[node] < KEPT));
                prop_assert_eq!(pinned, pins.update([], now));
            }
        }
    }
}
