//! From the file's shape to an experiment that makes sense. Pure; a problem carries its place in
//! the text.

use std::collections::BTreeSet;

use toml::Spanned;

use super::column::Column;
use super::file::{ExperimentTable, GoalTable, LoadTable, PhaseTable, ServiceTable, StartsTable};
use super::goal::{Bound, Goal};
use super::{Experiment, Fault, Load, Phase, START_PHASE, Service, Starts, Work};
use crate::load::Connections;
use crate::scenario::check::{Problem, dns_label, known_node, links, nodes, number, problem};
use crate::wire::LinkMatrix;

/// Names of services are made of an experiment's name and more.
const LONGEST_NAME: usize = 30;

pub(super) fn check(raw: ExperimentTable) -> Result<Experiment, Problem> {
    let name = dns_label("name", &raw.name)?;
    if name.len() > LONGEST_NAME {
        return Err(problem(&raw.name, format!("`name` has more than {LONGEST_NAME} characters")));
    }
    let links = links(nodes(&raw.nodes, &crate::scenario::Overrides::default())?, raw.link_defaults.as_ref(), &raw.links)?;
    let columns = match &raw.columns {
        None => vec![Column::Ours, Column::Stock, Column::Rival],
        Some(columns) if columns.get_ref().is_empty() => return Err(problem(columns, "`columns` is empty")),
        Some(columns) if columns.get_ref().iter().collect::<BTreeSet<_>>().len() < columns.get_ref().len() => {
            return Err(problem(columns, "a column is named twice"));
        }
        Some(columns) => columns.get_ref().clone(),
    };
    let repeat = raw.repeat.as_ref().map_or(Ok(3), |repeat| count("repeat", repeat, 1, 100))?;
    let service = service(&raw.service)?;
    let work = match (&raw.starts, raw.phases.first()) {
        (Some(starts), Some(_)) => return Err(problem(starts, "an experiment has either `starts` or `phases`")),
        (None, None) => return Err(problem(&raw.name, "an experiment needs `phases` or `starts`")),
        (Some(at), None) => {
            if columns.iter().any(|column| !column.reaches_zero()) {
                return Err(problem(at, "`starts` are from zero, which column \"rival\" cannot reach"));
            }
            if service.min_pods > 0 {
                return Err(problem(at, "`starts` are from zero, but `min_pods` keeps pods"));
            }
            Work::Starts(starts(at.get_ref(), &links)?)
        }
        (None, Some(_)) => Work::Phases(phases(&raw.phases, &links)?),
    };
    let mut experiment = Experiment {
        name,
        title: raw.title,
        reproduces: raw.reproduces,
        differs: raw.differs,
        links,
        columns,
        repeat,
        service,
        work,
        goals: Vec::new(),
    };
    let mut names = BTreeSet::new();
    for at in &raw.goals {
        let goal = goal(at, &experiment)?;
        if !names.insert(goal.name.clone()) {
            return Err(problem(&at.get_ref().name, format!("two goals are called {:?}", goal.name)));
        }
        experiment.goals.push(goal);
    }
    Ok(experiment)
}

fn service(table: &ServiceTable) -> Result<Service, Problem> {
    let defaults = Service::default();
    let millis = |name, given: &Option<Spanned<f64>>| given.as_ref().map_or(Ok(0.0), |ms| number(name, ms, 0.0, 60_000.0));
    let pods = |name, given: &Option<Spanned<u32>>| given.as_ref().map_or(Ok(0), |pods| count(name, pods, 0, 1_000));
    let service = Service {
        wait_ms: millis("wait_ms", &table.wait_ms)?.round(),
        busy_ms: millis("busy_ms", &table.busy_ms)?.round(),
        works_on: pods("works_on", &table.works_on)?,
        target: table.target.as_ref().map_or(Ok(defaults.target), |target| number("target", target, 0.01, 10_000.0))?,
        container_concurrency: pods("container_concurrency", &table.container_concurrency)?,
        min_pods: pods("min_pods", &table.min_pods)?,
        max_pods: pods("max_pods", &table.max_pods)?,
        window_seconds: table
            .window_seconds
            .as_ref()
            .map_or(Ok(defaults.window_seconds), |window| count("window_seconds", window, 6, 3_600))?,
    };
    match &table.max_pods {
        Some(at) if service.max_pods > 0 && service.max_pods < service.min_pods => {
            Err(problem(at, "`max_pods` is less than `min_pods`"))
        }
        _ => Ok(service),
    }
}

fn phases(tables: &[Spanned<PhaseTable>], links: &LinkMatrix) -> Result<Vec<Phase>, Problem> {
    let mut phases: Vec<Phase> = Vec::new();
    for at in tables {
        let table = at.get_ref();
        let name = dns_label("phase name", &table.name)?;
        if phases.iter().any(|phase| phase.name == name) {
            return Err(problem(&table.name, format!("two phases are called {name:?}")));
        }
        if table.load.is_empty() {
            return Err(problem(at, "a phase needs `load`"));
        }
        let fault = match (&table.cut_off, &table.link_down) {
            (Some(node), Some(_)) => return Err(problem(node, "a phase has either `cut_off` or `link_down`")),
            (Some(node), None) => {
                known_node(links, node)?;
                Some(Fault::CutOff(node.get_ref().clone()))
            }
            (None, Some([a, b])) => {
                known_node(links, a)?;
                known_node(links, b)?;
                if a.get_ref() == b.get_ref() {
                    return Err(problem(b, format!("a link from node {:?} to itself", b.get_ref())));
                }
                Some(Fault::LinkDown(a.get_ref().clone(), b.get_ref().clone()))
            }
            (None, None) => None,
        };
        phases.push(Phase {
            name,
            seconds: number("seconds", &table.seconds, 1.0, 3_600.0)?,
            from_zero: table.from_zero,
            loads: table.load.iter().map(|load| self::load(load, links)).collect::<Result<_, _>>()?,
            fault,
        });
    }
    Ok(phases)
}

fn load(at: &Spanned<LoadTable>, links: &LinkMatrix) -> Result<Load, Problem> {
    let table = at.get_ref();
    known_node(links, &table.from)?;
    let (per_second, at_a_time) = match (&table.per_second, &table.at_a_time) {
        (Some(rate), None) => (Some(number("per_second", rate, 0.01, 10_000.0)?), None),
        (None, Some(senders)) => (None, Some(count("at_a_time", senders, 1, 1_000)?)),
        _ => return Err(problem(at, "a load needs either `per_second` or `at_a_time`")),
    };
    Ok(Load {
        from: table.from.get_ref().clone(),
        per_second,
        at_a_time,
        timeout_seconds: table
            .timeout_seconds
            .as_ref()
            .map_or(Ok(30.0), |timeout| number("timeout_seconds", timeout, 0.1, 3_600.0))?,
        connections: table.connections.unwrap_or(Connections::KeepAlive),
    })
}

fn starts(table: &StartsTable, links: &LinkMatrix) -> Result<Starts, Problem> {
    let Some(first) = table.from.first() else { return Err(problem(&table.services, "`from` names no node")) };
    for node in std::iter::once(first).chain(&table.from) {
        known_node(links, node)?;
    }
    Ok(Starts {
        services: count("services", &table.services, 1, 50)?,
        rounds: count("rounds", &table.rounds, 1, 100)?,
        from: table.from.iter().map(|node| node.get_ref().clone()).collect(),
        pause_seconds: number("pause_seconds", &table.pause_seconds, 0.1, 3_600.0)?,
    })
}

fn goal(at: &Spanned<GoalTable>, experiment: &Experiment) -> Result<Goal, Problem> {
    let table = at.get_ref();
    for column in [Some(&table.column), table.over.as_ref()].into_iter().flatten() {
        if !experiment.columns.contains(column.get_ref()) {
            return Err(problem(column, format!("column {:?} is none of this experiment", column.get_ref().name())));
        }
    }
    let phases = experiment.phase_names();
    if let Some(phase) = table.phase.as_ref().filter(|phase| !phases.contains(phase.get_ref())) {
        return Err(problem(phase, format!("unknown phase {:?}; the phases are {}", phase.get_ref(), phases.join(", "))));
    }
    if let Some(from) = &table.from {
        known_node(&experiment.links, from)?;
        let phase = table.phase.as_ref().map(Spanned::get_ref);
        if !experiment.sends(phase.map(String::as_str), from.get_ref()) {
            return Err(problem(from, format!("node {:?} sends nothing then", from.get_ref())));
        }
    }
    let bound = match (&table.at_most, &table.at_least) {
        (Some(most), None) => Bound::AtMost(number("at_most", most, -1e12, 1e12)?),
        (None, Some(least)) => Bound::AtLeast(number("at_least", least, -1e12, 1e12)?),
        _ => return Err(problem(at, "a goal needs either `at_most` or `at_least`")),
    };
    Ok(Goal {
        name: table.name.get_ref().clone(),
        measure: table.measure,
        column: *table.column.get_ref(),
        phase: table.phase.as_ref().map(|phase| phase.get_ref().clone()),
        from: table.from.as_ref().map(|from| from.get_ref().clone()),
        over: table.over.as_ref().map(|over| *over.get_ref()),
        bound,
    })
}

fn count(name: &str, value: &Spanned<u32>, least: u32, most: u32) -> Result<u32, Problem> {
    let number = *value.get_ref();
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(problem(value, format!("`{name}` is {number}, but must be {least} to {most}")))
}

impl Experiment {
    /// The phases, in order.
    #[must_use]
    pub fn phase_names(&self) -> Vec<String> {
        match &self.work {
            Work::Phases(phases) => phases.iter().map(|phase| phase.name.clone()).collect(),
            Work::Starts(_) => vec![START_PHASE.to_owned()],
        }
    }

    /// Whether requests come from a node in this phase, or in any.
    fn sends(&self, phase: Option<&str>, node: &str) -> bool {
        match &self.work {
            Work::Starts(starts) => starts.from.iter().any(|from| from == node),
            Work::Phases(phases) => phases
                .iter()
                .filter(|one| phase.is_none_or(|wanted| wanted == one.name))
                .any(|one| one.loads.iter().any(|load| load.from == node)),
        }
    }
}
