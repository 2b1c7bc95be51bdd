//! The board, with reports that are made here.

use envoy_types::pb::envoy::config::core::v3::Locality;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use gateway_link::demand::MAX_LINE_BYTES;
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Cluster, serving node, in flight, arrived, finished.
pub(in crate::demand) type Row<'a> = (&'a str, &'a str, u64, u64, u64);

/// What a gateway reports in these rows.
pub(in crate::demand) fn report(rows: &[Row<'_>]) -> LoadStatsRequest {
    let cluster_stats = rows.iter().map(|&(name, serving, in_flight, arrived, finished)| ClusterStats {
        cluster_name: name.to_owned(),
        upstream_locality_stats: vec![UpstreamLocalityStats {
            locality: Some(Locality { sub_zone: serving.to_owned(), ..Locality::default() }),
            total_requests_in_progress: in_flight,
            total_issued_requests: arrived,
            total_successful_requests: finished,
            ..UpstreamLocalityStats::default()
        }],
        ..ClusterStats::default()
    });
    LoadStatsRequest { cluster_stats: cluster_stats.collect(), ..LoadStatsRequest::default() }
}

/// A board with streams 1 and up of the gateways of `nodes`.
fn board(nodes: &[&str], now: Instant) -> LoadBoard {
    let mut board = LoadBoard::new("a-1".to_owned(), now);
    for (stream, node) in (1..).zip(nodes) {
        board.open_stream(stream, node, now).unwrap();
    }
    board
}

fn take(board: &mut LoadBoard, stream: StreamId, rows: &[Row<'_>], now: Instant) -> BTreeSet<ObjectName> {
    board.apply_report(stream, &report(rows), |_| true, now)
}

fn demand(events: &[DemandEvent]) -> Vec<&RevisionDemand> {
    fn of(event: &DemandEvent) -> &[RevisionDemand] {
        match event {
            DemandEvent::Snapshot { demand, .. } | DemandEvent::Update { demand, .. } => demand,
            DemandEvent::Heartbeat { .. } => &[],
        }
    }
    events.iter().flat_map(of).collect()
}

#[test]
fn what_gateways_report_is_added_up_by_revision_source_and_serving_node() {
    let now = Instant::now();
    let mut board = board(&["node3"], now);
    let hello = ObjectName::new("default", "hello-00001");
    let changed = take(&mut board, 1, &[("default/hello-00001/80", "node1", 3, 5, 2), ("kantai", "", 1, 1, 0)], now);
    assert_eq!(changed, [hello.clone()].into());
    let rows = [("default/hello-00001/80", "node1", 1, 0, 2), ("default/hello-00001/443", "node2", 2, 2, 0)];
    take(&mut board, 1, &rows, now + MS * 500);
    let loads = board.load_from(&hello, "node3");
    let near = loads["node1"];
    assert_eq!((near.in_flight, near.arrived, near.finished, near.failed), (1, 5, 4, 0));
    // From 3 to 1 within half a second.
    assert!((near.busy_seconds - 1.0).abs() < 1e-9, "{near:?}");
    assert_eq!(loads["node2"].in_flight, 2);
}

#[test]
fn what_is_in_flight_at_a_first_report_was_so_for_the_time_that_it_is_about() {
    let now = Instant::now();
    let mut board = board(&["n"], now);
    let mut first = report(&[("ns/a/80", "m", 2, 0, 0)]);
    first.cluster_stats[0].load_report_interval = Some(envoy_types::pb::google::protobuf::Duration { seconds: 1, nanos: 0 });
    board.apply_report(1, &first, |_| true, now);
    assert!((board.load_from(&ObjectName::new("ns", "a"), "n")["m"].busy_seconds - 1.0).abs() < 1e-9);
}

#[test]
fn idle_clusters_are_no_change_and_a_gateway_that_goes_takes_its_requests_along() {
    let now = Instant::now();
    let mut board = board(&["n", "n"], now);
    let name = ObjectName::new("ns", "a");
    assert!(take(&mut board, 1, &[("ns/a/80", "m", 0, 0, 0)], now).is_empty());
    assert_eq!(board.version(), 0);
    take(&mut board, 1, &[("ns/a/80", "m", 4, 4, 0)], now);
    take(&mut board, 2, &[("ns/a/80", "m", 1, 1, 0)], now);
    assert_eq!(board.load_from(&name, "n")["m"].in_flight, 5);
    let (_, position) = board.snapshot(now);
    assert_eq!(board.close_stream(1, now), Some(("n".to_owned(), [name.clone()].into())));
    assert_eq!(board.load_from(&name, "n")["m"].in_flight, 1);
    let (events, _) = board.since(position, now).unwrap();
    let [DemandEvent::Update { gone, demand, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&gone[..], demand[0].loads["n"]["m"].in_flight), (&[1][..], 1));
}

#[test]
fn what_was_in_flight_before_a_cluster_was_asked_for_has_arrived() {
    let now = Instant::now();
    let mut board = board(&["n"], now);
    take(&mut board, 1, &[("ns/a/80", "m", 4, 0, 0)], now);
    let name = |name: &str| ObjectName::new("ns", name);
    assert_eq!(board.load_from(&name("a"), "n")["m"].arrived, 0, "another replica has counted it");
    take(&mut board, 1, &[("ns/a/80", "m", 4, 0, 0), ("ns/b/80", "m", 3, 0, 1)], now + MS * 50);
    take(&mut board, 1, &[("ns/a/80", "m", 4, 0, 0), ("ns/b/80", "m", 2, 1, 2)], now + MS * 100);
    assert_eq!(board.load_from(&name("b"), "n")["m"].arrived, 5);
}

/// What Envoy does: a locality of which all endpoints went is never listed again.
#[test]
fn requests_on_a_removed_endpoint_count_for_about_as_long_as_requests_take() {
    let now = Instant::now();
    let mut board = board(&["n"], now);
    let name = ObjectName::new("ns", "a");
    // Ten in flight for five seconds, of which ten end: five seconds each.
    take(&mut board, 1, &[("ns/a/80", "m", 10, 10, 0)], now);
    take(&mut board, 1, &[("ns/a/80", "m", 10, 10, 10)], now + MS * 5_000);
    let mut seen = Vec::new();
    for second in 6..=20 {
        take(&mut board, 1, &[("ns/a/80", "other", 1, 0, 0)], now + MS * 1000 * second);
        seen.push(board.load_from(&name, "n")["m"].in_flight);
    }
    assert_eq!(seen[0], 10, "they are still there: {seen:?}");
    assert!((4..=6).contains(&seen[5]), "{seen:?}");
    assert_eq!(seen.last(), Some(&0));
    let load = board.load_from(&name, "n")["m"];
    assert_eq!((load.arrived, load.ended()), (20, 20), "each has ended, once");
    assert!((90.0..120.0).contains(&load.busy_seconds), "{load:?}");
}

/// What Envoy does: it lists no locality without requests, and no end of those that were given up.
#[test]
fn requests_that_clients_gave_up_are_over_about_as_soon_as_others() {
    let now = Instant::now();
    let mut board = board(&["n"], now);
    let name = ObjectName::new("ns", "a");
    take(&mut board, 1, &[("ns/a/80", "m", 20, 20, 0)], now);
    take(&mut board, 1, &[("ns/a/80", "m", 20, 0, 0)], now + MS * 5_000);
    let given_up = now + MS * 5_050;
    take(&mut board, 1, &[], given_up);
    assert_eq!(board.load_from(&name, "n")["m"].in_flight, 20, "they may be on an endpoint that was removed");
    take(&mut board, 1, &[], given_up + MS * 20_000);
    assert_eq!(board.load_from(&name, "n")["m"].in_flight, 0);
}

#[test]
fn short_requests_on_a_removed_endpoint_are_over_at_once() {
    let now = Instant::now();
    let mut board = board(&["n"], now);
    let rows = [("ns/a/80", "m", 5, 1000, 995)];
    take(&mut board, 1, &rows, now + MS * 100);
    take(&mut board, 1, &[], now + MS * 150);
    take(&mut board, 1, &[], now + MS * 200);
    let load = board.load_from(&ObjectName::new("ns", "a"), "n")["m"];
    assert_eq!((load.in_flight, load.arrived, load.ended()), (0, 1000, 1000));
}

#[test]
fn clusters_that_nobody_made_are_not_counted_and_streams_are_bounded() {
    let now = Instant::now();
    let mut board = board(&["n"; MOST_STREAMS_OF_A_NODE], now);
    let made_up: Vec<String> = (0..1000).map(|number| format!("ns/r{number}/80")).collect();
    let rows: Vec<Row<'_>> = made_up.iter().map(|name| (name.as_str(), "m", 1, 1, 0)).collect();
    let changed = board.apply_report(1, &report(&rows), |name| name == "ns/r7/80", now);
    assert_eq!(changed, [ObjectName::new("ns", "r7")].into());
    assert_eq!(board.all().len(), 1);
    assert_eq!(board.open_stream(99, "n", now), Err(TooMany::OfThisNode));
    for stream in 100.. {
        if board.open_stream(stream, &format!("n{stream}"), now).is_err() {
            assert!(stream < 100 + MOST_STREAMS as u64);
            break;
        }
    }
    assert!(board.apply_report(12_345_678, &report(&[("ns/r7/80", "m", 1, 1, 0)]), |_| true, now).is_empty(), "nobody's stream");
    let long = "x".repeat(300);
    assert!(take(&mut board, 1, &[("ns/b/80", &long, 1, 1, 0)], now).iter().all(|revision| revision.name != "b"));
}

#[test]
fn what_is_long_over_is_forgotten_and_readers_are_told() {
    let now = Instant::now();
    let mut board = board(&["n", "o"], now);
    take(&mut board, 1, &[("ns/a/80", "m", 0, 1, 1), ("ns/held/80", "m", 1, 1, 0)], now);
    let (_, position) = board.snapshot(now);
    let later = now + FORGOTTEN_AFTER;
    take(&mut board, 1, &[("ns/held/80", "m", 1, 0, 0), ("ns/b/80", "m", 0, 1, 1)], later);
    let (events, _) = board.since(position, later).unwrap();
    let [DemandEvent::Update { removed, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(removed, &[RevisionKey::new("ns", "a")]);
    let names: Vec<String> = board.all().into_keys().map(|revision| revision.name).collect();
    assert_eq!(names, ["b", "held"]);
}

#[test]
fn a_line_names_only_what_changed_and_the_gateways_that_reported() {
    let now = Instant::now();
    let mut board = board(&["n", "o"], now);
    let rows: Vec<String> = (0..100).map(|number| format!("ns/r{number}/80")).collect();
    let all: Vec<Row<'_>> = rows.iter().map(|name| (name.as_str(), "m", 1, 1, 0)).collect();
    take(&mut board, 1, &all, now);
    take(&mut board, 2, &all, now);
    let (snapshot, position) = board.snapshot(now);
    assert_eq!(demand(&snapshot).len(), 100);
    take(&mut board, 2, &[("ns/r7/80", "m", 2, 1, 0)], now + MS * 50);
    let (events, position) = board.since(position, now + MS * 50).unwrap();
    let told: Vec<_> = demand(&events).iter().filter(|of| of.key.revision == "r7").map(|of| of.loads.keys().count()).collect();
    assert_eq!(told, [1], "one source node of it");
    let [DemandEvent::Update { gateways, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(gateways.iter().map(|gateway| gateway.node.as_str()).collect::<Vec<_>>(), ["o"]);
    let (events, _) = board.since(position, now + MS * 200).unwrap();
    let [DemandEvent::Heartbeat { gateways, .. }] = &events[..] else { panic!("{events:?}") };
    let ages: Vec<f64> = gateways.iter().map(|gateway| gateway.age_seconds).collect();
    assert_eq!(ages.len(), 2);
    assert!((ages[0] - 0.2).abs() < 1e-9 && (ages[1] - 0.15).abs() < 1e-9, "{ages:?}");
}

#[test]
fn a_reader_that_is_too_far_behind_begins_anew() {
    let now = Instant::now();
    let mut board = board(&[], now);
    let position = Position::default();
    for stream in 0..=KEPT_ENDS as u64 {
        board.open_stream(stream, &format!("n{stream}"), now).unwrap();
        board.close_stream(stream, now);
    }
    assert_eq!(board.since(position, now), None);
    let (_, position) = board.snapshot(now);
    assert!(board.since(position, now).is_some());
}

#[test]
fn a_held_request_is_told_at_once_and_once_until_reports_tell_of_it() {
    let now = Instant::now();
    let mut board = board(&["n"], now);
    let asleep = ObjectName::new("ns", "asleep");
    let (_, position) = board.snapshot(now);
    assert!(board.record_held(&asleep, "n", now));
    assert!(!board.record_held(&asleep, "n", now + MS * 10), "one word is enough");
    let (events, position) = board.since(position, now).unwrap();
    let [DemandEvent::Update { held, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(held, &[Held { key: RevisionKey::new("ns", "asleep"), source: "n".into() }]);
    assert!(board.record_held(&asleep, "n", now + MS * 600));
    take(&mut board, 1, &[("ns/asleep/80", "activator", 1, 1, 0)], now + MS * 700);
    assert!(!board.record_held(&asleep, "n", now + MS * 2000), "it is in the reports");
    take(&mut board, 1, &[("ns/asleep/80", "activator", 0, 0, 1)], now + MS * 2050);
    assert!(board.record_held(&asleep, "n", now + MS * 2060), "another one");
    assert!(!board.record_held(&asleep, &"n".repeat(300), now));
    let (events, _) = board.since(position, now).unwrap();
    assert_eq!(demand(&events).len(), 1);
}

proptest! {
    /// A reader that takes the snapshot and all that follows knows what the board knows.
    #[test]
    fn a_reader_knows_what_the_board_knows(
        reports in prop::collection::vec((1_u64..4, "[ab]", "[mn]", 0_u64..3, 0_u64..5, 0_u64..5, any::<bool>()), 0..40),
        begins in 0_usize..40,
    ) {
        let start = Instant::now();
        let mut board = board(&["s", "s", "t"], start);
        let mut read: BTreeMap<RevisionKey, BTreeMap<String, ByServing>> = BTreeMap::new();
        let mut position = None;
        let steps = reports.len();
        for (step, (stream, revision, serving, in_flight, arrived, finished, looks)) in reports.into_iter().enumerate() {
            let now = start + MS * 20 * u32::try_from(step).unwrap();
            let name = format!("ns/{revision}/80");
            take(&mut board, stream, &[(&name, &serving, in_flight, arrived, finished)], now);
            if step >= begins && (looks || step + 1 == steps) {
                let (events, next) = match position {
                    None => board.snapshot(now),
                    Some(position) => board.since(position, now).unwrap(),
                };
                position = Some(next);
                for event in &events {
                    prop_assert!(event.to_line().len() < MAX_LINE_BYTES);
                }
                for of in demand(&events) {
                    read.entry(of.key.clone()).or_default().extend(of.loads.clone());
                }
            }
        }
        if position.is_some() {
            let known = board.all().into_iter().map(|(revision, loads)| (key(&revision), loads)).collect();
            prop_assert_eq!(read, known);
        }
    }

    #[test]
    fn nothing_is_lost_or_counted_twice(
        reports in prop::collection::vec((1_u64..4, 0_u64..5, 0_u64..5), 0..30),
        leaves in 0_u64..4,
    ) {
        let now = Instant::now();
        let mut board = board(&["n"; 3], now);
        let (mut arrived, mut in_flight) = (0, BTreeMap::new());
        for (stream, flying, came) in &reports {
            // What is not in flight any more has finished.
            let before: u64 = in_flight.get(stream).copied().unwrap_or(0);
            let finished = (before + came).saturating_sub(*flying);
            let flying = before + came - finished;
            arrived += came;
            in_flight.insert(*stream, flying);
            take(&mut board, *stream, &[("ns/a/80", "m", flying, *came, finished)], now);
        }
        in_flight.remove(&leaves);
        board.close_stream(leaves, now);
        let load = board.load_from(&ObjectName::new("ns", "a"), "n").get("m").copied().unwrap_or_default();
        prop_assert_eq!(load.arrived, arrived);
        prop_assert_eq!(load.in_flight, in_flight.values().sum::<u64>());
    }

    /// Whatever a peer sends.
    #[test]
    fn hostile_reports_never_panic(
        rows in prop::collection::vec(("[a/.0]{0,12}", "[a-z/\"]{0,6}", any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<i32>()), 0..20),
    ) {
        let now = Instant::now();
        let mut board = board(&["n"], now);
        for (name, serving, in_flight, arrived, finished, seconds, nanos) in rows {
            let mut hostile = report(&[(&name, &serving, in_flight, arrived, finished)]);
            hostile.cluster_stats[0].load_report_interval = Some(envoy_types::pb::google::protobuf::Duration { seconds, nanos });
            board.apply_report(1, &hostile, |_| true, now);
        }
        for event in board.snapshot(now).0 {
            prop_assert!(DemandEvent::from_line(&event.to_line()).is_ok());
        }
    }
}
