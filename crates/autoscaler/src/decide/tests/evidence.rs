//! Where the last plan stands in for a new one, and where not.

use super::*;

fn two_pods_on_node1() -> World {
    let mut world = World::born();
    for (node, zone) in NODES.into_iter().zip(["west", "west", "east"]) {
        world.node(node).labels = Arc::new(BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())]));
    }
    world.settings.min_scale = 2;
    world.loads(&[("node1", 2.0, 40.0)]);
    world
}

fn has_evidence(world: &World) -> bool {
    serde_json::to_string(&world.memory).unwrap().contains("\"evidence\":{")
}

#[test]
fn evidence_is_kept_of_plans_that_minimise_network_time_alone() {
    for (zones, p95, is_kept) in [(0, None, true), (2, None, false), (0, Some(Duration::from_millis(80)), false)] {
        let mut world = two_pods_on_node1();
        world.service_seconds = NODES.map(|node| (node.into(), 0.010)).into();
        (world.settings.zones, world.settings.p95) = (zones, p95);
        world.pass(40);
        assert_eq!(has_evidence(&world), is_kept, "{zones} zones, goal {p95:?}");
    }
}

/// What was found for network time says nothing of zones.
#[test]
fn zones_asked_for_later_are_planned_anew() {
    let mut world = two_pods_on_node1();
    world.pass(40);
    assert!(has_evidence(&world));
    assert_eq!(world.ready(), [2, 0, 0]);
    world.settings.zones = 2;
    world.pass(40);
    assert_eq!((world.ready(), has_evidence(&world)), ([1, 0, 1], false));
}
