//! Zones and the share per node.

use proptest::prelude::*;

use super::*;

fn in_zones(world: &mut World, zones: [&str; 3]) {
    for (node, zone) in NODES.into_iter().zip(zones) {
        world.node(node).labels = Arc::new(BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())]));
    }
}

#[test]
fn pods_are_in_as_many_zones_as_asked_for() {
    let mut world = World::born();
    in_zones(&mut world, ["west", "west", "east"]);
    (world.settings.zones, world.settings.min_scale) = (2, 2);
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(20);
    assert_eq!(world.ready(), [1, 0, 1]);
    let decision = world.look().unwrap();
    assert_eq!((decision.target.zones_missing, decision.target.unplaced), (None, None));
    let (moves, seika) = (world.moves, world.seika.clone());
    world.pass(60);
    assert_eq!((world.moves, world.seika.clone()), (moves, seika), "and it stays so");
}

/// Knative's own first pods know nothing of zones.
#[test]
fn pods_that_were_born_in_one_zone_leave_it_without_a_gap_and_without_demand() {
    let mut world = World::born();
    in_zones(&mut world, ["west", "west", "east"]);
    (world.settings.zones, world.settings.min_scale, world.settings.initial_scale, world.deployment) = (2, 2, 2, 2);
    world.add("boot2", Some("node1"), Maker::Deployment);
    world.pass(3);
    world.fewest_serving = usize::MAX;
    world.pass(20);
    assert_eq!((world.ready(), world.fewest_serving), ([1, 0, 1], 2));
    assert!(world.look().is_none_or(|decision| decision.target.zones_missing.is_none()));
}

#[test]
fn a_zone_without_room_is_named_and_costs_no_pod() {
    let mut world = World::born();
    in_zones(&mut world, ["west", "west", "east"]);
    (world.settings.zones, world.settings.min_scale) = (2, 2);
    world.node("node3").is_cordoned = true;
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(20);
    let decision = world.look().unwrap();
    assert_eq!((world.ready().iter().sum::<usize>(), decision.target.unplaced.clone()), (2, None));
    assert_eq!(decision.target.unmet_wishes(), ["pods are in 1 of 2 zones (east: no room on its 1 nodes (node3: cordoned))"]);
    // The zone opens: one of them goes there, make before break.
    world.fewest_serving = usize::MAX;
    world.node("node3").is_cordoned = false;
    world.pass(20);
    assert_eq!((world.ready()[2], world.ready().iter().sum::<usize>(), world.fewest_serving), (1, 2, 2));
}

#[test]
fn fewer_pods_than_zones_miss_none() {
    let mut world = World::born();
    in_zones(&mut world, ["west", "west", "east"]);
    (world.settings.zones, world.settings.max_scale) = (2, Some(1));
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(20);
    assert_eq!((world.ready(), world.look().unwrap().target.unmet_wishes()), ([1, 0, 0], vec![]));
}

#[test]
fn a_cluster_of_one_zone_says_so_and_rests() {
    let mut world = World::born();
    in_zones(&mut world, ["west"; 3]);
    (world.settings.zones, world.settings.min_scale) = (3, 3);
    world.pass(3);
    let decision = world.look().unwrap();
    assert_eq!(decision.target.unmet_wishes(), ["pods are in 1 of 3 zones (no node is in another zone)"]);
    world.pass(40);
    assert_eq!(world.ready().iter().sum::<usize>(), 3);
    assert!(world.look().is_none());
}

#[test]
fn no_node_has_more_than_its_share() {
    let mut world = World::born();
    world.settings.node_share = Some(0.5);
    world.loads(&[("node1", 28.0, 400.0)]);
    world.pass(30);
    let ready = world.ready();
    let total: usize = ready.iter().sum();
    assert!(total >= 4 && ready.iter().all(|here| here * 2 <= total), "{ready:?}");
    assert!(ready[0] >= ready[1] && ready[2] == 0, "the rest is near: {ready:?}");
}

#[test]
fn a_share_that_the_nodes_have_no_room_for_costs_no_pod() {
    let mut world = World::born();
    world.settings.node_share = Some(0.34);
    (world.node("node2").is_cordoned, world.node("node3").offers.cpu_millis) = (true, 1000);
    world.loads(&[("node1", 28.0, 400.0)]);
    world.pass(30);
    let ready = world.ready();
    let decision = world.look().unwrap();
    assert_eq!((ready[1], ready[2], decision.target.unplaced.clone()), (0, 1, None), "{ready:?}");
    let wish = &decision.target.unmet_wishes()[0];
    assert!(wish.starts_with(&format!("node1 has {} pods, more than its share of ", ready[0])), "{wish}");
}

#[test]
fn a_pod_above_the_share_leaves_when_another_is_ready() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    let before = world.ready();
    world.fewest_serving = usize::MAX;
    world.settings.node_share = Some(0.5);
    world.pass(30);
    let (ready, total) = (world.ready(), before.iter().sum::<usize>());
    assert_eq!((ready.iter().sum::<usize>(), world.fewest_serving), (total, total));
    assert!(ready.iter().all(|here| *here <= (total / 2).max(1)), "{before:?} {ready:?}");
}

/// What changes while a revision serves.
#[derive(Clone, Debug)]
enum Change {
    Zones(u32),
    Share(Option<f64>),
    Warm(u32),
    P95(Option<u64>),
    Cordon(usize, bool),
    Slow(usize, f64),
    Load(f64, f64, f64),
    Restart,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1_u32..4).prop_map(Change::Zones),
        prop::option::of(0.2_f64..1.0).prop_map(Change::Share),
        (0_u32..3).prop_map(Change::Warm),
        prop::option::of(5_u64..120).prop_map(Change::P95),
        (0_usize..3, any::<bool>()).prop_map(|(node, is)| Change::Cordon(node, is)),
        (0_usize..3, 0.001_f64..0.2).prop_map(|(node, seconds)| Change::Slow(node, seconds)),
        (0.0_f64..9.0, 0.0_f64..9.0, 0.0_f64..9.0).prop_map(|(one, two, three)| Change::Load(one, two, three)),
        Just(Change::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// The rule above all others: whatever is wished for, pods that are to be there stay until
    /// others are.
    #[test]
    fn no_wish_takes_a_pod_that_is_needed(changes in prop::collection::vec((any_change(), 1_u64..25), 1..8)) {
        let mut world = World::born();
        in_zones(&mut world, ["west", "west", "east"]);
        world.settings.min_scale = 3;
        world.pass(20);
        world.fewest_serving = usize::MAX;
        for (change, seconds) in changes {
            match change {
                Change::Zones(zones) => world.settings.zones = zones,
                Change::Share(share) => world.settings.node_share = share,
                Change::Warm(warm) => world.settings.warm = warm,
                Change::P95(milliseconds) => world.settings.p95 = milliseconds.map(Duration::from_millis),
                Change::Cordon(node, is) => world.node(NODES[node]).is_cordoned = is,
                Change::Slow(node, seconds) => drop(world.service_seconds.insert(NODES[node].into(), seconds)),
                Change::Load(one, two, three) => world.loads(&[("node1", one, 20.0), ("node2", two, 20.0), ("node3", three, 20.0)]),
                Change::Restart => world.memory = Memory::default(),
            }
            world.pass(seconds);
            prop_assert!(world.fewest_serving >= 3, "{} ready", world.fewest_serving);
        }
    }
}
