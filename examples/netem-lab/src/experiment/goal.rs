//! What an experiment wants to see, and whether it did. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::column::Column;
use super::measure::Row;

/// A number of a [`Row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Half of the requests took no longer. One that failed counts as its whole time-out.
    P50Ms,
    /// 95 % took no longer.
    P95Ms,
    /// 99 % took no longer.
    P99Ms,
    /// The slowest.
    MaxMs,
    /// Share of requests that were answered with success in time.
    CompletedPct,
    /// Share of answers that came from the node where the request entered.
    LocalPct,
    /// Requests without such an answer.
    Failed,
    /// From the beginning of a phase until a pod is ready on the node that sends; the slowest
    /// repetition.
    ReadySeconds,
    /// The most pods that were ready at a time.
    MostPods,
    /// Pods that were made during a phase, in the mean of repetitions.
    PodsMade,
    /// From a request to the pod object; the median.
    PodMs,
}

impl Measure {
    fn of(self, row: &Row) -> Option<f64> {
        match self {
            Self::P50Ms => row.p50_ms,
            Self::P95Ms => row.p95_ms,
            Self::P99Ms => row.p99_ms,
            Self::MaxMs => row.max_ms,
            Self::CompletedPct => row.completed_pct,
            Self::LocalPct => row.local_pct,
            // Where nothing was sent nothing failed, but that proves nothing.
            #[allow(clippy::cast_precision_loss)]
            Self::Failed => (row.requests > 0).then_some(row.failed as f64),
            Self::ReadySeconds => row.ready_seconds,
            Self::MostPods => row.most_pods,
            Self::PodsMade => row.pods_made,
            Self::PodMs => row.pod_p50_ms,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::P50Ms | Self::P95Ms | Self::P99Ms | Self::MaxMs | Self::PodMs => "ms",
            Self::CompletedPct | Self::LocalPct => "%",
            Self::Failed => "requests",
            Self::ReadySeconds => "s",
            Self::MostPods | Self::PodsMade => "pods",
        }
    }
}

/// What is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// One thing that an experiment wants to see.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The figure's name.
    pub name: String,
    /// What is looked at.
    pub measure: Measure,
    /// Of which column.
    pub column: Column,
    /// In which phase; else in all together.
    pub phase: Option<String>,
    /// Of requests from which node; else from all together.
    pub from: Option<String>,
    /// As a multiple of what this column has.
    pub over: Option<Column>,
    /// What is good.
    pub bound: Bound,
}

/// What came of a goal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// What it came to; null when it was not measured, which is short of every goal.
    pub value: Option<f64>,
    /// In what.
    pub unit: &'static str,
    /// What it should come to.
    pub goal: String,
    /// Whether it does.
    pub ok: bool,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or("-".to_owned(), |value| ((value * 1000.0).round() / 1000.0).to_string());
        write!(f, "{}\t{value}\t{}\t{}\t{}", self.name, self.unit, self.goal, self.verdict())
    }
}

impl Figure {
    /// As scorecards say it.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.ok, self.value) {
            (true, _) => "ok",
            (false, Some(_)) => "short",
            (false, None) => "absent",
        }
    }
}

impl Goal {
    /// What came of it, by all rows of the experiment.
    #[must_use]
    pub fn judge(&self, rows: &[Row]) -> Figure {
        let of = |column| {
            let mine = |row: &&Row| row.column == column && row.phase == self.phase && row.from == self.from;
            rows.iter().find(mine).and_then(|row| self.measure.of(row))
        };
        let value = match self.over {
            None => of(self.column),
            // Nothing is a multiple of nothing.
            Some(other) => of(self.column).zip(of(other)).map(|(this, that)| this / that).filter(|ratio| ratio.is_finite()),
        };
        let ok = value.is_some_and(|value| match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        });
        let unit = if self.over.is_some() { "ratio" } else { self.measure.unit() };
        Figure { name: self.name.clone(), value, unit, goal: self.bound.to_string(), ok }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(column: Column, p50_ms: f64, requests: usize) -> Row {
        Row { phase: Some("a".to_owned()), p50_ms: Some(p50_ms), requests, ..Row::empty(column) }
    }

    fn goal(measure: Measure, over: Option<Column>, bound: Bound) -> Goal {
        Goal { name: "g".to_owned(), measure, column: Column::Stock, phase: Some("a".to_owned()), from: None, over, bound }
    }

    #[test]
    fn a_figure_is_good_up_to_its_bound() {
        let rows = [row(Column::Ours, 40.0, 1), row(Column::Stock, 50.0, 1)];
        let line = |over, bound| goal(Measure::P50Ms, over, bound).judge(&rows).to_string();
        assert_eq!(line(None, Bound::AtMost(50.0)), "g\t50\tms\t<= 50\tok");
        assert_eq!(line(None, Bound::AtMost(49.9)), "g\t50\tms\t<= 49.9\tshort");
        assert_eq!(line(Some(Column::Ours), Bound::AtLeast(1.25)), "g\t1.25\tratio\t>= 1.25\tok");
        assert_eq!(line(Some(Column::Rival), Bound::AtLeast(1.25)), "g\t-\tratio\t>= 1.25\tabsent");
    }

    #[test]
    fn what_was_not_sent_shows_nothing() {
        let rows = [row(Column::Stock, 1.0, 0)];
        let figure = goal(Measure::Failed, None, Bound::AtMost(0.0)).judge(&rows);
        assert_eq!((figure.ok, figure.verdict()), (false, "absent"));
    }
}
