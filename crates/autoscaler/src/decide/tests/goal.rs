//! A goal for the response time.

use super::*;

/// A revision whose sources earn nothing by themselves, so that the goal alone adds pods.
fn with_goal(milliseconds: u64) -> World {
    let mut world = World::born();
    world.settings.p95 = Some(Duration::from_millis(milliseconds));
    world.earns_locality = false;
    world.service_seconds = NODES.map(|node| (node.into(), 0.010)).into();
    world
}

fn goal_condition(world: &World) -> Option<(ConditionStatus, Option<String>)> {
    let condition = world.status.condition(status::GOAL_MET)?;
    Some((condition.status, condition.message.clone()))
}

#[test]
fn the_fewest_pods_that_meet_the_goal_run_where_they_meet_it() {
    // Both ends ask. Within 80 ms one pod answers both, within 40 ms each needs its own.
    for (milliseconds, pods) in [(80, 1), (40, 2)] {
        let mut world = with_goal(milliseconds);
        world.loads(&[("node1", 2.0, 40.0), ("node3", 2.0, 40.0)]);
        world.pass(40);
        let goal = world.look().unwrap().goal.unwrap();
        assert_eq!((goal.is_met, goal.pods, world.ready().iter().sum::<usize>()), (true, pods, pods as usize), "{milliseconds}");
        assert_eq!(goal_condition(&world), Some((ConditionStatus::True, None)));
    }
}

#[test]
fn a_few_requests_from_far_away_need_no_pod() {
    let mut world = with_goal(40);
    world.loads(&[("node1", 5.0, 100.0), ("node3", 0.2, 4.0)]);
    world.pass(40);
    assert_eq!((world.ready(), world.look().unwrap().goal.unwrap().is_met), ([1, 0, 0], true));
}

#[test]
fn what_blocks_the_goal_is_named_and_said_once() {
    let mut world = with_goal(40);
    world.node("node3").is_cordoned = true;
    world.loads(&[("node1", 2.0, 40.0), ("node3", 2.0, 40.0)]);
    world.pass(40);
    let goal = world.look().unwrap().goal.unwrap();
    assert!(!goal.is_met && (goal.share_within - 0.5).abs() < 0.1, "{goal:?}");
    let why = "node3 is too far from every node that may run a pod".to_owned();
    assert_eq!(goal_condition(&world), Some((ConditionStatus::False, Some(why))));
    assert_eq!(world.ready().iter().sum::<usize>(), 1, "pods that do not help are not started");
    let before = world.status.clone();
    world.service_seconds.values_mut().for_each(|seconds| *seconds *= 1.3);
    world.pass(10);
    assert_eq!(world.status, before);
}

#[test]
fn serving_that_is_too_slow_starts_no_pods() {
    let mut world = with_goal(8);
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(40);
    assert_eq!(world.look().unwrap().goal.unwrap().blocked_by().as_deref(), Some("serving alone takes longer"));
    assert_eq!(world.ready().iter().sum::<usize>(), 1);
}

#[test]
fn a_slow_node_is_no_place_for_a_tight_goal() {
    let mut world = with_goal(40);
    world.service_seconds.insert("node1".into(), 0.200);
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(40);
    assert_eq!(world.ready(), [0, 1, 0]);
    // And when it has turned out to be the other one.
    (world.fewest_serving, world.service_seconds) = (usize::MAX, [("node1".into(), 0.010), ("node2".into(), 0.200)].into());
    world.pass(30);
    assert_eq!((world.ready(), world.fewest_serving), ([1, 0, 0], 1));
}

#[test]
fn the_unknown_is_no_reason_for_a_pod() {
    let mut world = with_goal(40);
    world.network = network(2, 10.0, 10.0, 10.0);
    world.service_seconds.clear();
    world.loads(&[("node1", 2.0, 40.0), ("node3", 2.0, 40.0)]);
    world.pass(40);
    assert_eq!(world.ready().iter().sum::<usize>(), 1);
    assert!(world.look().unwrap().goal.unwrap().is_met);
}

#[test]
fn max_scale_holds_and_a_goal_taken_back_leaves_nothing() {
    let mut world = with_goal(40);
    world.settings.max_scale = Some(1);
    world.loads(&[("node1", 2.0, 40.0), ("node3", 2.0, 40.0)]);
    world.pass(40);
    assert_eq!(world.ready().iter().sum::<usize>(), 1);
    let why = world.look().unwrap().goal.unwrap().blocked_by();
    assert_eq!(why.as_deref(), Some("max-scale allows no more pods"));
    world.settings.p95 = None;
    world.pass(2);
    assert_eq!(goal_condition(&world), None);
    assert!(world.memory.revisions.values().all(|revision| revision.goal.is_none()));
}
