//! An application in numbers.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::{AppError, Application, Workload};
use crate::latency::NodeName;
use crate::solver::flow::UNSERVED_SECONDS;

/// Workloads that are planned together, at most.
const MOST_WORKLOADS: usize = 1_000;
/// Places that are looked at, at most: those nearest to the demand, and those in use.
const MOST_PLACES: usize = 1_024;
/// Requests per second, in all and of one workload, that no application has.
const MOST_RATE: f64 = 1e12;

/// Calls between two workloads, by their positions.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Calls per second.
    weight: f64,
    /// What calls cost beside their latency where the two are at different places.
    apart: f64,
}

/// What the solvers see: each workload gets a place, by position.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// The places, by their positions in the costs of the application.
    pub(super) places: Vec<usize>,
    /// Whether places were left out.
    pub(super) is_cut: bool,
    /// `costs[(from, to)]`, seconds, between places.
    costs: Array2<f64>,
    /// The same, `(to, from)`.
    reversed: Array2<f64>,
    /// Per workload and place, what does not depend on others; infinite where it may not run.
    pub(super) unary: Vec<Vec<f64>>,
    pub(super) edges: Vec<Edge>,
    /// Per workload, its edges.
    pub(super) incident: Vec<Vec<usize>>,
    /// Per workload, what it needs of each resource.
    pub(super) needs: Vec<Vec<f64>>,
    /// Per place, what there is of each resource.
    pub(super) room: Vec<Vec<f64>>,
    /// Requests per second of each workload.
    pub(super) rates: Vec<f64>,
    /// Demand in all, requests per second.
    pub(super) demand: f64,
    /// Where each workload runs now, if at one of the places.
    pub(super) running: Vec<Option<usize>>,
}

impl Model {
    pub(super) fn new(app: &Application) -> Result<Self, AppError> {
        let index = index(app)?;
        let (rates, demand) = rates(app, &index)?;
        let (places, is_cut) = places(app);
        let costs = Array2::from_shape_fn((places.len(), places.len()), |(from, to)| cost(app, places[from], places[to]));
        let of_place: BTreeMap<&NodeName, usize> =
            places.iter().enumerate().map(|(at, place)| (&app.costs.nodes()[*place], at)).collect();
        let running: Vec<Option<usize>> =
            app.workloads.iter().map(|workload| of_place.get(workload.running.as_ref()?).copied()).collect();
        let (needs, room) = resources(app, &places);

        let mut unary = vec![vec![0.0; places.len()]; app.workloads.len()];
        for (entry, sources) in &app.demand {
            let row = &mut unary[index[entry.as_str()]];
            for (source, rate) in sources.iter().filter(|(_, rate)| **rate > 0.0) {
                for (sum, place) in row.iter_mut().zip(&places) {
                    *sum += rate * app.costs.seconds(source, &app.costs.nodes()[*place]).min(UNSERVED_SECONDS);
                }
            }
        }
        for (at, workload) in app.workloads.iter().enumerate() {
            let allowed: Vec<usize> = workload.allowed.iter().filter_map(|node| of_place.get(node).copied()).collect();
            for (place, sum) in unary[at].iter_mut().enumerate() {
                let fits = needs[at].iter().zip(&room[place]).all(|(need, room)| need <= room);
                if !fits || !(workload.allowed.is_empty() || allowed.contains(&place)) {
                    *sum = f64::INFINITY;
                } else if running[at].is_some_and(|running| running != place) {
                    *sum += app.move_seconds * demand;
                }
            }
        }
        let mut merged: BTreeMap<(usize, usize), (f64, f64)> = BTreeMap::new();
        for call in &app.calls {
            let (from, to) = (index[call.from.as_str()], index[call.to.as_str()]);
            let weight = rates[from] * call.per_request;
            let sums = merged.entry((from, to)).or_default();
            sums.0 += weight;
            sums.1 += weight * call.bytes * app.seconds_per_byte;
        }
        let edges: Vec<Edge> = merged.into_iter().map(|((from, to), (weight, apart))| Edge { from, to, weight, apart }).collect();
        let mut incident = vec![Vec::new(); app.workloads.len()];
        for (at, edge) in edges.iter().enumerate() {
            incident[edge.from].push(at);
            incident[edge.to].push(at);
        }
        let reversed = costs.t().as_standard_layout().into_owned();
        Ok(Self { places, is_cut, costs, reversed, unary, edges, incident, needs, room, rates, demand, running })
    }

    pub(super) fn workloads(&self) -> usize {
        self.unary.len()
    }

    /// The other end of an edge.
    pub(super) fn other(&self, edge: usize, workload: usize) -> usize {
        let Edge { from, to, .. } = self.edges[edge];
        if from == workload { to } else { from }
    }

    /// What calls along an edge cost with `workload` at `place` and the other end at `other`.
    pub(super) fn pair(&self, edge: usize, workload: usize, place: usize, other: usize) -> f64 {
        if place == other {
            return 0.0;
        }
        let edge = &self.edges[edge];
        let seconds = if edge.from == workload { self.costs[(place, other)] } else { self.costs[(other, place)] };
        edge.weight * seconds + edge.apart
    }

    /// For every place of the other end of an edge the least of `values` (by the place of
    /// `workload`) plus what the calls cost, and the place where that is.
    pub(super) fn spread(&self, edge: usize, workload: usize, values: &[f64]) -> (Vec<f64>, Vec<u32>) {
        let Edge { from, weight, apart, .. } = self.edges[edge];
        let mut order: Vec<u32> = (0..values.len() as u32).filter(|place| values[*place as usize].is_finite()).collect();
        order.sort_unstable_by(|one, other| values[*one as usize].total_cmp(&values[*other as usize]).then(one.cmp(other)));
        let table = if from == workload { &self.reversed } else { &self.costs };
        let mut least = Vec::with_capacity(values.len());
        let mut places = Vec::with_capacity(values.len());
        for (other, costs) in table.rows().into_iter().enumerate() {
            let (mut best, mut at) = (values[other], other as u32);
            for place in &order {
                let value = values[*place as usize];
                if value + apart >= best {
                    break;
                }
                let total = value + weight * costs[*place as usize] + apart;
                if total < best && *place as usize != other {
                    (best, at) = (total, *place);
                }
            }
            least.push(best);
            places.push(at);
        }
        (least, places)
    }

    /// What a workload costs at a place, with all others where `labels` has them.
    pub(super) fn local(&self, labels: &[usize], workload: usize, place: usize) -> f64 {
        let calls: f64 = self.incident[workload]
            .iter()
            .map(|edge| self.pair(*edge, workload, place, labels[self.other(*edge, workload)]))
            .sum();
        self.unary[workload][place] + calls
    }

    /// The objective, demand x seconds, without what does not depend on the placement.
    pub(super) fn energy(&self, labels: &[usize]) -> f64 {
        let own: f64 = self.unary.iter().zip(labels).map(|(row, place)| row[*place]).sum();
        own + self.calls(labels)
    }

    /// The part of calls in it.
    pub(super) fn calls(&self, labels: &[usize]) -> f64 {
        (self.edges.iter().enumerate()).map(|(at, edge)| self.pair(at, edge.from, labels[edge.from], labels[edge.to])).sum()
    }

    /// Whether every place has room for what is there.
    pub(super) fn has_room(&self, labels: &[usize]) -> bool {
        self.used(labels).iter().zip(&self.room).all(|(used, room)| used.iter().zip(room).all(|(used, room)| used <= room))
    }

    /// What is used at each place of each resource.
    pub(super) fn used(&self, labels: &[usize]) -> Vec<Vec<f64>> {
        let mut used: Vec<Vec<f64>> = self.room.iter().map(|room| vec![0.0; room.len()]).collect();
        for (needs, place) in self.needs.iter().zip(labels) {
            for (sum, need) in used[*place].iter_mut().zip(needs) {
                *sum += need;
            }
        }
        used
    }

    /// The same without the workloads that are not kept.
    pub(super) fn keeping(&self, kept: &[usize]) -> Self {
        let at: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(at, workload)| (*workload, at)).collect();
        let edges: Vec<Edge> = (self.edges.iter())
            .filter_map(|edge| Some(Edge { from: *at.get(&edge.from)?, to: *at.get(&edge.to)?, ..edge.clone() }))
            .collect();
        let mut incident = vec![Vec::new(); kept.len()];
        for (at, edge) in edges.iter().enumerate() {
            incident[edge.from].push(at);
            incident[edge.to].push(at);
        }
        Self {
            unary: kept.iter().map(|workload| self.unary[*workload].clone()).collect(),
            needs: kept.iter().map(|workload| self.needs[*workload].clone()).collect(),
            rates: kept.iter().map(|workload| self.rates[*workload]).collect(),
            running: kept.iter().map(|workload| self.running[*workload]).collect(),
            edges,
            incident,
            ..self.clone()
        }
    }

    /// Differences below this are none: a tenth of a nanosecond of mean response, or rounding.
    pub(super) fn tolerance(&self, energy: f64) -> f64 {
        1e-10 * self.demand + 1e-12 * energy.abs()
    }
}

fn cost(app: &Application, from: usize, to: usize) -> f64 {
    if from == to { 0.0 } else { app.costs.at(from, to).min(UNSERVED_SECONDS) }
}

fn index(app: &Application) -> Result<BTreeMap<&str, usize>, AppError> {
    let mut index = BTreeMap::new();
    if app.workloads.len() > MOST_WORKLOADS {
        let workloads = app.workloads.len();
        return Err(AppError::TooManyWorkloads { application: app.name.clone(), workloads, most: MOST_WORKLOADS });
    }
    for (at, workload) in app.workloads.iter().enumerate() {
        if index.insert(workload.name.as_str(), at).is_some() {
            return Err(AppError::DuplicateWorkload { application: app.name.clone(), workload: workload.name.clone() });
        }
    }
    Ok(index)
}

/// Requests per second of each workload, and of all sources.
fn rates(app: &Application, index: &BTreeMap<&str, usize>) -> Result<(Vec<f64>, f64), AppError> {
    let check = |what: &dyn Fn() -> String, value: f64, most: f64| {
        if (0.0..=most).contains(&value) {
            Ok(value)
        } else {
            Err(AppError::Number { application: app.name.clone(), what: what(), value })
        }
    };
    let find = |workload: &str| {
        let unknown = || AppError::UnknownWorkload { application: app.name.clone(), workload: workload.to_owned() };
        index.get(workload).copied().ok_or_else(unknown)
    };
    check(&|| "the time per byte".to_owned(), app.seconds_per_byte, UNSERVED_SECONDS)?;
    check(&|| "the cost of a move".to_owned(), app.move_seconds, UNSERVED_SECONDS)?;
    let mut rates = vec![0.0; app.workloads.len()];
    for (entry, sources) in &app.demand {
        let at = find(entry)?;
        for (source, rate) in sources {
            rates[at] += check(&|| format!("the rate of {entry} at {source}"), *rate, MOST_RATE)?;
        }
    }
    let demand = check(&|| "the sum of all rates".to_owned(), rates.iter().sum(), MOST_RATE)?;
    for Workload { name, serving_seconds, .. } in &app.workloads {
        check(&|| format!("the serving time of {name}"), *serving_seconds, UNSERVED_SECONDS)?;
    }
    let mut callers = vec![0_usize; rates.len()];
    let mut called: Vec<Vec<(usize, f64)>> = vec![Vec::new(); rates.len()];
    for call in &app.calls {
        let (from, to) = (find(&call.from)?, find(&call.to)?);
        check(&|| format!("the rate of calls from {} to {}", call.from, call.to), call.per_request, MOST_RATE)?;
        check(&|| format!("the size of calls from {} to {}", call.from, call.to), call.bytes, 1e15)?;
        callers[to] += 1;
        called[from].push((to, call.per_request));
    }
    let mut free: Vec<usize> = (0..rates.len()).filter(|workload| callers[*workload] == 0).collect();
    while let Some(workload) = free.pop() {
        for (to, per_request) in &called[workload] {
            let sum = rates[*to] + rates[workload] * per_request;
            rates[*to] = check(&|| format!("the rate of {}", app.workloads[*to].name), sum, MOST_RATE)?;
            callers[*to] -= 1;
            if callers[*to] == 0 {
                free.push(*to);
            }
        }
    }
    match callers.iter().position(|left| *left > 0) {
        Some(at) => Err(AppError::Cycle { application: app.name.clone(), workload: app.workloads[at].name.clone() }),
        None => Ok((rates, demand)),
    }
}

/// The places that are looked at, and whether some are left out.
fn places(app: &Application) -> (Vec<usize>, bool) {
    let nodes = app.costs.nodes();
    let has_room = |node: &NodeName| app.room.as_ref().is_none_or(|room| room.contains_key(node));
    let open: Vec<usize> = (0..nodes.len()).filter(|at| has_room(&nodes[*at])).collect();
    if open.len() <= MOST_PLACES {
        return (open, false);
    }
    // Those in use and allowed, and then by the distance from all demand.
    let named: std::collections::BTreeSet<&NodeName> =
        app.workloads.iter().flat_map(|workload| workload.running.iter().chain(&workload.allowed)).collect();
    let mut sums: Vec<(bool, f64, usize)> = open
        .iter()
        .map(|place| {
            let rates = app.demand.values().flatten().filter(|(_, rate)| **rate > 0.0);
            let near = rates.map(|(source, rate)| rate * app.costs.seconds(source, &nodes[*place]).min(UNSERVED_SECONDS));
            (!named.contains(&nodes[*place]), near.sum(), *place)
        })
        .collect();
    sums.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).then(one.2.cmp(&other.2)));
    let mut places: Vec<usize> = sums.into_iter().take(MOST_PLACES).map(|(_, _, place)| place).collect();
    places.sort_unstable();
    (places, true)
}

/// Needs and room, as numbers, of every resource that is needed.
fn resources(app: &Application, places: &[usize]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let Some(room) = &app.room else {
        return (vec![Vec::new(); app.workloads.len()], vec![Vec::new(); places.len()]);
    };
    let names: std::collections::BTreeSet<&String> = app.workloads.iter().flat_map(|workload| workload.needs.keys()).collect();
    let most = |name: &String| room.values().filter_map(|room| room.get(name)).max().copied().unwrap_or(0).max(1) as f64;
    let scale: Vec<(&String, f64)> = names.into_iter().map(|name| (name, most(name))).collect();
    let read = |amounts: Option<&BTreeMap<String, u64>>| -> Vec<f64> {
        let amount = |name: &String| amounts.and_then(|amounts| amounts.get(name)).copied().unwrap_or(0) as f64;
        scale.iter().map(|(name, most)| amount(name) / most).collect()
    };
    // Sums of shares that add up to exactly what there is must fit.
    let with_slack = |room: Vec<f64>| room.into_iter().map(|share| share + 1e-9).collect();
    (
        app.workloads.iter().map(|workload| read(Some(&workload.needs))).collect(),
        places.iter().map(|place| with_slack(read(room.get(&app.costs.nodes()[*place])))).collect(),
    )
}
