//! How soon a change shows, and that a restart of a responder is no change of the network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use latency_matrix::{PeerRow, StateKind};
use latency_probe::net::{AnswerPolicy, Responder, ResponderCounters};
use scorecards::{Goal, Report};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bench::{Lab, Prober, Relay, peers_file, until, value};
use crate::figures::{lab, print};

const SOON: Duration = Duration::from_secs(60);

/// Pairs that lose packets, beside the one that becomes slower: several, so that chance does not
/// decide.
const LOSSY: usize = 8;
/// 5 % of them.
const ONE_LOST_OF: u64 = 20;

/// How soon a change shows.
pub(crate) fn detection(report: &mut Report) {
    let lab = lab("soon");
    let far = Prober::start(&lab, 1, "b", &["--peers-file", lab.file("none.toml", "peers = []").to_str().unwrap()]);
    let relays: Vec<Relay> = (0..=LOSSY).map(|_| Relay::start(&lab, Duration::from_millis(5), lab.address(1))).collect();
    let names: Vec<String> = (0..=LOSSY).map(|n| format!("b{n}")).collect();
    let lines: Vec<(&str, _)> = names.iter().zip(&relays).map(|(name, relay)| (name.as_str(), relay.address())).collect();
    let peers = lab.file("peers.toml", &peers_file(&lines));
    let near = Prober::start(&lab, 0, "a", &["--latency-from", "udp", "--peers-file", peers.to_str().unwrap()]);
    let steady = |peer: &PeerRow| peer.state == StateKind::Known && peer.samples >= 55 && peer.probes_lost == 0;
    until(Duration::from_secs(150), || names.iter().all(|name| near.peer(name).is_some_and(|peer| steady(&peer))).then_some(()));

    relays[0].set_one_way(Duration::from_micros(7_500));
    for relay in &relays[1..] {
        relay.lose_one_of(ONE_LOST_OF);
    }
    let started = Instant::now();
    let (mut slower, mut lossy) = (None, vec![None; LOSSY]);
    until(Duration::from_secs(90), || {
        let metrics = near.get("/metrics");
        let now = started.elapsed().as_secs_f64();
        let millis = value(&metrics, "latency_between_nodes{from=\"a\",to=\"b0\"}");
        if millis.is_some_and(|millis| (14.5..17.0).contains(&millis)) {
            slower.get_or_insert(now);
        }
        for (seen, name) in lossy.iter_mut().zip(&names[1..]) {
            if value(&metrics, &format!("kantai_probe_loss_ratio{{from=\"a\",to=\"{name}\"}}")).is_some_and(|ratio| ratio > 0.0) {
                seen.get_or_insert(now);
            }
        }
        (slower.is_some() && lossy.iter().all(Option::is_some)).then_some(())
    });
    let slower = slower.unwrap();
    let slowest_loss = lossy.into_iter().flatten().fold(0.0, f64::max);
    let seconds = slowest_loss.max(slower);
    let note = format!(
        "+5 ms shown after {slower:.1} s, 5 % loss (one packet of {ONE_LOST_OF}) after {slowest_loss:.1} s at the latest of {LOSSY} pairs; \
         noise floor: the wire itself may lose the first one only after {ONE_LOST_OF} s"
    );
    print(report, "detect_s", seconds, "s", Goal::AtMost(30.0), &note);

    lab.file("peers.toml", "peers = []");
    let started = Instant::now();
    until(SOON, || (!near.get("/metrics").contains("to=\"b")).then_some(()));
    let seconds = started.elapsed().as_secs_f64();
    print(report, "gone_s", seconds, "s", Goal::AtMost(1.0), "one interval; counted from the change of the peers file");
    drop(far);
}

/// The time until row and metrics show most of a step from 5 to 50 ms.
pub(crate) fn step(report: &mut Report) {
    let lab = lab("step");
    let _far = Prober::start(&lab, 1, "b", &["--peers-file", lab.file("none.toml", "peers = []").to_str().unwrap()]);
    let relay = Relay::start(&lab, Duration::from_micros(2_500), lab.address(1));
    let peers = lab.file("peers.toml", &peers_file(&[("b", relay.address())]));
    let near = Prober::start(&lab, 0, "a", &["--latency-from", "udp", "--peers-file", peers.to_str().unwrap()]);
    let full = |peer: &PeerRow| peer.state == StateKind::Known && peer.samples >= 60;
    until(Duration::from_secs(150), || near.peer("b").filter(full));

    relay.set_one_way(Duration::from_millis(25));
    let started = Instant::now();
    let (mut in_row, mut in_metrics) = (None, None);
    until(SOON, || {
        let now = started.elapsed().as_secs_f64();
        if near.peer("b").and_then(|peer| peer.rtt_seconds).is_some_and(|rtt| rtt.p50 >= MOST_OF_THE_STEP) {
            in_row.get_or_insert(now);
        }
        let series = "kantai_probe_rtt_seconds{from=\"a\",to=\"b\",stat=\"p50\"}";
        if value(&near.get("/metrics"), series).is_some_and(|seconds| seconds >= MOST_OF_THE_STEP) {
            in_metrics.get_or_insert(now);
        }
        in_row.zip(in_metrics)
    });
    let (in_row, in_metrics) = in_row.zip(in_metrics).unwrap();
    let note =
        format!("5 to 50 ms, one probe a second, full window; the row after {in_row:.1} s, /metrics after {in_metrics:.1} s");
    print(report, "step_seen_s", in_row.max(in_metrics), "s", Goal::AtMost(12.0), &note);
}

/// 5 ms, and nine tenths of the 45 ms that are added.
const MOST_OF_THE_STEP: f64 = 0.0455;

/// Nodes whose responders restart, and how many of them do at once.
const RESTARTING: u8 = 64;
const AT_ONCE: usize = 8;
/// Longer than the ten probes that are then lost in a row.
const DOWN: Duration = Duration::from_millis(2_500);

/// A responder within this process at an address of the second namespace, until it is dropped.
struct Answering(CancellationToken);

impl Answering {
    fn start(lab: &Lab, address: Ipv4Addr) -> Self {
        let stop = CancellationToken::new();
        let (ready_out, ready_in) = std::sync::mpsc::channel();
        let ends = stop.clone();
        lab.inside(1, || {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let (_keys_out, keys) = watch::channel(None);
                    let policy = AnswerPolicy { keys, per_source_second: 0 };
                    let counters = Arc::new(ResponderCounters::default());
                    let responder = Responder::open(&[(address, 9799).into()], policy, counters).unwrap();
                    ready_out.send(()).unwrap();
                    responder.run(ends).await;
                });
            });
        });
        ready_in.recv().unwrap();
        Self(stop)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Pairs that were ever shown as unreachable while responders restarted, as in a roll-out of the
/// probers: their nodes were there all the time.
pub(crate) fn restarts(report: &mut Report) {
    let lab = lab("turn");
    lab.add_far_network("10.98.0.0/16");
    let nodes: Vec<(String, Ipv4Addr)> = (1..=RESTARTING).map(|n| (format!("b{n}"), Ipv4Addr::new(10, 98, 0, n))).collect();
    let mut responders: Vec<Option<Answering>> =
        nodes.iter().map(|(_, address)| Some(Answering::start(&lab, *address))).collect();
    let lines: Vec<(&str, _)> = nodes.iter().map(|(node, address)| (node.as_str(), (*address, 9799).into())).collect();
    let peers = lab.file("peers.toml", &peers_file(&lines));
    let probing = ["--interval", "200ms", "--timeout", "1s", "--all-up-to", "100", "--peers-file", peers.to_str().unwrap()];
    let near = Prober::start(&lab, 0, "a", &probing);
    let in_state = |state: StateKind| {
        let wanted = format!("state=\"{}\"}} 1", state.as_str());
        let metrics = near.get("/metrics");
        let pairs = metrics.lines().filter(|line| line.starts_with("kantai_probe_pair_state{") && line.ends_with(&wanted));
        pairs.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    until(SOON, || (in_state(StateKind::Known).len() == nodes.len()).then_some(()));

    let mut unreachable = BTreeSet::new();
    for turn in 0..nodes.len().div_ceil(AT_ONCE) {
        let restarting = turn * AT_ONCE..nodes.len().min((turn + 1) * AT_ONCE);
        responders[restarting.clone()].iter_mut().for_each(|responder| *responder = None);
        let down = Instant::now();
        while down.elapsed() < DOWN {
            unreachable.extend(in_state(StateKind::Unreachable));
            std::thread::sleep(Duration::from_millis(50));
        }
        for index in restarting {
            responders[index] = Some(Answering::start(&lab, nodes[index].1));
        }
    }
    let lost = value(&near.get("/metrics"), "kantai_probe_probes_total{protocol=\"udp\",result=\"lost\"}").unwrap();
    let note = format!("{RESTARTING} responders, {AT_ONCE} at a time gone for {DOWN:?} at 5 probes a second; {lost} probes lost");
    // Without losses nothing was tried.
    let shown = if lost >= f64::from(RESTARTING) { unreachable.len() as f64 } else { f64::NAN };
    print(report, "false_unreachable", shown, "pairs", Goal::AtMost(0.0), &note);
}
