//! Pairs from time series: the probers' metrics, or those of another program, as a store such as
//! Prometheus shows them.

use std::collections::{BTreeMap, HashMap};

use crate::book::Measurement;
use crate::node::NodeName;
use crate::pair::{PairState, PairStats, StateKind};
use crate::row::{PeerRow, RttSeconds};

/// The newest sample of one series, as an instant query answers it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The labels, with the metric's name as `__name__` where the query keeps it.
    pub labels: &'a HashMap<String, String>,
    /// When the query was evaluated, in seconds since the epoch of the store's clock.
    pub evaluated_at: f64,
    /// The value.
    pub value: f64,
}

/// Which labels name the two nodes of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairLabels {
    /// The label of the probing node.
    pub from: String,
    /// The label of the probed node.
    pub to: String,
}

impl Default for PairLabels {
    fn default() -> Self {
        Self { from: "from".to_owned(), to: "to".to_owned() }
    }
}

/// All series that the probers export per pair, as one query.
pub const PROBER_QUERY: &str = r#"{__name__=~"kantai_probe_(pair_state|rtt_seconds|loss_ratio|jitter_seconds|age_seconds)"}"#;
/// When each of [`PROBER_QUERY`]'s pairs was scraped.
pub const PROBER_TIMES_QUERY: &str = "timestamp(kantai_probe_pair_state)";

/// The seed's metric, in milliseconds: for probers of an earlier release.
pub const SEED_QUERY: &str = "latency_between_nodes";
/// When each of [`SEED_QUERY`]'s pairs was scraped.
pub const SEED_TIMES_QUERY: &str = "timestamp(latency_between_nodes)";

/// Labels that distinguish the series of one pair and one prober.
const SERIES_LABELS: [&str; 3] = ["__name__", "stat", "state"];

/// The series of one pair and one prober.
#[derive(Default)]
struct PairSeries {
    evaluated_at: f64,
    /// The present state by its series, and when that was scraped.
    state: Option<(String, f64)>,
    stats: HashMap<String, f64>,
    loss_ratio: Option<f64>,
    jitter_seconds: Option<f64>,
    age_seconds: Option<f64>,
}

/// Reads the probers' series: the answers to [`PROBER_QUERY`] and [`PROBER_TIMES_QUERY`].
///
/// The result equals the probers' rows as far as these are exported: for a time that is not
/// exported, the next larger exported one stands in. Where several series are about one pair, as
/// after a restart of a prober or from two stores, the one scraped last counts.
#[must_use]
pub fn read_prober_series(samples: &[Sample<'_>], times: &[Sample<'_>], labels: &PairLabels) -> Vec<Measurement> {
    let mut pairs: BTreeMap<Vec<(&str, &str)>, PairSeries> = BTreeMap::new();
    for sample in times {
        let pair = pairs.entry(identity(sample.labels, &SERIES_LABELS)).or_default();
        pair.evaluated_at = sample.evaluated_at;
        let state = sample.labels.get("state").map(String::as_str).unwrap_or_default();
        // A store may show for a moment the series of the state before.
        if pair.state.as_ref().is_none_or(|(_, scraped_at)| *scraped_at < sample.value) {
            pair.state = Some((state.to_owned(), sample.value));
        }
    }
    for sample in samples {
        let Some(pair) = pairs.get_mut(&identity(sample.labels, &SERIES_LABELS)) else { continue };
        let text = |label: &str| sample.labels.get(label).map(String::as_str).unwrap_or_default();
        match text("__name__") {
            "kantai_probe_rtt_seconds" => drop(pair.stats.insert(text("stat").to_owned(), sample.value)),
            "kantai_probe_loss_ratio" => pair.loss_ratio = Some(sample.value),
            "kantai_probe_jitter_seconds" => pair.jitter_seconds = Some(sample.value),
            "kantai_probe_age_seconds" => pair.age_seconds = Some(sample.value),
            _ => {}
        }
    }
    let reports = pairs.iter().filter_map(|(identity, pair)| {
        let (from, to) = nodes(|label| identity.iter().find(|(name, _)| *name == label).map(|(_, value)| *value), labels)?;
        let (_, scraped_at) = pair.state.as_ref()?;
        let state = pair.row(&to)?.pair_state();
        Some(Measurement { from, to, state, reported_seconds_ago: (pair.evaluated_at - scraped_at).max(0.0) })
    });
    newest(reports)
}

impl PairSeries {
    /// The row that the prober would have served.
    fn row(&self, to: &NodeName) -> Option<PeerRow> {
        let (state, _) = self.state.as_ref()?;
        let stat = |name| self.stats.get(name).copied();
        let typical = stat("p50").or(stat("p90")).or(stat("p99")).or(stat("ewma"));
        let rtt_seconds = typical.map(|p50| {
            let p90 = stat("p90").unwrap_or(p50);
            let (min, p99, ewma) = (stat("min").unwrap_or(p50), stat("p99").unwrap_or(p90), stat("ewma").unwrap_or(p50));
            RttSeconds { min, p50, p90, p99, ewma }
        });
        Some(PeerRow {
            rtt_seconds,
            jitter_seconds: self.jitter_seconds,
            loss_ratio: self.loss_ratio,
            age_seconds: self.age_seconds,
            samples: 1,
            ..PeerRow::unmeasured(to.clone(), StateKind::named(state))
        })
    }
}

/// Reads another program's series, one per pair: the answers to a query of round-trip times and to
/// `timestamp(query)`. `unit_seconds` is the unit of the values: 0.001 where they are
/// milliseconds. Values that are no round-trip time are left out, and so are series whose age is
/// not known.
#[must_use]
pub fn read_series(samples: &[Sample<'_>], times: &[Sample<'_>], labels: &PairLabels, unit_seconds: f64) -> Vec<Measurement> {
    let scraped: HashMap<_, f64> = times.iter().map(|time| (identity(time.labels, &["__name__"]), time.value)).collect();
    let reports = samples.iter().filter_map(|sample| {
        let (from, to) = nodes(|label| sample.labels.get(label).map(String::as_str), labels)?;
        let scraped_at = scraped.get(&identity(sample.labels, &["__name__"]))?;
        let stats = PairStats::constant(sample.value * unit_seconds);
        let reported_seconds_ago = (sample.evaluated_at - scraped_at).max(0.0);
        stats.is_credible().then_some(Measurement { from, to, state: PairState::Known(stats), reported_seconds_ago })
    });
    newest(reports)
}

fn identity<'a>(labels: &'a HashMap<String, String>, except: &[&str]) -> Vec<(&'a str, &'a str)> {
    let kept = labels.iter().filter(|(name, _)| !except.contains(&name.as_str()));
    let mut identity: Vec<(&str, &str)> = kept.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    identity.sort_unstable();
    identity
}

fn nodes<'a>(label: impl Fn(&str) -> Option<&'a str>, labels: &PairLabels) -> Option<(NodeName, NodeName)> {
    Some((label(&labels.from)?.into(), label(&labels.to)?.into()))
}

/// Of each pair the report that was made last; of two at once the shorter time.
fn newest(reports: impl Iterator<Item = Measurement>) -> Vec<Measurement> {
    let p50 = |one: &Measurement| one.state.stats().map_or(f64::INFINITY, |stats| stats.p50);
    let mut newest: BTreeMap<(NodeName, NodeName), Measurement> = BTreeMap::new();
    for report in reports {
        let held = newest.entry((report.from.clone(), report.to.clone())).or_insert_with(|| report.clone());
        let by_age = report.reported_seconds_ago.total_cmp(&held.reported_seconds_ago);
        if by_age.then(p50(&report).total_cmp(&p50(held))).is_lt() {
            *held = report;
        }
    }
    newest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Series = (HashMap<String, String>, f64);

    fn series(name: &str, labels: &[(&str, &str)], value: f64) -> Series {
        let named = [("__name__", name)].into_iter().filter(|(_, name)| !name.is_empty());
        (named.chain(labels.iter().copied()).map(|(label, value)| (label.to_owned(), value.to_owned())).collect(), value)
    }

    fn samples(series: &[Series]) -> Vec<Sample<'_>> {
        series.iter().map(|(labels, value)| Sample { labels, evaluated_at: 1000.0, value: *value }).collect()
    }

    /// What a prober exports of a peer, and when it was scraped.
    fn exported(from: &str, pod: &str, peer: &PeerRow, stats: &[&str], scraped_at: f64) -> (Vec<Series>, Vec<Series>) {
        let pair = [("from", from), ("to", peer.to.as_str()), ("pod", pod)];
        let with = |label, value| pair.into_iter().chain([(label, value)]).collect::<Vec<_>>();
        let mut all = vec![series("kantai_probe_pair_state", &with("state", peer.state.as_str()), 1.0)];
        for (metric, value) in
            [("loss_ratio", peer.loss_ratio), ("jitter_seconds", peer.jitter_seconds), ("age_seconds", peer.age_seconds)]
        {
            all.extend(value.map(|value| series(&format!("kantai_probe_{metric}"), &pair, value)));
        }
        if let Some(rtt) = &peer.rtt_seconds {
            let all_stats = [("min", rtt.min), ("p50", rtt.p50), ("p90", rtt.p90), ("p99", rtt.p99), ("ewma", rtt.ewma)];
            for (stat, value) in all_stats.iter().filter(|(stat, _)| stats.contains(stat)) {
                all.push(series("kantai_probe_rtt_seconds", &with("stat", stat), *value));
            }
        }
        (all, vec![series("", &with("state", peer.state.as_str()), scraped_at)])
    }

    fn peer(state: &str, p50: f64, age_seconds: f64) -> PeerRow {
        let rtt_seconds =
            matches!(state, "known" | "stale").then_some(RttSeconds { min: p50, p50, p90: p50, p99: p50, ewma: p50 });
        let (jitter_seconds, loss_ratio, age_seconds) = (rtt_seconds.map(|_| 0.0), Some(0.2), Some(age_seconds));
        let unmeasured = PeerRow::unmeasured("node2".into(), StateKind::named(state));
        PeerRow { rtt_seconds, jitter_seconds, loss_ratio, age_seconds, samples: 1, ..unmeasured }
    }

    fn read(exported: &[(Vec<Series>, Vec<Series>)]) -> Vec<Measurement> {
        let all: Vec<Series> = exported.iter().flat_map(|(all, _)| all.clone()).collect();
        let times: Vec<Series> = exported.iter().flat_map(|(_, times)| times.clone()).collect();
        read_prober_series(&samples(&all), &samples(&times), &PairLabels::default())
    }

    #[test]
    fn a_pair_that_does_not_answer_is_unreachable_and_loss_is_read() {
        let read = |state| read(&[exported("node1", "a", &peer(state, 0.005, 3.0), &["p50"], 990.0)]).remove(0);
        assert_eq!((read("unreachable").state, read("unreachable").reported_seconds_ago), (PairState::Unreachable, 10.0));
        assert_eq!(read("unknown").state, PairState::Unknown);
        assert_eq!(read("a state of a later release").state, PairState::Unknown);
        assert!(matches!(read("known").state, PairState::Known(stats) if stats.loss_ratio == 0.2 && stats.age_seconds == 3.0));
        assert!(matches!(read("stale").state, PairState::Stale(stats) if stats.p50 == 0.005));
    }

    #[test]
    fn a_pair_without_a_state_says_nothing() {
        // The series of the state ended, others still show, as on some stores.
        let (all, _) = exported("node1", "a", &peer("known", 0.005, 3.0), &["p50"], 990.0);
        assert_eq!(read(&[(all, vec![])]), []);
    }

    #[test]
    fn the_prober_that_was_scraped_last_counts() {
        let (old, new) = (peer("known", 0.070, 0.1), peer("unreachable", 0.0, 20.0));
        let (before, after) = (exported("node1", "a", &old, &["p50"], 880.0), exported("node1", "b", &new, &["p50"], 997.0));
        for order in [[before.clone(), after.clone()], [after, before]] {
            assert_eq!(read(&order).into_iter().map(|one| one.state).collect::<Vec<_>>(), [PairState::Unreachable]);
        }
    }

    #[test]
    fn the_present_state_counts_where_the_one_before_still_shows() {
        let (known, unreachable) = (peer("known", 0.005, 0.1), peer("unreachable", 0.0, 20.0));
        let (before, after) =
            (exported("node1", "a", &known, &["p50"], 985.0), exported("node1", "a", &unreachable, &["p50"], 990.0));
        for order in [[before.clone(), after.clone()], [after, before]] {
            assert_eq!(read(&order).into_iter().map(|one| one.state).collect::<Vec<_>>(), [PairState::Unreachable]);
        }
    }

    #[test]
    fn series_of_others_are_read_by_their_labels_and_unit() {
        let pair = [("source_node_name", "node1"), ("target_node_name", "node3"), ("type", "node")];
        let labels = PairLabels { from: "source_node_name".into(), to: "target_node_name".into() };
        let read = |values: &[Series], times: &[Series]| read_series(&samples(values), &samples(times), &labels, 0.001);
        let time = [series("", &pair, 997.0)];
        let read_one = read(&[series("some_latency", &pair, 50.25)], &time);
        let expected = PairState::Known(PairStats::constant(0.05025));
        assert_eq!(
            read_one,
            [Measurement { from: "node1".into(), to: "node3".into(), state: expected, reported_seconds_ago: 3.0 }]
        );
        for milliseconds in [f64::NAN, f64::INFINITY, -1.0, 1e6] {
            assert_eq!(read(&[series("some_latency", &pair, milliseconds)], &time), []);
        }
        assert_eq!(read(&[series("some_latency", &pair, 5.0)], &[]), []);
        assert_eq!(read(&[series("some_latency", &pair[..1], 5.0)], &[series("", &pair[..1], 997.0)]), []);
    }

    fn any_peer() -> impl Strategy<Value = PeerRow> {
        let times = prop::collection::vec(1e-6..9.0_f64, 5);
        let state = prop::sample::select(vec!["known", "stale", "unknown", "unreachable"]);
        (state, times, 0.0..1.0_f64, 0.0..9.0_f64, 0.0..100.0_f64).prop_map(|(state, mut times, loss, jitter, age)| {
            times.sort_by(f64::total_cmp);
            let rtt = RttSeconds { min: times[0], p50: times[1], p90: times[2], p99: times[3], ewma: times[4] };
            let rtt_seconds = matches!(state, "known" | "stale").then_some(rtt);
            let (jitter_seconds, loss_ratio, age_seconds) = (rtt_seconds.map(|_| jitter), Some(loss), Some(age));
            let unmeasured = PeerRow::unmeasured("node2".into(), StateKind::named(state));
            PeerRow { rtt_seconds, jitter_seconds, loss_ratio, age_seconds, samples: 1, ..unmeasured }
        })
    }

    proptest! {
        #[test]
        fn series_and_rows_say_the_same(peer in any_peer(), ago in 0.0..100.0_f64) {
            let scraped_at = 1000.0 - ago;
            let full = read(&[exported("node1", "a", &peer, &["min", "p50", "p90", "p99", "ewma"], scraped_at)]);
            prop_assert_eq!(full.len(), 1);
            prop_assert_eq!(full[0].state, peer.pair_state());
            prop_assert!((full[0].reported_seconds_ago - ago).abs() < 1e-9);
            // As usually exported: what costs are made of by default is the same.
            let usual = read(&[exported("node1", "a", &peer, &["p50"], scraped_at)]).remove(0).state;
            prop_assert_eq!(std::mem::discriminant(&usual), std::mem::discriminant(&peer.pair_state()));
            if let (Some(usual), Some(row)) = (usual.stats(), peer.pair_state().stats()) {
                let costly = |stats: &PairStats| (stats.p50, stats.loss_ratio, stats.jitter, stats.age_seconds);
                prop_assert_eq!(costly(usual), costly(row));
            }
        }
    }
}
