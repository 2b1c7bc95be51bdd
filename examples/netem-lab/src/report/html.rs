//! The page. Needs nothing but itself: style and pictures are inside, and no script.

use std::fmt::Write as _;

use super::bars::footprint_table;
use super::matrix::{difference_map, heat_map};
use super::summary::summaries;
use super::timeline::timeline;
use super::{Report, RttTable};

const STYLE: &str = include_str!("style.css");

/// How far a measured round trip may be from the injected one.
pub(super) const TOLERANCE_MS: f64 = 0.5;

/// Colours that people who see colours differently can tell apart, too.
const NODE_COLOURS: [&str; 8] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f", "#6a51a3"];

pub(super) fn page(report: &Report) -> String {
    let run = &report.run;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0} &middot; Kantai lab</title><style>{STYLE}</style></head><body><main>\
         <header><div><h1>{0}</h1><p>{1}</p><p class=\"soft\">{2} &middot; <code>{3}</code> &middot; {4} nodes &middot; {5} &middot; Linux {6}, {7} processors</p></div>{8}</header>",
        escape(&run.scenario),
        escape(&run.description),
        escape(&run.service),
        escape(&run.class),
        run.nodes.len(),
        date(run.began_at_unix_seconds),
        escape(&run.kernel),
        run.processors,
        if report.ok { "<div class=\"verdict\">every step held</div>" } else { "<div class=\"verdict bad\">a step failed</div>" },
    );
    page += &cards(report);
    page += &section("Round trips between nodes, milliseconds", &matrices(report));
    page += &section("Response times by source node", &timeline(report));
    page += &section("Response times in figures", &summary_table(report));
    page += &section("Steps", &steps_table(report));
    page += &section("What the components cost", &footprint_table(&report.footprint));
    page += &section("Components", &components(report));
    page + "</main></body></html>\n"
}

fn section(title: &str, body: &str) -> String {
    format!("<section><h2>{title}</h2>{body}</section>")
}

fn cards(report: &Report) -> String {
    let mut cards = "<div class=\"cards\">".to_owned();
    let mut card = |value: String, label: &str, bad: bool| {
        let class = if bad { "card bad" } else { "card" };
        let _ = write!(cards, "<div class=\"{class}\"><b>{}</b><span>{}</span></div>", escape(&value), escape(label));
    };
    let held = report.steps.iter().filter(|step| step.ok).count();
    card(format!("{held} of {}", report.steps.len()), "steps held", held < report.steps.len());
    card(format!("{} of {}", report.failed_requests, report.requests.len()), "requests failed", report.failed_requests > 0);
    if let Some(cold) = &report.cold_start {
        card(seconds(cold.seconds_to_response), "from a cold request to its answer", false);
        if let Some(pod) = cold.seconds_to_pod_created {
            card(seconds(pod), "from a cold request to its pod", false);
        }
    }
    if let Some(ready) = &report.seika_ready {
        card(ready.clone(), "Seika READY after the cold request", false);
    }
    if let Some(error) = largest_error_ms(&report.injected_rtt_ms, &report.measured_rtt_ms) {
        card(format!("{error:.2} ms"), "largest error of a measured round trip", error > TOLERANCE_MS);
    }
    cards + "</div>"
}

/// The largest difference between two tables over the pairs that both know.
pub(super) fn largest_error_ms(injected: &RttTable, measured: &RttTable) -> Option<f64> {
    injected
        .iter()
        .flat_map(|(from, row)| row.iter().filter_map(|(to, wanted)| Some((measured.get(from)?.get(to)? - wanted).abs())))
        .max_by(f64::total_cmp)
}

fn matrices(report: &Report) -> String {
    let largest = report.injected_rtt_ms.values().flat_map(|row| row.values()).copied().fold(1.0, f64::max);
    let map = |title: &str, table| format!("<div><h3>{title}</h3>{}</div>", heat_map(&report.run.nodes, table, largest));
    let emulator = &report.emulator;
    let mut text = String::new();
    if let Some(reason) = &emulator.reason {
        let _ = write!(
            text,
            "<p class=\"notice\"><b>Unreliable:</b> {}. Do not draw conclusions from times in this report.</p>",
            escape(reason)
        );
    }
    for refusal in &emulator.refused_by_the_system {
        let _ = write!(text, "<p class=\"notice\">The emulator ran without all it asked for: {}.</p>", escape(refusal));
    }
    let quantile = |value: Option<f64>| value.map_or("not known".to_owned(), |ms| format!("{ms:.3} ms"));
    let _ = write!(
        text,
        "<div class=\"matrices\">{}{}<div><h3>difference</h3>{}</div></div><p class=\"soft\">Rows are source nodes. Measured is the median that the probers saw. Emulator: {}; \
         it let packets go late by {} (median) and {} (99th percentile) outside bursts of pod starts, {} with them; {} packets, {} dropped for want of room.</p>",
        map("injected", &report.injected_rtt_ms),
        map("measured", &report.measured_rtt_ms),
        difference_map(&report.run.nodes, &report.injected_rtt_ms, &report.measured_rtt_ms, TOLERANCE_MS),
        escape(&emulator.kind),
        quantile(report.emulator_lateness_ms.p50),
        quantile(report.emulator_lateness_ms.p99),
        quantile(emulator.lateness_with_bursts_ms.p99),
        emulator.packets_delivered,
        emulator.packets_overflowed,
    );
    text
}

fn summary_table(report: &Report) -> String {
    let mut table = "<table><thead><tr><th>step</th><th>from</th><th class=\"n\">requests</th><th class=\"n\">failed</th><th class=\"n\">answered on own node</th><th>answered on</th><th class=\"n\">median</th><th class=\"n\">95 %</th><th class=\"n\">slowest</th></tr></thead><tbody>".to_owned();
    for row in summaries(&report.requests) {
        let served: Vec<String> = row.served_by.iter().map(|(node, count)| format!("{} {count}", escape(node))).collect();
        let time = |value: Option<f64>| value.map_or("&ndash;".to_owned(), seconds);
        let _ = write!(
            table,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n{}\">{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&row.step),
            escape(&row.from_node),
            row.requests,
            if row.failed > 0 { " no" } else { "" },
            row.failed,
            row.local_share.map_or("&ndash;".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            served.join(", "),
            time(row.p50_seconds),
            time(row.p95_seconds),
            time(row.max_seconds),
        );
    }
    table + "</tbody></table>"
}

fn steps_table(report: &Report) -> String {
    let mut table = "<table><thead><tr><th class=\"n\">#</th><th>step</th><th></th><th class=\"n\">took</th><th>seen</th></tr></thead><tbody>".to_owned();
    for (index, step) in report.steps.iter().enumerate() {
        let verdict = if step.ok { "<td class=\"ok\">held</td>" } else { "<td class=\"no\">failed</td>" };
        let _ = write!(
            table,
            "<tr><td class=\"n\">{}</td><td>{}</td>{verdict}<td class=\"n\">{}</td><td class=\"detail{}\">{}</td></tr>",
            index + 1,
            escape(&step.name),
            seconds(step.seconds),
            // A table of another program keeps its columns.
            if step.detail.contains("   ") { " columns" } else { "" },
            escape(&step.detail),
        );
    }
    for step in &report.not_applicable_steps {
        let _ = write!(
            table,
            "<tr><td></td><td class=\"na\">{}</td><td class=\"na\">n/a</td><td></td><td class=\"detail\">{}</td></tr>",
            escape(&step.name),
            escape(&step.reason)
        );
    }
    table + "</tbody></table>"
}

fn components(report: &Report) -> String {
    let mut list = "<div class=\"facts\">".to_owned();
    for (name, version) in &report.components {
        let _ = write!(list, "<div><code>{}</code>{}</div>", escape(version), escape(name));
    }
    list + "</div>"
}

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.0} ms", value * 1e3) } else { format!("{value:.2} s") }
}

fn date(unix_seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation)]
    let moment = jiff::Timestamp::from_second(unix_seconds as i64);
    moment.map_or_else(|_| "at an unknown time".to_owned(), |moment| moment.strftime("%-d %B %Y, %H:%M UTC").to_string())
}

/// The colour of a node; grey for what is none.
pub(super) fn node_colour(nodes: &[String], node: &str) -> &'static str {
    nodes.iter().position(|name| name == node).map_or("#8a94a0", |index| NODE_COLOURS[index % NODE_COLOURS.len()])
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
