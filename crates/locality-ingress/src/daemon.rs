//! The assembly of the daemon.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_writer::{EventWriter, Repeats};
use kube::Client;
use lease_election::act_while_leading;
use prometheus_client::registry::Registry;
use rustls::server::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::demand;
use crate::demand::collector::DemandMetrics;
use crate::demand::peers::{self, PeerSettings, ReplicaAddresses};
use crate::demand::{Reports, SharedLoadBoard};
use crate::endpoints::plan_stream;
use crate::explain;
use crate::kubernetes::cluster_domain::cluster_domain;
use crate::kubernetes::kernel;
use crate::kubernetes::objects::ObjectName;
use crate::kubernetes::status_writer::StatusWriter;
use crate::kubernetes::watches;
use crate::metrics::Metrics;
use crate::options::{Options, XdsTls};
use crate::routes::translate::TranslateSettings;
use crate::state::event_loop::{self, Outputs};
use crate::state::{ControlPlaneState, StateSettings};
use crate::status::conditions::LoadBalancerNames;
use crate::status::probe::GatewayProber;
use crate::status::rollout_check::Dependencies;
use crate::status::supervisor::supervise;
use crate::tls::files::{ServerTls, TlsError, TlsFiles};
use crate::tls::renewal::OwnCertificates;
use crate::xds::connected::Connected;
use crate::xds::server::Ads;
use crate::xds::store::ConfigStore;

/// The Lease whose holder writes statuses.
const LEASE: &str = "locality-ingress";
/// Concurrent readiness probes.
const PROBES: usize = 64;

/// The listening sockets of the daemon.
#[derive(Debug)]
pub struct Listeners {
    /// For gateways.
    pub xds: TcpListener,
    /// For operators.
    pub ops: TcpListener,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The HTTP client of probes cannot be created.
    #[error("failed to create the HTTP client of readiness probes")]
    Prober {
        /// The cause.
        source: reqwest::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The gateways' listener failed.
    #[error("failed to serve gateways")]
    Xds {
        /// The cause.
        source: tonic::transport::Error,
    },
    /// The operators' listener has no address.
    #[error("failed to read the address of the operators' listener")]
    Address {
        /// The cause.
        source: std::io::Error,
    },
    /// A task ended that must not end.
    #[error("failed to continue: {task} ended")]
    Ended {
        /// The task.
        task: &'static str,
    },
    /// The operators' listener failed.
    #[error(transparent)]
    Ops(#[from] ops_http::OpsError),
}

/// Runs until the stop.
///
/// # Errors
/// [`DaemonError`] when the daemon cannot start, or a listener or task fails.
pub async fn run(client: Client, options: Options, listeners: Listeners, stop: CancellationToken) -> Result<(), DaemonError> {
    let readiness = ops_http::Readiness::waiting_for(["caches"]);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let Options { routes, listening, pod, .. } = options;
    let domain = options.cluster_domain.unwrap_or_else(cluster_domain);
    let in_cluster = |service: &str| format!("{service}.{}.svc.{domain}", pod.pod_namespace);
    let names = LoadBalancerNames {
        public: in_cluster(&options.gateway_service),
        private: in_cluster(&options.gateway_internal_service),
    };
    let mut tasks = Tasks::default();
    let tls = match options.tls.chosen()? {
        XdsTls::Off => {
            tracing::warn!(
                "gateways are served in plain text, keys of certificates included: keep this traffic inside the cluster"
            );
            None
        }
        XdsTls::Files(files) => Some(tls(files, &metrics, &stop, &mut tasks).await?),
        XdsTls::SelfMade => {
            let Some(made) = OwnCertificates::obtain(&client, &pod.pod_namespace, &stop).await? else { return Ok(()) };
            let current = made.current.subscribe();
            tasks.spawn("the renewal of certificates", made.follow(metrics.clone(), stop.clone()));
            Some(current)
        }
    };
    let store = Arc::new(ConfigStore::new(options.policy, listening));
    let state_settings = StateSettings {
        policy: options.policy,
        translate: TranslateSettings { internal_gateway: names.private.clone(), internal_authority: options.internal_authority },
        bounds_retransmissions: kernel::bounds_retransmissions_here().await,
        fallback_certificate: options.fallback_certificate,
        gateway_service: ObjectName::new(&pod.pod_namespace, &options.gateway_internal_service),
        own_service: ObjectName::new(&pod.pod_namespace, &options.own_service),
        own_pod: pod.pod_name.clone(),
        activators: options.activator_service.clone(),
    };
    let state = ControlPlaneState::new(store.clone(), state_settings);

    // Bounded, so that a full channel slows down its source; progress is unbounded, because its
    // reader keeps only the last one of each Ingress.
    let (changes, changes_received) = mpsc::channel(4096);
    let (foreign, foreign_received) = mpsc::channel(1024);
    let (nacks, nacks_received) = mpsc::channel(1024);
    let (progress_changes, standings_received) = mpsc::unbounded_channel();
    let (gateways, gateways_received) = watch::channel(None);
    let (replicas, replicas_received) = watch::channel(ReplicaAddresses::new());
    for watch in watches::watch_all(
        &client,
        &options.ingress_class,
        &options.activator_service.namespace,
        &options.secret_namespaces,
        &changes,
        foreign,
    ) {
        tasks.spawn("a watch", watch);
    }
    let demand = SharedLoadBoard::new(format!("{} at {}", pod.pod_name, jiff::Timestamp::now()));
    let reports = Reports::new(demand.clone(), store.clone(), options.demand_interval, changes.clone(), stop.clone());
    registry.register_collector(Box::new(DemandMetrics::new(demand.clone())));
    let port = listeners.ops.local_addr().map_err(|source| DaemonError::Address { source })?.port();
    let peers = PeerSettings { port, changes: changes.clone(), metrics: metrics.clone() };
    tasks.spawn("the reader of other replicas' demand", peers::follow_all(peers, replicas_received, stop.clone()));
    tasks.spawn("the reader of routes", plan_stream::follow(routes, changes, metrics.clone(), stop.clone()));
    let own_pod = event_writer::pod(&pod.pod_namespace, &pod.pod_name);
    let (events, write_events) = EventWriter::new(Some(client.clone()), LEASE, own_pod, Repeats::Counted);
    tasks.spawn("the writer of events", write_events);
    let events = Some(events);
    let outputs =
        Outputs { progress_changes, gateways, replicas, events, readiness: readiness.clone(), metrics: metrics.clone() };
    tasks.spawn("the event loop", event_loop::run(state, changes_received, nacks_received, outputs, stop.clone()));

    let connected = Connected::default();
    registry.register_collector(Box::new(connected.clone()));
    let ads = Ads::new(store.clone(), connected.clone(), metrics.clone(), nacks, stop.clone());
    let ads = ads.serve(listeners.xds, tls, reports.services());
    let ops = ops_http::router(Arc::new(registry), readiness)
        .merge(explain::router(store))
        .merge(demand::stream::router(demand, stop.clone()));
    let ops = ops_http::serve(listeners.ops, ops, stop.clone());

    let (elected, leading) = watch::channel(false);
    let lease = pod.lease(LEASE);
    let leads = |leads| {
        elected.send_replace(leads);
    };
    let election = async {
        act_while_leading(client.clone(), lease, stop.clone(), || (), leads, CancellationToken::cancelled_owned).await;
        Ok(())
    };
    let dependencies = Dependencies {
        writer: StatusWriter::new(client.clone()),
        prober: GatewayProber::new(listening.ports).map_err(|source| DaemonError::Prober { source })?,
        gateways: gateways_received,
        connected,
        names,
        probes: Arc::new(Semaphore::new(PROBES)),
        metrics,
    };
    let supervisor = async {
        supervise(standings_received, foreign_received, leading, dependencies, stop.clone()).await;
        Ok(())
    };
    // Clients that do not close their streams must not delay the stop.
    let ads = async {
        tokio::select! {
            served = ads => served.map_err(|source| DaemonError::Xds { source }),
            () = after(&stop) => Ok(()),
        }
    };
    let ops = async {
        tokio::select! {
            served = ops => served.map_err(DaemonError::from),
            () = after(&stop) => Ok(()),
        }
    };
    tokio::try_join!(ads, ops, election, supervisor, tasks.first_that_ends(&stop)).map(|_| ())
}

/// How long open connections may take to close after the stop.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(3);

async fn after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(CONNECTIONS_END_WITHIN).await;
}

/// The background tasks, which run until the stop.
#[derive(Default)]
struct Tasks {
    set: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits for the stop. If a task ends earlier, by itself or by a panic, the daemon must not
    /// continue with stale state.
    async fn first_that_ends(mut self, stop: &CancellationToken) -> Result<(), DaemonError> {
        tokio::select! {
            Some(ended) = self.set.join_next_with_id() => {
                if stop.is_cancelled() {
                    return Ok(());
                }
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                Err(DaemonError::Ended { task: self.names.get(&id).copied().unwrap_or("a task") })
            }
            () = stop.cancelled() => Ok(()),
        }
    }
}

/// Loads the certificate files and starts to follow them.
async fn tls(
    files: TlsFiles,
    metrics: &Metrics,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<watch::Receiver<Arc<ServerConfig>>, TlsError> {
    if files.client_authorities.is_none() {
        tracing::warn!("gateways need no client certificate: any client of the port gets the keys of certificates");
    }
    tracing::info!(certificate = %files.certificate.display(), "gateways are served over TLS");
    let tls = ServerTls::load(files).await?;
    let current = tls.watch();
    tasks.spawn("the renewal of our certificate", tls.follow(metrics.clone(), stop.clone()));
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_ends_everything_and_is_named() {
        for panics in [false, true] {
            let mut tasks = Tasks::default();
            tasks.spawn("one that goes on", std::future::pending());
            tasks.spawn("one that ends", async move { assert!(!panics, "meant") });
            let error = tasks.first_that_ends(&CancellationToken::new()).await.unwrap_err();
            assert_eq!(error.to_string(), "failed to continue: one that ends ended");
        }
    }

    #[tokio::test]
    async fn an_end_after_the_stop_is_none() {
        let (mut tasks, stop) = (Tasks::default(), CancellationToken::new());
        tasks.spawn("one that stops", stop.clone().cancelled_owned());
        stop.cancel();
        tasks.first_that_ends(&stop).await.unwrap();
    }
}
