//! The stream of demand from locality-ingress to the extra-controller.
//!
//! Every replica of locality-ingress serves the load reports of its gateways at `GET /v1/demand`,
//! as JSON lines: [`DemandEvent::Snapshot`] lines that replace all of the reader's loads of this
//! replica, then [`DemandEvent::Update`] lines for changes, and a [`DemandEvent::Heartbeat`] after
//! a while without changes. A gateway reports to one replica, so a reader follows all replicas.
//!
//! Counters only grow while a replica runs; a reader takes differences. A counter that is smaller
//! than before has restarted at zero. Every line has the age of the gateways' last reports, so that
//! a reader can tell an idle gateway from a silent one.
//!
//! ```
//! use std::collections::BTreeMap;
//! use gateway_link::RevisionKey;
//! use gateway_link::demand::{DemandEvent, Gateway, Load, RevisionDemand};
//!
//! let load = Load { in_flight: 1, arrived: 5, finished: 4, failed: 0, busy_seconds: 0.5 };
//! let loads =
//!     BTreeMap::from([("node3".to_owned(), BTreeMap::from([("node1".to_owned(), load)]))]);
//! let event = DemandEvent::Update {
//!     version: 2,
//!     gateways: vec![Gateway { stream: 7, node: "node3".to_owned(), age_seconds: 0.0 }],
//!     gone: vec![],
//!     demand: vec![RevisionDemand { key: RevisionKey::new("default", "hello-00001"), loads }],
//!     removed: vec![],
//!     held: vec![],
//! };
//! assert_eq!(DemandEvent::from_line(&event.to_line())?, event);
//! # Ok::<(), gateway_link::demand::DemandStreamError>(())
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::RevisionKey;
use crate::lines::LineTooLong;

/// The path of the stream.
pub const DEMAND_PATH: &str = "/v1/demand";

/// The longest line a reader accepts, in bytes.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// The approximate maximum of a writer's lines, in bytes: more is sent in further lines.
const LINE_BYTES: usize = 1024 * 1024;

/// A reader considers the stream dead after this time without a line: several heartbeats.
pub const SILENCE_SECONDS: f64 = 5.0;

/// The interval of heartbeats without changes.
pub const HEARTBEAT_SECONDS: f64 = 0.5;

/// Requests of one revision from one source node to one serving node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests in flight at the time of the last report.
    pub in_flight: u64,
    /// Requests sent, since the replica began to count.
    pub arrived: u64,
    /// Of those, answered with anything but a server error.
    pub finished: u64,
    /// Of those, answered with a server error, or not at all.
    pub failed: u64,
    /// Requests in flight integrated over time, in request-seconds, as seen by the gateway: network
    /// time included. Divided by the requests that ended meanwhile it is the mean response time
    /// (Little's law).
    #[serde(deserialize_with = "at_least_zero")]
    pub busy_seconds: f64,
}

impl Load {
    /// Requests that ended, successfully or not.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.finished.saturating_add(self.failed)
    }
}

/// Serving node -> load; the name is empty if an endpoint's node is unknown. While a revision is at
/// zero, the serving nodes are those of the activators that hold its requests.
pub type ByServing = BTreeMap<String, Load>;

/// The demand for one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionDemand {
    /// The revision.
    #[serde(flatten)]
    pub key: RevisionKey,
    /// Source node -> serving node -> load. It replaces the reader's loads of these source nodes;
    /// other source nodes are unchanged.
    pub loads: BTreeMap<String, ByServing>,
}

/// A gateway that reports to the replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its stream of reports; it changes when the gateway reconnects.
    pub stream: u64,
    /// Its node, which is the source node of its requests.
    pub node: String,
    /// Seconds since its last report.
    #[serde(deserialize_with = "at_least_zero")]
    pub age_seconds: f64,
}

/// A gateway has handed a request to an activator. It is announced as it happens, by the replica
/// that receives the access log, possibly more than once; the gateway's next reports count the
/// request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The revision.
    #[serde(flatten)]
    pub key: RevisionKey,
    /// The source node.
    pub source: String,
}

/// One run of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// A unique name.
    pub instance: String,
    /// Seconds since its start.
    pub running_seconds: f64,
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DemandEvent {
    /// All loads, in one or more lines; it replaces all of the reader's loads of this replica.
    Snapshot {
        /// The name of this run. With another name all counters restarted at zero.
        instance: String,
        /// Seconds since the start of this run. If it is younger than the reader's last look, all
        /// counts are new.
        #[serde(deserialize_with = "at_least_zero")]
        running_seconds: f64,
        /// Counts the changes since the replica started.
        version: u64,
        /// The number of further lines of the snapshot.
        parts_left: u32,
        /// All gateways that report to the replica, in every line.
        gateways: Vec<Gateway>,
        /// The revisions with traffic now or recently.
        demand: Vec<RevisionDemand>,
    },
    /// What changed.
    Update {
        /// Counts the changes since the replica started.
        version: u64,
        /// The gateways that reported since the line before.
        gateways: Vec<Gateway>,
        /// Closed streams. The requests in flight of their gateways are unknown: such a gateway may
        /// be gone, or report to another replica.
        gone: Vec<u64>,
        /// The changed source nodes of changed revisions.
        demand: Vec<RevisionDemand>,
        /// Revisions dropped for lack of traffic.
        removed: Vec<RevisionKey>,
        /// Requests that a gateway has just handed to an activator, before any report.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<Held>,
    },
    /// Nothing changed, and the replica is alive.
    Heartbeat {
        /// The version of the last snapshot or update.
        version: u64,
        /// All gateways that report to the replica.
        gateways: Vec<Gateway>,
    },
}

impl DemandEvent {
    /// The event as one line of JSON, newline included.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("strings and numbers always have a JSON form");
        line.push('\n');
        line
    }

    /// Reads one line.
    ///
    /// # Errors
    /// [`DemandStreamError::TooLong`] above [`MAX_LINE_BYTES`], [`DemandStreamError::Malformed`]
    /// for anything that is not an event, times below zero included.
    pub fn from_line(line: &str) -> Result<Self, DemandStreamError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(LineTooLong { limit: MAX_LINE_BYTES }.into());
        }
        serde_json::from_str(line).map_err(|source| DemandStreamError::Malformed { source })
    }

    /// A snapshot, in as many parts as keep each line well below [`MAX_LINE_BYTES`].
    #[must_use]
    pub fn snapshot(run: &Run, version: u64, gateways: &[Gateway], demand: Vec<RevisionDemand>) -> Vec<Self> {
        let parts = in_parts(demand);
        let count = parts.len();
        let part = |(index, demand)| Self::Snapshot {
            instance: run.instance.clone(),
            running_seconds: run.running_seconds,
            version,
            parts_left: u32::try_from(count - 1 - index).unwrap_or(u32::MAX),
            gateways: gateways.to_vec(),
            demand,
        };
        parts.into_iter().enumerate().map(part).collect()
    }

    /// An update, in as many lines as keep each well below [`MAX_LINE_BYTES`].
    #[must_use]
    pub fn update(
        version: u64,
        gateways: Vec<Gateway>,
        gone: Vec<u64>,
        demand: Vec<RevisionDemand>,
        removed: Vec<RevisionKey>,
        held: Vec<Held>,
    ) -> Vec<Self> {
        let mut parts = in_parts(demand);
        // A reader considers a second complete when its gateways have reported beyond it, so the
        // gateways come with the last line.
        let last = parts.pop().unwrap_or_default();
        let first = parts.into_iter().map(|demand| Self::Update {
            version,
            gateways: Vec::new(),
            gone: Vec::new(),
            demand,
            removed: Vec::new(),
            held: Vec::new(),
        });
        let mut lines: Vec<Self> = first.collect();
        lines.push(Self::Update { version, gateways, gone, demand: last, removed, held });
        lines
    }
}

/// At least one part, which may be empty.
fn in_parts(demand: Vec<RevisionDemand>) -> Vec<Vec<RevisionDemand>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for revision in demand {
        let mut loads = BTreeMap::new();
        let mut rest = revision.loads.into_iter().peekable();
        while let Some((source, by_serving)) = rest.next() {
            // Keys are escaped at worst six-fold; numbers and field names come to less than 160
            // bytes.
            let names: usize = by_serving.keys().map(|serving| 160 + serving.len()).sum();
            bytes += 32 + source.len() + names;
            loads.insert(source, by_serving);
            let is_full = bytes >= LINE_BYTES;
            if is_full || rest.peek().is_none() {
                bytes += 64 + revision.key.namespace.len() + revision.key.revision.len();
                let demand = RevisionDemand { key: revision.key.clone(), loads: std::mem::take(&mut loads) };
                if let Some(part) = parts.last_mut() {
                    part.push(demand);
                }
            }
            if is_full {
                parts.push(Vec::new());
                bytes = 0;
            }
        }
    }
    if parts.len() > 1 && parts.last().is_some_and(Vec::is_empty) {
        parts.pop();
    }
    parts
}

fn at_least_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(serde::de::Error::custom(format!("{number} is not a time in seconds")))
    }
}

/// Why a line of demand was refused.
#[derive(Debug, thiserror::Error)]
pub enum DemandStreamError {
    /// The line is longer than allowed.
    #[error("failed to read a line of demand")]
    TooLong {
        /// The maximum length.
        #[from]
        source: LineTooLong,
    },
    /// The line is no event.
    #[error("failed to read a line of demand")]
    Malformed {
        /// The position and cause.
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run() -> Run {
        Run { instance: "a-1".to_owned(), running_seconds: 7.5 }
    }

    fn load() -> impl Strategy<Value = Load> {
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), 0.0..1e12).prop_map(
            |(in_flight, arrived, finished, failed, busy_seconds)| Load { in_flight, arrived, finished, failed, busy_seconds },
        )
    }

    fn demand() -> impl Strategy<Value = Vec<RevisionDemand>> {
        let loads = prop::collection::btree_map("[a-z\"]{0,8}", prop::collection::btree_map("[a-z]{0,8}", load(), 0..3), 1..4);
        prop::collection::btree_map("[a-z]{1,8}", loads, 0..4).prop_map(|revisions| {
            let of = |(revision, loads)| RevisionDemand { key: RevisionKey::new("ns", revision), loads };
            revisions.into_iter().map(of).collect()
        })
    }

    fn merged(events: &[DemandEvent]) -> BTreeMap<RevisionKey, BTreeMap<String, ByServing>> {
        let mut merged: BTreeMap<RevisionKey, BTreeMap<String, ByServing>> = BTreeMap::new();
        for event in events {
            let (DemandEvent::Snapshot { demand, .. } | DemandEvent::Update { demand, .. }) = event else { continue };
            for one in demand {
                merged.entry(one.key.clone()).or_default().extend(one.loads.clone());
            }
        }
        merged
    }

    proptest! {
        #[test]
        fn every_event_survives_its_line(demand in demand(), version: u64, stream: u64, age_seconds in 0.0..1e6) {
            let gateways = vec![Gateway { stream, node: "node1".into(), age_seconds }];
            let removed = vec![RevisionKey::new("ns", "old")];
            let mut events = DemandEvent::snapshot(&run(), version, &gateways, demand.clone());
            let held = vec![Held { key: RevisionKey::new("ns", "asleep"), source: "node1".into() }];
            events.extend(DemandEvent::update(version, gateways.clone(), vec![stream], demand, removed, held));
            events.push(DemandEvent::Heartbeat { version, gateways });
            for event in events {
                let line = event.to_line();
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert_eq!(DemandEvent::from_line(&line).unwrap(), event);
            }
        }

        #[test]
        fn hostile_lines_are_refused_without_panic(line in ".{0,200}") {
            prop_assert!(DemandEvent::from_line(&line).is_err() || line.contains("kind"));
        }

        /// Bytes of an honest line that were changed on their way.
        #[test]
        fn damaged_lines_never_panic(demand in demand(), at: prop::sample::Index, with: char) {
            let mut line: Vec<char> = DemandEvent::snapshot(&run(), 1, &[], demand)[0].to_line().chars().collect();
            let at = at.index(line.len());
            line[at] = with;
            let _ = DemandEvent::from_line(&line.into_iter().collect::<String>());
        }
    }

    #[test]
    fn times_below_zero_are_refused() {
        let line = r#"{"kind":"heartbeat","version":1,"gateways":[{"stream":1,"node":"a","age_seconds":-1.0}]}"#;
        assert!(matches!(DemandEvent::from_line(line), Err(DemandStreamError::Malformed { .. })));
    }

    #[test]
    fn what_is_much_goes_into_several_lines_each_within_the_bound() {
        let by_serving: ByServing = (0..2_000).map(|node| (format!("serving-{node}"), Load::default())).collect();
        let loads: BTreeMap<String, ByServing> = (0..20).map(|node| (format!("source-{node}"), by_serving.clone())).collect();
        let of = |number| RevisionDemand { key: RevisionKey::new("ns", format!("r{number}")), loads: loads.clone() };
        let demand: Vec<RevisionDemand> = (0..2).map(of).collect();
        let whole: BTreeMap<_, _> = demand.iter().map(|one| (one.key.clone(), one.loads.clone())).collect();
        let snapshot = DemandEvent::snapshot(&run(), 1, &[], demand.clone());
        assert!(snapshot.len() > 4, "{} lines", snapshot.len());
        for (index, event) in snapshot.iter().enumerate() {
            assert!(event.to_line().len() < MAX_LINE_BYTES);
            let DemandEvent::Snapshot { parts_left, .. } = event else { panic!("{event:?}") };
            assert_eq!(usize::try_from(*parts_left).unwrap(), snapshot.len() - 1 - index);
        }
        assert_eq!(merged(&snapshot), whole);
        let gateways = vec![Gateway { stream: 1, node: "a".into(), age_seconds: 0.0 }];
        let update = DemandEvent::update(2, gateways.clone(), vec![], demand, vec![], vec![]);
        assert_eq!(merged(&update), whole);
        let told = |event: &DemandEvent| matches!(event, DemandEvent::Update { gateways: told, .. } if *told == gateways);
        assert_eq!(update.iter().map(told).position(|told| told), Some(update.len() - 1), "with the last part");
    }

    #[test]
    fn a_line_above_the_bound_is_refused() {
        let line = " ".repeat(MAX_LINE_BYTES + 1);
        assert!(matches!(DemandEvent::from_line(&line), Err(DemandStreamError::TooLong { .. })));
    }
}
