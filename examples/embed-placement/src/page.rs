//! The decisions as one HTML page that needs no other file. Names are escaped by construction.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use placement::NodeName;
use placement::latency::PairState;

use crate::decide::{Decision, Story};
use crate::wording;

const STYLE: &str = include_str!("page.css");

pub(crate) fn render(story: &Story) -> String {
    let title = format!("Placement of {}", story.fleet.service.name);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p { (wording::fleet(story)) }
                h2 { "Round trips" }
                p.note { (wording::LEGEND) }
                (matrix(story))
                @for (number, (moment, decision)) in story.fleet.decisions.iter().zip(&story.decisions).enumerate() {
                    h2 { (number + 1) ". " (moment.title) }
                    (self::decision(story, decision))
                }
            }
        }
    }
    .into_string()
}

fn matrix(story: &Story) -> Markup {
    let nodes = story.matrix.nodes();
    let known = |state: &PairState| state.stats().map_or(0.0, |stats| stats.p50);
    let longest = story.matrix.pairs().iter().map(known).fold(0.0, f64::max);
    html! {
        table.matrix {
            tr { th {} @for node in nodes { th { (node.as_str()) } } }
            @for from in nodes {
                tr {
                    th { (from.as_str()) }
                    @for to in nodes {
                        @let state = story.matrix.state(from, to);
                        td style=[shade(&state, longest)] { (wording::round_trip(&state)) }
                    }
                }
            }
        }
    }
}

/// The longer the round trip, the darker. An unknown pair has no shade: it is neither near nor far.
fn shade(state: &PairState, longest_seconds: f64) -> Option<String> {
    let stats = state.stats()?;
    let share = if longest_seconds > 0.0 { stats.p50 / longest_seconds } else { 0.0 };
    Some(format!("background: rgba(200, 80, 40, {:.2})", 0.05 + 0.6 * share))
}

fn decision(story: &Story, decision: &Decision) -> Markup {
    html! {
        p { b { "Demand: " } (wording::demand(decision)) "." }
        p { b { "Decision: " } (wording::verdict(decision.verdict)) ". " (wording::cost(decision)) "." }
        @if let Some((what, reasons)) = wording::unplaced(decision) {
            div.unplaced { p { b { "Unplaced: " } (what) "." } (rows(&reasons)) }
        }
        (bars(story, decision))
        h3 { "Routes" }
        (rows(&wording::routes(decision)))
        h3 { "Why" }
        (rows(&wording::reasons(decision)))
    }
}

/// Replicas per node as boxes: filled where one runs, empty where there is room.
fn bars(story: &Story, decision: &Decision) -> Markup {
    // A node with room for many is not drawn whole.
    const MOST_BOXES: u32 = 12;
    let words = wording::replicas(story, decision);
    html! {
        h3 { "Plan" }
        table {
            @for node in &story.fleet.nodes {
                @let name = NodeName::from(node.name.as_str());
                @let replicas = decision.plan.replicas_on(&name);
                tr {
                    th { (node.name) }
                    td.boxes {
                        @for number in 0..node.room.max(replicas).min(MOST_BOXES) {
                            span class=(if number < replicas { "box full" } else { "box" }) {}
                        }
                        @if node.room > MOST_BOXES { "… " (node.room) }
                    }
                    td { @if let Some((_, line)) = words.iter().find(|(node, _)| *node == name) { (line) } }
                }
            }
        }
    }
}

fn rows(lines: &[(NodeName, String)]) -> Markup {
    html! { table { @for (node, line) in lines { tr { th { (node.as_str()) } td { (line) } } } } }
}

#[cfg(test)]
mod tests {
    use crate::decide::decide;
    use crate::fleet::Fleet;

    #[test]
    fn names_from_the_file_cannot_become_markup() {
        let text = r#"
            service = { name = "<script>alert(1)</script>", requests_per_replica = 1.0 }
            nodes = [{ name = "\"><img src=x>", room = 0 }]
            decisions = [{ title = "</h2><b>", at_seconds = 0.0, demand = { "\"><img src=x>" = 1.0 } }]
        "#;
        let page = super::render(&decide(Fleet::from_text(text, "hostile").unwrap()).unwrap());
        for hostile in ["<script", "<img", "</h2><b>"] {
            assert!(!page.contains(hostile), "{hostile} in\n{page}");
        }
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }
}
