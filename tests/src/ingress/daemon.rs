//! The daemon in the test's own process, under its ServiceAccount.

use std::net::SocketAddr;
use std::path::Path;

use clap::Parser as _;
use kube::{Client, Config};
use local_control_plane::control_plane::User;
use locality_ingress::endpoints::LocalityPolicy;
use locality_ingress::{Listeners, Options, TlsOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, NAMESPACE, OPS, SECOND_OPS, SECOND_XDS, XDS, eventually};

impl Bench {
    /// Starts the daemon as its ServiceAccount, with the plan from `routes_url`.
    pub async fn daemon(&self, policy: LocalityPolicy, routes_url: &str) -> anyhow::Result<Daemon> {
        self.daemon_through(None, policy, routes_url).await
    }

    /// A second replica: gateways reach it on another port, and its operators' port is that of the
    /// first one on another address.
    pub async fn second_daemon(&self, policy: LocalityPolicy, routes_url: &str) -> anyhow::Result<Daemon> {
        let client = client_of_daemon(&self.control_plane.kubeconfig(User::Admin), None).await?;
        let listeners = Listeners { xds: listen(SECOND_XDS).await?, ops: listen(SECOND_OPS).await? };
        let mut options = options(policy, routes_url);
        options.pod.pod_name = "locality-ingress-1".to_owned();
        let stop = CancellationToken::new();
        let task = tokio::spawn(locality_ingress::run(client, options, listeners, stop.clone()));
        Ok(Daemon { stop, task: Some(task) })
    }

    /// As [`Bench::daemon`], with another way to the API server.
    pub async fn daemon_through(
        &self,
        way: Option<SocketAddr>,
        policy: LocalityPolicy,
        routes_url: &str,
    ) -> anyhow::Result<Daemon> {
        let client = client_of_daemon(&self.control_plane.kubeconfig(User::Admin), way).await?;
        let listeners = Listeners { xds: listen(XDS).await?, ops: listen(OPS).await? };
        let stop = CancellationToken::new();
        let mut options = options(policy, routes_url);
        options.listening.access_log = self.access_log;
        options.tls = match &self.certificates {
            None => options.tls,
            Some(_) if self.self_made => TlsOptions::default(),
            Some(certificates) => TlsOptions {
                xds_certificate_file: Some(certificates.server.join("tls.crt")),
                xds_key_file: Some(certificates.server.join("tls.key")),
                xds_client_ca_file: Some(certificates.server.join("ca.crt")),
                xds_plain_text: false,
            },
        };
        let task = tokio::spawn(locality_ingress::run(client, options, listeners, stop.clone()));
        Ok(Daemon { stop, task: Some(task) })
    }
}

/// The daemon in a process of its own, until that is killed: for the scorecard, which shares this
/// bench.
pub async fn serve(kubeconfig: &Path, policy: LocalityPolicy, routes_url: &str) -> anyhow::Result<()> {
    let listeners = Listeners { xds: listen(XDS).await?, ops: listen(OPS).await? };
    let client = client_of_daemon(kubeconfig, None).await?;
    let options = Options { tls: TlsOptions::default(), ..options(policy, routes_url) };
    Ok(locality_ingress::run(client, options, listeners, CancellationToken::new()).await?)
}

/// Whoever has every right speaks as the daemon's ServiceAccount, and then has no other rights than
/// that.
async fn client_of_daemon(kubeconfig: &Path, way: Option<SocketAddr>) -> anyhow::Result<Client> {
    let mut kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    if let Some(way) = way {
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("https://{way}"));
        }
    }
    for info in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        info.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:locality-ingress"));
        info.impersonate_groups = Some(vec!["system:serviceaccounts".into(), "system:authenticated".into()]);
    }
    Ok(k8s_api::client::client(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?)
}

fn options(policy: LocalityPolicy, routes_url: &str) -> Options {
    let mut options = Options::parse_from(["locality-ingress", "--xds-plain-text", "--pod-name=locality-ingress-0"]);
    options.policy = policy;
    options.routes.url = routes_url.to_owned();
    options.cluster_domain = Some("cluster.local".to_owned());
    options
}

/// A port of our own may still be closing down.
async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    eventually("the port to be free", async || Ok(TcpListener::bind(address).await?)).await
}

/// The daemon; it stops with this.
pub struct Daemon {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<Result<(), locality_ingress::DaemonError>>>,
}

impl Daemon {
    /// Stops it and waits until it has ended.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await??;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
