//! Forecasts against what then happens to the simulated cluster.

use super::*;
use crate::forecast::{Change, forecast};
use proptest::prelude::*;

fn counts(ready: [usize; 3]) -> Counts {
    let counts = NODES.iter().zip(ready).filter(|(_, count)| *count > 0);
    counts.map(|(node, count)| (NodeName::from(*node), u32::try_from(count).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_drain_ends_where_its_forecast_says(
        loads in prop::collection::btree_map(0..3_usize, (1.0..25.0_f64, 20.0..200.0_f64), 1..3),
        drained in 0..3_usize,
    ) {
        let mut world = World::born();
        world.settings.min_scale = 1;
        let loads: Vec<_> = loads.into_iter().map(|(node, (in_flight, rate))| (NODES[node], in_flight.floor(), rate)).collect();
        world.loads(&loads);
        world.pass(90);
        let node = NodeName::from(NODES[drained]);
        let said = forecast(&world.picture(), &world.memory, Some(&Change::Drain(node.clone())), 120).unwrap();
        let said = &said[&world.key];
        prop_assert_eq!(&said.before, &counts(world.ready()));

        world.node(NODES[drained]).is_cordoned = true;
        world.pods.retain(|(pod, _)| pod.place() != Some(&node));
        // What is made for a closed node does not start there.
        world.broken = vec![NODES[drained]];
        world.pass(120);
        prop_assert_eq!(&said.after, &counts(world.ready()));
        prop_assert!(!said.after.contains_key(&node));
    }
}

#[test]
fn a_link_that_slows_down_ends_where_its_forecast_says() {
    let mut world = World::born();
    world.settings.min_scale = 1;
    world.loads(&[("node3", 4.0, 100.0)]);
    world.pass(60);
    let change = Change::Link { one: "node2".into(), other: "node3".into(), seconds: 0.2 };
    let said = forecast(&world.picture(), &world.memory, Some(&change), 60).unwrap();
    world.network = network(2, 0.001, 0.050, 0.2);
    world.pass(60);
    assert_eq!(said[&world.key].after, counts(world.ready()));
}

#[test]
fn without_a_change_nothing_changes_and_what_is_not_there_is_said() {
    let mut world = World::born();
    world.settings.min_scale = 1;
    world.loads(&[("node1", 5.0, 100.0), ("node3", 12.0, 100.0)]);
    world.pass(60);
    let said = forecast(&world.picture(), &world.memory, None, 60).unwrap();
    assert_eq!(said[&world.key].before, said[&world.key].after);
    let nowhere = Change::Drain("node9".into());
    assert!(forecast(&world.picture(), &world.memory, Some(&nowhere), 60).is_err());
    let odd = Change::Link { one: "node1".into(), other: "node2".into(), seconds: f64::NAN };
    assert!(forecast(&world.picture(), &world.memory, Some(&odd), 60).is_err());
}
