//! The algorithm of the network-aware plugin of kube-scheduler, written anew in Go, beside ours: on
//! one machine, in one run, with the same input and the same scores.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use placement::score::{Place, PlacedDependency, TableCost, TopologyCosts, for_dependencies, requirements};
use scorecards::note;

const NODES: usize = 10_000;
const DEPENDENCIES: usize = 10;
const REGIONS: usize = 5;
const ZONES_PER_REGION: usize = 4;
const ROUNDS: usize = 15;

/// How many times longer the plugin's algorithm takes than ours, by medians.
pub(crate) fn ratio() -> anyhow::Result<f64> {
    let place = |node: usize| {
        let zone = node % (REGIONS * ZONES_PER_REGION);
        Place { region: format!("region-{}", zone / ZONES_PER_REGION), zone: format!("zone-{zone}") }
    };
    let places: Vec<Place> = (0..NODES).map(place).collect();
    let entry = |origin: String, destination: String, cost: usize| TableCost { origin, destination, cost: cost as f64 };
    let mut regions = Vec::new();
    for (from, to) in pairs(REGIONS) {
        regions.push(entry(format!("region-{from}"), format!("region-{to}"), 20 + 3 * from.abs_diff(to)));
    }
    let mut zones = Vec::new();
    for (from, to) in pairs(REGIONS * ZONES_PER_REGION).filter(|(from, to)| from / ZONES_PER_REGION == to / ZONES_PER_REGION) {
        zones.push(entry(format!("zone-{from}"), format!("zone-{to}"), 5 + from.abs_diff(to)));
    }
    let placed: Vec<PlacedDependency> =
        (0..DEPENDENCIES).map(|number| PlacedDependency { node: number * 997, max_cost: 30.0 }).collect();

    let mut times = Vec::new();
    let mut scores = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        // What the plugin does for each pod, too: the tables are read anew.
        let costs = TopologyCosts::new(&places, &regions, &zones);
        std::hint::black_box(requirements(&costs, &placed));
        scores = for_dependencies(&costs, &placed);
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let ours = times[ROUNDS / 2];

    let mut input = String::new();
    for place in &places {
        writeln!(input, "node {} {}", place.region, place.zone)?;
    }
    for (kind, table) in [("region", &regions), ("zone", &zones)] {
        for TableCost { origin, destination, cost } in table {
            writeln!(input, "{kind} {origin} {destination} {cost}")?;
        }
    }
    for dependency in &placed {
        writeln!(input, "pod {} {}", dependency.node, dependency.max_cost)?;
    }
    let (theirs, their_scores) = in_go(input)?;
    anyhow::ensure!(their_scores == scores, "the two give different scores");
    note(&format!("{NODES} nodes x {DEPENDENCIES} dependencies: {:.2} ms in Go, {:.3} ms here", theirs * 1e3, ours * 1e3));
    Ok(theirs / ours)
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

/// The median of the rounds in seconds, and the scores.
fn in_go(input: String) -> anyhow::Result<(f64, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/scorecard/networkoverhead");
    let mut go = Command::new("go");
    go.args(["run", "."]).arg(ROUNDS.to_string()).current_dir(folder);
    let mut child = go.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("failed to start go")?;
    let mut stdin = child.stdin.take().context("no input")?;
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "go run ended with {}", output.status);
    writer.join().ok().context("the input was not written")??;
    let said = String::from_utf8(output.stdout)?;
    let mut words = said.split_whitespace();
    let seconds = words.next().context("go said nothing")?.parse()?;
    Ok((seconds, words.map(str::parse).collect::<Result<_, _>>()?))
}
