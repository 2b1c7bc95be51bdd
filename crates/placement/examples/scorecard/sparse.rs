//! Error of estimates from sparse measurement.

use placement::completion::Completion;
use placement::synthetic::{Network, Random, Shape};

use crate::report::{Goal, line};

/// 40 sites of 125 nodes, site labels given, 32 random peers per node.
pub(crate) fn sites() {
    let network = Network::new(Shape::default(), 21);
    let size = network.nodes();
    let labels: Vec<Option<u32>> = (0..size).map(|node| u32::try_from(network.site(node)).ok()).collect();
    let mut random = Random::new(4);
    let mut measured = Vec::with_capacity(32 * size);
    for from in 0..size {
        for _ in 0..32 {
            let to = random.below(size);
            measured.push((from, to, network.measured_seconds(from, to, 0)));
        }
    }
    let completion = Completion::new(&labels, measured, []);
    let (mut inter, mut intra) = (Vec::new(), Vec::new());
    for _ in 0..200_000 {
        let from = random.below(size);
        let same = random.below(2) == 0;
        let to = if same { network.site(from) * 125 + random.below(125) } else { random.below(size) };
        if let (true, Some(estimate)) = (from != to, completion.estimate(from, to)) {
            let truth = network.rtt_seconds(from, to);
            let error = (estimate.seconds - truth).abs() / truth;
            if network.site(from) == network.site(to) { intra.push(error) } else { inter.push(error) }
        }
    }
    line("est_inter_pct", 100.0 * median(&mut inter), "%", Goal::AtMost(2.0));
    line("est_intra_pct", 100.0 * median(&mut intra), "%", Goal::AtMost(20.0));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
