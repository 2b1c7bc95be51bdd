//! The page of an experiment. Pure.

use std::collections::BTreeMap;

use maud::{Markup, html};
use pictures::{Axis, Series, Shape, distribution, heat_map, plot};

use super::column::Column;
use super::measure::{self, Row, Sample, Stretch, as_f64};
use super::report::Report;
use crate::report::RttTable;

/// Requests over time are gathered in so many seconds each.
const BIN_SECONDS: f64 = 5.0;

pub(super) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let is_starts = report.phases == [super::START_PHASE];
    let body = html! {
        h1 { (report.name) }
        p { (report.title) }
        p class="soft" { "Reproduces: " (report.reproduces) }
        p class="soft" { "Differs: " (report.differs) }
        p class="soft" {
            (date(report.began_at_unix_seconds)) " · " (format!("{:.0} s", report.seconds)) " · " (report.repeat)
            " repetitions, seed " (report.seed) " · Linux " (machine.kernel) ", " (machine.processors) " processors ("
            (machine.processor) "), " (machine.memory_gib) " GiB"
        }
        section { h2 { "Goals" } (goals(report)) }
        section { h2 { "Figures" } (figures(report)) }
        section { h2 { "How long requests took" } (distributions(report)) }
        @if !is_starts {
            section { h2 { "Over time, first repetition" } (time_lines(report)) }
        }
        section { h2 { "Round trips, ms" } (round_trips(report)) }
        section {
            h2 { "What ran" }
            p { "In this order: " (report.order.iter().map(|column| column.name()).collect::<Vec<_>>().join(", ")) }
            p class="soft" {
                @for (component, version) in &report.components { (component) " " (version) " · " }
            }
        }
    };
    pictures::page(&format!("{} · Kantai experiment", report.name), &body)
}

fn date(unix_seconds: f64) -> String {
    // Whole milliseconds of a date of this age.
    #[allow(clippy::cast_possible_truncation)]
    let at = jiff::Timestamp::from_millisecond((unix_seconds * 1e3) as i64);
    at.map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn goals(report: &Report) -> Markup {
    html! {
        table {
            thead { tr { th { "figure" } th class="n" { "value" } th { "unit" } th { "goal" } th {} } }
            tbody {
                @for figure in &report.figures {
                    tr {
                        td { (figure.name) }
                        td class="n" { (number(figure.value)) }
                        td { (figure.unit) }
                        td { (figure.goal) }
                        td class=(if figure.ok { "ok" } else { "short" }) { (figure.verdict()) }
                    }
                }
            }
        }
    }
}

fn figures(report: &Report) -> Markup {
    let all = || report.rows.iter().filter(|row| row.requests > 0);
    let has_pods = all().any(|row| row.pod_p50_ms.is_some());
    html! {
        table {
            thead { tr {
                th { "phase" } th { "from" } th { "column" }
                @for name in ["requests", "failed", "local %", "p50 ms", "p95", "p99", "max", "p95 by repetition"] {
                    th class="n" { (name) }
                }
                @if has_pods { th class="n" { "pod made" } th class="n" { "pod ready" } }
                th class="n" { "CPU mean / max %" } th class="n" { "emulator late p99" } th class="n" { "sender late p99" }
            } }
            tbody { @for row in all() { (figure_row(row, has_pods)) } }
        }
        p class="soft" {
            "A request is timed from when it was meant to be sent. One that failed counts as its whole time-out. "
            "Late: how long after they were due packets were let go by the emulator and requests by the sender, ms."
        }
        @for row in all().filter(|row| row.from.is_none() && row.phase.is_some() && !row.failures.is_empty()) {
            p { (row.column.name()) ", " (row.phase.as_deref().unwrap_or_default()) ", failed: "
                @for (kind, count) in &row.failures { (count) " × " (kind) "; " } }
        }
    }
}

fn figure_row(row: &Row, has_pods: bool) -> Markup {
    let by_repetition: Vec<String> = row.p95_ms_by_repetition.iter().map(|ms| number(Some(*ms))).collect();
    html! {
        tr {
            td { (row.phase.as_deref().unwrap_or("all")) }
            td { (row.from.as_deref().unwrap_or("all")) }
            td { (row.column.name()) }
            td class="n" { (row.requests) }
            td class="n" { (row.failed) }
            @for value in [row.local_pct, row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms] { td class="n" { (number(value)) } }
            td class="n" { (by_repetition.join(" ")) }
            @if has_pods { td class="n" { (number(row.pod_p50_ms)) } td class="n" { (number(row.pod_ready_p50_ms)) } }
            td class="n" { (number(row.cpu_mean_pct)) " / " (number(row.cpu_max_pct)) }
            td class="n" { (number(row.emulator_late_p99_ms)) }
            td class="n" { (number(row.sender_late_p99_ms)) }
        }
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn distributions(report: &Report) -> Markup {
    html! {
        @for phase in &report.phases {
            @for from in &report.nodes {
                @let columns = answered(report, phase, from);
                @if !columns.is_empty() {
                    h3 { (phase) ", from " (from) }
                    @let series: Vec<(&str, &[f64], usize)> =
                        columns.iter().map(|(column, values, total)| (column.name(), values.as_slice(), *total)).collect();
                    (distribution(&series, &Axis::logarithmic("ms")))
                }
            }
        }
    }
}

/// Milliseconds of answers by column, and how many requests there were.
fn answered(report: &Report, phase: &str, from: &str) -> Vec<(Column, Vec<f64>, usize)> {
    let mut columns = Vec::new();
    for column in &report.columns {
        let mine = |sample: &&Sample| sample.column == *column && sample.phase == phase && sample.outcome.from_node == from;
        let samples: Vec<&Sample> = report.samples.iter().filter(mine).collect();
        let values = samples.iter().filter(|sample| sample.outcome.succeeded()).map(|sample| sample.outcome.seconds * 1e3);
        if !samples.is_empty() {
            columns.push((*column, values.collect(), samples.len()));
        }
    }
    columns
}

fn time_lines(report: &Report) -> Markup {
    let first = |column: Column| report.stretches.iter().filter(move |one| one.column == column && one.repetition == 1);
    let p95: Vec<Series> = series(report, &first, |bin| measure::quantile_ms(&measure::histogram(bin.iter().copied()), 0.95));
    html! {
        @for column in &report.columns {
            @let phases: Vec<String> = first(*column)
                .map(|one| format!("{} from {:.0} s", one.phase, one.from_unix_seconds - began(&first, *column))).collect();
            p class="soft" { (column.name()) ": " (phases.join(", ")) }
        }
        h3 { "95 % of requests took no longer, ms" }
        (plot(&p95, &Axis::linear("seconds"), &Axis::logarithmic("ms"), Shape::Line))
        @for column in &report.columns {
            h3 { "Pods that serve, by node: " (column.name()) }
            (plot(&pods(report, &first, *column), &Axis::linear("seconds"), &Axis::linear("pods").showing(0.0, 1.0), Shape::Steps))
        }
    }
}

fn began<'a, I: Iterator<Item = &'a Stretch>>(first: &impl Fn(Column) -> I, column: Column) -> f64 {
    first(column).map(|one| one.from_unix_seconds).fold(f64::INFINITY, f64::min)
}

fn series<'a, I: Iterator<Item = &'a Stretch>>(
    report: &Report,
    first: &impl Fn(Column) -> I,
    value: impl Fn(&[f64]) -> Option<f64>,
) -> Vec<Series> {
    let mut all = Vec::new();
    for column in &report.columns {
        let began = began(first, *column);
        let mut bins: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for sample in report.samples.iter().filter(|sample| sample.column == *column && sample.repetition == 1) {
            // Seconds of a run.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let bin = ((sample.outcome.at_unix_seconds - began) / BIN_SECONDS).max(0.0) as u32;
            bins.entry(bin).or_default().push(sample.seconds());
        }
        let points = bins.iter().filter_map(|(bin, seconds)| Some(((f64::from(*bin) + 0.5) * BIN_SECONDS, value(seconds)?)));
        all.push(Series::new(column.name(), points.collect()));
    }
    all
}

fn pods<'a, I: Iterator<Item = &'a Stretch>>(report: &Report, first: &impl Fn(Column) -> I, column: Column) -> Vec<Series> {
    let began = began(first, column);
    let on = |node: &String| {
        let counts = first(column).flat_map(|one| one.pods_over_time(Some(node)));
        Series::new(node, counts.map(|(at, count)| (at - began, as_f64(count))).collect())
    };
    report.nodes.iter().map(on).collect()
}

fn round_trips(report: &Report) -> Markup {
    let map = |table: &RttTable| {
        heat_map(&report.nodes, |row, column| table.get(&report.nodes[row])?.get(&report.nodes[column]).copied())
    };
    html! {
        h3 { "injected" } (map(&report.injected_rtt_ms))
        h3 { "measured by the probers before the first column, median" } (map(&report.measured_rtt_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::Row;
    use super::super::report::Machine;
    use super::*;

    #[test]
    fn what_others_said_is_escaped_and_short_is_seen() {
        let goal = super::super::Goal {
            name: "g".to_owned(),
            measure: super::super::Measure::P50Ms,
            column: Column::Ours,
            phase: Some("a".to_owned()),
            from: None,
            over: None,
            bound: super::super::Bound::AtMost(1.0),
        };
        let mut row = Row { phase: Some("a".to_owned()), requests: 2, failed: 1, p50_ms: Some(3.0), ..Row::empty(Column::Ours) };
        row.failures.insert("503 <script>".to_owned(), 1);
        let rows = vec![row];
        let report = Report {
            name: "x".to_owned(),
            title: "a < b".to_owned(),
            reproduces: String::new(),
            differs: String::new(),
            began_at_unix_seconds: 0.0,
            seconds: 1.0,
            machine: Machine::this_one(),
            components: BTreeMap::new(),
            seed: 1,
            repeat: 1,
            order: vec![Column::Ours],
            columns: vec![Column::Ours],
            nodes: vec!["n".to_owned()],
            phases: vec!["a".to_owned()],
            injected_rtt_ms: RttTable::new(),
            measured_rtt_ms: RttTable::new(),
            figures: vec![goal.judge(&rows)],
            rows,
            stretches: Vec::new(),
            samples: Vec::new(),
        };
        let text = page(&report);
        assert!(text.contains("a &lt; b") && text.contains("503 &lt;script&gt;") && !text.contains("<script>"), "{text}");
        assert!(text.contains("<td class=\"short\">short</td>"), "{text}");
        assert!(!report.is_ok());
    }
}
