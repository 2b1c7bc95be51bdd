//! Bounds of the count as the real stock reconciler reads them.
//!
//! `golden/bounds-1.15.2.jsonl` was recorded from knative.dev/serving v0.42.2 (Knative 1.15.2)
//! itself, called as a library: the answers of its `ScaleBounds` and `GetInitialScale` for settings
//! that its webhook accepts. `golden/record.go` does it again.

use std::collections::{BTreeMap, BTreeSet};

use autoscaler::kpa::within_bounds;
use autoscaler::settings::{ClusterSettings, RevisionSettings};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Bounds {
    annotations: BTreeMap<String, String>,
    config_map: BTreeMap<String, String>,
    reachable: bool,
    least: u32,
    /// 0 where there is no bound.
    most: u32,
    initial: u32,
}

impl Bounds {
    /// What stock's reconciler makes of the autoscaler's count, as its source has it. Where the
    /// bounds cross that is the most for counts from the least on, and the least for all below.
    fn apply(&self, want: u32, is_initialized: bool) -> u32 {
        let least = if self.initial > 1 && !is_initialized { self.least.max(self.initial) } else { self.least };
        match self.most {
            _ if want < least => least,
            most if most != 0 && want > most => most,
            _ => want,
        }
    }
}

#[test]
fn counts_are_bounded_as_stock_bounds_them() {
    let recorded = include_str!("golden/bounds-1.15.2.jsonl");
    let mut seen = BTreeSet::new();
    for bounds in recorded.lines().map(|line| serde_json::from_str::<Bounds>(line).expect("the recording is well-formed")) {
        let cluster = ClusterSettings::read(&bounds.config_map, &BTreeMap::new());
        let settings = RevisionSettings::read(&bounds.annotations, 0, bounds.reachable, &cluster);
        // Later releases start no more than one pod of a revision that is not reached, and so does
        // the class here.
        let initial = if bounds.reachable { bounds.initial } else { bounds.initial.min(1) };
        let bounds = Bounds { initial, ..bounds };
        let read = (settings.min_scale, settings.max_scale.unwrap_or(0), settings.initial_scale);
        assert_eq!(read, (bounds.least, bounds.most, bounds.initial), "{bounds:?}");
        for want in 0..45 {
            for is_initialized in [false, true] {
                let expected = bounds.apply(want, is_initialized);
                assert_eq!(within_bounds(want, is_initialized, &settings), expected, "{want} with {bounds:?}");
            }
        }
        seen.insert((bounds.least, bounds.most, bounds.initial));
    }
    assert!(seen.len() > 50, "{} different bounds", seen.len());
}
