//! Leadership, and chaos.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kantai_tests::api_server::SYSTEM_NAMESPACE;
use kantai_tests::seika::chaos::Chaos;
use kantai_tests::seika::cluster::{Cluster, Controller, until};
use kantai_tests::seika::faults::{Faults, Weather};
use kantai_tests::seika::relay::Relay;
use kantai_tests::seika::silence::noticed_after;
use kube::Client;
use kube::api::Api;
use lease_election::{LeaseSettings, act_while_leading};
use prometheus_client::registry::Registry;
use seika_controller::ControllerOptions;
use seika_controller::controller;
use seika_controller::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) async fn the_lease_passes_on(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[3])?).await?;
    let client = cluster.controllers_client().await?;
    let replica = |identity: &str| replica(&client, &case.namespace, SYSTEM_NAMESPACE, identity);
    let (first, second) = (replica("first"), replica("second"));
    case.until_per_node(&[3]).await?;
    let leases: Api<Lease> = Api::namespaced(case.client.clone(), SYSTEM_NAMESPACE);
    let holder = leases.get("seika-controller").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let (leader, follower) = if holder.ends_with("first") { (first, second) } else { (second, first) };
    leader.0.cancel();
    leader.1.await?;
    case.set(&[5]).await?;
    case.until_per_node(&[5]).await?;
    // The observer's watch may be behind.
    until("the observer has seen five pods", async || Ok(observer.seen().created >= 5)).await?;
    anyhow::ensure!(observer.seen().created == 5, "{:?}", observer.seen());
    follower.0.cancel();
    follower.1.await?;
    Ok(())
}

/// One of several that want the Lease in `lease_namespace`, and keeps the Seikas of `namespace`
/// while it has it.
fn replica(client: &Client, namespace: &str, lease_namespace: &str, identity: &str) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let settings = LeaseSettings {
        name: "seika-controller".into(),
        namespace: lease_namespace.into(),
        identity: format!("{namespace}-{identity}"),
    };
    let metrics = Metrics::new(&mut Registry::default());
    let (client, namespace, stopped) = (client.clone(), namespace.to_owned(), stop.clone());
    let task = tokio::spawn(async move {
        let act = |stop| {
            let options = ControllerOptions { namespace: Some(namespace.clone()), ..ControllerOptions::default() };
            let own_pod = event_writer::pod("kantai-system", "seika-controller");
            let kept = controller::run(client.clone(), options, own_pod, metrics.clone(), stop);
            async { kept.await.unwrap() }
        };
        act_while_leading(client.clone(), settings, stopped, || (), |_| (), act).await;
    });
    (stop, task)
}

pub(crate) async fn a_leader_that_is_gone_is_replaced(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    cluster.allow_lease_in(&case.namespace).await?;
    case.create(case.sample(&[1])?).await?;
    let client = cluster.controllers_client().await?;
    let replica = |identity: &str| replica(&client, &case.namespace, &case.namespace, identity);
    let leases: Api<Lease> = Api::namespaced(case.client.clone(), &case.namespace);
    let holder = async || {
        let lease = leases.get_opt("seika-controller").await?;
        anyhow::Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
    };
    let (_, first) = replica("first");
    until("the first leads", async || Ok(holder().await?.ends_with("first"))).await?;
    let (stop, second) = replica("second");
    case.until_per_node(&[1]).await?;
    // Long enough for several renewals, which the second one sees.
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.abort();
    let begun = Instant::now();
    until("the second leads", async || Ok(holder().await?.ends_with("second"))).await?;
    let took = begun.elapsed();
    println!("       the next led after {:.1} s", took.as_secs_f64());
    // By the lease's own times it is within ten seconds, as the tests of lease-election show; the
    // rest is how busy this machine is.
    anyhow::ensure!(took <= Duration::from_secs(40), "the next led after {took:?}");
    case.set(&[2]).await?;
    case.until_per_node(&[2]).await?;
    stop.cancel();
    Ok(second.await?)
}

/// Neither an end nor an error shows that no more events will come.
pub(crate) async fn silence_of_the_api_server_is_noticed(cluster: &Cluster) -> anyhow::Result<()> {
    let faults = Faults::new(0);
    let stalling = faults.client(cluster.controllers_config().await?)?;
    let stalled = is_noticed(cluster, "watches that stall", stalling, || faults.stall_watches());

    let mut config = cluster.controllers_config().await?;
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let relay = Relay::start((Ipv4Addr::LOCALHOST, port).into()).await?;
    config.cluster_url = format!("https://{}", relay.address()).parse()?;
    let silent = is_noticed(cluster, "silent connections", k8s_api::client::client(config)?, || relay.silence());
    futures::future::try_join(stalled, silent).await?;
    Ok(())
}

async fn is_noticed(cluster: &Cluster, what: &str, client: Client, fall_silent: impl Fn()) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    let controller = Controller::start(client, &case.namespace);
    let took = noticed_after(&case, fall_silent).await?;
    println!("       {what} were noticed after {:.1} s", took.as_secs_f64());
    // The scorecard measures it; here a busy machine may take longer, but not for ever.
    anyhow::ensure!(took <= Duration::from_secs(50), "{what} were noticed after {took:?}");
    controller.stop().await
}

/// Replay one run with KANTAI_CHAOS_SEED=<its seed> KANTAI_CHAOS_RUNS=1.
pub(crate) async fn chaos_ends_with_exactly_the_pods_asked_for(cluster: &Cluster) -> anyhow::Result<()> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
    let seed = number("KANTAI_CHAOS_SEED")?.unwrap_or_else(rand::random);
    let runs = number("KANTAI_CHAOS_RUNS")?.map_or(12, |runs| usize::try_from(runs).unwrap_or(12));
    println!("       chaos from seed {seed}");
    let toll = Chaos { seed, runs, points_per_run: 20, lanes: 2, binary: None }.unleash(cluster).await?;
    println!("       {} disturbances, {} runs went wrong", toll.points, toll.bad.len());
    anyhow::ensure!(toll.bad.is_empty() && toll.overshoot == 0, "{}", toll.bad.join("\n"));
    Ok(())
}

/// Three want the lease over an unreliable way to the API server; each that has it gives it back
/// after a while and wants it again.
pub(crate) async fn two_never_lead_at_once(cluster: &Cluster) -> anyhow::Result<()> {
    let case = cluster.case_without_controller(1).await?;
    cluster.allow_lease_in(&case.namespace).await?;
    let seed = rand::random();
    let faults = Faults::new(seed);
    let client = faults.client(cluster.controllers_config().await?)?;
    faults.set(Weather {
        refused: 0.2,
        answer_lost: 0.2,
        answer_cut: 0.1,
        delay: Duration::from_millis(20),
        ..Weather::default()
    });
    let (leading, terms, rivals) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let contender = async |number: usize| {
        while terms.load(Ordering::Relaxed) < 6 {
            let settings = LeaseSettings {
                name: "seika-controller".into(),
                namespace: case.namespace.clone(),
                identity: format!("contender-{number}"),
            };
            let stop = CancellationToken::new();
            let act = async |stop: CancellationToken| {
                terms.fetch_add(1, Ordering::Relaxed);
                rivals.fetch_add(leading.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                // Also when it is dropped.
                let _ends = Ends(&leading);
                tokio::time::sleep(Duration::from_millis(150)).await;
                stop.cancel();
            };
            let over = async {
                while terms.load(Ordering::Relaxed) < 6 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                stop.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = act_while_leading(client.clone(), settings, stop.clone(), || (), |_| (), act) => {}
                () = over => {}
            }
        }
    };
    let all = futures::future::join3(contender(1), contender(2), contender(3));
    let done = tokio::time::timeout(Duration::from_secs(60), all).await;
    anyhow::ensure!(done.is_ok(), "only {} terms in a minute; faults from seed {seed}", terms.load(Ordering::Relaxed));
    let rivals = rivals.load(Ordering::Relaxed);
    anyhow::ensure!(rivals == 0, "{rivals} times another led already; faults from seed {seed}");
    Ok(())
}

struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
