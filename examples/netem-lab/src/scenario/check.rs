//! From the file's shape to a scenario that makes sense. Pure; a problem carries its place in the
//! text.

use toml::Spanned;

use super::file::{LinkDefaultsTable, LinkTable, NodesTable, ScenarioTable, ServiceTable, StepsTable};
use super::{KANTAI_CLASS, MAX_NODES, Overrides, Scenario, Service, Steps};
use crate::wire::{Link, LinkMatrix};

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) offset: usize,
    pub(crate) text: String,
}

pub(crate) fn problem<T>(at: &Spanned<T>, text: impl Into<String>) -> Problem {
    Problem { offset: at.span().start, text: text.into() }
}

pub(super) fn check(raw: ScenarioTable, overrides: &Overrides) -> Result<Scenario, Problem> {
    let name = dns_label("name", &raw.name)?;
    let nodes = nodes(&raw.nodes, overrides)?;
    let links = links(nodes, raw.link_defaults.as_ref(), &raw.links)?;
    let steps = steps(&raw.steps, &links)?;
    Ok(Scenario { name, description: raw.description, steps, links, service: service(raw.service, overrides)? })
}

pub(crate) fn nodes(at: &Spanned<NodesTable>, overrides: &Overrides) -> Result<Vec<String>, Problem> {
    let table = at.get_ref();
    let names = match (&table.names, &table.count) {
        (Some(_), Some(count)) => return Err(problem(count, "nodes has both `names` and `count`; give one of them")),
        (None, None) => return Err(problem(at, "nodes needs `names` or `count`")),
        (Some(names), None) => {
            if let Some(prefix) = &table.prefix {
                return Err(problem(prefix, "`prefix` goes with `count`, but nodes has `names`"));
            }
            let mut checked: Vec<String> = Vec::new();
            for name in names {
                let text = dns_label("node name", name)?;
                if checked.contains(&text) {
                    return Err(problem(name, format!("node {text:?} is named twice")));
                }
                checked.push(text);
            }
            checked
        }
        (None, Some(count)) => {
            let prefix = match &table.prefix {
                Some(prefix) => dns_label("prefix", prefix)?,
                None => "node".to_owned(),
            };
            let count = overrides.node_count.unwrap_or(*count.get_ref());
            (1..=count.min(MAX_NODES + 1)).map(|number| format!("{prefix}{number}")).collect()
        }
    };
    if let Some(wanted) = overrides.node_count
        && wanted != names.len()
        && wanted <= MAX_NODES
    {
        return Err(problem(at, format!("{wanted} nodes were asked for, but this scenario names {}", names.len())));
    }
    if !(1..=MAX_NODES).contains(&names.len()) {
        return Err(problem(at, format!("a lab has 1 to {MAX_NODES} nodes")));
    }
    Ok(names)
}

pub(crate) fn links(
    nodes: Vec<String>,
    defaults: Option<&LinkDefaultsTable>,
    tables: &[Spanned<LinkTable>],
) -> Result<LinkMatrix, Problem> {
    let default = match defaults {
        Some(table) => {
            let way = number("rtt_ms", &table.rtt_ms, 0.0, 10_000.0)? / 2.0;
            link(way, jitter_ms(table.jitter_ms.as_ref())? / 2.0, table.loss_ratio.as_ref(), &table.rtt_ms)?
        }
        None => Link::default(),
    };
    let mut matrix = LinkMatrix::uniform(nodes, default);
    for at in tables {
        let table = at.get_ref();
        let jitter = jitter_ms(table.jitter_ms.as_ref())?;
        match (&table.between, &table.from, &table.to) {
            (Some([a, b]), None, None) => {
                let Some(rtt) = &table.rtt_ms else { return Err(problem(at, "a link `between` two nodes needs `rtt_ms`")) };
                if let Some(one_way) = &table.one_way_ms {
                    return Err(problem(one_way, "`one_way_ms` goes with `from` and `to`, not with `between`"));
                }
                let both = link(number("rtt_ms", rtt, 0.0, 10_000.0)? / 2.0, jitter / 2.0, table.loss_ratio.as_ref(), rtt)?;
                set(&mut matrix, a, b, both)?;
                set(&mut matrix, b, a, both)?;
            }
            (None, Some(from), Some(to)) => {
                let Some(way) = &table.one_way_ms else {
                    return Err(problem(at, "a link `from` a node `to` a node needs `one_way_ms`"));
                };
                if let Some(rtt) = &table.rtt_ms {
                    return Err(problem(rtt, "`rtt_ms` goes with `between`, not with `from` and `to`"));
                }
                let one = link(number("one_way_ms", way, 0.0, 10_000.0)?, jitter, table.loss_ratio.as_ref(), way)?;
                set(&mut matrix, from, to, one)?;
            }
            _ => return Err(problem(at, "a link needs `between`, or both `from` and `to`")),
        }
    }
    Ok(matrix)
}

fn link(one_way_ms: f64, jitter_ms: f64, loss: Option<&Spanned<f64>>, at: &Spanned<f64>) -> Result<Link, Problem> {
    if jitter_ms > one_way_ms {
        return Err(problem(at, "the jitter is larger than the delay that it strays from"));
    }
    let loss_ratio = loss.map_or(Ok(0.0), |loss| number("loss_ratio", loss, 0.0, 1.0))?;
    Ok(Link { delay_seconds: one_way_ms / 1e3, jitter_seconds: jitter_ms / 1e3, loss_ratio })
}

fn jitter_ms(jitter: Option<&Spanned<f64>>) -> Result<f64, Problem> {
    jitter.map_or(Ok(0.0), |jitter| number("jitter_ms", jitter, 0.0, 10_000.0))
}

fn set(matrix: &mut LinkMatrix, from: &Spanned<String>, to: &Spanned<String>, link: Link) -> Result<(), Problem> {
    if from.get_ref() == to.get_ref() {
        return Err(problem(to, format!("a link from node {:?} to itself", to.get_ref())));
    }
    for end in [from, to] {
        known_node(matrix, end)?;
    }
    matrix.set(from.get_ref(), to.get_ref(), link);
    Ok(())
}

pub(crate) fn known_node(matrix: &LinkMatrix, name: &Spanned<String>) -> Result<(), Problem> {
    if matrix.nodes().contains(name.get_ref()) {
        return Ok(());
    }
    Err(problem(name, format!("unknown node {:?}; the nodes are {}", name.get_ref(), matrix.nodes().join(", "))))
}

fn service(table: ServiceTable, overrides: &Overrides) -> Result<Service, Problem> {
    let namespace = match &table.namespace {
        Some(namespace) => dns_label("namespace", namespace)?,
        None => "default".to_owned(),
    };
    if table.image.get_ref().trim().is_empty() {
        return Err(problem(&table.image, "`image` is empty"));
    }
    if let Some(class) = table.class.as_ref().filter(|class| class.get_ref().trim().is_empty()) {
        return Err(problem(class, "`class` is empty"));
    }
    let class = overrides.class.clone().or_else(|| table.class.map(Spanned::into_inner));
    Ok(Service {
        name: dns_label("service name", &table.name)?,
        namespace,
        image: table.image.into_inner(),
        args: table.args,
        env: table.env,
        class: class.unwrap_or_else(|| KANTAI_CLASS.to_owned()),
        window_seconds: match &table.window_seconds {
            Some(window) if (6..=3600).contains(window.get_ref()) => *window.get_ref(),
            Some(window) => return Err(problem(window, "`window_seconds` must be 6 to 3600")),
            None => 12,
        },
        target: table.target.as_ref().map_or(Ok(10.0), |target| number("target", target, 0.01, 10_000.0))?,
        container_concurrency: table.container_concurrency.map_or(0, Spanned::into_inner),
    })
}

fn steps(table: &StepsTable, links: &LinkMatrix) -> Result<Steps, Problem> {
    let node = |named: &Option<Spanned<String>>| match named {
        Some(name) => known_node(links, name).map(|()| Some(name.get_ref().clone())),
        None => Ok(None),
    };
    let far = node(&table.far)?.unwrap_or_else(|| by_mean_rtt(links, |rtt, best| rtt > best));
    let near = match node(&table.near)? {
        Some(near) if near == far && links.nodes().len() > 1 => {
            let at = table.near.as_ref().or(table.far.as_ref());
            let offset = at.map_or(0, |at| at.span().start);
            return Err(Problem { offset, text: format!("`near` and `far` are the same node {far:?}") });
        }
        Some(near) => near,
        None => nearest_other_than(&far, links),
    };
    let load_path = match &table.load_path {
        Some(path) if !path.get_ref().starts_with('/') => return Err(problem(path, "`load_path` must begin with '/'")),
        Some(path) => path.get_ref().clone(),
        None => "/?wait_ms=100".to_owned(),
    };
    let number_or = |name, given: &Option<Spanned<f64>>, least, most, default| {
        given.as_ref().map_or(Ok(default), |given| number(name, given, least, most))
    };
    Ok(Steps {
        far,
        near,
        load_path,
        in_flight: match &table.in_flight {
            Some(count) if (1..=1_000).contains(count.get_ref()) => *count.get_ref(),
            Some(count) => return Err(problem(count, "`in_flight` must be 1 to 1000")),
            None => 5,
        },
        load_seconds: number_or("load_seconds", &table.load_seconds, 1.0, 3_600.0, 10.0)?,
        settle_seconds: number_or("settle_seconds", &table.settle_seconds, 1.0, 3_600.0, 90.0)?,
    })
}

/// The node whose mean round trip to the others is best by `better`; the first of equals.
fn by_mean_rtt(links: &LinkMatrix, better: fn(f64, f64) -> bool) -> String {
    let sum_to_others = |node: &String| links.nodes().iter().filter_map(|other| links.rtt_seconds(node, other)).sum::<f64>();
    let mut best: Option<(&String, f64)> = None;
    for node in links.nodes() {
        let sum = sum_to_others(node);
        if best.is_none_or(|(_, best_sum)| better(sum, best_sum)) {
            best = Some((node, sum));
        }
    }
    best.map(|(node, _)| node.clone()).unwrap_or_default()
}

fn nearest_other_than(far: &str, links: &LinkMatrix) -> String {
    let near = by_mean_rtt(links, |rtt, best| rtt < best);
    if near != far {
        return near;
    }
    // All nodes are equally far apart: any other will do.
    links.nodes().iter().find(|node| *node != far).cloned().unwrap_or(near)
}

pub(crate) fn number(name: &str, value: &Spanned<f64>, least: f64, most: f64) -> Result<f64, Problem> {
    let number = *value.get_ref();
    // A NaN is in no range.
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(problem(value, format!("`{name}` is {number}, but must be {least} to {most}")))
}

/// Names become names of Kubernetes objects, of folders and of network namespaces.
pub(crate) fn dns_label(what: &str, value: &Spanned<String>) -> Result<String, Problem> {
    let text = value.get_ref();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let sound = !text.is_empty()
        && text.len() <= 63
        && text.chars().all(|c| plain(c) || c == '-')
        && text.starts_with(plain)
        && text.ends_with(plain);
    if sound {
        return Ok(text.clone());
    }
    Err(problem(value, format!("{what} {text:?} must be lower-case letters, digits and '-', at most 63")))
}
