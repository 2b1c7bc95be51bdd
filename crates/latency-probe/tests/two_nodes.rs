//! Two real probers in two network namespaces, joined by a cable. Needs root, as namespaces do.

#![expect(clippy::unwrap_used, reason = "in a test, what fails is to be seen")]

mod bench;

use std::time::{Duration, Instant};

use bench::{Lab, Prober, peers_file, until, value};
use latency_probe::Protocol;
use latency_probe::report::PeerRow;
use latency_probe::session::PairState;

const PROGRAM: &str = env!("CARGO_BIN_EXE_latency-probe");
const SOON: Duration = Duration::from_secs(20);

#[test]
fn two_nodes_measure_each_other_and_notice_what_becomes_of_the_other() {
    let lab = Lab::new("pair", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("a", lab.address(0)), ("b", lab.address(1))]));
    let common = ["--latency-from", "udp", "--interval", "100ms", "--timeout", "1s", "--peers-file", peers.to_str().unwrap()];
    let arguments = [&common[..], &["--pair-buckets", "0.001,0.01"]].concat();
    let a = Prober::start(&lab, 0, "a", &arguments);
    let b = Prober::start(&lab, 1, "b", &arguments);

    for (prober, from, to) in [(&a, "a", "b"), (&b, "b", "a")] {
        // The window is full of answers once what was sent before the other one was up has left it.
        let known = prober.until_peer(to, |peer| peer.state == PairState::Known && peer.samples == 60);
        let rtt = known.rtt_seconds.unwrap();
        assert!(rtt.min > 1e-6 && rtt.min <= rtt.p50 && rtt.p50 <= rtt.p90 && rtt.p90 <= rtt.p99, "{rtt:?}");
        // A cable between namespaces takes some 20 us. However busy the machine is, waiting for the
        // processor must not show.
        assert!(rtt.p50 < 0.001, "{rtt:?}");
        assert_eq!((known.protocol, known.hops, known.loss_ratio), (Protocol::Udp, Some(0), Some(0.0)));
        let metrics = prober.get("/metrics");
        let millis: f64 = value(&metrics, &format!("latency_between_nodes{{from=\"{from}\",to=\"{to}\"}}")).unwrap();
        assert!(millis > 0.0 && millis < 1.0, "{millis} ms");
        assert!(value(&metrics, &format!("kantai_probe_pair_rtt_seconds_count{{from=\"{from}\",to=\"{to}\"}}")).unwrap() >= 20.0);
        assert!(
            metrics.contains("# TYPE kantai_probe_pair_rtt_seconds histogram\n") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
        assert_eq!(value(&metrics, &format!("kantai_probe_loss_ratio{{from=\"{from}\",to=\"{to}\"}}")), Some(0.0));
    }
    assert_eq!((a.get("/healthz"), a.get("/readyz")), ("ok\n".to_owned(), "ok\n".to_owned()));

    // Killed without a word: first loss, then unknown, because the node's kernel still answers that
    // nobody listens. A number is never shown for what is not known.
    drop(b);
    let state = |name: &str| format!("kantai_probe_pair_state{{from=\"a\",to=\"b\",state=\"{name}\"}}");
    let silent = a.until_peer("b", |peer| peer.state == PairState::Unknown);
    assert!(silent.rtt_seconds.is_none() && silent.loss_ratio.unwrap() > 0.0);
    let metrics = a.get("/metrics");
    assert!(value(&metrics, "latency_between_nodes{from=\"a\",to=\"b\"}").is_none(), "{metrics}");
    assert!(value(&metrics, "kantai_probe_loss_ratio{from=\"a\",to=\"b\"}").unwrap() > 0.0);
    assert_eq!((value(&metrics, &state("unknown")), value(&metrics, &state("unreachable"))), (Some(1.0), None), "{metrics}");
    assert!(value(&metrics, "kantai_probe_anomalies_total{kind=\"refused\"}").unwrap() > 0.0, "{metrics}");

    // The cable is cut: the kernel finds no way to the node, and says so.
    lab.run_in(1, &["ip", "link", "set", "eth0", "down"]);
    let gone = a.until_peer("b", |peer| peer.state == PairState::Unreachable);
    assert!(gone.rtt_seconds.is_none() && gone.loss_ratio.unwrap() > 0.0);
    let metrics = a.get("/metrics");
    assert_eq!((value(&metrics, &state("unknown")), value(&metrics, &state("unreachable"))), (None, Some(1.0)), "{metrics}");
    lab.run_in(1, &["ip", "link", "set", "eth0", "up"]);

    // Back again, without anything restarted on the other side.
    let _b = Prober::start(&lab, 1, "b", &arguments);
    a.until_peer("b", |peer| peer.state == PairState::Known);
    assert_eq!(value(&a.get("/metrics"), &state("known")), Some(1.0));

    // Taken off the list: all of its series end, within an interval of the file being read (a
    // twentieth of a second here).
    lab.file("peers.toml", &peers_file(&[("a", lab.address(0))]));
    let started = Instant::now();
    until(SOON, || (!a.get("/metrics").contains("to=\"b\"")).then_some(()));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(a.peer("b").is_none());
    assert_eq!(a.stop(), Some(0));
}

#[test]
fn icmp_steps_in_for_a_silent_responder_by_raw_or_ping_socket() {
    let lab = Lab::new("icmp", PROGRAM);
    let six = (lab.address_v6(1), 9799).into();
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1)), ("b6", six)]));
    let arguments = ["--interval", "100ms", "--timeout", "300ms", "--peers-file", peers.to_str().unwrap()];
    // Root may have a raw socket. Nobody answers UDP on the other node, but its kernel answers
    // ICMP.
    let raw = Prober::start(&lab, 0, "a", &arguments);
    for node in ["b", "b6"] {
        let known = raw.until_peer(node, |peer| peer.state == PairState::Known);
        assert_eq!((known.protocol, known.hops), (Protocol::Icmp, Some(0)));
        assert!(known.rtt_seconds.unwrap().p50 < 0.001, "{known:?}");
    }
    drop(raw);

    // Without any privilege there is neither. The other kernel's word that nobody listens comes all
    // the same, and is timed,
    let none = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    for node in ["b", "b6"] {
        let known = none.until_peer(node, |peer| peer.state == PairState::Known);
        assert_eq!((known.protocol, known.probes_lost), (Protocol::Icmp, 0), "{known:?}");
        assert!(known.rtt_seconds.unwrap().p50 < 0.001, "{known:?}");
    }
    assert_eq!(value(&none.get("/metrics"), "kantai_probe_icmp_available"), Some(0.0));
    // and where nothing comes back at all, what was known grows old, which is not "unreachable".
    lab.run_in(1, &["ip", "route", "add", "blackhole", "10.99.0.1/32"]);
    none.until_peer("b", |peer| peer.state == PairState::Stale && peer.age_seconds.unwrap() > 3.0);
    lab.run_in(1, &["ip", "route", "del", "blackhole", "10.99.0.1/32"]);
    drop(none);

    // unless the system lets its group have ping sockets.
    lab.run_in(0, &["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
    let ping = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    for node in ["b", "b6"] {
        let known = ping.until_peer(node, |peer| peer.state == PairState::Known);
        assert_eq!(known.protocol, Protocol::Icmp);
        assert!(known.rtt_seconds.unwrap().p50 < 0.001, "{known:?}");
    }
    assert_eq!(value(&ping.get("/metrics"), "kantai_probe_icmp_available"), Some(1.0));
}

#[test]
fn a_tcp_handshake_steps_in_where_nothing_else_gets_through() {
    let lab = Lab::new("tcp", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("a", lab.address(0)), ("b", lab.address(1))]));
    let arguments = ["--interval", "100ms", "--timeout", "300ms", "--peers-file", peers.to_str().unwrap()];
    // Its responder is elsewhere, and its kernel may say so only a few times a minute.
    lab.run_in(1, &["sysctl", "-qw", "net.ipv4.icmp_ratelimit=60000"]);
    let _b = Prober::start(&lab, 1, "b", &[&arguments[..], &["--echo-listen", "127.0.0.1:1"]].concat());
    let a = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    let by_tcp = |peer: &PeerRow| peer.protocol == Protocol::Tcp && peer.state == PairState::Known && peer.samples >= 5;
    let known = a.until_peer("b", by_tcp);
    assert!(known.rtt_seconds.unwrap().p50 < 0.01, "{known:?}");
}

#[test]
fn flows_leave_from_ports_of_their_own() {
    let lab = Lab::new("flow", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1))]));
    let arguments = ["--latency-from", "udp", "--interval", "50ms", "--flows", "4", "--peers-file", peers.to_str().unwrap()];
    let listener = lab.inside(1, || std::net::UdpSocket::bind(lab.address(1)).unwrap());
    let a = Prober::start(&lab, 0, "a", &arguments);
    listener.set_read_timeout(Some(SOON)).unwrap();
    let ports: std::collections::BTreeSet<u16> = (0..40).map(|_| listener.recv_from(&mut [0; 100]).unwrap().1.port()).collect();
    assert_eq!(ports.len(), 4, "{ports:?}");
    drop(listener);
    let _b = Prober::start(&lab, 1, "b", &["--peers-file", lab.file("nobody.toml", "peers = []").to_str().unwrap()]);
    let known = a.until_peer("b", |peer| peer.state == PairState::Known && peer.samples == 60);
    assert!(known.flows.len() == 4 && known.flows.iter().all(|flow| flow.probes_ended > 10 && flow.ewma_seconds.is_some()));
    assert_eq!((known.hop_changes, known.probes_lost), (0, 0));
    // One machine has one clock, and both directions are one cable.
    assert!(known.forward_minus_back_seconds.unwrap().abs() < 0.001, "{known:?}");
}

/// The cable carries 1,500 bytes one way and 1,300 the other, and no router says so.
#[test]
fn packets_that_a_path_does_not_carry_are_lost_by_their_size() {
    let lab = Lab::new("mtu", PROGRAM);
    lab.run_in(1, &["ip", "link", "set", "eth0", "mtu", "1300"]);
    let peers = [format!("b={}", lab.address(1).ip()), format!("b6={}", lab.address_v6(1))];
    let probe = |size: &str| {
        let given = ["once", "--json", "--latency-from", "icmp", "--interval", "50ms", "--timeout", "1s", "--packet-size", size];
        let (_, json) = lab.latency_probe(0, &[&given[..], &[&peers[0], &peers[1]]].concat());
        let row: latency_probe::report::Row = serde_json::from_str(&json).unwrap();
        row.peers.iter().map(|peer| peer.samples).collect::<Vec<_>>()
    };
    assert_eq!(probe("1300"), [5, 5]);
    // Lost, or refused by this end of the cable, which knows that the other end drops them.
    assert_eq!(probe("1400"), [0, 0]);
    let without = lab.latency_probe(0, &["once", "--packet-size", "1400", &peers[0]]);
    assert_eq!(without.0, Some(1));
}

/// Stopped for longer than its probes may be out, though the machine was not: the kernel took the
/// replies in, with their times.
#[test]
fn a_prober_that_is_kept_from_running_loses_no_reply_that_came() {
    let lab = Lab::new("stop", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1))]));
    let arguments =
        ["--latency-from", "udp", "--interval", "20ms", "--timeout", "700ms", "--peers-file", peers.to_str().unwrap()];
    let _b = Prober::start(&lab, 1, "b", &arguments);
    let a = Prober::start(&lab, 0, "a", &arguments);
    let before = a.until_peer("b", |peer| peer.state == PairState::Known && peer.samples == 60);
    for _ in 0..5 {
        a.pause(Duration::from_millis(1300));
        std::thread::sleep(Duration::from_millis(200));
    }
    let metrics = a.get("/metrics");
    for kind in ["asleep", "late", "overrun", "unstamped", "clock_stepped"] {
        let series = format!("kantai_probe_anomalies_total{{kind=\"{kind}\"}}");
        assert_eq!(value(&metrics, &series), Some(0.0), "{kind}: {metrics}");
    }
    let known = a.peer("b").unwrap();
    assert_eq!((known.state, known.probes_lost), (PairState::Known, before.probes_lost), "{known:?}");
    assert!(known.rtt_seconds.unwrap().p99 < 0.1, "waiting to run is no latency: {known:?}");
}

#[test]
fn ipv6_peers_are_measured_without_any_privilege() {
    let lab = Lab::new("six", PROGRAM);
    let peers = lab.file("peers.json", &format!("{{\"peers\": [{{\"node\": \"b\", \"address\": \"{}\"}}]}}", lab.address_v6(1)));
    let arguments = ["--interval", "100ms", "--peers-file", peers.to_str().unwrap()];
    let a = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    let _b = Prober::start_unprivileged(&lab, 1, "b", &arguments);
    let known = a.until_peer("b", |peer| peer.state == PairState::Known && peer.samples >= 10);
    assert_eq!((known.protocol, known.hops), (Protocol::Udp, Some(0)));
    assert!(known.rtt_seconds.unwrap().p50 < 0.001, "{known:?}");
}

#[test]
fn an_injected_delay_is_what_is_measured() {
    let lab = Lab::new("wire", PROGRAM);
    let one_way = Duration::from_millis(25);
    let relay = bench::Relay::start(&lab, one_way, lab.address(1));
    let peers = lab.file("peers.toml", &peers_file(&[("b", relay.address())]));
    let arguments = ["--latency-from", "udp", "--interval", "100ms", "--peers-file", peers.to_str().unwrap()];
    let a = Prober::start(&lab, 0, "a", &arguments);
    let nobody = lab.file("nobody.toml", "peers = []");
    let _b = Prober::start(&lab, 1, "b", &["--peers-file", nobody.to_str().unwrap()]);
    let known = a.until_peer("b", |peer| peer.state == PairState::Known && peer.samples >= 30);
    let rtt = known.rtt_seconds.unwrap();
    // Never less than the wire; the relay itself may be kept waiting by a busy machine, and that is
    // wire for the prober.
    assert!(rtt.min >= 0.05 && rtt.min < 0.0515, "{rtt:?}");
}

#[test]
fn rubbish_is_counted_and_changes_nothing() {
    let lab = Lab::new("junk", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1))]));
    let arguments = ["--latency-from", "udp", "--interval", "100ms", "--peers-file", peers.to_str().unwrap()];
    let b = Prober::start(&lab, 1, "b", &arguments);
    let a = Prober::start(&lab, 0, "a", &arguments);
    a.until_peer("b", |peer| peer.state == PairState::Known);
    lab.send_rubbish(0, lab.address(1));
    until(SOON, || {
        value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"malformed\"}").filter(|count| *count >= 100.0)
    });
    let known = a.peer("b").unwrap();
    assert_eq!((known.state, known.loss_ratio), (PairState::Known, Some(0.0)));
}

#[test]
fn a_fleet_with_a_key_keeps_to_itself_and_changes_its_key_without_a_gap() {
    let lab = Lab::new("key", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("a", lab.address(0)), ("b", lab.address(1))]));
    let (old, new) = ("the fleet's key until now", "the fleet's key from now on");
    let key = lab.file("key", &format!("{old}\n"));
    let common = ["--latency-from", "udp", "--interval", "100ms", "--timeout", "1s", "--peers-file", peers.to_str().unwrap()];
    let with_key = [&common[..], &["--key-file", key.to_str().unwrap()]].concat();
    let b = Prober::start(&lab, 1, "b", &with_key);

    let stranger = Prober::start(&lab, 0, "a", &common);
    stranger.until_peer("b", |peer| peer.state == PairState::Unknown && peer.probes_lost >= 5);
    assert!(value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"unsigned\"}").unwrap() > 0.0);
    drop(stranger);

    let a = Prober::start(&lab, 0, "a", &with_key);
    a.until_peer("b", |peer| peer.state == PairState::Known);
    // Both read the same file, though not at the same moment: so the new key is first believed, and
    // then used.
    for keys in [format!("{old}\n{new}\n"), format!("{new}\n{old}\n"), format!("{new}\n")] {
        lab.file("key", &keys);
        std::thread::sleep(Duration::from_secs(3));
    }
    let unsigned = value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"unsigned\"}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"unsigned\"}"), unsigned);
    let row = a.peer("b").unwrap();
    assert_eq!((row.state, row.loss_ratio), (PairState::Known, Some(0.0)));
}

#[test]
fn once_and_matrix_print_what_is_measured() {
    let lab = Lab::new("once", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1))]));
    let b = Prober::start(&lab, 1, "b", &["--peers-file", peers.to_str().unwrap()]);
    let a = Prober::start(&lab, 0, "a", &["--interval", "100ms", "--peers-file", peers.to_str().unwrap()]);
    a.until_peer("b", |peer| peer.state == PairState::Known);

    let to_b = format!("b={}", lab.address(1));
    let (code, table) = lab.latency_probe(0, &["once", "--interval", "50ms", "--count", "10", "--timeout", "2s", &to_b]);
    let line: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((code, line[0], line[1], line[2], line[3]), (Some(0), "b", "udp", "10", "0.0"), "{table}");
    // Nobody has this address, which the kernel finds out in three seconds.
    let until_then = ["once", "--interval", "200ms", "--count", "25", "--timeout", "1s", &to_b, "10.99.0.77"];
    let (code, table) = lab.latency_probe(0, &until_then);
    assert!(code == Some(1) && table.contains("unreachable"), "{table}");
    // Errors about that address come back over the same socket, and fail no probe to the other
    // peer.
    let line: Vec<&str> = table.lines().find(|line| line.starts_with("b ")).unwrap().split_whitespace().collect();
    assert_eq!(line[2..4], ["25", "0.0"], "{table}");
    let (_, json) = lab.latency_probe(0, &["once", "--json", "--interval", "50ms", "--timeout", "1s", &to_b]);
    assert_eq!(serde_json::from_str::<latency_probe::report::Row>(&json).unwrap().peers.len(), 1);

    let page = lab.file("matrix.html", "");
    let (at_a, at_b) = ("127.0.0.1".to_owned(), lab.address(1).ip().to_string());
    let (code, text) = lab.latency_probe(0, &["matrix", &at_a, &at_b, "--html", page.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    let row_of_a: Vec<&str> = text.lines().find(|line| line.starts_with('a')).unwrap().split_whitespace().collect();
    assert!(row_of_a[1] == "-" && row_of_a[2].parse::<f64>().unwrap() < 1.0, "{text}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
    drop(b);
    assert_eq!(lab.latency_probe(0, &["matrix", &at_a, &at_b]).0, Some(1));
}
