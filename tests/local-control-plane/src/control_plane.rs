//! A real control plane as plain processes: etcd, kube-apiserver, and if wanted
//! kube-controller-manager and kube-scheduler.
//!
//! The lab runs one in a network namespace of its own; tests run one on loopback, with
//! [`ControlPlane::for_tests`]. Everything that it writes lies in one folder: `pki/`,
//! `kubeconfig/`, `logs/`, `pids/`, `etcd/`.

mod children;
mod error;
mod flags;
mod kubeconfig;
mod left_running;
mod pki;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ServiceAccount;

pub use children::Lifetime;
pub use error::ControlPlaneError;
pub use flags::{KUBERNETES_SERVICE, SERVICE_RANGE};

use crate::components::{Component, Components};
use crate::progress::Progress;
use children::Children;
use flags::Listeners;
use pki::{Authority, Subject};

/// Long enough for a machine that compiles at the same time.
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(25);

/// How to run a control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that is written goes here. Made if it is not there.
    pub folder: PathBuf,
    /// Where the API server listens.
    pub place: Place,
    /// What kube-controller-manager runs.
    pub controllers: Controllers,
    /// Whether there is a kube-scheduler.
    pub scheduler: bool,
    /// Whether the processes may outlive us.
    pub lifetime: Lifetime,
    /// Further flags for kube-apiserver; they override ours.
    pub api_server_flags: Vec<String>,
    /// Further flags for kube-controller-manager; they override ours.
    pub controller_manager_flags: Vec<String>,
}

/// Where a control plane listens.
#[derive(Debug, Clone)]
pub enum Place {
    /// On 127.0.0.1, on ports that are free.
    Loopback,
    /// In a network namespace, on the usual ports. The address must be one of the namespace's, and
    /// this process must be able to reach it.
    Namespace {
        /// The namespace's file, as for `nsenter --net=`.
        file: PathBuf,
        /// The API server's address.
        address: IpAddr,
    },
}

/// What kube-controller-manager runs.
#[derive(Debug, Clone)]
pub enum Controllers {
    /// There is no kube-controller-manager.
    None,
    /// What it runs by default.
    All,
    /// These and no others.
    Only(Vec<&'static str>),
}

impl Controllers {
    /// What a cluster without kubelets needs to behave like one: Deployments get pods, Services get
    /// endpoints, owners take what they own with them, disruption budgets count.
    pub fn without_nodes() -> Self {
        Self::Only(vec![
            "deployment-controller",
            "replicaset-controller",
            "disruption-controller",
            "endpoints-controller",
            "endpointslice-controller",
            "endpointslice-mirroring-controller",
            "garbage-collector-controller",
            "serviceaccount-controller",
            "namespace-controller",
            "root-ca-certificate-publisher-controller",
            "clusterrole-aggregation-controller",
        ])
    }
}

/// The users that get a kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum User {
    Admin,
    KubeControllerManager,
    KubeScheduler,
    KubeProxy,
}

impl User {
    const ALL: [User; 4] = [User::Admin, User::KubeControllerManager, User::KubeScheduler, User::KubeProxy];

    fn file_name(self) -> &'static str {
        match self {
            User::Admin => "admin",
            User::KubeControllerManager => "kube-controller-manager",
            User::KubeScheduler => "kube-scheduler",
            User::KubeProxy => "kube-proxy",
        }
    }

    fn subject(self) -> Subject<'static> {
        match self {
            User::Admin => Subject { user: "kantai-lab-admin", group: Some("system:masters") },
            User::KubeControllerManager => Subject { user: "system:kube-controller-manager", group: None },
            User::KubeScheduler => Subject { user: "system:kube-scheduler", group: None },
            User::KubeProxy => Subject { user: "system:kube-proxy", group: None },
        }
    }
}

/// What a kubelet needs to take part: see [`ControlPlane::admit_node`].
#[derive(Debug, Clone)]
pub struct NodeFiles {
    /// The kubelet's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The certificate that the kubelet serves.
    pub serving_certificate: PathBuf,
    /// Its key.
    pub serving_key: PathBuf,
    /// The authority whose clients the kubelet trusts.
    pub client_authority: PathBuf,
}

/// A running control plane. Dropping it ends its processes.
pub struct ControlPlane {
    folder: PathBuf,
    listeners: Listeners,
    authority: Authority,
    children: Children,
    client: kube::Client,
    // Last, so that it goes after the processes that write into it.
    temporary: Option<tempfile::TempDir>,
}

impl ControlPlane {
    /// Starts the processes and waits until the API server says that it is ready. `components` must
    /// hold [`Component::CONTROL_PLANE`], as far as `options` ask for them.
    pub async fn start(options: &Options, components: &Components) -> Result<Self, ControlPlaneError> {
        // Programs run with another working directory, so paths must not depend on ours.
        let folder = std::path::absolute(&options.folder).map_err(|source| ControlPlaneError::File {
            what: "resolve",
            path: options.folder.clone(),
            source,
        })?;
        for name in ["pki", "kubeconfig", "logs", "pids"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|source| ControlPlaneError::File { what: "create", path, source })?;
        }
        let (listeners, namespace) = match &options.place {
            Place::Loopback => (loopback_listeners()?, None),
            Place::Namespace { file, address } => {
                (Listeners { address: *address, api_port: 6443, etcd_port: 2379 }, Some(file.as_path()))
            }
        };
        let authority = write_pki(&folder, &listeners)?;
        let client = client_from(&folder.join("kubeconfig/admin")).await?;

        let mut children = Children::new(&folder, namespace, options.lifetime);
        children.start("etcd", components.path(Component::Etcd)?, &flags::etcd(&listeners, &folder))?;
        wait_for_etcd(&mut children).await?;
        let mut api_server_flags = flags::kube_apiserver(&listeners, &folder);
        api_server_flags.extend_from_slice(&options.api_server_flags);
        children.start("kube-apiserver", components.path(Component::KubeApiserver)?, &api_server_flags)?;
        wait_until_ready(&mut children, &client).await?;

        if !matches!(options.controllers, Controllers::None) {
            let mut arguments = flags::kube_controller_manager(&options.controllers, &folder);
            arguments.extend_from_slice(&options.controller_manager_flags);
            children.start("kube-controller-manager", components.path(Component::KubeControllerManager)?, &arguments)?;
        }
        if options.scheduler {
            children.start("kube-scheduler", components.path(Component::KubeScheduler)?, &flags::kube_scheduler(&folder))?;
        }
        Ok(Self { folder, listeners, authority, children, client, temporary: None })
    }

    /// A control plane for tests of a crate: on loopback, in a folder that goes with it, without
    /// nodes and scheduler, its controllers at work. It dies with the test process. The first call
    /// on a machine may have to build the components, which takes minutes.
    pub async fn for_tests() -> Result<Self, ControlPlaneError> {
        let wanted = [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager];
        let ensure = move || Components::ensure(&wanted, &Progress::to_stderr());
        let ensured = tokio::task::spawn_blocking(ensure).await;
        let components = ensured.map_err(|source| ControlPlaneError::Ensure { source })??;
        let temporary = tempfile::Builder::new()
            .prefix("kantai-control-plane-")
            .tempdir()
            .map_err(|source| ControlPlaneError::File { what: "create a folder in", path: std::env::temp_dir(), source })?;
        let options = Options {
            folder: temporary.path().to_owned(),
            place: Place::Loopback,
            controllers: Controllers::without_nodes(),
            scheduler: false,
            lifetime: Lifetime::WithUs,
            api_server_flags: Vec::new(),
            controller_manager_flags: Vec::new(),
        };
        let mut control_plane = Self::start(&options, &components).await?;
        control_plane.temporary = Some(temporary);
        control_plane.wait_for_controllers().await?;
        Ok(control_plane)
    }

    /// Waits until kube-controller-manager does its work: until the namespace `default` has its
    /// service account.
    pub async fn wait_for_controllers(&mut self) -> Result<(), ControlPlaneError> {
        let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(self.client.clone(), "default");
        let begun = Instant::now();
        while !matches!(accounts.get_opt("default").await, Ok(Some(_))) {
            self.children.check()?;
            if begun.elapsed() > READY_WITHIN {
                let log = self.children.log_tail("kube-controller-manager");
                return Err(ControlPlaneError::NotReady { program: "kube-controller-manager", log });
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// A client with every right.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The kubeconfig of `user`.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.folder.join("kubeconfig").join(user.file_name())
    }

    /// The API server's URL.
    pub fn url(&self) -> String {
        self.listeners.api_url()
    }

    /// The folder that holds everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The processes' ids, by name.
    pub fn pids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.children.pids()
    }

    /// Signs what a kubelet needs: as a client `system:node:<name>` in the group `system:nodes`, as
    /// a server `address`.
    pub fn admit_node(&self, name: &str, address: IpAddr) -> Result<NodeFiles, ControlPlaneError> {
        let user = format!("system:node:{name}");
        let client = self.authority.client(&Subject { user: &user, group: Some("system:nodes") })?;
        let kubeconfig = self.folder.join("kubeconfig").join(format!("kubelet-{name}"));
        let content = kubeconfig::kubeconfig(&self.url(), &self.authority.certificate(), &user, &client);
        pki::write_private(&kubeconfig, &content.to_string())?;
        let server = self.authority.server(&user, &[name.to_owned()], &[address])?;
        let pki = self.folder.join("pki");
        let (serving_certificate, serving_key) = pki::write_identity(&pki, &format!("kubelet-{name}"), &server)?;
        Ok(NodeFiles { kubeconfig, serving_certificate, serving_key, client_authority: pki.join("ca.crt") })
    }

    /// Ends the processes. What they wrote stays where it is.
    pub fn stop(mut self) {
        self.children.stop();
    }

    /// Lets the processes run on when this value is gone, until
    /// [`ControlPlane::stop_left_running`]. Only for [`Lifetime::MayOutliveUs`].
    pub fn leave_running(mut self) {
        self.children.leave_running();
    }

    /// Ends the processes that an earlier run, perhaps of another process, left running in
    /// `folder`. Tells whether there were any.
    pub fn stop_left_running(folder: &Path) -> Result<bool, ControlPlaneError> {
        left_running::stop(folder)
    }
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").field("folder", &self.folder).field("url", &self.url()).finish_non_exhaustive()
    }
}

/// Signs and writes everything but the nodes' part.
fn write_pki(folder: &Path, listeners: &Listeners) -> Result<Authority, ControlPlaneError> {
    let authority = Authority::new("kantai-lab")?;
    let front_proxy = Authority::new("kantai-lab-front-proxy")?;
    let pki = folder.join("pki");
    pki::write_private(&pki.join("ca.crt"), &authority.certificate())?;
    pki::write_private(&pki.join("front-proxy-ca.crt"), &front_proxy.certificate())?;
    let names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    let names = names.map(str::to_owned);
    let addresses = [IpAddr::V4(KUBERNETES_SERVICE), IpAddr::V4(Ipv4Addr::LOCALHOST), listeners.address];
    pki::write_identity(&pki, "kube-apiserver", &authority.server("kube-apiserver", &names, &addresses)?)?;
    let kubelet_client = Subject { user: "kube-apiserver-kubelet-client", group: Some("system:masters") };
    pki::write_identity(&pki, "kubelet-client", &authority.client(&kubelet_client)?)?;
    let front_proxy_client = Subject { user: "front-proxy-client", group: None };
    pki::write_identity(&pki, "front-proxy-client", &front_proxy.client(&front_proxy_client)?)?;
    let (private, public) = pki::service_account_keys()?;
    pki::write_private(&pki.join("service-account.key"), &private)?;
    pki::write_private(&pki.join("service-account.pub"), &public)?;
    for user in User::ALL {
        let identity = authority.client(&user.subject())?;
        let content = kubeconfig::kubeconfig(&listeners.api_url(), &authority.certificate(), user.file_name(), &identity);
        pki::write_private(&folder.join("kubeconfig").join(user.file_name()), &content.to_string())?;
    }
    Ok(authority)
}

async fn client_from(path: &Path) -> Result<kube::Client, ControlPlaneError> {
    let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    kube::Client::try_from(config).map_err(|source| ControlPlaneError::Client { source })
}

/// Two free ports, from below the range in which the kernel picks ports for outgoing connections:
/// there, one that is free now may be taken before our program binds it.
fn loopback_listeners() -> Result<Listeners, ControlPlaneError> {
    let free_port = || -> Result<(TcpListener, u16), ControlPlaneError> {
        let attempts = std::iter::repeat_with(|| TcpListener::bind((Ipv4Addr::LOCALHOST, rand::random_range(15_000..30_000))));
        let listener = attempts.take(100).find_map(Result::ok).ok_or(ControlPlaneError::NoPort)?;
        let port = listener.local_addr().map_err(|_| ControlPlaneError::NoPort)?.port();
        Ok((listener, port))
    };
    // Both are held until both are known, so that they differ.
    let ((_first, api_port), (_second, etcd_port)) = (free_port()?, free_port()?);
    Ok(Listeners { address: IpAddr::V4(Ipv4Addr::LOCALHOST), api_port, etcd_port })
}

/// Waits until etcd says in its log that it serves. An API server that finds no etcd at its start
/// tries again only after a second.
async fn wait_for_etcd(children: &mut Children) -> Result<(), ControlPlaneError> {
    let log = children.log_path("etcd");
    let begun = Instant::now();
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("ready to serve client requests") {
        children.check()?;
        if begun.elapsed() > READY_WITHIN {
            return Err(ControlPlaneError::NotReady { program: "etcd", log: children.log_tail("etcd") });
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

async fn wait_until_ready(children: &mut Children, client: &kube::Client) -> Result<(), ControlPlaneError> {
    let begun = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a literal path makes a valid request");
        if client.request_text(request).await.is_ok() {
            return Ok(());
        }
        children.check()?;
        if begun.elapsed() > READY_WITHIN {
            return Err(ControlPlaneError::NotReady { program: "kube-apiserver", log: children.log_tail("kube-apiserver") });
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
