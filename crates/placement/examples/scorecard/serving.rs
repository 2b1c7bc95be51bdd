//! Speed of what is asked for most often: routing weights and node scores.

use std::collections::BTreeSet;
use std::hint::black_box;

use anyhow::{Result, ensure};
use ndarray::Array2;
use placement::latency::SiteCosts;
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork};
use placement::routing::FactoredWeights;
use placement::score::{Place, TableCost, TopologyCosts};
use placement::{CostMatrix, NodeName, score};

use crate::data::names;
use crate::report::{Goal, line, note};
use crate::timing::fastest;

/// What the factors of a made-up network are.
fn factored(network: &SyntheticNetwork, sites: usize, all: Vec<NodeName>) -> SiteCosts {
    let of = (0..all.len()).map(|node| network.site(node)).collect();
    let access: Vec<f64> = (0..all.len()).map(|node| network.access_seconds(node)).collect();
    let between = Array2::from_shape_fn((sites, sites), |(one, other)| network.site_seconds(one, other));
    SiteCosts::new(all, of, between, access)
}

/// 5,000 x 5,000 routing weights, a replica on every node, and one row measured anew.
pub(crate) fn weights() -> Result<()> {
    let network = SyntheticNetwork::new(Shape::default(), 31);
    let all = names(network.nodes());
    let costs = factored(&network, 40, all.clone());
    let serving: BTreeSet<NodeName> = all.iter().cloned().collect();
    let (best, median) = fastest(21, || {
        black_box(FactoredWeights::new(black_box(&costs), &serving, 0.004));
    });
    line("weights_5k_ms", best * 1e3, "ms", Goal::AtMost(5.0));
    let mut weights = FactoredWeights::new(&costs, &serving, 0.004);

    // What the factors leave out, against every pair on its own.
    let source = 17;
    let exact: Vec<f64> = (0..all.len()).map(|target| 1.0 / (costs.seconds(source, target) + 0.004)).collect();
    let sum: f64 = exact.iter().sum();
    let off = (0..all.len()).map(|target| (weights.share(source, target) / (exact[target] / sum) - 1.0).abs());
    note(&format!(
        "weights_5k: median {:.2} ms; worst weight of a row is {:.2} % off the unfactored one",
        median * 1e3,
        100.0 * off.fold(0.0, f64::max)
    ));

    let row: Vec<f64> = (0..all.len()).map(|target| network.measured_seconds(source, target, 1)).collect();
    let (best, median) = fastest(2001, || weights.set_row(black_box(source), black_box(&row)));
    line("weights_row_us", best * 1e6, "us", Goal::AtMost(10.0));
    note(&format!("weights_row: median {:.2} us", median * 1e6));
    ensure!(weights.row(source).iter().sum::<u32>() == 100, "failed to make a row that sums to 100");
    Ok(())
}

/// 10,000 nodes, 10 placed dependencies: tables of regions and zones, and measured latency factored
/// by site. The slower one counts.
pub(crate) fn scores() {
    let shape = Shape { sites: 80, nodes_per_site: 125, ..Shape::default() };
    let network = SyntheticNetwork::new(shape, 41);
    let size = network.nodes();
    let mut random = Random::new(6);
    let placed: Vec<score::PlacedDependency> =
        (0..10).map(|_| score::PlacedDependency { node: random.below(size), max_cost: 0.050 }).collect();

    let measured = factored(&network, shape.sites, names(size));
    let (by_site, by_site_median) = fastest(201, || {
        black_box(score::for_dependencies(black_box(&measured), black_box(&placed)));
    });
    // Sites are zones, four of them a region.
    let places: Vec<Place> = (0..size)
        .map(|node| Place { region: format!("r{}", network.site(node) / 4), zone: format!("z{}", network.site(node)) })
        .collect();
    let table = |prefix: char, count: usize, random: &mut Random| -> Vec<TableCost> {
        let pairs = (0..count).flat_map(|one| (0..count).map(move |other| (one, other)));
        pairs
            .map(|(one, other)| TableCost {
                origin: format!("{prefix}{one}"),
                destination: format!("{prefix}{other}"),
                cost: 1.0 + random.below(90) as f64,
            })
            .collect()
    };
    let tables = TopologyCosts::new(&places, &table('r', 20, &mut random), &table('z', 80, &mut random));
    let (by_table, by_table_median) = fastest(201, || {
        black_box(score::for_dependencies(black_box(&tables), black_box(&placed)));
    });
    line("score_10k_us", by_site.max(by_table) * 1e6, "us", Goal::AtMost(50.0));
    let costs = CostMatrix::new(names(1000), Array2::from_shape_fn((1000, 1000), |(from, to)| network.rtt_seconds(from, to)));
    let near: Vec<score::PlacedDependency> =
        placed.iter().map(|placed| score::PlacedDependency { node: placed.node % 1000, ..*placed }).collect();
    let (dense, _) = fastest(201, || {
        black_box(score::for_dependencies(black_box(&costs), black_box(&near)));
    });
    let (filter, _) = fastest(51, || {
        black_box(score::requirements(black_box(&measured), black_box(&placed)));
    });
    note(&format!(
        "score_10k: measured by site {:.1} us (median {:.1}), tables {:.1} us (median {:.1}); a whole matrix of 1,000 nodes {:.1} us; the filter on 10,000 nodes {:.0} us",
        by_site * 1e6,
        by_site_median * 1e6,
        by_table * 1e6,
        by_table_median * 1e6,
        dense * 1e6,
        filter * 1e6
    ));
}
