//! What was recorded is decided again, byte for byte.

use super::*;
use crate::trace::{DecisionTraceError, VERSION, replay};

/// Whatever a day may bring, each hour of it a minute long.
fn a_day(world: &mut World) {
    world.settings.warm = 1;
    world.settings.min_scale = 1;
    world.settings.p95 = Some(Duration::from_millis(40));
    world.service_seconds = NODES.map(|node| (node.into(), 0.0123)).into();
    for hour in 0_u32..24 {
        let share = f64::from(hour) / 7.0;
        match hour % 6 {
            0 => world.loads(&[]),
            1 => world.loads(&[("node1", 0.1 + share, 3.0 * share)]),
            2 => world.loads(&[("node1", 20.0 / 3.0 * share, 400.0), ("node3", 10.0, 200.0)]),
            3 => world.demand_unknown = true,
            4 => {
                world.demand_unknown = false;
                world.network = network(u64::from(hour), 0.001 + share / 1000.0, 0.050, 0.1 / 3.0);
            }
            _ => world.node("node3").is_cordoned = hour % 12 < 6,
        }
        if hour == 10 {
            world.broken = vec!["node2"];
        }
        world.pass(60);
    }
}

fn assert_replays(lines: &[String]) {
    let replayed = replay(lines.iter().map(String::as_str)).unwrap();
    for (number, (recorded, replayed)) in lines.iter().zip(&replayed).enumerate() {
        assert_eq!(recorded, replayed, "line {number}");
    }
    assert_eq!(lines.len(), replayed.len());
}

#[test]
fn a_day_is_decided_again_byte_for_byte() {
    let mut world = World::born();
    world.recording = Some(Default::default());
    a_day(&mut world);
    let (_, lines) = world.recording.take().unwrap();
    assert_eq!(lines.len(), 24 * 60);
    assert!(lines.iter().all(|line| line.contains(&format!("\"version\":{VERSION}")) && !line.contains('\n')));
    assert_replays(&lines);
}

/// Whoever begins to listen in the middle gets what earlier decisions left.
#[test]
fn a_recording_may_begin_at_any_time() {
    let mut world = World::born();
    a_day(&mut world);
    world.recording = Some(Default::default());
    world.loads(&[("node1", 7.7, 133.0), ("node2", 1.0 / 3.0, 2.0)]);
    world.pass(90);
    world.loads(&[]);
    world.recording.as_mut().unwrap().0.begin();
    world.pass(90);
    let (_, lines) = world.recording.take().unwrap();
    assert_replays(&lines);
    assert!(lines.iter().any(|line| line.contains("\"decided\"")));
    // And on from where everything was written down again, but from nowhere else.
    assert_replays(&lines[90..]);
    let cut = replay(lines[1..].iter().map(String::as_str));
    assert!(matches!(cut, Err(DecisionTraceError::NoBeginning { line: 1 })), "{cut:?}");
}

#[test]
fn what_was_changed_in_a_recording_shows() {
    let mut world = World::born();
    world.recording = Some(Default::default());
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    let (_, mut lines) = world.recording.take().unwrap();
    let changed = lines[15].replacen("\"node1\":{\"concurrency\":20.0", "\"node1\":{\"concurrency\":90.0", 1);
    assert_ne!(lines[15], changed);
    lines[15] = changed;
    let replayed = replay(lines.iter().map(String::as_str)).unwrap();
    assert_eq!((&lines[..15], lines[15] != replayed[15]), (&replayed[..15], true));
    lines[0] = lines[0].replacen("\"version\":1", "\"version\":7", 1);
    assert!(matches!(replay([lines[0].as_str()]), Err(DecisionTraceError::Version { line: 1, version: 7 })));
}

#[test]
fn calls_between_ticks_and_changes_of_the_leader_are_on_record() {
    let mut world = World::born();
    let mut recorder = DecisionRecorder::default();
    let mut lines = Vec::new();
    world.loads(&[("node3", 4.0, 20.0)]);
    for turn in 0..30 {
        world.second += 1;
        let picture = world.picture();
        let keys = BTreeSet::from([world.key.clone()]);
        let call = match turn % 10 {
            0..=2 => TracedCall::Follow,
            4 => TracedCall::Some(keys.clone()),
            9 => TracedCall::StopLeading,
            _ => TracedCall::Tick,
        };
        let begun = recorder.before(call.clone(), &picture, &world.memory);
        let decisions = match call {
            TracedCall::Tick => decide(&picture, &mut world.memory),
            TracedCall::Some(keys) => decide_some(&picture, &keys, &mut world.memory),
            TracedCall::Follow => {
                follow(&picture, &mut world.memory);
                Vec::new()
            }
            TracedCall::StopLeading => {
                world.memory.keep_demand();
                Vec::new()
            }
        };
        lines.push(begun.line(&decisions).unwrap());
    }
    assert_replays(&lines);
}
