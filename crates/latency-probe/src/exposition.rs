//! The prober's metrics, made anew from the session at every scrape, so that a peer's series end with the peer.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;

use crate::clock::{Mono, Reading};
use crate::footprint::{Footprint, give_memory_back};
use crate::icmp::Family;
use crate::pair::PairState;
use crate::peers::Protocol;
use crate::responder::ResponderCounters;
use crate::row::Row;
use crate::session::Session;

/// The session as its loop and its readers share it.
#[derive(Clone, Debug)]
pub struct SharedSession(Arc<Mutex<Session>>);

impl SharedSession {
    /// Shares a session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }

    /// Does something with the session. Keep it short: replies wait meanwhile (their times do not change by that).
    pub fn with<T>(&self, action: impl FnOnce(&mut Session) -> T) -> T {
        // Each change leaves the session whole; a reader that panicked in between did not change it.
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The row as it stands now.
    #[must_use]
    pub fn row(&self) -> Row {
        self.with(|session| session.row(Reading::now()))
    }
}

/// What is exported.
#[derive(Debug)]
pub struct Exposition {
    session: SharedSession,
    responder: Arc<ResponderCounters>,
}

impl Exposition {
    /// The metrics of a session and of the responder beside it.
    #[must_use]
    pub const fn new(session: SharedSession, responder: Arc<ResponderCounters>) -> Self {
        Self { session, responder }
    }
}

/// One pair, ready to be written down.
struct Pair {
    labels: [(&'static str, String); 2],
    state: PairState,
    p50_millis: Option<f64>,
    loss: Option<f64>,
    jitter: Option<f64>,
    age: Option<f64>,
    times: (f64, u64, Vec<(f64, u64)>),
}

type Written = Result<(), std::fmt::Error>;

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
        let now = Mono::now();
        let (own, pairs, counters, icmp, interval) = self.session.with(|session| {
            let own = session.own().to_string();
            let pairs: Vec<Pair> = session
                .peers(now)
                .map(|peer| Pair {
                    labels: [("from", own.clone()), ("to", peer.node.to_string())],
                    state: peer.summary.state,
                    p50_millis: peer
                        .summary
                        .rtt
                        .filter(|_| peer.summary.state == PairState::Known)
                        .map(|rtt| rtt.p50.as_millis()),
                    loss: peer.summary.loss.map(|loss| loss.ratio),
                    jitter: peer.summary.rtt.map(|rtt| rtt.jitter_seconds),
                    age: peer.summary.age.map(|age| age.as_secs_f64()),
                    times: peer.times.read(),
                })
                .collect();
            let icmp = session.has_icmp(Family::V4) || session.has_icmp(Family::V6);
            (own, pairs, session.counters().clone(), icmp, session.interval())
        });
        write_pairs(&mut encoder, &pairs)?;

        let from = [("from", own)];
        let oldest = pairs.iter().filter_map(|pair| pair.age).reduce(f64::max);
        let in_state = PairState::ALL.map(|state| (state, pairs.iter().filter(|pair| pair.state == state).count()));
        drop(pairs);
        give_memory_back();
        let mut age = encoder.encode_descriptor(
            "node_rtt_oldest_age",
            "Age of the oldest last answer of any peer",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        if let Some(oldest) = oldest {
            age.encode_family(&from)?.encode_gauge(&oldest)?;
        }
        let mut states =
            encoder.encode_descriptor("latency_probe_peers", "Peers by what is known of them", None, MetricType::Gauge)?;
        for (state, count) in in_state {
            states.encode_family(&[("state", state.as_str())])?.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
        }

        let mut all = encoder.encode_descriptor(
            "latency_probe_rtt",
            "Round-trip times to all peers",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let (sum, count, buckets) = counters.times.read();
        all.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        let mut late = encoder.encode_descriptor(
            "latency_probe_lateness",
            "How late probes left",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let (sum, count, buckets) = counters.lateness.read();
        late.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;

        let used = |protocol: &Protocol| counters.sent[*protocol as usize] > 0;
        let mut probes =
            encoder.encode_descriptor("latency_probe_probes", "Probes by how they ended", None, MetricType::Counter)?;
        for protocol in Protocol::ALL.into_iter().filter(used) {
            for (end, totals) in [("answered", &counters.answered), ("lost", &counters.lost)] {
                let labels = [("protocol", protocol.as_str()), ("end", end)];
                probes.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&totals[protocol as usize], None)?;
            }
        }
        let mut odd =
            encoder.encode_descriptor("latency_probe_odd", "What was neither a time nor a loss", None, MetricType::Counter)?;
        for (what, total) in [
            ("clock_stepped", counters.discarded_clock_stepped),
            ("impossible", counters.discarded_impossible),
            ("asleep", counters.discarded_asleep),
            ("not_sent", counters.not_sent),
            ("late", counters.late),
            ("duplicate", counters.duplicate),
            ("reordered", counters.reordered),
            ("rejected", counters.rejected),
        ] {
            odd.encode_family(&[("what", what)])?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
        }
        let mut echoes =
            encoder.encode_descriptor("latency_probe_echoes", "Requests by what the responder did", None, MetricType::Counter)?;
        for (what, total) in self.responder.read() {
            echoes.encode_family(&[("what", what)])?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
        }
        let icmp_gauge = encoder.encode_descriptor(
            "latency_probe_icmp_available",
            "1 where ICMP probes can be sent",
            None,
            MetricType::Gauge,
        )?;
        prometheus_client::metrics::gauge::ConstGauge::new(i64::from(icmp)).encode(icmp_gauge)?;
        let pace = encoder.encode_descriptor(
            "latency_probe_interval",
            "Time between probes of a peer",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        prometheus_client::metrics::gauge::ConstGauge::new(interval.as_secs_f64()).encode(pace)?;
        write_footprint(&mut encoder)
    }
}

fn write_pairs(encoder: &mut DescriptorEncoder<'_>, pairs: &[Pair]) -> Written {
    let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: fn(&Pair) -> Option<f64>| -> Written {
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for pair in pairs {
            if let Some(value) = value(pair) {
                family.encode_family(&pair.labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    };
    // The name and its milliseconds are those of the fleet this took over from. A pair that is not known has no value, never zero.
    gauge("latency_between_nodes", "Median round-trip time in milliseconds, where the pair is known", None, |pair| {
        pair.p50_millis
    })?;
    gauge("node_loss_ratio", "Share of probes lost within the window", None, |pair| pair.loss)?;
    // Stands in for the median that is then missing, so that a pair has six lines at most; of a known pair it is below what makes it stale.
    gauge("node_rtt_age", "Age of the last answer, where the pair is not known", Some(&Unit::Seconds), |pair| {
        pair.age.filter(|_| pair.state != PairState::Known)
    })?;
    gauge("node_rtt_jitter", "Interarrival jitter as in RFC 3550", Some(&Unit::Seconds), |pair| pair.jitter)?;
    let mut times = encoder.encode_descriptor("node_rtt", "Round-trip times", Some(&Unit::Seconds), MetricType::Histogram)?;
    for pair in pairs {
        let (sum, count, buckets) = &pair.times;
        times.encode_family(&pair.labels)?.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
    }
    Ok(())
}

fn write_footprint(encoder: &mut DescriptorEncoder<'_>) -> Written {
    if let Some(footprint) = Footprint::read() {
        let cpu = encoder.encode_descriptor("process_cpu", "Processor time used", Some(&Unit::Seconds), MetricType::Counter)?;
        prometheus_client::metrics::counter::ConstCounter::new(footprint.cpu_seconds).encode(cpu)?;
        let memory =
            encoder.encode_descriptor("process_resident_memory", "Memory in use", Some(&Unit::Bytes), MetricType::Gauge)?;
        prometheus_client::metrics::gauge::ConstGauge::new(footprint.resident_bytes).encode(memory)?;
    }
    let build = encoder.encode_descriptor("latency_probe_build", "The running build", None, MetricType::Info)?;
    Info::new([("version", env!("CARGO_PKG_VERSION"))]).encode(build)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::histogram::Bounds;
    use crate::pair::{StateLimits, WindowLimits};
    use crate::peers::{Peer, PeerSet};
    use crate::session::{Feed, Returned, Settings};

    fn exposed(session: Session) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition::new(SharedSession::new(session), Arc::default())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// A session with so many peers, of which all but the last have just answered by each protocol there is.
    fn session(count: u8) -> Session {
        session_with(count, Duration::from_secs(10))
    }

    fn session_with(count: u8, stale_after: Duration) -> Session {
        let settings = Settings {
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            window: WindowLimits { samples: 60, span: Duration::from_secs(60) },
            states: StateLimits { unreachable_after: 5, stale_after },
            feed: Feed::PreferUdp,
            pair_bounds: Bounds::none(),
            http_path: "/healthz".into(),
        };
        let mut session = Session::new("a".into(), settings, 1);
        let peers: PeerSet = (0..count).map(|n| (format!("b{n}").into(), Peer::at(([10, 0, 0, n], 9799).into()))).collect();
        let before = Reading { mono: Mono::from_nanos(Mono::now().as_nanos() - 500_000_000), ..Reading::now() };
        session.set_peers(&peers, before.mono);
        let mut orders = Vec::new();
        let sent = Reading::now();
        session.due(sent, 1_000, &mut orders);
        std::thread::sleep(Duration::from_millis(1));
        for order in orders.iter().filter(|order| order.to.ip() != std::net::IpAddr::from([10, 0, 0, count - 1])) {
            let (from, sequence, session_id) = (order.to, order.sequence, session.id());
            let reply = Returned {
                protocol: order.protocol,
                from,
                session: session_id,
                sequence,
                held: Duration::ZERO,
                stamp: None,
                ttl: None,
            };
            session.returned(&reply, Reading::now());
        }
        session.counters_mut().sent = [1, 1, 0, 0];
        session
    }

    #[test]
    fn a_node_exports_no_more_than_fifty_series_and_six_per_peer() {
        for count in [1, 2, 30, 200] {
            let text = exposed(session(count));
            let series = text.lines().filter(|line| !line.starts_with('#')).count();
            assert!(series <= 50 + 6 * usize::from(count), "{series} for {count} peers\n{text}");
        }
    }

    /// Stale is where a pair has the most lines: times from before, and their age.
    #[test]
    fn the_age_of_a_pair_takes_the_place_of_its_median() {
        let fresh = exposed(session(2));
        assert!(
            fresh.contains("latency_between_nodes{from=\"a\",to=\"b0\"}") && !fresh.contains("node_rtt_age_seconds{"),
            "{fresh}"
        );
        let session = session_with(2, Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(50));
        let stale = exposed(session);
        let age = stale.lines().find_map(|line| line.strip_prefix("node_rtt_age_seconds{from=\"a\",to=\"b0\"} ")).unwrap();
        assert!(age.parse::<f64>().unwrap() >= 0.05, "{age}");
        assert!(!stale.contains("latency_between_nodes{"), "{stale}");
        assert_eq!(stale.lines().filter(|line| line.contains("to=\"b0\"")).count(), 6, "{stale}");
    }

    #[test]
    fn what_is_not_known_has_no_value() {
        let text = exposed(session(2));
        let millis = text.lines().find_map(|line| line.strip_prefix("latency_between_nodes{from=\"a\",to=\"b0\"} ")).unwrap();
        assert!(millis.parse::<f64>().unwrap() >= 1.0, "{millis}");
        assert!(!text.contains("latency_between_nodes{from=\"a\",to=\"b1\"}"), "{text}");
        assert!(
            text.contains("# TYPE latency_between_nodes gauge\n") && text.contains("latency_probe_peers{state=\"unknown\"} 1\n")
        );
    }
}
