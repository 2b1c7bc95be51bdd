//! The prober's metrics, written from the session at every scrape, so that a peer's series end with
//! the peer. The names are a contract with readers of Prometheus; the crate's README lists them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use latency_matrix::{Protocol, StateKind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::clock::Mono;
use crate::net::responder::ResponderCounters;
use crate::process::{Footprint, give_memory_back};
use crate::protocol::icmp::Family;
use crate::session::histogram::Histogram;
use crate::session::pair::{RttSummary, Summary};
use crate::session::{Counters, PeerView, Session, SharedSession};

/// A statistic of a pair's round-trip times that can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum RttStat {
    /// The shortest RTT in the window.
    Min,
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 99th percentile.
    P99,
    /// The exponentially weighted moving average.
    Ewma,
}

impl RttStat {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Ewma => "ewma",
        }
    }

    fn seconds(self, rtt: &RttSummary) -> f64 {
        match self {
            Self::Min => rtt.min.as_seconds(),
            Self::P50 => rtt.p50.as_seconds(),
            Self::P90 => rtt.p90.as_seconds(),
            Self::P99 => rtt.p99.as_seconds(),
            Self::Ewma => rtt.ewma_seconds,
        }
    }
}

/// A collector of the prober's metrics.
#[derive(Debug)]
pub(crate) struct Exposition {
    session: SharedSession,
    responder: Arc<ResponderCounters>,
    stats: BTreeSet<RttStat>,
}

impl Exposition {
    /// The metrics of a session and a responder, with these statistics of each pair.
    #[must_use]
    pub(crate) fn new(session: SharedSession, responder: Arc<ResponderCounters>, stats: &[RttStat]) -> Self {
        Self { session, responder, stats: stats.iter().copied().collect() }
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
        let now = Mono::now();
        let snapshot = self.session.with(|session| Snapshot::of(session, &self.responder, now));
        snapshot.write(&mut encoder, &self.stats)?;
        drop(snapshot);
        give_memory_back();
        write_process(&mut encoder)
    }
}

type Written = Result<(), std::fmt::Error>;

/// What is exported, read under the session's lock and written without it.
struct Snapshot {
    pairs: Vec<PairSamples>,
    counters: Counters,
    echo_requests: [(&'static str, u64); 5],
    has_icmp: bool,
    interval: Duration,
}

/// Sum in seconds, number, and number by upper bound, as [`Histogram::read`] gives them.
type HistogramBuckets = (f64, u64, Vec<(f64, u64)>);

struct PairSamples {
    labels: [(&'static str, String); 2],
    summary: Summary,
    times: Option<HistogramBuckets>,
}

impl Snapshot {
    fn of(session: &Session, responder: &ResponderCounters, now: Mono) -> Self {
        let own = session.own().to_string();
        let pair = |peer: PeerView<'_>| PairSamples {
            labels: [("from", own.clone()), ("to", peer.node.to_string())],
            summary: peer.summary,
            times: peer.times.map(Histogram::read),
        };
        Self {
            pairs: session.peers(now).map(pair).collect(),
            counters: session.counters().clone(),
            echo_requests: responder.read(),
            has_icmp: session.has_icmp(Family::V4) || session.has_icmp(Family::V6),
            interval: session.interval(),
        }
    }

    fn write(&self, encoder: &mut DescriptorEncoder<'_>, stats: &BTreeSet<RttStat>) -> Written {
        write_pairs(encoder, &self.pairs, stats)?;
        write_fleet(encoder, &self.pairs)?;
        write_counters(encoder, &self.counters)?;
        let help = "Probes of other nodes, by what the responder did with them";
        write_totals(encoder, "kantai_probe_echo_requests", help, "result", &self.echo_requests)?;
        let help = "Whether ICMP probes can be sent: 1 = yes";
        gauge(encoder, "kantai_probe_icmp_available", help, None, &i64::from(self.has_icmp))?;
        let help = "Time between two probes of a peer";
        gauge(encoder, "kantai_probe_interval", help, Some(&Unit::Seconds), &self.interval.as_secs_f64())
    }
}

fn write_pairs(encoder: &mut DescriptorEncoder<'_>, pairs: &[PairSamples], stats: &BTreeSet<RttStat>) -> Written {
    // The seed's name, unit and meaning. A pair that is not known has no value, never zero.
    let median =
        |pair: &PairSamples| pair.summary.rtt.filter(|_| pair.summary.state == StateKind::Known).map(|rtt| rtt.p50.as_millis());
    let help = "Median round-trip time in milliseconds, while the pair is known";
    pair_gauge(encoder, pairs, "latency_between_nodes", help, None, median)?;

    let help = "State of the pair: the series with the present state is 1, the others are absent";
    let mut states = encoder.encode_descriptor("kantai_probe_pair_state", help, None, MetricType::Gauge)?;
    for PairSamples { labels: [from, to], summary, .. } in pairs {
        let labels = [(from.0, from.1.as_str()), (to.0, to.1.as_str()), ("state", summary.state.as_str())];
        states.encode_family(&labels)?.encode_gauge(&1_i64)?;
    }

    let help = "Round-trip time over the window, by statistic, while the pair is known or stale";
    let mut times = encoder.encode_descriptor("kantai_probe_rtt", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for PairSamples { labels: [from, to], summary, .. } in pairs {
        let Some(rtt) = summary.rtt else { continue };
        for stat in stats {
            let labels = [(from.0, from.1.as_str()), (to.0, to.1.as_str()), ("stat", stat.as_str())];
            times.encode_family(&labels)?.encode_gauge(&stat.seconds(&rtt))?;
        }
    }

    let loss = |pair: &PairSamples| pair.summary.loss.map(|loss| loss.ratio);
    pair_gauge(encoder, pairs, "kantai_probe_loss_ratio", "Share of probes lost within the window, 0 to 1", None, loss)?;
    let jitter = |pair: &PairSamples| pair.summary.rtt.map(|rtt| rtt.jitter_seconds);
    let help = "Interarrival jitter of round-trip times as in RFC 3550";
    pair_gauge(encoder, pairs, "kantai_probe_jitter", help, Some(&Unit::Seconds), jitter)?;
    let age = |pair: &PairSamples| pair.summary.age.map(|age| age.as_secs_f64());
    pair_gauge(encoder, pairs, "kantai_probe_age", "Time since the last reply of the peer", Some(&Unit::Seconds), age)?;

    let help = "Round-trip times of the pair, where --pair-buckets asks for them";
    let mut times = encoder.encode_descriptor("kantai_probe_pair_rtt", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for PairSamples { labels, times: read, .. } in pairs {
        if let Some((sum, count, buckets)) = read {
            times.encode_family(labels)?.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
        }
    }
    Ok(())
}

fn pair_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    pairs: &[PairSamples],
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: impl Fn(&PairSamples) -> Option<f64>,
) -> Written {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for pair in pairs {
        if let Some(value) = value(pair) {
            family.encode_family(&pair.labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// Writes what concerns all pairs.
fn write_fleet(encoder: &mut DescriptorEncoder<'_>, pairs: &[PairSamples]) -> Written {
    let mut peers = encoder.encode_descriptor("kantai_probe_peers", "Number of peers in each state", None, MetricType::Gauge)?;
    for state in StateKind::ALL {
        let count = pairs.iter().filter(|pair| pair.summary.state == state).count();
        peers.encode_family(&[("state", state.as_str())])?.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
    }
    Ok(())
}

fn write_counters(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> Written {
    for (name, help, histogram) in [
        ("kantai_probe_node_rtt", "Round-trip times to all peers", &counters.times),
        ("kantai_probe_lateness", "How late probes were sent", &counters.lateness),
    ] {
        let mut times = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let (sum, count, buckets) = histogram.read();
        times.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    let mut probes = encoder.encode_descriptor("kantai_probe_probes", "Probes by result", None, MetricType::Counter)?;
    for protocol in Protocol::ALL.into_iter().filter(|protocol| counters.sent[*protocol as usize] > 0) {
        for (result, totals) in [("answered", &counters.answered), ("lost", &counters.lost)] {
            let labels = [("protocol", protocol.as_str()), ("result", result)];
            probes.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&totals[protocol as usize], None)?;
        }
    }
    let help = "Probes and replies that are neither a round-trip time nor a loss, by kind";
    write_totals(encoder, "kantai_probe_anomalies", help, "kind", &counters.anomalies())
}

fn write_totals(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, label: &str, totals: &[(&str, u64)]) -> Written {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, total) in totals {
        family.encode_family(&[(label, *value)])?.encode_counter::<NoLabelSet, _, f64>(total, None)?;
    }
    Ok(())
}

fn write_process(encoder: &mut DescriptorEncoder<'_>) -> Written {
    if let Some(footprint) = Footprint::read() {
        let help = "Processor time used, user and system";
        let mut cpu = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        cpu.encode_counter::<NoLabelSet, _, f64>(&footprint.cpu_seconds, None)?;
        let help = "Resident memory";
        gauge(encoder, "process_resident_memory", help, Some(&Unit::Bytes), &footprint.resident_bytes)?;
    }
    // A gauge that is always 1, as Prometheus' own tools expect: they do not know the type `info`.
    let help = "The running build";
    let mut build = encoder.encode_descriptor("kantai_probe_build_info", help, None, MetricType::Gauge)?;
    build.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1_i64)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: &impl EncodeGaugeValue,
) -> Written {
    encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::session::pair::loss;
    use crate::session::round_trip::RttSample;

    #[derive(Debug)]
    struct Fixed(fn() -> Snapshot, &'static [RttStat]);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
            (self.0)().write(&mut encoder, &self.1.iter().copied().collect())?;
            write_process(&mut encoder)
        }
    }

    fn exposed(snapshot: fn() -> Snapshot, stats: &'static [RttStat]) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(snapshot, stats)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn summary(state: StateKind) -> Summary {
        let ms = |millis: u64| RttSample::from_nanos(millis * 1_000_000).unwrap();
        let known = matches!(state, StateKind::Known | StateKind::Stale);
        let rtt = RttSummary { min: ms(40), p50: ms(50), p90: ms(60), p99: ms(70), ewma_seconds: 0.051, jitter_seconds: 0.002 };
        Summary {
            state,
            rtt: known.then_some(rtt),
            loss: loss(if known { 3 } else { 12 }, 12),
            age: Some(Duration::from_millis(if state == StateKind::Known { 250 } else { 12_500 })),
            samples: 9,
            reordered: 0,
            duplicates: 0,
        }
    }

    fn snapshot(pairs: Vec<PairSamples>) -> Snapshot {
        let mut counters = Counters { sent: [40, 2, 0, 0], answered: [36, 1, 0, 0], lost: [3, 1, 0, 0], ..Counters::default() };
        counters.times.observe(0.05);
        counters.lateness.observe(0.025);
        Snapshot {
            pairs,
            counters,
            echo_requests: ResponderCounters::default().read(),
            has_icmp: true,
            interval: Duration::from_secs(1),
        }
    }

    fn pair(to: &str, summary: Summary) -> PairSamples {
        PairSamples { labels: [("from", "a".into()), ("to", to.into())], summary, times: None }
    }

    /// One pair in each state, one of which nothing was ever heard.
    fn in_each_state() -> Snapshot {
        let mut pairs: Vec<PairSamples> = StateKind::ALL.into_iter().map(|state| pair(state.as_str(), summary(state))).collect();
        pairs.push(pair("new", Summary { loss: None, age: None, ..summary(StateKind::Unknown) }));
        snapshot(pairs)
    }

    /// The table in the README is a contract; this is its text. With `UPDATE_GOLDEN` in the
    /// environment the file is rewritten.
    #[test]
    fn the_exposition_is_as_agreed_with_its_readers() {
        let text = exposed(in_each_state, &[RttStat::P50]);
        let stable = |line: &&str| !line.starts_with("process_") && !line.starts_with("kantai_probe_build_info{");
        let text: String = text.lines().filter(stable).flat_map(|line| [line, "\n"]).collect();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn every_series_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        for name in exposed(in_each_state, &[RttStat::P50]).lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = name.split_once(' ').unwrap();
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            assert!(readme.contains(&format!("`{name}")), "{name}");
        }
    }

    #[test]
    fn a_pair_that_does_not_answer_keeps_its_state_and_has_no_time() {
        let text = exposed(in_each_state, &[RttStat::P50]);
        for state in StateKind::ALL.map(StateKind::as_str) {
            let series: Vec<&str> = text.lines().filter(|line| line.contains(&format!("to=\"{state}\""))).collect();
            let of = |name: &str| series.iter().filter(|line| line.starts_with(&format!("{name}{{"))).count();
            let present = format!("kantai_probe_pair_state{{from=\"a\",to=\"{state}\",state=\"{state}\"}} 1");
            assert!(of("kantai_probe_pair_state") == 1 && series.contains(&present.as_str()), "{series:#?}");
            assert_eq!(of("latency_between_nodes"), usize::from(state == "known"));
            assert_eq!(of("kantai_probe_rtt_seconds"), usize::from(state == "known" || state == "stale"));
            assert_eq!(of("kantai_probe_jitter_seconds"), usize::from(state == "known" || state == "stale"));
            assert_eq!((of("kantai_probe_loss_ratio"), of("kantai_probe_age_seconds")), (1, 1));
        }
        let new: Vec<&str> = text.lines().filter(|line| line.contains("to=\"new\"")).collect();
        assert_eq!(new, ["kantai_probe_pair_state{from=\"a\",to=\"new\",state=\"unknown\"} 1"]);
        assert!(
            text.contains("# TYPE latency_between_nodes gauge\n") && text.contains("kantai_probe_peers{state=\"unknown\"} 2\n")
        );
    }

    /// A known pair is the one with the most.
    #[test]
    fn a_node_exports_no_more_than_fifty_series_and_six_per_peer() {
        fn known(count: usize) -> Snapshot {
            snapshot((0..count).map(|n| pair(&format!("b{n}"), summary(StateKind::Known))).collect())
        }
        let snapshots: [(usize, fn() -> Snapshot); 3] = [(1, || known(1)), (2, || known(2)), (200, || known(200))];
        for (count, snapshot) in snapshots {
            let text = exposed(snapshot, &[RttStat::P50]);
            let series = text.lines().filter(|line| !line.starts_with('#')).count();
            assert!(series <= 50 + 6 * count, "{series} for {count} peers\n{text}");
        }
    }

    #[test]
    fn more_statistics_and_histograms_are_there_for_the_asking() {
        fn asked() -> Snapshot {
            let mut snapshot = in_each_state();
            snapshot.pairs[0].times = Some((0.15, 3, vec![(0.05, 2), (f64::INFINITY, 1)]));
            snapshot
        }
        let text = exposed(asked, &[RttStat::Ewma, RttStat::Min, RttStat::P99, RttStat::P90]);
        let of_known = |name: &str| format!("kantai_probe_{name}from=\"a\",to=\"known\"");
        for (stat, seconds) in [("min", 0.04), ("p90", 0.06), ("p99", 0.07), ("ewma", 0.051)] {
            assert!(text.contains(&format!("{},stat=\"{stat}\"}} {seconds}\n", of_known("rtt_seconds{"))), "{text}");
        }
        assert!(!text.contains("stat=\"p50\""), "{text}");
        assert!(text.contains(&format!("{}}} 3\n", of_known("pair_rtt_seconds_count{"))), "{text}");
        assert_eq!(text.matches("kantai_probe_pair_rtt_seconds_count{").count(), 1);
    }
}
