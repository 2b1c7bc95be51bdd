use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::pair::{StateLimits, WindowLimits};

const MS: u64 = 1_000_000;
const EPOCH: u64 = 1_700_000_000_000_000_000;

fn at(millis: u64) -> Reading {
    Reading { mono: Mono::from_nanos(millis * MS), wall: Wall::from_nanos(EPOCH + millis * MS) }
}

fn settings(feed: Feed) -> Settings {
    Settings {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        window: WindowLimits { samples: 60, span: Duration::from_secs(60) },
        states: StateLimits { unreachable_after: 5, stale_after: Duration::from_secs(10) },
        feed,
        pair_bounds: None,
        http_path: "/healthz".into(),
    }
}

fn peer(last: u8) -> Peer {
    Peer::at(SocketAddr::from(([10, 0, 0, last], 9799)))
}

fn peers(names: &[(&str, u8)]) -> PeerSet {
    names.iter().map(|(name, last)| (NodeName::from(*name), peer(*last))).collect()
}

fn session(feed: Feed, names: &[(&str, u8)]) -> Session {
    let mut session = Session::new("node1".into(), settings(feed), 7);
    session.icmp_works(Family::V4);
    session.set_peers(&peers(names), at(0).mono);
    session
}

/// Runs `session` from one millisecond to another against a network where `answer` says after how many milliseconds an order comes back.
fn run(session: &mut Session, from: u64, to: u64, mut answer: impl FnMut(u64, &Order) -> Option<u64>) -> Vec<(u64, Order)> {
    let mut sent = Vec::new();
    let mut replies: Vec<(u64, Order)> = Vec::new();
    for now in from..to {
        let (ready, waiting) = replies.into_iter().partition(|(due, _)| *due <= now);
        replies = waiting;
        for (_, order) in ready {
            session.returned(&reply(session.id(), &order), at(now));
        }
        session.give_up(at(now).mono);
        let mut orders = Vec::new();
        session.due(at(now), 64, &mut orders);
        for order in orders {
            session.sent(order.sequence, at(now));
            replies.extend(answer(now, &order).map(|millis| (now + millis, order)));
            sent.push((now, order));
        }
    }
    sent
}

fn reply(session: SessionId, order: &Order) -> Returned {
    Returned {
        protocol: order.protocol,
        from: order.to,
        session,
        sequence: order.sequence,
        held: Duration::ZERO,
        stamp: None,
        ttl: Some(63),
    }
}

fn row_of(session: &Session, to: &str, now: u64) -> PeerRow {
    session.row(at(now)).peers.into_iter().find(|peer| peer.to.as_str() == to).unwrap()
}

#[test]
fn measures_each_peer_once_an_interval() {
    let mut session = session(Feed::PreferUdp, &[("node1", 1), ("node2", 2), ("node3", 3)]);
    assert_eq!(row_of(&session, "node2", 0).state, PairState::Unknown);
    let sent = run(&mut session, 0, 30_000, |_, order| Some(if order.to == peer(2).echo { 1 } else { 50 }));
    assert!((56..=64).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|(_, order)| order.protocol == Protocol::Udp && order.to != peer(1).echo));
    let (near, far) = (row_of(&session, "node2", 30_000), row_of(&session, "node3", 30_000));
    assert_eq!((near.state, near.rtt_seconds.unwrap().p50), (PairState::Known, 0.001));
    assert_eq!((far.state, far.rtt_seconds.unwrap().p50, far.hops), (PairState::Known, 0.05, Some(1)));
    assert_eq!(session.row(at(30_000)).peers.len(), 2);
}

#[test]
fn a_probe_that_never_returns_is_loss_and_then_the_peer_is_unreachable() {
    let mut session = session(Feed::Udp, &[("node2", 2)]);
    run(&mut session, 0, 30_000, |now, _| (now < 15_000).then_some(3));
    let row = row_of(&session, "node2", 30_000);
    assert_eq!((row.state, row.rtt_seconds), (PairState::Unreachable, None));
    assert!(row.loss_ratio.unwrap() > 0.3 && session.counters().lost[0] >= 11);
    run(&mut session, 30_000, 35_000, |_, _| Some(3));
    assert_eq!(row_of(&session, "node2", 35_000).state, PairState::Known);
}

#[test]
fn icmp_steps_in_while_the_responder_is_silent_and_out_again() {
    let mut session = session(Feed::PreferUdp, &[("node2", 2)]);
    let only_icmp = |_, order: &Order| (order.protocol == Protocol::Icmp).then_some(4);
    let sent = run(&mut session, 0, 20_000, only_icmp);
    let first_icmp = sent.iter().find(|(_, order)| order.protocol == Protocol::Icmp).unwrap().0;
    assert!((6_000..10_000).contains(&first_icmp), "after five lost probes: {first_icmp}");
    let row = row_of(&session, "node2", 20_000);
    assert_eq!((row.state, row.protocol, row.rtt_seconds.unwrap().p50), (PairState::Known, Protocol::Icmp, 0.004));
    run(&mut session, 20_000, 30_000, |_, _| Some(2));
    let sent = run(&mut session, 30_000, 40_000, |_, _| Some(2));
    assert!(sent.iter().all(|(_, order)| order.protocol == Protocol::Udp));
    assert_eq!(row_of(&session, "node2", 40_000).protocol, Protocol::Udp);
}

#[test]
fn nobody_is_probed_by_icmp_where_there_is_none() {
    let mut session = Session::new("node1".into(), settings(Feed::PreferUdp), 7);
    session.set_peers(&peers(&[("node2", 2)]), at(0).mono);
    let sent = run(&mut session, 0, 20_000, |_, _| None);
    assert!(sent.iter().all(|(_, order)| order.protocol == Protocol::Udp));
    assert_eq!(row_of(&session, "node2", 20_000).state, PairState::Unreachable);
}

#[test]
fn who_leaves_is_forgotten_and_who_moves_begins_anew() {
    let mut session = session(Feed::Udp, &[("node2", 2), ("node3", 3)]);
    run(&mut session, 0, 5_000, |_, _| Some(1));
    session.set_peers(&peers(&[("node2", 9), ("node4", 4)]), at(5_000).mono);
    let row = session.row(at(5_000));
    let nodes: Vec<_> = row.peers.iter().map(|peer| (peer.to.as_str(), peer.state, peer.samples)).collect();
    assert_eq!(nodes, [("node2", PairState::Unknown, 0), ("node4", PairState::Unknown, 0)]);
    let sent = run(&mut session, 5_000, 10_000, |_, _| Some(1));
    let to: BTreeSet<_> = sent.iter().map(|(_, order)| order.to).collect();
    assert_eq!(to, BTreeSet::from([peer(4).echo, peer(9).echo]));
    assert!(session.row(at(10_000)).peers.iter().all(|peer| peer.state == PairState::Known));
    session.set_peers(&PeerSet::new(), at(10_000).mono);
    assert_eq!(run(&mut session, 10_000, 15_000, |_, _| Some(1)), []);
}

#[test]
fn only_the_reply_that_fits_counts() {
    let mut session = session(Feed::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.due(at(1_000), 64, &mut orders);
    let good = reply(session.id(), &orders[0]);
    let wrong = [
        Returned { from: peer(3).echo, ..good },
        Returned { protocol: Protocol::Icmp, ..good },
        Returned { sequence: Sequence(good.sequence.0 + 1), ..good },
        Returned { session: SessionId(good.session.0 ^ 1), ..good },
    ];
    for reply in wrong {
        session.returned(&reply, at(1_001));
    }
    assert_eq!((session.counters().rejected, session.counters().foreign, session.counters().answered), (3, 1, [0; 4]));
    session.returned(&good, at(1_005));
    session.returned(&good, at(1_006));
    session.give_up(at(3_000).mono);
    session.returned(&good, at(3_001));
    let counters = session.counters();
    assert_eq!((counters.answered, counters.duplicate, counters.late, counters.lost), ([1, 0, 0, 0], 1, 1, [0; 4]));
    let row = row_of(&session, "node2", 3_001);
    assert_eq!((row.samples, row.duplicates, row.reordered), (1, 1, 0));
}

#[test]
fn a_reply_that_was_overtaken_is_counted_with_its_pair() {
    let mut session = session(Feed::Udp, &[("node2", 2), ("node3", 3)]);
    let mut orders = Vec::new();
    session.due(at(1_000), 64, &mut orders);
    session.due(at(2_200), 64, &mut orders);
    for order in orders.iter().filter(|order| order.to == peer(2).echo).rev() {
        session.returned(&reply(session.id(), order), at(2_201));
    }
    for order in orders.iter().filter(|order| order.to == peer(3).echo) {
        session.returned(&reply(session.id(), order), at(2_202));
    }
    assert_eq!((row_of(&session, "node2", 2_300).reordered, row_of(&session, "node3", 2_300).reordered), (1, 0));
    assert_eq!(session.counters().reordered, 1);
}

#[test]
fn connections_go_to_their_port_and_end_measured_or_lost() {
    let mut session = Session::new("node1".into(), settings(Feed::Tcp), 7);
    let both = [("node2".into(), Peer { http_port: 80, ..peer(2) }), ("node3".into(), peer(3))].into();
    session.set_peers(&both, at(0).mono);
    let mut orders = Vec::new();
    session.due(at(1_000), 64, &mut orders);
    assert!(orders.iter().all(|order| order.protocol == Protocol::Tcp));
    let to: BTreeSet<_> = orders.iter().map(|order| order.to).collect();
    assert_eq!(to, BTreeSet::from(["10.0.0.2:80".parse().unwrap(), "10.0.0.3:9798".parse().unwrap()]));
    // A packet is no answer to them, whoever sends it.
    session.returned(&reply(session.id(), &orders[0]), at(1_001));
    assert_eq!(session.counters().answered, [0; 4]);
    for order in &orders {
        if order.to.port() == 80 {
            session.measured(order.sequence, Ok(Rtt::from_nanos(3 * MS).unwrap()), None, at(1_003).mono);
        } else {
            session.not_sent(order.sequence, NotSent::NoWay, at(1_003).mono);
        }
    }
    assert_eq!(row_of(&session, "node2", 1_010).rtt_seconds.unwrap().p50, 0.003);
    assert_eq!((row_of(&session, "node3", 1_010).probes_lost, session.awaits_replies()), (1, false));
}

#[test]
fn a_responder_that_lies_or_a_clock_that_is_set_gives_neither_latency_nor_loss() {
    let mut session = session(Feed::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.due(at(1_000), 64, &mut orders);
    session.returned(&Returned { held: Duration::from_secs(9), ..reply(session.id(), &orders[0]) }, at(1_005));
    orders.clear();
    session.due(at(2_500), 64, &mut orders);
    let set = Reading { mono: at(2_505).mono, wall: at(9_000_000).wall };
    session.returned(&reply(session.id(), &orders[0]), set);
    session.give_up(at(20_000).mono);
    let row = row_of(&session, "node2", 20_000);
    assert_eq!((row.state, row.loss_ratio, row.samples), (PairState::Unknown, None, 0));
    assert_eq!((session.counters().discarded_impossible, session.counters().discarded_clock_stepped), (1, 1));
}

#[test]
fn what_was_out_while_the_machine_slept_is_not_lost() {
    let mut session = session(Feed::Udp, &[("node2", 2)]);
    let mut orders = Vec::new();
    session.due(at(1_000), 64, &mut orders);
    session.woke(at(1_100).mono, at(3_600_000).mono);
    session.give_up(at(3_600_000).mono);
    assert_eq!((session.counters().discarded_asleep, session.counters().lost), (1, [0; 4]));
    assert!(session.wake().unwrap() <= at(3_600_000).mono);
}

#[test]
fn what_could_not_be_sent_is_loss_only_where_there_is_no_way() {
    let mut session = session(Feed::Udp, &[("node2", 2), ("node3", 3)]);
    let mut orders = Vec::new();
    session.due(at(1_000), 64, &mut orders);
    session.not_sent(orders[0].sequence, NotSent::OurFault, at(1_000).mono);
    session.not_sent(orders[1].sequence, NotSent::NoWay, at(1_000).mono);
    session.give_up(at(5_000).mono);
    assert_eq!((session.counters().not_sent, session.counters().lost), (1, [1, 0, 0, 0]));
}

proptest! {
    /// Whatever replies come, nothing panics, memory stays bounded, and a pair is never better known than by its own replies.
    #[test]
    fn hostile_replies_change_nothing(replies in proptest::collection::vec((any::<u64>(), any::<u64>(), 0_u8..5, any::<bool>()), 0..100)) {
        let mut session = session(Feed::Udp, &[("node2", 2)]);
        run(&mut session, 0, 3_000, |_, _| None);
        for (id, sequence, last, icmp) in replies {
            let protocol = if icmp { Protocol::Icmp } else { Protocol::Udp };
            // Never from node2 itself with the right session: that would be a real reply.
            let id = SessionId(if id == session.id().0 { 0 } else { id });
            let hostile = Returned { protocol, from: peer(last).echo, session: id, sequence: Sequence(sequence % 8), held: Duration::ZERO, stamp: None, ttl: Some(255) };
            session.returned(&hostile, at(3_000));
        }
        prop_assert_eq!(session.counters().answered, [0; 4]);
        prop_assert_eq!(row_of(&session, "node2", 3_000).samples, 0);
        prop_assert!(session.in_flight() <= 4);
    }
}
