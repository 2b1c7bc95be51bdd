//! The stream of routes from the extra-controller to locality-ingress.
//!
//! The extra-controller serves it at `GET /v1/routes` as JSON lines: first [`Event::Snapshot`]
//! lines that together replace all of the reader's routes, then [`Event::Update`] lines for
//! changes, and a [`Event::Heartbeat`] after a while without changes, so that a reader can tell a
//! quiet writer from a dead one. A reader that loses the stream keeps its routes.
//!
//! ```
//! use gateway_link::{Event, RevisionKey, RevisionRoutes};
//!
//! let routes = RevisionRoutes::new(
//!     RevisionKey::new("default", "hello-00001"),
//!     [("node3", [("node3", 100)])],
//! )?;
//! let line = Event::Snapshot { version: 1, parts_left: 0, routes: vec![routes] }.to_line();
//! assert_eq!(
//!     line,
//!     concat!(
//!         r#"{"kind":"snapshot","version":1,"routes":[{"namespace":"default","#,
//!         r#""revision":"hello-00001","rows":{"node3":{"node3":100}}}]}"#,
//!         "\n",
//!     )
//! );
//! assert!(matches!(Event::from_line(&line)?, Event::Snapshot { version: 1, .. }));
//! # Ok::<(), gateway_link::RouteStreamError>(())
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The path of the stream.
pub const ROUTES_PATH: &str = "/v1/routes";

/// The sum of every row: weights are percentages.
pub const ROW_TOTAL: u32 = 100;

/// The longest line a reader accepts, in bytes. At 40 bytes per weight that is one revision over
/// 1,200 nodes, with a weight for every pair.
pub const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// About how long a writer makes the lines of a snapshot, in bytes.
const LINE_BYTES: usize = 16 * 1024 * 1024;

/// Names one Knative revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RevisionKey {
    /// Namespace of the revision.
    pub namespace: String,
    /// Name of the revision, which is also the name of its public Service.
    pub revision: String,
}

impl RevisionKey {
    /// Names the revision `revision` in `namespace`.
    pub fn new(namespace: impl Into<String>, revision: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), revision: revision.into() }
    }
}

impl std::fmt::Display for RevisionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.revision)
    }
}

/// The routes of one revision: per source node (where a request enters), a weight per serving
/// node.
///
/// Every row sums to [`ROW_TOTAL`] and holds only weights above zero. A source node without a row
/// has no routes: the reader falls back to the nearest endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedRevisionRoutes")]
pub struct RevisionRoutes {
    #[serde(flatten)]
    key: RevisionKey,
    rows: BTreeMap<String, BTreeMap<String, u32>>,
}

impl RevisionRoutes {
    /// Routes for `key` from rows of (source node, its (serving node, weight) pairs). Weights of
    /// zero are left out.
    ///
    /// # Errors
    /// [`RouteStreamError::BadRow`] when a row does not sum to [`ROW_TOTAL`].
    pub fn new<S, R, T>(key: RevisionKey, rows: impl IntoIterator<Item = (S, R)>) -> Result<Self, RouteStreamError>
    where
        S: Into<String>,
        T: Into<String>,
        R: IntoIterator<Item = (T, u32)>,
    {
        let mut checked = BTreeMap::new();
        for (source, row) in rows {
            let source = source.into();
            let row: BTreeMap<String, u32> =
                row.into_iter().map(|(node, weight)| (node.into(), weight)).filter(|&(_, weight)| weight > 0).collect();
            let total = row.values().fold(0_u32, |sum, &weight| sum.saturating_add(weight));
            if total != ROW_TOTAL {
                return Err(RouteStreamError::BadRow { key, source_node: source, total });
            }
            checked.insert(source, row);
        }
        Ok(Self { key, rows: checked })
    }

    /// The revision of these routes.
    #[must_use]
    pub fn key(&self) -> &RevisionKey {
        &self.key
    }

    /// Serving node -> weight for requests from `source_node`, if there is a row for it.
    #[must_use]
    pub fn row(&self, source_node: &str) -> Option<&BTreeMap<String, u32>> {
        self.rows.get(source_node)
    }

    /// About the length of its JSON form, in bytes; names of nodes need no escapes.
    fn approximate_bytes(&self) -> usize {
        let row = |(source, row): (&String, &BTreeMap<String, u32>)| {
            8 + source.len() + row.keys().map(|serving| 8 + serving.len()).sum::<usize>()
        };
        64 + self.key.namespace.len() + self.key.revision.len() + self.rows.iter().map(row).sum::<usize>()
    }

    /// All rows, by source node.
    #[must_use]
    pub fn rows(&self) -> &BTreeMap<String, BTreeMap<String, u32>> {
        &self.rows
    }
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(parts: &u32) -> bool {
    *parts == 0
}

#[derive(Deserialize)]
struct UncheckedRevisionRoutes {
    #[serde(flatten)]
    key: RevisionKey,
    rows: BTreeMap<String, BTreeMap<String, u32>>,
}

impl TryFrom<UncheckedRevisionRoutes> for RevisionRoutes {
    type Error = RouteStreamError;

    fn try_from(unchecked: UncheckedRevisionRoutes) -> Result<Self, Self::Error> {
        Self::new(unchecked.key, unchecked.rows)
    }
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event {
    /// All routes, in one or more lines; with the last one they replace all of the reader's routes.
    Snapshot {
        /// Counts the changes since the writer started.
        version: u64,
        /// The number of further lines of the snapshot; absent on the wire if zero.
        #[serde(default, skip_serializing_if = "is_zero")]
        parts_left: u32,
        /// One entry per revision.
        routes: Vec<RevisionRoutes>,
    },
    /// What changed.
    Update {
        /// Counts the changes since the writer started.
        version: u64,
        /// New and changed routes; each replaces the reader's routes of its revision.
        routes: Vec<RevisionRoutes>,
        /// Revisions without routes from now on.
        removed: Vec<RevisionKey>,
    },
    /// Nothing changed, and the writer is alive.
    Heartbeat {
        /// The version of the last snapshot or update.
        version: u64,
    },
}

impl Event {
    /// A snapshot, in as many parts as keep each line well below [`MAX_LINE_BYTES`], unless one
    /// revision alone is longer.
    #[must_use]
    pub fn snapshot(version: u64, routes: impl IntoIterator<Item = RevisionRoutes>) -> Vec<Self> {
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for routes in routes {
            let length = routes.approximate_bytes();
            if bytes > 0 && bytes + length > LINE_BYTES {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += length;
            parts.last_mut().expect("there is at least one part").push(routes);
        }
        let last = parts.len() - 1;
        let left = |index| u32::try_from(last - index).unwrap_or(u32::MAX);
        parts.into_iter().enumerate().map(|(index, routes)| Self::Snapshot { version, parts_left: left(index), routes }).collect()
    }

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
    /// [`RouteStreamError::TooLong`] above [`MAX_LINE_BYTES`], [`RouteStreamError::Malformed`] for
    /// anything that is not an event, a row that does not sum to [`ROW_TOTAL`] included.
    pub fn from_line(line: &str) -> Result<Self, RouteStreamError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(RouteStreamError::TooLong { bytes: line.len() });
        }
        serde_json::from_str(line).map_err(|source| RouteStreamError::Malformed { source })
    }
}

/// Why routes or a line of them were refused.
#[derive(Debug, thiserror::Error)]
pub enum RouteStreamError {
    /// A row of weights does not sum to [`ROW_TOTAL`].
    #[error("failed to take routes of revision {key}: the weights of source node {source_node} sum to {total}, not {ROW_TOTAL}")]
    BadRow {
        /// The revision.
        key: RevisionKey,
        /// The row.
        source_node: String,
        /// The sum.
        total: u32,
    },
    /// The line is longer than allowed.
    #[error("failed to read a line of routes: {bytes} bytes, more than {MAX_LINE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The line is no event.
    #[error("failed to read a line of routes")]
    Malformed {
        /// The position and cause.
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = BTreeMap<String, u32>> {
        prop::collection::btree_set(1_u32..ROW_TOTAL, 0..5).prop_map(|cuts| {
            let mut row = BTreeMap::new();
            let mut last = 0;
            for (index, cut) in cuts.into_iter().chain([ROW_TOTAL]).enumerate() {
                row.insert(format!("node{index}"), cut - last);
                last = cut;
            }
            row
        })
    }

    proptest! {
        #[test]
        fn every_event_survives_its_line(rows in prop::collection::btree_map("[a-z]{1,8}", row(), 0..5), version: u64) {
            let routes = RevisionRoutes::new(RevisionKey::new("ns", "rev"), rows).unwrap();
            for event in [
                Event::Snapshot { version, parts_left: 0, routes: vec![routes.clone()] },
                Event::Snapshot { version, parts_left: 3, routes: vec![routes.clone()] },
                Event::Update { version, routes: vec![routes], removed: vec![RevisionKey::new("ns", "old")] },
                Event::Heartbeat { version },
            ] {
                let line = event.to_line();
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert_eq!(Event::from_line(&line).unwrap(), event);
            }
        }

        #[test]
        fn hostile_lines_are_refused_without_panic(line in ".{0,200}") {
            prop_assert!(Event::from_line(&line).is_err() || line.contains("kind"));
        }
    }

    #[test]
    fn a_large_snapshot_goes_into_lines_each_within_the_bound() {
        let node = |number| format!("node-{number:04}");
        let routes = |revision: usize| {
            let rows = (0..600).map(|source| (node(source), (0..100).map(move |offset| (node((source + offset) % 600), 1))));
            RevisionRoutes::new(RevisionKey::new("ns", format!("r{revision:02}")), rows).unwrap()
        };
        let snapshot = Event::snapshot(7, (0..40).map(routes));
        assert!(snapshot.len() > 2, "{} lines", snapshot.len());
        let mut revisions = Vec::new();
        for (index, event) in snapshot.iter().enumerate() {
            assert!(event.to_line().len() < MAX_LINE_BYTES / 2);
            let Event::Snapshot { version: 7, parts_left, routes } = event else { panic!("{event:?}") };
            assert_eq!(usize::try_from(*parts_left).unwrap(), snapshot.len() - 1 - index);
            revisions.extend(routes.iter().map(|routes| routes.key().revision.clone()));
        }
        assert_eq!(revisions, (0..40).map(|revision| format!("r{revision:02}")).collect::<Vec<_>>());
        assert_eq!(Event::snapshot(7, []), [Event::Snapshot { version: 7, parts_left: 0, routes: vec![] }]);
    }

    #[test]
    fn a_row_that_does_not_sum_to_100_is_refused_on_the_wire() {
        let line = r#"{"kind":"snapshot","version":1,"routes":[{"namespace":"a","revision":"b","rows":{"n":{"m":99}}}]}"#;
        let error = Event::from_line(line).unwrap_err();
        assert!(format!("{}", std::error::Error::source(&error).unwrap()).contains("sum to 99"));
    }
}
