//! What each component costs, as bars.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Footprint;
use super::html::escape;

/// The dearest first.
pub(super) fn footprint_table(footprint: &BTreeMap<String, Footprint>) -> String {
    if footprint.is_empty() {
        return "<p>Not measured.</p>".to_owned();
    }
    let mut rows: Vec<(&String, &Footprint)> = footprint.iter().collect();
    rows.sort_by(|a, b| b.1.rss_mib.total_cmp(&a.1.rss_mib));
    let most = |value: fn(&Footprint) -> f64| footprint.values().map(value).fold(f64::MIN_POSITIVE, f64::max);
    let (most_memory, most_time) = (most(|cost| cost.rss_mib), most(|cost| cost.mcores));
    let mut table = "<table class=\"cost\"><thead><tr><th>component</th><th colspan=\"2\">memory (RSS, MiB)</th><th colspan=\"2\">processor (mcores)</th></tr></thead><tbody>".to_owned();
    for (name, cost) in rows {
        let bar = |value: f64, most: f64, class: &str| {
            format!("<td class=\"bar\"><i class=\"{class}\" style=\"width:{:.1}%\"></i></td>", value / most * 100.0)
        };
        let _ = write!(
            table,
            "<tr><td>{}</td><td class=\"n\">{:.0}</td>{}<td class=\"n\">{:.0}</td>{}</tr>",
            escape(name),
            cost.rss_mib,
            bar(cost.rss_mib, most_memory, "memory"),
            cost.mcores,
            bar(cost.mcores, most_time, "time"),
        );
    }
    let total = |value: fn(&Footprint) -> f64| footprint.values().map(value).sum::<f64>();
    let _ = write!(
        table,
        "</tbody><tfoot><tr><td>together</td><td class=\"n\">{:.0}</td><td></td><td class=\"n\">{:.0}</td><td></td></tr></tfoot></table>",
        total(|cost| cost.rss_mib),
        total(|cost| cost.mcores)
    );
    table
}
