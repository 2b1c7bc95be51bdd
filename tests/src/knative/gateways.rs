//! Stands in for gateways and locality-ingress: the load of simulated clients is streamed over
//! gateway-link.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use gateway_link::RevisionKey;
use gateway_link::demand::{DEMAND_PATH, DemandEvent, Gateway, HEARTBEAT_SECONDS, Load, RevisionDemand, Run};
use tokio::net::TcpListener;

use super::stage::NAMESPACE;

/// As real gateways report while there is traffic.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// How long reported counts are remembered.
const KEPT: Duration = Duration::from_secs(60);

/// How demand is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it is.
    #[default]
    Well,
    /// Streams break, and new ones are refused.
    Refused,
    /// Nothing comes any more, and nothing ends.
    Silent,
}

/// The gateways of all nodes.
#[derive(Clone)]
pub struct Gateways(Arc<Mutex<Inner>>);

struct Inner {
    began: Instant,
    nodes: BTreeMap<String, Node>,
    clients: BTreeMap<(String, String), Clients>,
    manner: Manner,
    /// The clients that were reported, per revision that has any, and when.
    told: VecDeque<(Instant, BTreeMap<String, u32>)>,
}

struct Node {
    stream: u64,
    /// Since when its gateway is silent.
    cut: Option<Instant>,
}

/// Clients of a revision at one node, each with one request at a time, which takes a second.
#[derive(Clone, Copy)]
struct Clients {
    count: u32,
    /// Of these, the last reported ones.
    heard: u32,
    since: Instant,
    /// Before `since`.
    answered: f64,
    arrived: u64,
}

impl Clients {
    fn answered(&self) -> f64 {
        self.answered + f64::from(self.count) * self.since.elapsed().as_secs_f64()
    }

    fn load(&self) -> Load {
        let answered = self.answered();
        let finished = answered.floor() as u64;
        let arrived = self.arrived + u64::from(self.count) + (finished - self.answered.floor() as u64);
        Load { in_flight: self.count.into(), arrived, finished, failed: 0, busy_seconds: answered }
    }
}

impl Gateways {
    /// Starts a gateway on each of `nodes`; `address` serves their demand.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub async fn start(nodes: &[String], address: SocketAddr) -> anyhow::Result<Self> {
        let node = |(stream, node): (u64, &String)| (node.clone(), Node { stream, cut: None });
        let gateways = Self(Arc::new(Mutex::new(Inner {
            began: Instant::now(),
            nodes: (1..).zip(nodes).map(node).collect(),
            clients: BTreeMap::new(),
            manner: Manner::default(),
            told: VecDeque::new(),
        })));
        let listener = TcpListener::bind(address).await?;
        let router = Router::new().route(DEMAND_PATH, get(serve)).with_state(gateways.clone());
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(gateways)
    }

    /// Sets the number of clients of a revision at a node.
    pub fn set_clients(&self, revision: &str, node: &str, count: u32) {
        let mut inner = self.0.lock().unwrap();
        let place = (revision.to_owned(), node.to_owned());
        let before = inner.clients.get(&place);
        if before.is_none() && count == 0 {
            return;
        }
        let (answered, arrived) = before.map_or((0.0, 0), |clients| (clients.answered(), clients.load().arrived));
        // What was in flight before goes on.
        let arrived = arrived.saturating_sub(before.map_or(0, |clients| clients.count.into()));
        let heard = before.map_or(0, |clients| clients.heard);
        inner.clients.insert(place, Clients { count, heard, since: Instant::now(), answered, arrived });
    }

    /// Nobody asks for a revision, nor ever has.
    pub fn forget(&self, revision: &str) {
        let mut inner = self.0.lock().unwrap();
        inner.clients.retain(|(of, _), _| of != revision);
    }

    /// Sets how demand is served from now on.
    pub fn set(&self, manner: Manner) {
        self.0.lock().unwrap().manner = manner;
    }

    /// Cuts a node's gateway off, or ends that.
    pub fn set_cut(&self, node: &str, is_cut: bool) {
        if let Some(node) = self.0.lock().unwrap().nodes.get_mut(node) {
            node.cut = is_cut.then(Instant::now);
        }
    }

    /// The clients of a revision at a node.
    #[must_use]
    pub fn clients_at(&self, revision: &str, node: &str) -> u32 {
        let place = (revision.to_owned(), node.to_owned());
        self.0.lock().unwrap().clients.get(&place).map_or(0, |clients| clients.count)
    }

    /// The clients of a revision that were reported lately, in the order of time. Before its first
    /// client a revision has none.
    #[must_use]
    pub fn told(&self, revision: &str) -> Vec<(Instant, u32)> {
        let inner = self.0.lock().unwrap();
        inner.told.iter().map(|(at, counts)| (*at, counts.get(revision).copied().unwrap_or(0))).collect()
    }
}

impl Inner {
    fn gateways(&self) -> Vec<Gateway> {
        let gateway = |(name, node): (&String, &Node)| Gateway {
            stream: node.stream,
            node: name.clone(),
            age_seconds: node.cut.map_or(0.05, |since| since.elapsed().as_secs_f64()),
        };
        self.nodes.iter().map(gateway).collect()
    }

    /// The demand of the gateways that are not cut off. It counts as reported from now on.
    fn demand(&mut self) -> Vec<RevisionDemand> {
        let mut by_revision: BTreeMap<&str, BTreeMap<String, BTreeMap<String, Load>>> = BTreeMap::new();
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        let is_heard = |node: &String| self.nodes.get(node).is_some_and(|node| node.cut.is_none());
        for ((revision, node), clients) in &mut self.clients {
            if is_heard(node) {
                let loads = by_revision.entry(revision).or_default();
                loads.entry(node.clone()).or_default().insert(node.clone(), clients.load());
                clients.heard = clients.count;
            }
            // For a silent gateway the last reported count is known.
            *counts.entry(revision).or_default() += clients.heard;
        }
        let now = Instant::now();
        let counts = counts.into_iter().map(|(revision, count)| (revision.to_owned(), count)).collect();
        self.told.push_back((now, counts));
        while self.told.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > KEPT) {
            self.told.pop_front();
        }
        let key = |revision| RevisionKey::new(NAMESPACE, revision);
        by_revision.into_iter().map(|(revision, loads)| RevisionDemand { key: key(revision), loads }).collect()
    }
}

async fn serve(State(gateways): State<Gateways>) -> Response {
    if gateways.0.lock().unwrap().manner == Manner::Refused {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let lines = futures::stream::unfold((gateways, 0_u64, Instant::now()), async |(gateways, version, mut last)| {
        loop {
            if version > 0 {
                tokio::time::sleep(REPORT_EVERY).await;
            }
            let text = {
                let mut inner = gateways.0.lock().unwrap();
                match inner.manner {
                    Manner::Refused => return None,
                    Manner::Silent => None,
                    Manner::Well => line(&mut inner, version, last.elapsed()),
                }
            };
            if let Some(text) = text {
                last = Instant::now();
                return Some((Ok::<_, std::convert::Infallible>(text), (gateways, version + 1, last)));
            }
            if version == 0 {
                tokio::time::sleep(REPORT_EVERY).await;
            }
        }
    });
    Body::from_stream(lines).into_response()
}

/// The next line of a stream, if anything changed.
fn line(inner: &mut Inner, version: u64, quiet_for: Duration) -> Option<String> {
    let (gateways, demand) = (inner.gateways(), inner.demand());
    let run = || Run { instance: "the only one".to_owned(), running_seconds: inner.began.elapsed().as_secs_f64() };
    let events = if version == 0 {
        DemandEvent::snapshot(&run(), version, &gateways, demand)
    } else if !demand.is_empty() {
        DemandEvent::update(version, gateways, vec![], demand, vec![], vec![])
    } else if quiet_for.as_secs_f64() >= HEARTBEAT_SECONDS {
        vec![DemandEvent::Heartbeat { version, gateways }]
    } else {
        return None;
    };
    Some(events.iter().map(DemandEvent::to_line).collect())
}
