//! What the next best place would be.

use placement::plan::explain::LeftOut;

use super::*;
use crate::place::runner_up;

#[test]
fn the_runner_up_and_its_margin_are_known_for_whoever_asks() {
    let mut world = World::born();
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(20);
    let picture = world.picture();
    let decision = world.look().unwrap();
    let inputs = &picture.revisions[&world.key];
    let why = runner_up(picture.now, &picture.network, &picture.room, inputs, &decision).unwrap().unwrap();
    let chosen = &why.chosen[0];
    assert_eq!((chosen.node.as_str(), chosen.runner_up.as_ref().map(NodeName::as_str)), ("node1", Some("node2")));
    // Two requests in flight, a millisecond each.
    assert!((chosen.margin.unwrap() - 0.002).abs() < 1e-4, "{why:?}");
    assert!(matches!(why.left_out["node3"], LeftOut::Costlier(cost) if cost > 0.09), "{why:?}");
}

#[test]
fn a_full_node_is_left_out_for_its_reason_and_nothing_is_said_of_nothing() {
    let mut world = World::born();
    world.node("node2").is_cordoned = true;
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(20);
    let (picture, decision) = (world.picture(), world.look().unwrap());
    let inputs = &picture.revisions[&world.key];
    let why = runner_up(picture.now, &picture.network, &picture.room, inputs, &decision).unwrap().unwrap();
    assert!(matches!(why.left_out["node2"], LeftOut::Blocked(_)), "{why:?}");
    let nothing = Decision { target: RevisionPlacement::default(), ..decision };
    assert_eq!(runner_up(picture.now, &picture.network, &picture.room, inputs, &nothing).unwrap(), None);
}
