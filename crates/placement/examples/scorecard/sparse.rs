//! Error of estimates from sparse measurement.

use ndarray::Array2;
use placement::latency::completion::{Completion, Estimate, Origin};
use placement::latency::synthetic::{Random, Shape, SyntheticNetwork};

use crate::report::{Goal, line, note};

/// 40 sites of 125 nodes, site labels given, 32 random peers per node.
pub(crate) fn sites() {
    let network = SyntheticNetwork::new(Shape::default(), 21);
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

/// PlanetLab, no labels, 32 random peers per node: the worst slice counts. Pairs that were
/// measured, in either direction, do not.
pub(crate) fn planetlab(slices: &[Array2<f64>]) {
    let (mut worst_median, mut worst_p90) = (0.0_f64, 0.0_f64);
    let mut better = 0_u32;
    for (number, truth) in slices.iter().enumerate() {
        let size = truth.nrows();
        let mut random = Random::new(40 + number as u64);
        let mut measured = Vec::with_capacity(32 * size);
        for from in 0..size {
            let mut others: Vec<usize> = (0..size).filter(|other| *other != from).collect();
            random.shuffle(&mut others);
            measured.extend(others[..32].iter().map(|to| (from, *to, truth[(from, *to)])));
        }
        let mut shortest = vec![f64::INFINITY; size];
        for (from, to, seconds) in &measured {
            for node in [*from, *to] {
                shortest[node] = shortest[node].min(*seconds);
            }
        }
        let start = std::time::Instant::now();
        let completion = Completion::new(&vec![None; size], measured, []);
        let fitted = start.elapsed().as_secs_f64();
        let mut errors = Vec::with_capacity(size * size);
        let mut sure = Vec::new();
        for from in 0..size {
            for (to, estimate) in completion.estimates(from).into_iter().enumerate() {
                let Some(Estimate { seconds, origin, confidence, .. }) = estimate else { continue };
                let least = shortest[from].max(shortest[to]);
                if origin != Origin::Measured && seconds < least * (1.0 - 1e-9) {
                    better += 1;
                }
                if origin != Origin::Measured && truth[(from, to)].is_finite() {
                    let error = (seconds - truth[(from, to)]).abs() / truth[(from, to)];
                    errors.push(error);
                    if confidence > 0.6 {
                        sure.push(error);
                    }
                }
            }
        }
        let taken = start.elapsed().as_secs_f64();
        errors.sort_by(f64::total_cmp);
        let (median_error, p90) = (errors[errors.len() / 2], errors[errors.len() * 9 / 10]);
        note(&format!(
            "est_planetlab slice {}: median {:.2} %, p90 {:.1} % over {} pairs; of the {} with confidence above 0.6: median {:.2} %; {fitted:.2} s to fit, {taken:.2} s in all",
            number + 1,
            100.0 * median_error,
            100.0 * p90,
            errors.len(),
            sure.len(),
            100.0 * median(&mut sure)
        ));
        worst_median = worst_median.max(median_error);
        worst_p90 = worst_p90.max(p90);
    }
    line("est_planetlab_pct", 100.0 * worst_median, "%", Goal::AtMost(3.5));
    line("est_planetlab_p90_pct", 100.0 * worst_p90, "%", Goal::AtMost(18.0));
    line("est_wrong_better", f64::from(better), "pairs", Goal::AtMost(0.0));
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
