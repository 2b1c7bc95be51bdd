//! A control plane that keeps an account of what the controller writes.

use std::path::PathBuf;

use kantai_tests::api_server::SYSTEM_NAMESPACE;
use kantai_tests::seika::cluster::Cluster;
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options, Place};
use local_control_plane::progress::Progress;
use serde::Deserialize;
use tempfile::TempDir;

/// The cluster, and the API server's account of the controller's writes.
pub(crate) struct Audited {
    // Before the folder, so that its processes end before what they write into goes.
    cluster: Cluster,
    log: PathBuf,
    _folder: TempDir,
}

/// One request, as the API server's audit log has it.
#[derive(Deserialize)]
struct Request {
    verb: String,
    #[serde(rename = "objectRef")]
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    resource: String,
}

/// Writes of the controller.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writes {
    /// Renewals of its own Lease.
    pub(crate) lease: usize,
    /// All others.
    pub(crate) others: usize,
}

impl Audited {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let wanted = [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager];
        let ensure = move || Components::ensure(&wanted, &Progress::to_stderr());
        let components = tokio::task::spawn_blocking(ensure).await??;
        let folder = tempfile::Builder::new().prefix("kantai-scorecard-").tempdir()?;
        let (policy, log) = (folder.path().join("audit-policy.yaml"), folder.path().join("audit.log"));
        std::fs::write(&policy, policy_of_the_controllers_writes())?;
        let options = Options {
            folder: folder.path().to_owned(),
            place: Place::Loopback,
            controllers: Controllers::without_nodes(),
            scheduler: false,
            lifetime: Lifetime::WithUs,
            api_server_flags: vec![
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", log.display()),
            ],
            controller_manager_flags: Vec::new(),
        };
        let mut control_plane = ControlPlane::start(&options, &components).await?;
        control_plane.wait_for_controllers().await?;
        Ok(Self { cluster: Cluster::on(control_plane).await?, log, _folder: folder })
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// All writes until now.
    pub(crate) fn writes(&self) -> anyhow::Result<Writes> {
        let mut writes = Writes::default();
        // Without a write there is no log yet.
        for line in std::fs::read_to_string(&self.log).unwrap_or_default().lines() {
            let request: Request = serde_json::from_str(line)?;
            let resource = request.object.map(|object| object.resource).unwrap_or_default();
            if resource == "leases" && request.verb != "delete" {
                writes.lease += 1;
            } else {
                writes.others += 1;
            }
        }
        Ok(writes)
    }
}

fn policy_of_the_controllers_writes() -> String {
    format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules:\n\
         - level: Metadata\n  users: [\"system:serviceaccount:{SYSTEM_NAMESPACE}:seika-controller\"]\n  \
           verbs: [create, update, patch, delete, deletecollection]\n\
         - level: None\n"
    )
}
