//! What the network between two nodes does to a packet, for every ordered pair of nodes.

use serde::{Deserialize, Serialize};

/// What happens to the packets of one ordered pair of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// How long a packet is under way.
    pub delay_seconds: f64,
    /// How far the delay strays from `delay_seconds` at most, to either side.
    #[serde(default)]
    pub jitter_seconds: f64,
    /// The share of packets that never arrive, 0 to 1.
    #[serde(default)]
    pub loss_ratio: f64,
}

/// The links of every ordered pair of a list of nodes.
///
/// ```
/// use netem_lab::wire::{Link, LinkMatrix};
///
/// let link = Link { delay_seconds: 0.001, ..Link::default() };
/// let mut links = LinkMatrix::uniform(vec!["a".into(), "b".into()], link);
/// links.set("a", "b", Link { delay_seconds: 0.020, ..Link::default() });
/// assert_eq!(links.rtt_seconds("a", "b"), Some(0.021));
/// assert_eq!(links.get("a", "nowhere"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkMatrix {
    nodes: Vec<String>,
    /// Row: where packets come from; column: where they go. The diagonal is never used.
    rows: Vec<Vec<Link>>,
}

impl LinkMatrix {
    /// The same link between all nodes.
    #[must_use]
    pub fn uniform(nodes: Vec<String>, link: Link) -> Self {
        let rows = vec![vec![link; nodes.len()]; nodes.len()];
        Self { nodes, rows }
    }

    /// The nodes, in the order of rows and columns.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// The link from one node to another; none when either is not in the matrix.
    #[must_use]
    pub fn get(&self, from: &str, to: &str) -> Option<Link> {
        Some(self.rows[self.index(from)?][self.index(to)?])
    }

    /// Replaces the link from one node to another. Says whether both are in the matrix.
    pub fn set(&mut self, from: &str, to: &str, link: Link) -> bool {
        let (Some(row), Some(column)) = (self.index(from), self.index(to)) else { return false };
        self.rows[row][column] = link;
        true
    }

    /// The link between nodes by their place in [`LinkMatrix::nodes`].
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> Link {
        self.rows[row][column]
    }

    /// There and back without jitter; none when either node is not in the matrix, zero from a node
    /// to itself.
    #[must_use]
    pub fn rtt_seconds(&self, from: &str, to: &str) -> Option<f64> {
        if from == to {
            return self.index(from).map(|_| 0.0);
        }
        Some(self.get(from, to)?.delay_seconds + self.get(to, from)?.delay_seconds)
    }

    /// Every ordered pair of different nodes.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str, Link)> {
        self.nodes.iter().enumerate().flat_map(move |(row, from)| {
            self.nodes
                .iter()
                .enumerate()
                .filter(move |(column, _)| *column != row)
                .map(move |(column, to)| (from.as_str(), to.as_str(), self.rows[row][column]))
        })
    }

    /// Whether there is one row and one column per node and every number makes sense. A matrix that
    /// came from a file may not be so.
    pub(super) fn is_sound(&self) -> bool {
        let counts_fit = self.rows.len() == self.nodes.len() && self.rows.iter().all(|row| row.len() == self.nodes.len());
        counts_fit
            && self.rows.iter().flatten().all(|link| {
                link.delay_seconds.is_finite()
                    && link.delay_seconds >= 0.0
                    && link.jitter_seconds.is_finite()
                    && (0.0..=link.delay_seconds).contains(&link.jitter_seconds)
                    && (0.0..=1.0).contains(&link.loss_ratio)
            })
    }

    fn index(&self, node: &str) -> Option<usize> {
        self.nodes.iter().position(|name| name == node)
    }
}
