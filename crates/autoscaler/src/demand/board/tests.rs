//! The board, told by replicas that are played here.

use gateway_link::demand::{ByServing, Load, Run};
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn key() -> RevisionKey {
    RevisionKey::new("default", "hello-00001")
}

fn near(_: &NodeName, _: &NodeName) -> f64 {
    0.0
}

fn all(_: &RevisionKey) -> bool {
    true
}

fn gateway(stream: u64, node: &str) -> Gateway {
    Gateway { stream, node: node.to_owned(), age_seconds: 0.0 }
}

fn load(in_flight: u64, arrived: u64, ended: u64, busy_seconds: f64) -> Load {
    Load { in_flight, arrived, finished: ended, failed: 0, busy_seconds }
}

fn hello(source: &str, load: Load) -> Vec<RevisionDemand> {
    let loads = BTreeMap::from([(source.to_owned(), ByServing::from([("serving".to_owned(), load)]))]);
    vec![RevisionDemand { key: key(), loads }]
}

fn update(gateways: Vec<Gateway>, demand: Vec<RevisionDemand>) -> DemandEvent {
    DemandEvent::Update { version: 1, gateways, gone: vec![], demand, removed: vec![], held: vec![] }
}

/// A replica that has run for as long as the board's clock.
fn snapshot(instance: &str, running: Duration, gateways: &[Gateway], demand: Vec<RevisionDemand>) -> DemandEvent {
    let run = Run { instance: instance.to_owned(), running_seconds: running.as_secs_f64() };
    DemandEvent::snapshot(&run, 1, gateways, demand).remove(0)
}

/// One replica that hears the gateways of `nodes`, streams 0 and up, at time zero.
fn board(nodes: &[&str]) -> Board {
    let mut board = Board::new(Duration::ZERO);
    let gateways: Vec<Gateway> = (0_u64..).zip(nodes).map(|(stream, node)| gateway(stream, node)).collect();
    board.apply_event("a", snapshot("a-1", Duration::ZERO, &gateways, vec![]), Duration::ZERO, &near);
    board
}

fn at(tick: &Tick, second: u64) -> Option<BTreeMap<NodeName, SourceDemand>> {
    let demand = tick.busy.get(&key()).unwrap_or(&tick.quiet);
    let of = demand.seconds.iter().find(|(other, _)| *other == second);
    of.unwrap_or_else(|| panic!("second {second} is not in {tick:?}")).1.clone()
}

#[test]
fn requests_per_second_are_those_that_arrive() {
    let mut board = board(&["node3"]);
    // One pod that ends 5 a second, 40 a second arrive.
    for second in 1..=5_u64 {
        let told = load(35 * second, 40 * second, 5 * second, 17.5 * (second * second) as f64);
        board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", told)), SECOND * second as u32, &near);
    }
    let demand = at(&board.tick(SECOND * 5, all), 4).unwrap()["node3"];
    assert!((demand.requests_per_second - 40.0).abs() < 1e-9, "{demand:?}");
    assert!((demand.concurrency - 17.5 * 9.0).abs() < 1e-9, "{demand:?}");
}

#[test]
fn the_way_through_the_network_is_no_load() {
    let far = |_: &NodeName, _: &NodeName| 0.05;
    let mut board = board(&["node3"]);
    for second in 1..=20_u64 {
        // 400 a second that take 5 ms at the pod, 55 ms at the gateway.
        let told = load(22, 400 * second, 400 * second, 22.0 * second as f64);
        board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", told)), SECOND * second as u32, &far);
    }
    let demand = at(&board.tick(SECOND * 20, all), 19).unwrap()["node3"];
    assert!((demand.concurrency - 2.0).abs() < 1e-6, "{demand:?}");
    let service = board.service_seconds(&key())["serving"];
    assert!((service - 0.005).abs() < 1e-9, "{service}");
}

#[test]
fn who_is_asked_is_not_idle_even_if_the_network_seems_to_take_all_the_time() {
    let farther_than_it_is = |_: &NodeName, _: &NodeName| 1.0;
    let mut board = board(&["node3"]);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(0, 10, 10, 0.5))), SECOND, &farther_than_it_is);
    assert!(at(&board.tick(SECOND, all), 0).unwrap()["node3"].concurrency > 0.0);
}

#[test]
fn reports_that_fall_beside_whole_seconds_make_no_second_double_and_none_empty() {
    let mut board = board(&["node3"]);
    let mut told = 0;
    // Twenty a second, told about once a second, now somewhat before and now somewhat after it is
    // full.
    for report in 1..=10_u32 {
        let now = SECOND * report + if report % 2 == 0 { MS * 50 } else { MS * 950 };
        let arrived = u64::try_from((now.as_millis()) / 50).unwrap();
        told = told.max(arrived);
        board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(0, told, told, 0.0))), now, &near);
    }
    let tick = board.tick(SECOND * 11, all);
    for second in 0..10 {
        let demand = at(&tick, second).unwrap()["node3"];
        assert!((demand.requests_per_second - 20.0).abs() < 0.5, "{second}: {demand:?}");
    }
}

#[test]
fn a_second_that_one_gateway_has_not_told_is_no_sample() {
    let mut board = board(&["node1", "node3"]);
    let mut unknown = 0;
    let mut sum = 0.0;
    let mut known = 0;
    for second in 1..=80_u64 {
        let now = SECOND * second as u32;
        board.apply_event("a", update(vec![gateway(1, "node3")], vec![]), now, &near);
        // 50 in flight at node1, of which nothing is heard for a minute.
        if !(11..70).contains(&second) {
            let told = hello("node1", load(50, 50, 0, 50.0 * second as f64));
            board.apply_event("a", update(vec![gateway(0, "node1")], told), now, &near);
        }
        for (_, sources) in &board.tick(now, all).busy[&key()].seconds {
            match sources {
                None => unknown += 1,
                Some(sources) => {
                    sum += sources.values().map(|demand| demand.concurrency).sum::<f64>();
                    known += 1;
                }
            }
        }
    }
    assert!(unknown >= 57, "{unknown}");
    assert!(sum / f64::from(known) >= 50.0 - 1e-6, "{}", sum / f64::from(known));
}

#[test]
fn a_gateway_is_unknown_after_fifteen_seconds_and_one_that_was_never_heard_at_once() {
    let mut board = board(&["node1", "node3"]);
    board.expect_gateways(["node1", "node3"].map(NodeName::from).into());
    for second in 1..=16 {
        board.apply_event("a", update(vec![gateway(0, "node1")], vec![]), SECOND * second, &near);
        let is_unknown = board.tick(SECOND * second, all).quiet.is_unknown;
        assert_eq!(is_unknown, second > 15, "{second}");
    }
    assert_eq!(board.unknown_sources(SECOND * 16), BTreeSet::from(["node3".into()]));
    board.expect_gateways(["node1", "node2"].map(NodeName::from).into());
    assert!(board.unknown_sources(SECOND * 16).contains("node2"));
    assert!(Board::new(Duration::ZERO).tick(SECOND, all).quiet.is_unknown, "no gateway at all");
}

#[test]
fn a_gateway_that_is_gone_holds_up_nothing() {
    let mut board = board(&["node1", "node3"]);
    board.expect_gateways(["node1"].map(NodeName::from).into());
    let gone = DemandEvent::Update { version: 2, gateways: vec![], gone: vec![1], demand: vec![], removed: vec![], held: vec![] };
    board.apply_event("a", gone, MS * 500, &near);
    board.apply_event("a", update(vec![gateway(0, "node1")], vec![]), SECOND, &near);
    let tick = board.tick(SECOND, all);
    assert_eq!((at(&tick, 0), tick.quiet.is_unknown), (Some(BTreeMap::new()), false));
}

#[test]
fn a_gateway_that_moves_to_another_replica_is_counted_once_and_its_held_requests_are_kept() {
    let mut board = board(&["node3"]);
    board.apply_event("b", snapshot("b-1", SECOND * 100, &[], vec![]), Duration::ZERO, &near);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(4, 10, 6, 2.0))), MS * 800, &near);
    // The replica tells that it does not hear the gateway any more, and so of nothing in flight.
    let left = hello("node3", load(0, 10, 6, 2.0));
    let gone = DemandEvent::Update { version: 2, gateways: vec![], gone: vec![0], demand: left, removed: vec![], held: vec![] };
    board.apply_event("a", gone, MS * 900, &near);
    assert_eq!(board.in_flight(&key()), BTreeMap::from([("node3".into(), 4.0)]));
    // The other one hears it first after 200 ms; 8 more came since the last report.
    board.apply_event("b", update(vec![gateway(7, "node3")], hello("node3", load(5, 8, 7, 1.0))), MS * 1000, &near);
    assert_eq!(board.in_flight(&key()), BTreeMap::from([("node3".into(), 5.0)]));
    let demand = at(&board.tick(SECOND, all), 0).unwrap()["node3"];
    assert!((demand.requests_per_second - 18.0).abs() < 1e-9, "{demand:?}");
}

#[test]
fn a_replica_that_starts_anew_counts_from_zero_and_loses_nothing() {
    let mut board = board(&["node3"]);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(0, 1000, 1000, 5.0))), MS * 700, &near);
    board.lose("a", MS * 750);
    // It began at 0.8 s, the gateway's first report to it has all since the last one to the old
    // run.
    let told = hello("node3", load(0, 6, 6, 0.1));
    board.apply_event("a", snapshot("a-2", MS * 300, &[gateway(0, "node3")], told), MS * 1100, &near);
    let demand = at(&board.tick(SECOND * 2, all), 0).unwrap()["node3"];
    assert!((demand.requests_per_second - (1000.0 + 6.0 * 0.3 / 0.4)).abs() < 1e-6, "{demand:?}");
}

#[test]
fn what_a_replica_counted_before_anybody_listened_is_no_demand() {
    let mut board = Board::new(Duration::ZERO);
    let old = hello("node3", load(0, 1_000_000, 1_000_000, 5000.0));
    board.apply_event("a", snapshot("a-1", SECOND * 1000, &[gateway(0, "node3")], old), MS * 100, &near);
    board.apply_event(
        "a",
        update(vec![gateway(0, "node3")], hello("node3", load(0, 1_000_010, 1_000_010, 5000.0))),
        MS * 2000,
        &near,
    );
    let tick = board.tick(SECOND * 2, all);
    assert_eq!(at(&tick, 0), None, "the first second was heard in part");
    assert!(at(&tick, 1).unwrap()["node3"].requests_per_second < 10.0);
}

#[test]
fn a_held_request_wakes_its_revision_once() {
    let mut board = board(&["node3"]);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(1, 1, 0, 0.0))), MS * 10, &near);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(2, 2, 0, 0.0))), MS * 60, &near);
    assert_eq!(board.take_woken(), BTreeSet::from([key()]));
    assert!(board.take_woken().is_empty());
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(0, 2, 2, 0.1))), MS * 110, &near);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(3, 5, 2, 0.1))), MS * 160, &near);
    assert_eq!(board.take_woken(), BTreeSet::from([key()]));
}

#[test]
fn nothing_is_kept_of_revisions_replicas_and_gateways_that_are_gone() {
    let mut board = board(&["node3"]);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(0, 1, 1, 0.1))), SECOND, &near);
    assert_eq!(board.senders(), BTreeSet::from(["node3".into()]));
    let mine = board.tick(SECOND, |_| false);
    assert!(mine.busy.is_empty(), "somebody else's");
    let removed =
        DemandEvent::Update { version: 3, gateways: vec![], gone: vec![], demand: vec![], removed: vec![key()], held: vec![] };
    board.apply_event("a", removed, SECOND * 2, &near);
    assert_eq!(board.revisions(), 0);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(1, 2, 1, 0.1))), SECOND * 3, &near);
    board.lose("a", SECOND * 3);
    let _ = board.tick(SECOND * 10, all);
    assert_eq!(board.in_flight(&key()), BTreeMap::from([("node3".into(), 1.0)]), "unknown is not zero");
    let _ = board.tick(SECOND * 70, all);
    assert_eq!((board.revisions(), board.replicas.0.len()), (0, 0));
    assert!(board.in_flight(&key()).is_empty());
}

#[test]
fn events_of_a_replica_without_a_snapshot_are_ignored() {
    let mut board = Board::new(Duration::ZERO);
    board.apply_event("a", update(vec![gateway(0, "node3")], hello("node3", load(9, 9, 0, 1.0))), SECOND, &near);
    assert_eq!((board.revisions(), board.unknown_sources(SECOND).len()), (0, 0));
}

#[test]
fn a_held_request_counts_before_any_report_and_not_for_long() {
    let mut board = board(&["node3"]);
    let held = vec![Held { key: key(), source: "node1".to_owned() }];
    let told = DemandEvent::Update { version: 1, gateways: vec![], gone: vec![], demand: vec![], removed: vec![], held };
    board.apply_event("a", told.clone(), MS * 100, &near);
    assert_eq!(board.take_woken(), BTreeSet::from([key()]));
    assert_eq!(board.tick(SECOND, all).busy[&key()].in_flight, BTreeMap::from([("node1".into(), 1.0)]));
    // The gateway's report takes over.
    board.apply_event("a", update(vec![gateway(1, "node1")], hello("node1", load(3, 3, 0, 0.0))), SECOND, &near);
    assert_eq!(board.in_flight(&key()), BTreeMap::from([("node1".into(), 3.0)]));
    board.apply_event("a", update(vec![gateway(1, "node1")], hello("node1", load(0, 3, 3, 0.0))), SECOND * 2, &near);
    assert!(board.in_flight(&key()).is_empty());
    // One that no report ever tells of.
    board.apply_event("a", told, SECOND * 2, &near);
    let _ = board.tick(SECOND * 13, all);
    assert_eq!(board.in_flight(&key()).len(), 1);
    let _ = board.tick(SECOND * 14, all);
    assert!(board.in_flight(&key()).is_empty());
}

proptest! {
    /// A gateway reports to one of two replicas at a time, at any moment and for any time; now and
    /// then a replica starts anew. What came in all is what the seconds say.
    #[test]
    fn nothing_is_counted_twice_or_lost(
        reports in prop::collection::vec((0_usize..2, 20_u64..700, 0_u64..50), 1..60),
    ) {
        let mut board = board(&["node3"]);
        board.apply_event("b", snapshot("b-1", Duration::ZERO, &[], vec![]), Duration::ZERO, &near);
        let names = ["a", "b"];
        let mut counters = [0_u64; 2];
        let mut streams = [Some(0_u64), None];
        let (mut now, mut next_stream, mut total, mut seen) = (Duration::ZERO, 1, 0_u64, 0.0);
        let mut last = 0;
        let mut look = |board: &mut Board, now: Duration| {
            let tick = board.tick(now, all);
            let seconds = tick.busy.get(&key()).unwrap_or(&tick.quiet).seconds.clone();
            for (second, sources) in seconds {
                assert!(second == last, "second {second} after {last}");
                last += 1;
                let sources = sources.expect("every second is told in time");
                seen += sources.values().map(|demand| demand.requests_per_second).sum::<f64>();
            }
        };
        for (replica, step, arrived) in reports {
            now += MS * u32::try_from(step).unwrap();
            let other = 1 - replica;
            if let Some(stream) = streams[other].take() {
                let gone = DemandEvent::Update { version: 1, gateways: vec![], gone: vec![stream], demand: vec![], removed: vec![], held: vec![] };
                board.apply_event(names[other], gone, now, &near);
            }
            let stream = *streams[replica].get_or_insert_with(|| { next_stream += 1; next_stream });
            counters[replica] += arrived;
            total += arrived;
            let told = hello("node3", load(0, counters[replica], counters[replica], 0.0));
            board.apply_event(names[replica], update(vec![gateway(stream, "node3")], told), now, &near);
            look(&mut board, now);
        }
        // Two more seconds without a request.
        for _ in 0..5 {
            now += MS * 500;
            let replica = usize::from(streams[0].is_none());
            board.apply_event(names[replica], update(vec![gateway(streams[replica].unwrap(), "node3")], vec![]), now, &near);
            look(&mut board, now);
        }
        prop_assert!((seen - total as f64).abs() < 1e-6, "{seen} of {total}");
    }

    /// Whatever is told, a board neither panics nor gives a second out twice.
    #[test]
    fn seconds_come_in_order_and_once(
        events in prop::collection::vec((0_u64..3, "[ab]", 0_u64..9, 0_u64..3000, any::<bool>()), 0..40),
    ) {
        let mut board = Board::new(Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut next = 0;
        for (stream, replica, count, step, is_snapshot) in events {
            now += MS * u32::try_from(step).unwrap();
            let told = hello("node3", load(count, count * 2, count, count as f64));
            let gateways = vec![gateway(stream, "node3")];
            let event = if is_snapshot {
                snapshot(&format!("{replica}-{count}"), now / 2, &gateways, told)
            } else {
                update(gateways, told)
            };
            board.apply_event(&replica, event, now, &near);
            if count == 0 {
                board.lose(&replica, now);
            }
            for (second, sources) in board.tick(now, all).quiet.seconds {
                prop_assert_eq!(second, next);
                prop_assert!(sources.is_none_or(|sources| sources.is_empty()));
                next += 1;
            }
        }
    }
}
