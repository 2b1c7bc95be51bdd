//! Warm pods where the next request is likely to come from.

use super::*;

const DAY: u64 = 24 * 3600;

impl World {
    /// Until this second of this day. While it is away nobody asks.
    fn sleep_until(&mut self, day: u64, hour: u64) {
        self.loads(&[]);
        self.second = day * DAY + hour * 3600;
        self.pass(90);
    }
}

fn commuters(days: u64) -> World {
    let mut world = World::born();
    (world.settings.warm, world.settings.min_scale) = (1, 1);
    for day in 1..=days {
        world.sleep_until(day, 8);
        world.loads(&[("node3", 2.0, 40.0)]);
        world.pass(30);
        world.sleep_until(day, 20);
        world.loads(&[("node1", 2.0, 40.0)]);
        world.pass(30);
    }
    world
}

#[test]
fn the_warm_pod_waits_where_earlier_days_asked_first() {
    let mut world = commuters(3);
    world.sleep_until(4, 7);
    assert_eq!(world.ready(), [0, 0, 1], "before the morning");
    let outlook = world.look();
    assert!(outlook.is_none(), "at rest nothing is decided: {outlook:?}");
    world.fewest_serving = usize::MAX;
    world.sleep_until(4, 18);
    assert_eq!((world.ready(), world.fewest_serving), ([1, 0, 0], 1), "before the evening, without a gap");
}

#[test]
fn without_the_annotation_nothing_is_kept_and_nothing_moves() {
    let mut world = commuters(1);
    world.settings.warm = 0;
    world.pass(2);
    assert!(world.memory.revisions.values().all(|revision| revision.profile.is_none()));
    let before = world.ready();
    world.sleep_until(2, 7);
    assert_eq!(world.ready(), before);
}

#[test]
fn a_restart_that_forgets_the_days_moves_no_pod() {
    let mut world = commuters(2);
    world.sleep_until(3, 7);
    assert_eq!(world.ready(), [0, 0, 1]);
    world.memory = Memory::default();
    world.sleep_until(3, 18);
    assert_eq!(world.ready(), [0, 0, 1]);
}

#[test]
fn a_second_warm_pod_waits_elsewhere_while_one_source_asks() {
    let mut world = commuters(3);
    (world.settings.warm, world.settings.min_scale) = (2, 2);
    world.earns_locality = false;
    world.sleep_until(4, 7);
    world.loads(&[("node1", 2.0, 40.0)]);
    world.pass(60);
    assert_eq!(world.ready(), [1, 0, 1]);
}

#[test]
fn a_new_revision_goes_on_from_the_one_before() {
    let mut world = commuters(2);
    world.loads(&[]);
    let earlier = world.memory.revisions[&world.key].profile.clone();
    let mut picture = world.picture();
    let mut inputs = picture.revisions[&world.key].clone();
    Arc::make_mut(&mut inputs.facts).uid = "two".to_owned();
    let key = RevisionKey::new("default", "hello-00002");
    picture.revisions.insert(key.clone(), inputs);
    decide(&picture, &mut world.memory);
    assert!(earlier.is_some_and(|earlier| earlier != Box::default()));
    assert_eq!(world.memory.revisions[&key].profile, world.memory.revisions[&world.key].profile);
}
