//! What everything is measured on: three nodes with a gateway each, and the daemon in a process
//! that can be killed.

use std::net::SocketAddr;

use k8s_api::kingress::KIngress;
use kube::Api;
use local_control_plane::components::Components;
use local_control_plane::control_plane::User;
use tokio::process::{Child, Command};

use kantai_tests::ingress::bench::{Bench, NODES, gateway_address};
use kantai_tests::ingress::gateway::Gateway;
use kantai_tests::ingress::plan::PlanWriter;

/// The first argument of a process that is the daemon. A kubeconfig and the address of the plan
/// follow.
pub(crate) const ARGUMENT: &str = "daemon";

/// See the module.
pub(crate) struct Stage {
    pub(crate) bench: Bench,
    pub(crate) components: Components,
    pub(crate) plan: PlanWriter,
    pub(crate) gateways: Vec<Gateway>,
    /// Which of the two pods of a node its gateway is: 1, and 2 after a roll-out.
    pub(crate) pod: u8,
    daemon: Child,
}

impl Stage {
    pub(crate) async fn set(components: Components) -> anyhow::Result<Self> {
        let mut bench = Bench::start(&components).await?;
        // As it is deployed: over TLS, with certificates that the daemon makes.
        bench.secure_by_itself();
        let plan = PlanWriter::start().await?;
        let daemon = daemon(&bench, &plan)?;
        bench.mount_made_certificates().await?;
        let mut gateways = Vec::new();
        for node in NODES {
            gateways.push(bench.gateway(node).await?);
        }
        bench.gateways_ready(&NODES).await?;
        Ok(Self { bench, components, plan, gateways, pod: 1, daemon })
    }

    /// A revision with pods at these places (node, number on it), and an Ingress all of whose
    /// requests go there. Returns its host.
    pub(crate) async fn revision(&self, name: &str, pods: &[(u8, u8)]) -> anyhow::Result<String> {
        let revision = format!("{name}-00001");
        self.bench.service("default", &revision, "http").await?;
        self.bench.pods(&revision, pods).await?;
        self.bench.ingress(name, &[(&revision, 100)]).await?;
        self.bench.ready(name).await?;
        Ok(format!("{name}.default"))
    }

    pub(crate) async fn forget(&self, name: &str) -> anyhow::Result<()> {
        let ingresses: Api<KIngress> = self.bench.ingresses();
        ingresses.delete(name, &kube::api::DeleteParams::default()).await?;
        Ok(())
    }

    /// Ends the daemon without a word.
    pub(crate) async fn kill_daemon(&mut self) -> anyhow::Result<()> {
        Ok(self.daemon.kill().await?)
    }

    /// The process of the daemon, unless it has ended.
    pub(crate) fn daemon_process(&self) -> Option<u32> {
        self.daemon.id()
    }

    pub(crate) fn start_daemon(&mut self) -> anyhow::Result<()> {
        self.daemon = daemon(&self.bench, &self.plan)?;
        Ok(())
    }
}

fn daemon(bench: &Bench, plan: &PlanWriter) -> anyhow::Result<Child> {
    let kubeconfig = bench.control_plane.kubeconfig(User::Admin);
    Ok(Command::new(std::env::current_exe()?).arg(ARGUMENT).arg(kubeconfig).arg(&plan.url).kill_on_drop(true).spawn()?)
}

/// Where requests from inside a node enter.
pub(crate) fn entry(node: u8) -> SocketAddr {
    (gateway_address(node), 8081).into()
}
