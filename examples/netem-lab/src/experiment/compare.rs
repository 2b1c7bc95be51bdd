//! Two reports of the same experiment, side by side.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ExperimentError;

#[derive(Deserialize)]
struct Kept {
    name: String,
    figures: Vec<KeptFigure>,
    rows: Vec<KeptRow>,
}

#[derive(Deserialize)]
struct KeptFigure {
    name: String,
    value: Option<f64>,
    goal: String,
}

#[derive(Deserialize)]
struct KeptRow {
    column: String,
    phase: Option<String>,
    from: Option<String>,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    completed_pct: Option<f64>,
    local_pct: Option<f64>,
}

/// Lines that compare the reports in two folders: figures by name, then rows by what they are of.
///
/// # Errors
/// When a folder has no report that can be read.
pub fn compare(before: &Path, after: &Path) -> Result<Vec<String>, ExperimentError> {
    Ok(lines(&read(before)?, &read(after)?))
}

fn read(folder: &Path) -> Result<Kept, ExperimentError> {
    let path = folder.join("report.json");
    let failed = |source| ExperimentError::File { action: "read", path: path.clone(), source };
    let text = std::fs::read(&path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

fn lines(before: &Kept, after: &Kept) -> Vec<String> {
    let mut lines = vec![format!("# {} -> {}: name, before, after, change", before.name, after.name)];
    let values = |kept: &Kept| {
        let figures = kept.figures.iter().map(|figure| (format!("{} ({})", figure.name, figure.goal), figure.value));
        let rows = kept.rows.iter().flat_map(|row| {
            let of = [row.phase.as_deref(), row.from.as_deref()].map(|part| part.unwrap_or("all")).join("/");
            let named = [
                ("p50_ms", row.p50_ms),
                ("p95_ms", row.p95_ms),
                ("completed_pct", row.completed_pct),
                ("local_pct", row.local_pct),
            ];
            named.map(|(measure, value)| (format!("{}/{of} {measure}", row.column), value))
        });
        figures.chain(rows).collect::<Vec<_>>()
    };
    let mut earlier: BTreeMap<String, Option<f64>> = values(before).into_iter().collect();
    for (name, now) in values(after) {
        let was = earlier.remove(&name).flatten();
        if was.is_some() || now.is_some() {
            lines.push(line(&name, was, now));
        }
    }
    lines.extend(earlier.iter().filter(|(_, was)| was.is_some()).map(|(name, was)| line(name, *was, None)));
    lines
}

fn line(name: &str, was: Option<f64>, now: Option<f64>) -> String {
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let change = was.zip(now).filter(|(was, _)| *was != 0.0).map(|(was, now)| (now / was - 1.0) * 100.0);
    let change = change.map_or("-".to_owned(), |percent| format!("{percent:+.1} %"));
    format!("{name}\t{}\t{}\t{change}", shown(was), shown(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(figure: &str, value: f64, p50_ms: f64) -> Kept {
        Kept {
            name: "x".to_owned(),
            figures: vec![KeptFigure { name: figure.to_owned(), value: Some(value), goal: "<= 9".to_owned() }],
            rows: vec![KeptRow {
                column: "ours".to_owned(),
                phase: Some("a".to_owned()),
                from: None,
                p50_ms: Some(p50_ms),
                p95_ms: None,
                completed_pct: None,
                local_pct: None,
            }],
        }
    }

    #[test]
    fn what_is_in_one_of_them_only_is_shown_too() {
        assert_eq!(
            lines(&kept("f", 8.0, 10.0), &kept("f", 10.0, 9.0))[1..],
            ["f (<= 9)\t8.00\t10.00\t+25.0 %", "ours/a/all p50_ms\t10.00\t9.00\t-10.0 %"]
        );
        assert_eq!(
            lines(&kept("f", 8.0, 10.0), &kept("g", 1.0, 10.0))[1..],
            ["g (<= 9)\t-\t1.00\t-", "ours/a/all p50_ms\t10.00\t10.00\t+0.0 %", "f (<= 9)\t8.00\t-\t-"]
        );
    }
}
