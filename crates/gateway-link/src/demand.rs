//! The stream of demand from the ingress (which hears the gateways) to whoever decides.
//!
//! Every replica of locality-ingress serves what its own gateways report at `GET /v1/demand`, as
//! JSON lines: [`DemandEvent::Snapshot`] lines that replace whatever the reader held of this
//! replica, then [`DemandEvent::Update`] lines for what changed, and a [`DemandEvent::Heartbeat`]
//! whenever nothing did for a while. A gateway reports to one replica, so a reader follows all of
//! them.
//!
//! Counters only ever grow while a replica runs; a reader takes differences. One that is smaller
//! than before began anew at zero. Every line tells how long ago the gateways reported, so that a
//! reader knows a gateway without requests from one that it has heard nothing of.
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

/// Where a replica of locality-ingress serves the stream.
pub const DEMAND_PATH: &str = "/v1/demand";

/// The longest line a reader accepts, in bytes.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// About how long a writer's lines get, in bytes: what is more goes into further lines.
const LINE_BYTES: usize = 1024 * 1024;

/// A reader that hears nothing for this long takes the stream for dead: several heartbeats.
pub const SILENCE_SECONDS: f64 = 5.0;

/// A writer with nothing to tell sends a heartbeat this often.
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
    /// Requests in flight, added up over time, in request-seconds: what the gateway saw, the way
    /// through the network included. Divided by how many ended meanwhile it is the mean response
    /// time (Little's law).
    #[serde(deserialize_with = "at_least_zero")]
    pub busy_seconds: f64,
}

impl Load {
    /// Requests that ended, one way or the other.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.finished.saturating_add(self.failed)
    }
}

/// Serving node -> load; the empty name where an endpoint's node is not known. While a revision is
/// at zero, the serving nodes are those of the activators that hold its requests.
pub type ByServing = BTreeMap<String, Load>;

/// The demand for one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionDemand {
    /// The revision.
    #[serde(flatten)]
    pub key: RevisionKey,
    /// Source node -> serving node -> load. It replaces what the reader held for these source
    /// nodes; other source nodes stay as they are.
    pub loads: BTreeMap<String, ByServing>,
}

/// A gateway that reports to the replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its stream of reports; a gateway that connects again has another one.
    pub stream: u64,
    /// The node it is on: the source node of what enters there.
    pub node: String,
    /// How long ago, in seconds, its last report came.
    #[serde(deserialize_with = "at_least_zero")]
    pub age_seconds: f64,
}

/// A gateway has handed a request to an activator. It is told as it happens, by whichever replica
/// hears of it, and may be told more than once; the gateway's next reports count the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The revision.
    #[serde(flatten)]
    pub key: RevisionKey,
    /// The source node.
    pub source: String,
}

/// One run of a replica, from its start to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its name; no other run has the same.
    pub instance: String,
    /// How long it has counted, in seconds.
    pub running_seconds: f64,
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DemandEvent {
    /// Everything there is, in one or more lines; it replaces what the reader held of this replica.
    Snapshot {
        /// Names this run of the replica: with another one all counters began anew.
        instance: String,
        /// How long, in seconds, this run has counted: what is younger than the reader's last look
        /// is all new to it.
        #[serde(deserialize_with = "at_least_zero")]
        running_seconds: f64,
        /// Counts the changes since the replica started.
        version: u64,
        /// How many more lines the snapshot has.
        parts_left: u32,
        /// All gateways that report to the replica; in every part.
        gateways: Vec<Gateway>,
        /// The revisions that carry traffic, or did lately.
        demand: Vec<RevisionDemand>,
    },
    /// What changed.
    Update {
        /// Counts the changes since the replica started.
        version: u64,
        /// The gateways that reported since the line before.
        gateways: Vec<Gateway>,
        /// Streams that ended. What such a gateway had in flight is not known any more: it may be
        /// gone, or report to another replica.
        gone: Vec<u64>,
        /// The changed source nodes of changed revisions.
        demand: Vec<RevisionDemand>,
        /// Revisions that the replica has forgotten, for want of traffic.
        removed: Vec<RevisionKey>,
        /// Requests that a gateway has just handed to an activator to hold, seen before any report.
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
        // A reader takes a second for complete when its gateways have reported beyond it, so the
        // gateways come with the last part.
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
    /// Longer than any honest line.
    #[error("failed to read a line of demand")]
    TooLong {
        /// How long it may be.
        #[from]
        source: LineTooLong,
    },
    /// Not an event.
    #[error("failed to read a line of demand")]
    Malformed {
        /// Where in the line, and why.
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
