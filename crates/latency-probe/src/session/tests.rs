use std::collections::BTreeSet;
use std::net::SocketAddr;

use latency_matrix::{PeerRow, StateKind};
use proptest::prelude::*;

use super::*;
use crate::peers::Peer;
use crate::protocol::control_message::IcmpReachability;
use crate::session::pair::{StateLimits, WindowLimits};

const MS: u64 = 1_000_000;
const EPOCH: u64 = 1_700_000_000_000_000_000;

fn at(millis: u64) -> ClockReading {
    ClockReading { mono: Mono::from_nanos(millis * MS), wall: Wall::from_nanos(EPOCH + millis * MS) }
}

fn settings(method: Method) -> Settings {
    Settings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        window: WindowLimits { samples: 60, span: Duration::from_secs(60) },
        states: StateLimits { unreachable_after: 5, stale_after: Duration::from_secs(10) },
        method,
        pair_bounds: None,
        flows: 1,
        packet_size: 0,
        probes_per_peer: None,
        http_path: "/healthz".into(),
    }
}

fn peer(last: u8) -> Peer {
    Peer::at(SocketAddr::from(([10, 0, 0, last], 9799)))
}

fn peers(names: &[(&str, u8)]) -> PeerSet {
    names.iter().map(|(name, last)| (NodeName::from(*name), peer(*last))).collect()
}

fn session(method: Method, names: &[(&str, u8)]) -> Session {
    let mut session = Session::new("node1".into(), settings(method), 7);
    session.enable_icmp(Family::V4);
    session.set_peers(&peers(names), at(0).mono);
    session
}

/// Runs `session` from one millisecond to another against a network where `answer` says after how
/// many milliseconds an order comes back.
fn run(
    session: &mut Session,
    from: u64,
    to: u64,
    mut answer: impl FnMut(u64, &ProbeOrder) -> Option<u64>,
) -> Vec<(u64, ProbeOrder)> {
    let mut sent = Vec::new();
    let mut replies: Vec<(u64, ProbeOrder)> = Vec::new();
    for now in from..to {
        let (ready, waiting) = replies.into_iter().partition(|(due, _)| *due <= now);
        replies = waiting;
        for (_, order) in ready {
            session.handle_reply(&reply(session.id(), &order), at(now));
        }
        session.give_up(at(now).mono);
        let mut orders = Vec::new();
        session.take_due(at(now), 64, &mut orders);
        for order in orders {
            session.mark_sent(order.sequence, at(now));
            replies.extend(answer(now, &order).map(|millis| (now + millis, order)));
            sent.push((now, order));
        }
    }
    sent
}

fn reply(session: SessionId, order: &ProbeOrder) -> ReceivedReply {
    ReceivedReply {
        protocol: order.protocol,
        from: order.to,
        session,
        sequence: order.sequence,
        held: Some(Duration::ZERO),
        turned: None,
        stamp: None,
        prompt: true,
        ttl: Some(63),
    }
}

fn row_of(session: &Session, to: &str, now: u64) -> PeerRow {
    session.row(at(now)).peers.into_iter().find(|peer| peer.to.as_str() == to).unwrap()
}

#[test]
fn measures_each_peer_once_an_interval() {
    let mut session = session(Method::PreferUdp, &[("node1", 1), ("node2", 2), ("node3", 3)]);
    assert_eq!(row_of(&session, "node2", 0).state, StateKind::Unknown);
    let sent = run(&mut session, 0, 30_000, |_, order| Some(if order.to == peer(2).echo { 1 } else { 50 }));
    // Once it is known that a peer answers, it is found out whether ICMP gets through as well.
    let by = |protocol| sent.iter().filter(move |(_, order)| order.protocol == protocol).count();
    assert!((56..=64).contains(&by(Protocol::Udp)) && by(Protocol::Icmp) == 2, "{}", sent.len());
    assert!(sent.iter().all(|(_, order)| order.to.ip() != peer(1).address()));
    let (near, far) = (row_of(&session, "node2", 30_000), row_of(&session, "node3", 30_000));
    assert_eq!((near.state, near.rtt_seconds.unwrap().p50), (StateKind::Known, 0.001));
    assert_eq!((far.state, far.rtt_seconds.unwrap().p50, far.hops), (StateKind::Known, 0.05, Some(1)));
    assert_eq!(session.row(at(30_000)).peers.len(), 2);
}

#[test]
fn a_probe_that_never_returns_is_loss_and_then_the_peer_is_unreachable() {
    let mut session = session(Method::PreferUdp, &[("node2", 2)]);
    run(&mut session, 0, 30_000, |now, _| (now < 15_000).then_some(3));
    let row = row_of(&session, "node2", 30_000);
    assert_eq!((row.state, row.rtt_seconds), (StateKind::Unreachable, None));
    assert!(row.loss_ratio.unwrap() > 0.3 && session.counters().lost[0] >= 11);
    run(&mut session, 30_000, 35_000, |_, _| Some(3));
    assert_eq!(row_of(&session, "node2", 35_000).state, StateKind::Known);
}

#[test]
fn icmp_steps_in_while_the_responder_is_silent_and_out_again() {
    let mut session = session(Method::PreferUdp, &[("node2", 2)]);
    let only_icmp = |_, order: &ProbeOrder| (order.protocol == Protocol::Icmp).then_some(4);
    let sent = run(&mut session, 0, 20_000, only_icmp);
    let first_icmp = sent.iter().find(|(_, order)| order.protocol == Protocol::Icmp).unwrap().0;
    assert!((6_000..10_000).contains(&first_icmp), "after five lost probes: {first_icmp}");
    let row = row_of(&session, "node2", 20_000);
    assert_eq!((row.state, row.protocol, row.rtt_seconds.unwrap().p50), (StateKind::Known, Some(Protocol::Icmp), 0.004));
    run(&mut session, 20_000, 30_000, |_, _| Some(2));
    let sent = run(&mut session, 30_000, 40_000, |_, _| Some(2));
    assert!(sent.iter().all(|(_, order)| order.protocol == Protocol::Udp));
    assert_eq!(row_of(&session, "node2", 40_000).protocol, Some(Protocol::Udp));
}

#[test]
fn nobody_is_probed_by_icmp_where_there_is_none() {
    let mut session = Session::new("node1".into(), settings(Method::PreferUdp), 7);
    session.set_peers(&peers(&[("node2", 2)]), at(0).mono);
    let sent = run(&mut session, 0, 20_000, |_, _| None);
    assert!(sent.iter().all(|(_, order)| order.protocol != Protocol::Icmp));
    // Its responder is silent, which says little of the node: it may be restarting.
    let row = row_of(&session, "node2", 20_000);
    assert_eq!((row.state, row.loss_ratio), (StateKind::Unknown, Some(1.0)));
}

/// A firewall may let TCP through alone.
#[test]
fn a_tcp_handshake_steps_in_while_neither_udp_nor_icmp_tells_anything() {
    for has_icmp in [false, true] {
        let mut session = Session::new("node1".into(), settings(Method::PreferUdp), 7);
        if has_icmp {
            session.enable_icmp(Family::V4);
        }
        session.set_peers(&peers(&[("node2", 2)]), at(0).mono);
        let (mut tcp, mut orders) = (0, Vec::new());
        for tick in 0..400 {
            let now = at(tick * 50);
            session.give_up(now.mono);
            orders.clear();
            session.take_due(now, 64, &mut orders);
            for order in orders.iter().filter(|order| order.protocol == Protocol::Tcp) {
                assert_eq!(order.to, "10.0.0.2:9798".parse().unwrap());
                session.end_probe(order.sequence, Ok(RttSample::from_nanos(6 * MS).unwrap()), None, at(tick * 50 + 6).mono);
                tcp += 1;
            }
        }
        let row = row_of(&session, "node2", 20_000);
        assert_eq!((row.state, row.protocol, row.rtt_seconds.unwrap().p50), (StateKind::Known, Some(Protocol::Tcp), 0.006));
        assert!(tcp > 5, "{tcp}");
        // And out again.
        let sent = run(&mut session, 20_000, 40_000, |_, order| (order.protocol == Protocol::Udp).then_some(2));
        assert!(sent.iter().filter(|(at, _)| *at > 22_000).all(|(_, order)| order.protocol != Protocol::Tcp));
        assert_eq!(row_of(&session, "node2", 40_000).protocol, Some(Protocol::Udp));
    }
}

/// One of four routes of equal cost loses everything: a quarter of the pair's probes, all of one
/// flow's.
#[test]
fn flows_tell_which_of_several_routes_is_broken() {
    let settings = Settings { flows: 4, ..settings(Method::Udp) };
    let mut session = Session::new("node1".into(), settings, 7);
    session.set_peers(&peers(&[("node2", 2)]), at(0).mono);
    let sent = run(&mut session, 0, 60_000, |_, order| (order.flow != 2).then_some(5));
    assert!((0..4).all(|flow| sent.iter().filter(|(_, order)| order.flow == flow).count() >= 10));
    let row = row_of(&session, "node2", 60_000);
    assert!(row.state == StateKind::Known && (row.loss_ratio.unwrap() - 0.25).abs() < 0.05, "{row:?}");
    let lost: Vec<_> = row.flows.iter().map(|flow| (flow.probes_lost > 0, flow.ewma_seconds)).collect();
    let (whole, broken) = ((false, Some(0.005)), (true, None));
    assert_eq!(lost, [whole, whole, broken, whole]);
    assert!(row.flows[2].probes_lost == row.flows[2].probes_ended && row.flows[2].probes_ended >= 10);
}

#[test]
fn the_way_is_told_by_hops_and_by_the_difference_of_its_directions() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    for second in 1..40 {
        orders.clear();
        let now = second * 1_000;
        session.take_due(at(now), 64, &mut orders);
        // The responder's clock is an hour ahead. Halfway, the way there becomes 20 ms longer, and
        // the way back a hop.
        let (there, ttl) = if second < 20 { (10, 63) } else { (30, 62) };
        for order in &orders {
            session.mark_sent(order.sequence, at(now));
            let arrived = at(now + there + 3_600_000).wall;
            let answered = at(now + there + 3_600_001).wall;
            let back = at(now + there + 11);
            let reply = ReceivedReply {
                held: Some(Duration::from_millis(1)),
                turned: Some((arrived, answered)),
                stamp: Some(back.wall),
                ttl: Some(ttl),
                ..reply(session.id(), order)
            };
            session.handle_reply(&reply, back);
        }
        if second == 19 {
            let row = row_of(&session, "node2", now);
            assert_eq!((row.hops, row.hop_changes, row.forward_minus_back_seconds), (Some(1), 0, Some(7_200.0)));
        }
    }
    let row = row_of(&session, "node2", 39_900);
    assert_eq!((row.hops, row.hop_changes), (Some(2), 1));
    assert!((row.forward_minus_back_seconds.unwrap() - 7_200.02).abs() < 0.003, "{row:?}");
}

/// The node answers other protocols: only its prober is gone.
#[test]
fn a_silent_responder_is_not_an_unreachable_node() {
    for method in [Method::Udp, Method::Tcp, Method::Http] {
        let mut session = session(method, &[("node2", 2)]);
        run(&mut session, 0, 30_000, |now, _| (now < 15_000).then_some(3));
        assert_eq!(row_of(&session, "node2", 30_000).state, StateKind::Unknown, "{method:?}");
    }
    // Where ICMP never got through, its silence is no second opinion.
    let mut session = session(Method::PreferUdp, &[("node2", 2)]);
    let udp_until_15 = |now, order: &ProbeOrder| (now < 15_000 && order.protocol == Protocol::Udp).then_some(3);
    run(&mut session, 0, 40_000, udp_until_15);
    assert_eq!(row_of(&session, "node2", 40_000).state, StateKind::Unknown);
    assert!(session.counters().lost[Protocol::Icmp as usize] > 3);
}

/// The kernel of a node without a listener says so, without any privilege on either side.
#[test]
fn a_refusal_is_an_answer_of_the_node() {
    let mut session = session(Method::PreferUdp, &[("node2", 2)]);
    let bounce = |session: &mut Session, now: u64, reachability, quoted: bool| {
        let mut orders = Vec::new();
        session.give_up(at(now).mono);
        session.take_due(at(now), 64, &mut orders);
        for order in orders.iter().filter(|order| order.protocol == Protocol::Udp) {
            session.mark_sent(order.sequence, at(now));
            let probe = quoted.then_some((session.id(), order.sequence));
            let stamp = Some(at(now + 7).wall);
            session.handle_icmp_error(&IcmpError { to: order.to, probe, reachability, stamp, ttl: Some(62) }, at(now + 9), false);
        }
    };
    for second in 1..20 {
        bounce(&mut session, second * 1_000, IcmpReachability::NobodyListens, true);
    }
    let row = row_of(&session, "node2", 19_500);
    assert_eq!((row.state, row.protocol, row.rtt_seconds.unwrap().p50), (StateKind::Known, Some(Protocol::Icmp), 0.007));
    assert_eq!(row.hops, Some(2));
    assert!(session.counters().refused > 10 && session.counters().lost[0] > 10);
    // Then the machine itself goes; a router says so. Some quote too little to tell which probe it
    // was.
    for second in 20..60 {
        bounce(&mut session, second * 1_000, IcmpReachability::NoRoute, second < 40);
        if second == 39 {
            assert_eq!(row_of(&session, "node2", 39_500).state, StateKind::Unreachable);
        }
    }
    assert_eq!(row_of(&session, "node2", 59_500).state, StateKind::Unreachable);
    // Also where there is no ICMP to ask, what the refusals told before does not hide that.
    let mut blind = Session::new("node1".into(), settings(Method::PreferUdp), 7);
    blind.set_peers(&peers(&[("node2", 2)]), at(0).mono);
    for second in 1..40 {
        bounce(
            &mut blind,
            second * 1_000,
            if second < 20 { IcmpReachability::NobodyListens } else { IcmpReachability::NoRoute },
            true,
        );
    }
    assert_eq!(row_of(&blind, "node2", 39_500).state, StateKind::Unreachable);
    // A firewall on the way says nothing of the node, and what was said before grows old.
    for second in 60..80 {
        bounce(&mut session, second * 1_000, IcmpReachability::Unclear, true);
    }
    assert_eq!(row_of(&session, "node2", 79_500).state, StateKind::Unknown);
}

/// A kernel asks three times, a second each, who has an address; the probe is given up after two.
#[test]
fn the_word_of_the_network_counts_after_the_probe_was_given_up() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let sent = run(&mut session, 0, 20_000, |_, _| None);
    assert_eq!(row_of(&session, "node2", 20_000).state, StateKind::Unknown);
    let (_, given_up) = sent.iter().rev().find(|(at, _)| *at < 17_000).unwrap();
    let probe = Some((session.id(), given_up.sequence));
    let icmp_error = IcmpError { to: peer(2).echo, probe, reachability: IcmpReachability::NoRoute, stamp: None, ttl: None };
    session.handle_icmp_error(&icmp_error, at(20_000), false);
    assert_eq!(row_of(&session, "node2", 20_000).state, StateKind::Unreachable);
}

#[test]
fn a_refusal_of_somebody_else_s_probe_changes_nothing() {
    let mut session = session(Method::PreferUdp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    let good = IcmpError {
        to: orders[0].to,
        probe: Some((session.id(), orders[0].sequence)),
        reachability: IcmpReachability::NoRoute,
        stamp: None,
        ttl: None,
    };
    let id = session.id();
    for wrong in [
        IcmpError { to: peer(3).echo, ..good },
        IcmpError { probe: Some((SessionId(id.0 ^ 1), orders[0].sequence)), ..good },
        IcmpError { probe: Some((id, Sequence(99))), ..good },
    ] {
        session.handle_icmp_error(&wrong, at(1_001), false);
    }
    assert_eq!((session.counters().lost, session.in_flight()), ([0; 4], 1));
    session.handle_icmp_error(&good, at(1_001), false);
    session.handle_icmp_error(&good, at(1_001), false);
    assert_eq!((session.counters().lost, session.counters().no_route), ([1, 0, 0, 0], 1));
}

#[test]
fn a_responder_whose_clock_is_set_back_gives_neither_latency_nor_loss() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    session.handle_reply(&ReceivedReply { held: None, ..reply(session.id(), &orders[0]) }, at(1_005));
    session.give_up(at(20_000).mono);
    let counters = session.counters();
    assert_eq!((counters.discarded_impossible, counters.rejected, counters.lost), (1, 0, [0; 4]));
    assert_eq!(row_of(&session, "node2", 20_000).probes_ended, 0);
}

#[test]
fn replies_without_stamps_are_discarded_until_they_are_waited_for() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    session.take_due(at(2_200), 64, &mut orders);
    assert!(!session.needs_prompt_reading(at(2_200).mono));
    session.handle_reply(&ReceivedReply { prompt: false, ..reply(session.id(), &orders[0]) }, at(2_201));
    assert_eq!((session.counters().discarded_unstamped, row_of(&session, "node2", 2_201).samples), (1, 0));
    assert!(session.needs_prompt_reading(at(2_201).mono) && !session.needs_prompt_reading(at(70_000).mono));
    session.handle_reply(&reply(session.id(), &orders[1]), at(2_205));
    assert_eq!(row_of(&session, "node2", 2_205).samples, 1);
}

/// A starved prober is not a sleeping machine: the kernel took the reply in meanwhile, and says
/// when.
#[test]
fn a_reply_that_lay_in_the_socket_while_the_prober_was_stopped_counts() {
    let mut session = session(Method::Udp, &[("node2", 2), ("node3", 3)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    assert!(Session::was_stopped(at(1_100).mono, at(1_000), at(4_000)));
    let stamp = Some(at(1_012).wall);
    session.handle_reply(&ReceivedReply { stamp, prompt: false, ..reply(session.id(), &orders[0]) }, at(4_000));
    session.write_off_in_flight();
    session.give_up(at(4_000).mono);
    let answered = if orders[0].to == peer(2).echo { "node2" } else { "node3" };
    assert_eq!(row_of(&session, answered, 4_000).rtt_seconds.unwrap().p50, 0.012);
    assert_eq!((session.counters().discarded_asleep, session.counters().lost), (1, [0; 4]));
}

/// Some sleeps stop the monotonic clock, so that nothing seems to be late by it.
#[test]
fn a_sleep_that_only_the_wall_clock_saw_is_noticed() {
    let woken = ClockReading { mono: at(1_101).mono, wall: at(60_000).wall };
    assert!(Session::was_stopped(at(1_100).mono, at(1_000), woken));
    let set_back = ClockReading { mono: at(1_101).mono, wall: at(0).wall };
    assert!(!Session::was_stopped(at(1_100).mono, at(1_000), set_back));
}

#[test]
fn replies_that_this_machine_dropped_are_not_lost_on_the_way() {
    let mut session = session(Method::Udp, &[("node2", 2), ("node3", 3)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    session.note_overrun(Protocol::Icmp, 1);
    session.handle_reply(&reply(session.id(), &orders[0]), at(1_001));
    session.note_overrun(Protocol::Udp, 2);
    session.give_up(at(9_000).mono);
    let counters = session.counters();
    assert_eq!((counters.answered, counters.lost, counters.overrun), ([1, 0, 0, 0], [0; 4], 3));
}

#[test]
fn a_peer_gets_as_many_probes_as_are_asked_for() {
    let settings = Settings { probes_per_peer: Some(5), ..settings(Method::Udp) };
    let mut session = Session::new("node1".into(), settings, 7);
    session.set_peers(&peers(&[("node2", 2), ("node3", 3)]), at(0).mono);
    assert!(!session.is_finished());
    let sent = run(&mut session, 0, 20_000, |_, order| (order.to == peer(2).echo).then_some(1));
    assert_eq!(sent.len(), 10);
    let ended = ["node2", "node3"].map(|node| row_of(&session, node, 20_000)).map(|row| (row.samples, row.probes_ended));
    assert!(ended == [(5, 5), (0, 5)] && session.is_finished(), "{ended:?}");
}

#[test]
fn who_leaves_is_forgotten_and_who_moves_begins_anew() {
    let mut session = session(Method::Udp, &[("node2", 2), ("node3", 3)]);
    run(&mut session, 0, 5_000, |_, _| Some(1));
    session.set_peers(&peers(&[("node2", 9), ("node4", 4)]), at(5_000).mono);
    let row = session.row(at(5_000));
    let nodes: Vec<_> = row.peers.iter().map(|peer| (peer.to.as_str(), peer.state, peer.samples)).collect();
    assert_eq!(nodes, [("node2", StateKind::Unknown, 0), ("node4", StateKind::Unknown, 0)]);
    let sent = run(&mut session, 5_000, 10_000, |_, _| Some(1));
    let to: BTreeSet<_> = sent.iter().map(|(_, order)| order.to).collect();
    assert_eq!(to, BTreeSet::from([peer(4).echo, peer(9).echo]));
    assert!(session.row(at(10_000)).peers.iter().all(|peer| peer.state == StateKind::Known));
    session.set_peers(&PeerSet::new(), at(10_000).mono);
    assert_eq!(run(&mut session, 10_000, 15_000, |_, _| Some(1)), []);
}

#[test]
fn only_the_reply_that_fits_counts() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    let good = reply(session.id(), &orders[0]);
    let wrong = [
        ReceivedReply { from: peer(3).echo, ..good },
        ReceivedReply { protocol: Protocol::Icmp, ..good },
        ReceivedReply { sequence: Sequence(good.sequence.0 + 1), ..good },
        ReceivedReply { session: SessionId(good.session.0 ^ 1), ..good },
    ];
    for reply in wrong {
        session.handle_reply(&reply, at(1_001));
    }
    assert_eq!((session.counters().rejected, session.counters().foreign, session.counters().answered), (3, 1, [0; 4]));
    session.handle_reply(&good, at(1_005));
    session.handle_reply(&good, at(1_006));
    session.give_up(at(3_000).mono);
    session.handle_reply(&good, at(3_001));
    let counters = session.counters();
    assert_eq!((counters.answered, counters.duplicate, counters.late, counters.lost), ([1, 0, 0, 0], 1, 1, [0; 4]));
    let row = row_of(&session, "node2", 3_001);
    assert_eq!((row.samples, row.duplicates, row.reordered), (1, 1, 0));
}

#[test]
fn a_reply_that_was_overtaken_is_counted_with_its_pair() {
    let mut session = session(Method::Udp, &[("node2", 2), ("node3", 3)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    session.take_due(at(2_200), 64, &mut orders);
    for order in orders.iter().filter(|order| order.to == peer(2).echo).rev() {
        session.handle_reply(&reply(session.id(), order), at(2_201));
    }
    for order in orders.iter().filter(|order| order.to == peer(3).echo) {
        session.handle_reply(&reply(session.id(), order), at(2_202));
    }
    assert_eq!((row_of(&session, "node2", 2_300).reordered, row_of(&session, "node3", 2_300).reordered), (1, 0));
    assert_eq!(session.counters().reordered, 1);
}

#[test]
fn connections_go_to_their_port_and_end_measured_or_lost() {
    let mut session = Session::new("node1".into(), settings(Method::Tcp), 7);
    let both = [("node2".into(), Peer { http_port: 80, ..peer(2) }), ("node3".into(), peer(3))].into();
    session.set_peers(&both, at(0).mono);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    assert!(orders.iter().all(|order| order.protocol == Protocol::Tcp));
    let to: BTreeSet<_> = orders.iter().map(|order| order.to).collect();
    assert_eq!(to, BTreeSet::from(["10.0.0.2:80".parse().unwrap(), "10.0.0.3:9798".parse().unwrap()]));
    // A packet is no answer to them, whatever its sender.
    session.handle_reply(&reply(session.id(), &orders[0]), at(1_001));
    assert_eq!(session.counters().answered, [0; 4]);
    for order in &orders {
        if order.to.port() == 80 {
            session.end_probe(order.sequence, Ok(RttSample::from_nanos(3 * MS).unwrap()), None, at(1_003).mono);
        } else {
            session.not_sent(order.sequence, NotSent::Refused, at(1_003).mono);
        }
    }
    assert_eq!(row_of(&session, "node2", 1_010).rtt_seconds.unwrap().p50, 0.003);
    assert_eq!((row_of(&session, "node3", 1_010).probes_lost, session.awaits_replies()), (1, false));
}

#[test]
fn a_responder_that_lies_or_a_clock_that_is_set_gives_neither_latency_nor_loss() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    session.handle_reply(&ReceivedReply { held: Some(Duration::from_secs(9)), ..reply(session.id(), &orders[0]) }, at(1_005));
    orders.clear();
    session.take_due(at(2_500), 64, &mut orders);
    let set = ClockReading { mono: at(2_505).mono, wall: at(9_000_000).wall };
    session.handle_reply(&reply(session.id(), &orders[0]), set);
    session.give_up(at(20_000).mono);
    let row = row_of(&session, "node2", 20_000);
    assert_eq!((row.state, row.loss_ratio, row.samples), (StateKind::Unknown, None, 0));
    assert_eq!((session.counters().discarded_impossible, session.counters().discarded_clock_stepped), (1, 1));
}

#[test]
fn what_was_out_while_the_machine_slept_is_not_lost() {
    let mut session = session(Method::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    let (before, late) = (at(1_000), at(3_600_000));
    assert!(!Session::was_stopped(at(1_100).mono, before, at(1_300)) && Session::was_stopped(at(1_100).mono, before, late));
    session.write_off_in_flight();
    session.give_up(at(3_600_000).mono);
    assert_eq!((session.counters().discarded_asleep, session.counters().lost), (1, [0; 4]));
    assert!(session.wake().unwrap() <= at(3_600_000).mono);
}

#[test]
fn what_could_not_be_sent_is_loss_only_where_there_is_no_way() {
    let mut session = session(Method::Udp, &[("node2", 2), ("node3", 3)]);
    let mut orders = Vec::new();
    session.take_due(at(1_000), 64, &mut orders);
    session.not_sent(orders[0].sequence, NotSent::OurFault, at(1_000).mono);
    session.not_sent(orders[1].sequence, NotSent::NoRoute, at(1_000).mono);
    session.give_up(at(5_000).mono);
    assert_eq!((session.counters().not_sent, session.counters().lost), (1, [1, 0, 0, 0]));
}

proptest! {
    /// Whatever replies come, nothing panics, memory stays bounded, and a pair is never better
    /// known than by its own replies.
    #[test]
    fn hostile_replies_change_nothing(replies in proptest::collection::vec((any::<u64>(), any::<u64>(), 0_u8..5, any::<bool>()), 0..100)) {
        let mut session = session(Method::Udp, &[("node2", 2)]);
        run(&mut session, 0, 3_000, |_, _| None);
        for (id, sequence, last, icmp) in replies {
            let protocol = if icmp { Protocol::Icmp } else { Protocol::Udp };
            // Never from node2 itself with the right session: that would be a real reply.
            let id = SessionId(if id == session.id().0 { 0 } else { id });
            let hostile = ReceivedReply { protocol, from: peer(last).echo, session: id, sequence: Sequence(sequence % 8), held: Some(Duration::ZERO), turned: None, stamp: None, prompt: true, ttl: Some(255) };
            session.handle_reply(&hostile, at(3_000));
        }
        prop_assert_eq!(session.counters().answered, [0; 4]);
        prop_assert_eq!(row_of(&session, "node2", 3_000).samples, 0);
        prop_assert!(session.in_flight() <= 4);
    }
}

/// Sixty-three responders are replaced in turn, each away for twenty seconds, while their nodes go
/// on. ICMP may get through, be blocked by the network, or be forbidden to this program.
#[test]
fn a_rollout_of_the_responders_makes_no_node_unreachable() {
    for (has_icmp, passes_icmp) in [(true, true), (true, false), (false, false)] {
        let names: Vec<String> = (2..65).map(|n| format!("node{n}")).collect();
        let set: PeerSet = (2..65_u8).zip(&names).map(|(n, name)| (name.as_str().into(), peer(n))).collect();
        let mut session = Session::new("node1".into(), settings(Method::PreferUdp), 7);
        if has_icmp {
            session.enable_icmp(Family::V4);
        }
        session.set_peers(&set, at(0).mono);
        let is_away = |now: u64, to: u8| {
            let begins = 10_000 + u64::from(to) * 1_000;
            (begins..begins + 20_000).contains(&now)
        };
        let mut orders = Vec::new();
        for now in (0..110_000).step_by(100) {
            session.give_up(at(now).mono);
            orders.clear();
            session.take_due(at(now), 1_000, &mut orders);
            for order in &orders {
                let std::net::IpAddr::V4(to) = order.to.ip() else { panic!("{order:?}") };
                let answers = match order.protocol {
                    Protocol::Udp => !is_away(now, to.octets()[3]),
                    Protocol::Icmp => passes_icmp,
                    _ => false,
                };
                if answers {
                    session.handle_reply(&reply(session.id(), order), at(now + 2));
                }
            }
            let states = session.peers(at(now).mono).map(|peer| peer.summary.state);
            assert!(states.into_iter().all(|state| state != StateKind::Unreachable), "{has_icmp} {passes_icmp} at {now} ms");
        }
    }
}

/// A cable is cut without a word of the network, where ICMP got through before.
#[test]
fn a_node_that_is_cut_off_is_unreachable_within_fifteen_seconds() {
    let mut session = session(Method::PreferUdp, &[("node2", 2)]);
    run(&mut session, 0, 30_000, |now, _| (now < 15_000).then_some(3));
    assert_eq!(row_of(&session, "node2", 30_000).state, StateKind::Unreachable);
    run(&mut session, 30_000, 33_500, |_, _| Some(3));
    assert_eq!(row_of(&session, "node2", 33_500).state, StateKind::Known, "and back");
}

#[test]
fn a_step_of_the_round_trip_time_shows_within_twelve_seconds() {
    for (before, after) in [(5, 50), (50, 55), (50, 5)] {
        let mut session = session(Method::Udp, &[("node2", 2)]);
        run(&mut session, 0, 90_000, |_, _| Some(before));
        run(&mut session, 90_000, 102_000, |_, _| Some(after));
        let rtt = row_of(&session, "node2", 102_000).rtt_seconds.unwrap();
        let seconds = after as f64 / 1e3;
        assert!(
            (rtt.p50 - seconds).abs() < 1e-9 && (rtt.ewma - seconds).abs() < seconds / 10.0,
            "{before} to {after} ms: {rtt:?}"
        );
    }
}
