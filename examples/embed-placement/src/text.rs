//! The decisions for a terminal.

use std::fmt::Write as _;

use placement::NodeName;

use crate::decide::Story;
use crate::wording;

pub(crate) fn render(story: &Story) -> String {
    let mut text = format!("{}\n\n", wording::fleet(story));
    text += &matrix(story);
    for (number, (moment, decision)) in story.fleet.decisions.iter().zip(&story.decisions).enumerate() {
        let _ = writeln!(text, "\n{}. {}\n", number + 1, moment.title);
        let _ = writeln!(text, "demand    {}", wording::demand(decision));
        let _ = writeln!(text, "decision  {}", wording::verdict(decision.verdict));
        let _ = writeln!(text, "          {}", wording::cost(decision));
        table(&mut text, "plan", &wording::replicas(story, decision));
        table(&mut text, "routes", &wording::routes(decision));
        table(&mut text, "why", &wording::reasons(decision));
        if let Some((what, reasons)) = wording::unplaced(decision) {
            let _ = writeln!(text, "unplaced  {what}");
            table(&mut text, "", &reasons);
        }
    }
    text
}

fn matrix(story: &Story) -> String {
    let nodes = story.matrix.nodes();
    let width = nodes.iter().map(|node| node.as_str().chars().count()).max().unwrap_or(0).max(6) + 2;
    let mut text = format!("round trips, {}\n{:width$}", wording::LEGEND, "");
    for node in nodes {
        let _ = write!(text, "{:>width$}", node.as_str());
    }
    text.push('\n');
    for from in nodes {
        let _ = write!(text, "{:<width$}", from.as_str());
        for to in nodes {
            let _ = write!(text, "{:>width$}", wording::round_trip(&story.matrix.state(from, to)));
        }
        text.push('\n');
    }
    text
}

fn table(text: &mut String, title: &str, lines: &[(NodeName, String)]) {
    let width = lines.iter().map(|(node, _)| node.as_str().chars().count()).max().unwrap_or(0);
    for (number, (node, line)) in lines.iter().enumerate() {
        let title = if number == 0 { title } else { "" };
        let _ = writeln!(text, "{title:<10}{:<width$}  {line}", node.as_str());
    }
}
