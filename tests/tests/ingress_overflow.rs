//! More requests than a revision's pods take: a real Envoy with the deployed bootstrap and what
//! locality-ingress tells it. Needs root, for a network namespace of its own.

#[path = "ingress_clients/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "ingress_clients/echo.rs"]
mod echo;
#[path = "ingress_clients/stage.rs"]
#[allow(dead_code)]
mod stage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use client::{Manner, Way, ask, get};
use echo::Echo;
use locality_ingress::kubernetes::{
    Concurrency, ObjectName, RevisionObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject,
};
use locality_ingress::state::ObjectChange;
use stage::{GATEWAY, Plan, Stage, in_own_network, named, rule, to};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const HOST: &str = "hello.example";
/// What a pod takes at once, and what its queue-proxy has places for.
const CONCURRENCY: u32 = 5;
const PLACES: usize = 55;
/// Of the gateway, with one pod and one source. Its two threads look at the same time: both may let
/// the last one through, and a request that is just given its connection counts twice for the other
/// thread (as pending and as active).
const LIMIT: usize = 12;
const THREADS: usize = 2;
const CALM: usize = LIMIT - THREADS;

fn pod(number: u8) -> SocketAddr {
    ([10, 44, 1, 10 + number], 8012).into()
}

fn activator() -> SocketAddr {
    ([10, 44, 3, 11], 8012).into()
}

/// Answers each request with its name after half a second, and refuses those that it has no places
/// for, as a queue-proxy does.
struct Slow {
    most: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Slow {
    async fn start(name: &'static str, address: SocketAddr, places: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = most.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (now, seen) = (now.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    let with_this = now.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.fetch_max(with_this, Ordering::SeqCst);
                    let (status, body) = if with_this > places {
                        ("503 Service Unavailable", "pending request queue full\n")
                    } else {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        ("200 OK", name)
                    };
                    now.fetch_sub(1, Ordering::SeqCst);
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await
                });
            }
        });
        Ok(Self { most, task })
    }

    /// The most that it had at once since it was last asked.
    fn most(&self) -> usize {
        self.most.swap(0, Ordering::SeqCst)
    }
}

/// How often each answer came to `count` requests that are sent at once.
async fn at_once(count: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..count {
        asked.spawn(async {
            let way = Way { to: SocketAddr::new(GATEWAY, 8080), tls: None, first: Vec::new() };
            ask(&way, Manner::Http11, &get(HOST)).await
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let answer = answer??;
        *answers.entry(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body).trim())).or_default() += 1;
    }
    Ok(answers)
}

fn revision(sets_burst_capacity: bool) -> Option<RevisionObject> {
    let concurrency = NonZeroU32::new(CONCURRENCY).map_or(Concurrency::Unlimited, Concurrency::Limited);
    Some(RevisionObject { concurrency, sets_burst_capacity })
}

fn activators(stage: &mut Stage, addresses: &[SocketAddr]) {
    let name = ObjectName::new("knative-serving", "activator-service");
    let ports = vec![ServicePort { name: "http".into(), number: 80, http2: false }];
    stage.note(ObjectChange::Service(name.clone(), Some(ServiceObject { ports, ..ServiceObject::default() })));
    let endpoint = |address: &SocketAddr| SliceEndpoint {
        address: address.ip(),
        node: Some("node3".into()),
        ready: true,
        serving_last: false,
        pod: None,
        stand_in: false,
    };
    let endpoints = addresses.iter().map(endpoint).collect();
    let slice = SliceObject { ports: vec![("http".into(), 8012)], endpoints };
    stage.note(ObjectChange::Slice(ObjectName::new("knative-serving", "activator-service-x"), Some((name, slice))));
}

async fn one_pod(envoy: std::path::PathBuf) -> anyhow::Result<Stage> {
    let mut stage = Stage::start(envoy, Plan::default()).await?;
    stage.service("revision", false, &[(1, pod(1))]);
    stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![to("revision")])], |_| {});
    activators(&mut stage, &[activator()]);
    stage.note(ObjectChange::Revision(named("revision"), revision(false)));
    stage.settled().await?;
    Ok(stage)
}

#[test]
fn what_is_too_much_for_the_pods_is_held_and_calm_requests_go_to_the_pods() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = one_pod(envoy).await?;
        let near = Slow::start("pod", pod(1), PLACES).await?;
        let holds = Slow::start("activator", activator(), usize::MAX).await?;
        let answers = at_once(300).await?;
        let most = near.most();
        ensure!((LIMIT - 1..LIMIT + THREADS).contains(&most), "{most} at once at the pod: {answers:?}");
        ensure!(answers.values().sum::<usize>() == 300 && answers["200 activator"] == 300 - answers["200 pod"], "{answers:?}");
        holds.most();
        for _ in 0..3 {
            // An answer is here before the gateway counts its request as ended.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let answers = at_once(CALM).await?;
            ensure!(answers == BTreeMap::from([("200 pod".to_owned(), CALM)]), "calm: {answers:?}");
        }
        ensure!(holds.most() == 0, "calm requests went to the activator");

        // With twice the pods there is room for twice as many, and what is held meanwhile is not
        // lost.
        let burst = tokio::spawn(at_once(100));
        tokio::time::sleep(Duration::from_millis(200)).await;
        stage.service("revision", false, &[(1, pod(1)), (1, pod(2))]);
        let second = Slow::start("pod", pod(2), PLACES).await?;
        stage.settled().await?;
        let answers = burst.await??;
        ensure!(answers.keys().all(|answer| answer.starts_with("200")), "{answers:?}");
        // Reading the counts starts them anew.
        let _ = (near.most(), second.most());
        at_once(300).await?;
        let (first, second) = (near.most(), second.most());
        ensure!((2 * LIMIT - 4..=2 * LIMIT + THREADS).contains(&(first + second)), "{first} and {second} at once");
        Ok(())
    })
}

#[test]
fn a_revision_that_sets_its_burst_capacity_or_has_no_activators_sends_all_to_its_pods() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = one_pod(envoy).await?;
        let _near = Slow::start("pod", pod(1), PLACES).await?;
        let holds = Slow::start("activator", activator(), usize::MAX).await?;
        let refused = |answers: &BTreeMap<String, usize>| answers.get("503 pending request queue full").copied().unwrap_or(0);
        stage.note(ObjectChange::Revision(named("revision"), revision(true)));
        stage.settled().await?;
        let answers = at_once(100).await?;
        ensure!(refused(&answers) > 0 && holds.most() == 0, "with a burst capacity of its own: {answers:?}");
        stage.note(ObjectChange::Revision(named("revision"), revision(false)));
        stage.settled().await?;
        let answers = at_once(100).await?;
        ensure!(refused(&answers) == 0 && holds.most() > 0, "without: {answers:?}");
        stage.note(ObjectChange::BurstCapacityDefault(true));
        stage.settled().await?;
        let answers = at_once(100).await?;
        ensure!(refused(&answers) > 0 && holds.most() == 0, "with a burst capacity of the cluster: {answers:?}");
        stage.note(ObjectChange::BurstCapacityDefault(false));
        activators(&mut stage, &[]);
        stage.settled().await?;
        let answers = at_once(100).await?;
        ensure!(refused(&answers) > 0 && holds.most() == 0, "with nobody to hold: {answers:?}");
        Ok(())
    })
}

#[test]
fn shares_of_a_split_stay_and_each_has_its_own_headers() -> anyhow::Result<()> {
    in_own_network(async |envoy| {
        let mut stage = Stage::start(envoy, Plan::default()).await?;
        let mut path = to("one");
        path.splits = [("one", 60, 1_u8), ("two", 30, 2), ("three", 10, 3)]
            .into_iter()
            .map(|(name, percent, _)| {
                let mut split = to(name).splits.remove(0);
                split.percent = percent;
                split.append_headers = BTreeMap::from([("Knative-Serving-Revision".to_owned(), name.to_owned())]);
                split
            })
            .collect();
        stage.service("one", false, &[(1, pod(1))]);
        stage.service("two", false, &[(1, pod(2))]);
        stage.service("three", false, &[(3, activator())]);
        stage.ingress("hello", vec![rule(&[HOST], "ExternalIP", vec![path])], |_| {});
        activators(&mut stage, &[activator()]);
        // The third takes as many as come.
        stage.note(ObjectChange::Revision(named("one"), revision(false)));
        stage.note(ObjectChange::Revision(named("two"), revision(false)));
        stage.settled().await?;
        let _pods =
            (Echo::start("one", pod(1)).await?, Echo::start("two", pod(2)).await?, Echo::start("three", activator()).await?);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..1000 {
            let way = Way { to: SocketAddr::new(GATEWAY, 8080), tls: None, first: Vec::new() };
            let answer = ask(&way, Manner::Http11, &get(HOST)).await?;
            ensure!(answer.status == 200, "{}", answer.status);
            let seen = answer.seen()?;
            let name = seen["name"].as_str().unwrap_or_default().to_owned();
            let told = seen["headers"].as_array().into_iter().flatten().find(|header| header[0] == "knative-serving-revision");
            ensure!(told.is_some_and(|told| told[1] == name.as_str()), "{seen}");
            *counts.entry(name).or_default() += 1;
        }
        let near = |name: &str, expected: usize| counts.get(name).is_some_and(|count| count.abs_diff(expected) <= 75);
        ensure!(near("one", 600) && near("two", 300) && near("three", 100), "{counts:?}");
        Ok(())
    })
}
