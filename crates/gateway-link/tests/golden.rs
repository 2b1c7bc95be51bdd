//! The wire forms, as other versions of the programs read and write them.

#![allow(clippy::unwrap_used)] // A test may.

use std::collections::BTreeMap;

use gateway_link::demand::{ByServing, DemandEvent, Gateway, Held, Load, RevisionDemand};
use gateway_link::{Event, RevisionKey, RevisionRoutes};

fn gateway(stream: u64, node: &str, age_seconds: f64) -> Gateway {
    Gateway { stream, node: node.to_owned(), age_seconds }
}

fn hello(by_serving: &[(&str, Load)]) -> Vec<RevisionDemand> {
    let by_serving: ByServing = by_serving.iter().map(|(node, load)| ((*node).to_owned(), *load)).collect();
    let loads = BTreeMap::from([("node3".to_owned(), by_serving)]);
    vec![RevisionDemand { key: RevisionKey::new("default", "hello-00001"), loads }]
}

#[test]
fn demand_keeps_its_form() {
    let far = Load { in_flight: 2, arrived: 40, finished: 37, failed: 1, busy_seconds: 8.25 };
    let near = Load { arrived: 10, finished: 10, busy_seconds: 0.5, ..Load::default() };
    let nowhere = Load { arrived: 1, failed: 1, ..Load::default() };
    let events = [
        DemandEvent::Snapshot {
            instance: "locality-ingress-7d4f-1764260000".to_owned(),
            running_seconds: 60.5,
            version: 12,
            parts_left: 0,
            gateways: vec![gateway(1, "node1", 0.25), gateway(4, "node3", 0.5)],
            demand: hello(&[("node1", far), ("node3", near)]),
        },
        DemandEvent::Update {
            version: 13,
            gateways: vec![gateway(4, "node3", 0.0)],
            gone: vec![1],
            demand: hello(&[("", nowhere)]),
            removed: vec![RevisionKey::new("default", "old-00007")],
            held: vec![],
        },
        DemandEvent::Update {
            version: 14,
            gateways: vec![],
            gone: vec![],
            demand: vec![],
            removed: vec![],
            held: vec![Held { key: RevisionKey::new("default", "asleep-00001"), source: "node3".to_owned() }],
        },
        DemandEvent::Heartbeat { version: 13, gateways: vec![gateway(4, "node3", 0.5)] },
    ];
    let golden = include_str!("golden/demand.jsonl");
    assert_eq!(events.iter().map(DemandEvent::to_line).collect::<String>(), golden);
    let read: Vec<DemandEvent> = golden.lines().map(|line| DemandEvent::from_line(line).unwrap()).collect();
    assert_eq!(read, events);
}

#[test]
fn routes_keep_their_form() {
    let routes = |revision: &str| {
        let rows = [("node1", vec![("node1", 80), ("node3", 20)]), ("node3", vec![("node3", 100)])];
        vec![RevisionRoutes::new(RevisionKey::new("default", revision), rows).unwrap()]
    };
    let events = [
        Event::Snapshot { version: 4, parts_left: 1, routes: routes("hello-00001") },
        Event::Snapshot { version: 4, parts_left: 0, routes: routes("hello-00002") },
        Event::Update { version: 5, routes: routes("hello-00002"), removed: vec![RevisionKey::new("default", "old-00007")] },
        Event::Heartbeat { version: 5 },
    ];
    let golden = include_str!("golden/routes.jsonl");
    assert_eq!(events.iter().map(Event::to_line).collect::<String>(), golden);
    let read: Vec<Event> = golden.lines().map(|line| Event::from_line(line).unwrap()).collect();
    assert_eq!(read, events);
}
