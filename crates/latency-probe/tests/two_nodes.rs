//! Two real probers in two network namespaces, joined by a cable. Needs root, as namespaces do.

#![expect(clippy::unwrap_used, reason = "in a test, what fails is to be seen")]

mod bench;

use std::time::Duration;

use bench::{Lab, Prober, peers_file, until, value};
use latency_matrix::{BandwidthRow, PeerRow, Protocol, Row, StateKind};

const PROGRAM: &str = env!("CARGO_BIN_EXE_latency-probe");
/// How long a busy machine may take for what it does within seconds otherwise.
const SOON: Duration = Duration::from_secs(60);

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
        // A cable between namespaces takes some 20 us. However busy the machine is, waiting for the
        // processor must not show.
        let known = prober.until_peer(to, |peer| {
            peer.state == StateKind::Known && peer.samples == 60 && peer.rtt_seconds.is_some_and(|rtt| rtt.p50 < 0.001)
        });
        let rtt = known.rtt_seconds.unwrap();
        assert!(rtt.min > 1e-6 && rtt.min <= rtt.p50 && rtt.p50 <= rtt.p90 && rtt.p90 <= rtt.p99, "{rtt:?}");
        assert_eq!((known.protocol, known.hops, known.loss_ratio), (Some(Protocol::Udp), Some(0), Some(0.0)));
        let loss = format!("kantai_probe_loss_ratio{{from=\"{from}\",to=\"{to}\"}}");
        let metrics = until(SOON, || Some(prober.get("/metrics")).filter(|metrics| value(metrics, &loss) == Some(0.0)));
        let millis: f64 = value(&metrics, &format!("latency_between_nodes{{from=\"{from}\",to=\"{to}\"}}")).unwrap();
        assert!(millis > 0.0 && millis < 1.0, "{millis} ms");
        assert!(value(&metrics, &format!("kantai_probe_pair_rtt_seconds_count{{from=\"{from}\",to=\"{to}\"}}")).unwrap() >= 20.0);
        assert!(
            metrics.contains("# TYPE kantai_probe_pair_rtt_seconds histogram\n") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
    }
    assert_eq!((a.get("/healthz"), a.get("/readyz")), ("ok\n".to_owned(), "ok\n".to_owned()));

    // Killed without a word: first loss, then unknown, because the node's kernel still answers that
    // nobody listens. A number is never shown for what is not known.
    drop(b);
    let state = |name: &str| format!("kantai_probe_pair_state{{from=\"a\",to=\"b\",state=\"{name}\"}}");
    let silent = a.until_peer("b", |peer| peer.state == StateKind::Unknown);
    assert!(silent.rtt_seconds.is_none() && silent.loss_ratio.unwrap() > 0.0);
    let metrics = a.get("/metrics");
    assert!(value(&metrics, "latency_between_nodes{from=\"a\",to=\"b\"}").is_none(), "{metrics}");
    assert!(value(&metrics, "kantai_probe_loss_ratio{from=\"a\",to=\"b\"}").unwrap() > 0.0);
    assert_eq!((value(&metrics, &state("unknown")), value(&metrics, &state("unreachable"))), (Some(1.0), None), "{metrics}");
    assert!(value(&metrics, "kantai_probe_anomalies_total{kind=\"refused\"}").unwrap() > 0.0, "{metrics}");

    // The cable is cut: the kernel finds no way to the node, and says so.
    lab.run_in(1, &["ip", "link", "set", "eth0", "down"]);
    let gone = a.until_peer("b", |peer| peer.state == StateKind::Unreachable);
    assert!(gone.rtt_seconds.is_none() && gone.loss_ratio.unwrap() > 0.0);
    let metrics = until(SOON, || Some(a.get("/metrics")).filter(|metrics| value(metrics, &state("unreachable")) == Some(1.0)));
    assert_eq!(value(&metrics, &state("unknown")), None, "{metrics}");
    lab.run_in(1, &["ip", "link", "set", "eth0", "up"]);

    // Back again, without anything restarted on the other side.
    let _b = Prober::start(&lab, 1, "b", &arguments);
    a.until_peer("b", |peer| peer.state == StateKind::Known);
    until(SOON, || (value(&a.get("/metrics"), &state("known")) == Some(1.0)).then_some(()));

    // Taken off the list: all of its series end. The scorecard measures how soon.
    lab.file("peers.toml", &peers_file(&[("a", lab.address(0))]));
    until(SOON, || (!a.get("/metrics").contains("to=\"b\"")).then_some(()));
    assert!(a.peer("b").is_none());
    assert_eq!(a.stop(), Some(0));
}

#[test]
fn icmp_steps_in_for_a_silent_responder_by_raw_or_ping_socket() {
    let lab = Lab::new("icmp", PROGRAM);
    let six = (lab.address_v6(1), 9799).into();
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1)), ("b6", six)]));
    let arguments = ["--interval", "100ms", "--timeout", "1s", "--peers-file", peers.to_str().unwrap()];
    let quick = |peer: &PeerRow| peer.state == StateKind::Known && peer.rtt_seconds.is_some_and(|rtt| rtt.p50 < 0.001);
    // Root may have a raw socket. Nobody answers UDP on the other node, but its kernel answers
    // ICMP.
    let raw = Prober::start(&lab, 0, "a", &arguments);
    for node in ["b", "b6"] {
        let known = raw.until_peer(node, quick);
        assert_eq!((known.protocol, known.hops), (Some(Protocol::Icmp), Some(0)));
    }
    drop(raw);

    // Without any privilege there is neither. The other kernel's error about its closed port
    // arrives all the same, and is timed,
    let none = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    for node in ["b", "b6"] {
        let known = none.until_peer(node, |peer| quick(peer) && peer.probes_lost == 0);
        assert_eq!(known.protocol, Some(Protocol::Icmp), "{known:?}");
    }
    assert_eq!(value(&none.get("/metrics"), "kantai_probe_icmp_available"), Some(0.0));
    // and where nothing comes back at all, what was known grows old, which is not "unreachable".
    lab.run_in(1, &["ip", "route", "add", "blackhole", "10.99.0.1/32"]);
    none.until_peer("b", |peer| peer.state == StateKind::Stale && peer.age_seconds.unwrap() > 3.0);
    lab.run_in(1, &["ip", "route", "del", "blackhole", "10.99.0.1/32"]);
    drop(none);

    // unless the system lets its group have ping sockets.
    lab.run_in(0, &["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
    let ping = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    for node in ["b", "b6"] {
        let known = ping.until_peer(node, quick);
        assert_eq!(known.protocol, Some(Protocol::Icmp));
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
    let by_tcp = |peer: &PeerRow| peer.protocol == Some(Protocol::Tcp) && peer.state == StateKind::Known && peer.samples >= 5;
    a.until_peer("b", |peer| by_tcp(peer) && peer.rtt_seconds.is_some_and(|rtt| rtt.p50 < 0.01));
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
    // One machine has one clock, and both directions are one cable.
    let even = |peer: &PeerRow| peer.forward_minus_back_seconds.is_some_and(|seconds| seconds.abs() < 0.001);
    let known = a.until_peer("b", |peer| peer.state == StateKind::Known && peer.samples == 60 && even(peer));
    assert!(known.flows.len() == 4 && known.flows.iter().all(|flow| flow.probes_ended > 10 && flow.ewma_seconds.is_some()));
    assert_eq!((known.hop_changes, known.probes_lost), (0, 0));
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
        let row: Row = serde_json::from_str(&json).unwrap();
        row.peers.iter().map(|peer| peer.samples).collect::<Vec<_>>()
    };
    until(SOON, || (probe("1300") == [5, 5]).then_some(()));
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
    let odd = || {
        let metrics = a.get("/metrics");
        ["asleep", "late", "overrun", "unstamped", "clock_stepped"]
            .map(|kind| value(&metrics, &format!("kantai_probe_anomalies_total{{kind=\"{kind}\"}}")).unwrap())
    };
    let full = |peer: &PeerRow| {
        peer.state == StateKind::Known && peer.samples == 60 && peer.rtt_seconds.is_some_and(|rtt| rtt.p99 < 0.1)
    };
    // A busy machine keeps both of them from running at other times, too, when replies are still
    // under way. Such a round says nothing; a pause that costs replies would spoil every round.
    let clean = (0..30).filter(|_| {
        a.until_peer("b", full);
        let before = odd();
        a.pause(Duration::from_millis(1300));
        std::thread::sleep(Duration::from_millis(200));
        let known = a.peer("b").unwrap();
        let waiting_is_no_latency = known.rtt_seconds.is_some_and(|rtt| rtt.p99 < 0.1);
        odd() == before && (known.state, known.probes_lost) == (StateKind::Known, 0) && waiting_is_no_latency
    });
    assert_eq!(clean.take(3).count(), 3, "of 30 pauses; anomalies: {:?}", odd());
}

#[test]
fn ipv6_peers_are_measured_without_any_privilege() {
    let lab = Lab::new("six", PROGRAM);
    let peers = lab.file("peers.json", &format!("{{\"peers\": [{{\"node\": \"b\", \"address\": \"{}\"}}]}}", lab.address_v6(1)));
    let arguments = ["--interval", "100ms", "--peers-file", peers.to_str().unwrap()];
    let a = Prober::start_unprivileged(&lab, 0, "a", &arguments);
    let _b = Prober::start_unprivileged(&lab, 1, "b", &arguments);
    let known = a.until_peer("b", |peer| peer.samples >= 10 && peer.rtt_seconds.is_some_and(|rtt| rtt.p50 < 0.001));
    assert_eq!((known.state, known.protocol, known.hops), (StateKind::Known, Some(Protocol::Udp), Some(0)));
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
    // The relay itself may be kept waiting by a busy machine, and that is wire for the prober: so
    // the shortest time is looked at, which is never less than the wire.
    let close = |peer: &PeerRow| peer.samples >= 30 && peer.rtt_seconds.is_some_and(|rtt| rtt.min < 0.0515);
    let rtt = a.until_peer("b", |peer| peer.state == StateKind::Known && close(peer)).rtt_seconds.unwrap();
    assert!(rtt.min >= 0.05, "{rtt:?}");
}

#[test]
fn rubbish_is_counted_and_changes_nothing() {
    let lab = Lab::new("junk", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1))]));
    let arguments = ["--latency-from", "udp", "--interval", "100ms", "--peers-file", peers.to_str().unwrap()];
    let b = Prober::start(&lab, 1, "b", &arguments);
    let a = Prober::start(&lab, 0, "a", &arguments);
    a.until_peer("b", |peer| peer.state == StateKind::Known);
    lab.send_rubbish(0, lab.address(1));
    until(SOON, || {
        value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"malformed\"}").filter(|count| *count >= 100.0)
    });
    a.until_peer("b", |peer| peer.state == StateKind::Known && peer.loss_ratio == Some(0.0));
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
    stranger.until_peer("b", |peer| peer.state == StateKind::Unknown && peer.probes_lost >= 5);
    assert!(value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"unsigned\"}").unwrap() > 0.0);
    drop(stranger);

    let a = Prober::start(&lab, 0, "a", &with_key);
    a.until_peer("b", |peer| peer.state == StateKind::Known);
    // A gap would show as a request or a reply that the other one does not accept.
    let unaccepted = || {
        let unsigned = value(&b.get("/metrics"), "kantai_probe_echo_requests_total{result=\"unsigned\"}");
        unsigned.zip(value(&a.get("/metrics"), "kantai_probe_anomalies_total{kind=\"rejected\"}")).unwrap()
    };
    let before = unaccepted();
    // Both read the same file every two seconds, though not at the same moment: so the new key is
    // first accepted, and then used. A busy machine may read it some seconds later.
    for keys in [format!("{old}\n{new}\n"), format!("{new}\n{old}\n"), format!("{new}\n")] {
        lab.file("key", &keys);
        std::thread::sleep(Duration::from_secs(8));
    }
    a.until_peer("b", |peer| peer.state == StateKind::Known && peer.loss_ratio == Some(0.0));
    assert_eq!(unaccepted(), before);
}

#[test]
fn once_and_matrix_print_what_is_measured() {
    let lab = Lab::new("once", PROGRAM);
    let peers = lab.file("peers.toml", &peers_file(&[("b", lab.address(1))]));
    let b = Prober::start(&lab, 1, "b", &["--peers-file", peers.to_str().unwrap()]);
    let a = Prober::start(&lab, 0, "a", &["--interval", "100ms", "--peers-file", peers.to_str().unwrap()]);
    a.until_peer("b", |peer| peer.state == StateKind::Known);

    let to_b = format!("b={}", lab.address(1));
    let line_of_b = |table: &str| {
        let line = table.lines().find(|line| line.starts_with("b ")).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // A reply that a busy machine keeps for longer than the timeout is lost, so one run may not do.
    until(SOON, || {
        let (code, table) = lab.latency_probe(0, &["once", "--interval", "50ms", "--count", "10", "--timeout", "2s", &to_b]);
        (code == Some(0) && line_of_b(&table)[..4] == ["b", "udp", "10", "0.0"]).then_some(())
    });
    // Nobody has this address, which the kernel finds out in three seconds. Errors about that
    // address come back over the same socket, and fail no probe to the other peer.
    let until_then = ["once", "--interval", "200ms", "--count", "25", "--timeout", "2s", &to_b, "10.99.0.77"];
    until(SOON * 2, || {
        let (code, table) = lab.latency_probe(0, &until_then);
        let told = code == Some(1) && table.contains("unreachable");
        (told && line_of_b(&table)[2..4] == ["25", "0.0"]).then_some(())
    });
    let (_, json) = lab.latency_probe(0, &["once", "--json", "--interval", "50ms", "--timeout", "1s", &to_b]);
    assert_eq!(serde_json::from_str::<Row>(&json).unwrap().peers.len(), 1);

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

/// What `once --bandwidth` finds of one peer, and with which exit code.
fn bandwidth(lab: &Lab, peer: &str) -> (Option<i32>, Option<BandwidthRow>) {
    let given = ["once", "--json", "--bandwidth", "--interval", "50ms", "--count", "2", "--timeout", "2s", peer];
    let (code, json) = lab.latency_probe(0, &given);
    (code, serde_json::from_str::<Row>(&json).unwrap().peers.remove(0).bandwidth)
}

/// Over a link of this rate.
fn assert_estimated(lab: &Lab, peer: &str, rate: f64) {
    // A busy machine may delay packets of a train, which shows as a wide interval.
    let found = until(SOON * 3, || {
        let (code, found) = bandwidth(lab, peer);
        let found = found.filter(|_| code == Some(0))?;
        let sharp = (found.high - found.low) < 0.2 * rate && (found.bits_per_second - rate).abs() < 0.1 * rate;
        println!("{rate} bit/s is estimated as {found:?}");
        sharp.then_some(found)
    });
    assert!(!found.is_lower_bound && found.trains >= 9 && found.bytes_sent == 983_040, "{found:?}");
}

#[test]
fn bandwidth_is_estimated_on_request_and_costs_a_bounded_number_of_bytes() {
    let lab = Lab::new("wide", PROGRAM);
    let nobody = lab.file("nobody.toml", "peers = []");
    let b = Prober::start(&lab, 1, "b", &["--peers-file", nobody.to_str().unwrap()]);
    let direct = format!("b={}", lab.address(1));

    // Without the request there is neither a train nor a word of it.
    let sent = || lab.counter(0, "tx_bytes");
    let before = sent();
    let (_, json) = lab.latency_probe(0, &["once", "--json", "--interval", "50ms", &direct]);
    assert!(sent() - before < 10_000 && !json.contains("bandwidth"), "{json}");

    // A cable between namespaces is as fast as this machine. The bytes are those of probes and
    // trains with the headers of Ethernet; fewer where a busy machine did not answer the first
    // train in time.
    until(SOON, || {
        let before = sent();
        let (code, table) = lab.latency_probe(0, &["once", "--bandwidth", "--interval", "50ms", &direct]);
        let bytes = sent() - before;
        assert!(table.contains("Mbit/s") && bytes < 1_100_000, "{bytes} bytes: {table}");
        (code == Some(0) && bytes > 900_000).then_some(())
    });
    let found = until(SOON, || bandwidth(&lab, &direct).1);
    assert!(found.bits_per_second > 20e6, "{found:?}");

    // A slow one, because a program that is kept waiting is no even wire.
    let relay = bench::Relay::start(&lab, Duration::from_millis(1), lab.address(1));
    relay.narrow_to(4_000_000);
    assert_estimated(&lab, &format!("b={}", relay.address()), 4e6);
    // By the kernel's token bucket, where it has one; it counts the headers of Ethernet, too.
    for rate in [5_000_000, 40_000_000].into_iter().filter(|rate| lab.narrow(0, *rate)) {
        assert_estimated(&lab, &direct, rate as f64 * 1_280.0 / 1_294.0);
    }
    // Nobody to answer: said soon, and no estimate.
    drop(b);
    assert_eq!(bandwidth(&lab, &direct), (Some(1), None));
}
