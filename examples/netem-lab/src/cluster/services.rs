//! What runs on the cluster: DNS, Prometheus, stock Knative, our own daemons. Gathers the
//! documents, has them decided on by [`super::knative`], and applies them in the order in which
//! they work.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::Client;
use serde_json::Value;
use tokio::process::Command;

use super::ClusterSpec;
use super::apply::{Applier, parse_documents, read_documents};
use super::error::ClusterError;
use super::images::NodeImages;
use super::knative::{self, KnativeSettings, files};
use super::layout::NodeLayout;
use super::manifests;
use local_control_plane::components::{Component, Components, GoModule, Places, module_folders};

/// All documents, ready to be applied, phase by phase.
pub(super) struct Services {
    applier: Applier,
    dns: Vec<Value>,
    definitions: Vec<Value>,
    foundations: Vec<Value>,
    guards: Vec<Value>,
    programs: Vec<Value>,
    kubectl: PathBuf,
    deploy: Option<PathBuf>,
}

impl Services {
    pub(super) fn new(
        client: &Client,
        components: &Components,
        images: &NodeImages,
        layouts: &[NodeLayout],
        spec: &ClusterSpec,
    ) -> Result<Self, ClusterError> {
        let system_node = layouts.first().map_or_else(String::new, |layout| layout.name.clone());
        let settings = KnativeSettings {
            ingress_class: spec.ingress_class.clone(),
            nodes: layouts.len(),
            system_node: system_node.clone(),
            queue_image: images
                .resolve("component://knative-queue")
                .ok_or_else(|| ClusterError::UnknownImages("knative-queue".to_owned()))?,
            more: spec.settings.clone(),
        };
        let modules = ["knative.dev/serving", "knative.dev/networking", "knative.dev/caching"];
        let folders = module_folders(&Places::from_env()?, GoModule::KnativeServing, &modules)?;
        let [serving, networking, caching] = folders.as_slice() else {
            return Err(ClusterError::UnknownImages("the folders of Knative's modules".to_owned()));
        };

        let mut definitions = read(networking, &files::NETWORKING_CRDS)?;
        definitions.extend(read(caching, &files::CACHING_CRDS)?);
        definitions.extend(read(serving, &[files::SERVING_CRDS])?);
        let mut foundations = read(serving, &files::SERVING_BASE)?;
        foundations.extend(read(networking, &files::NETWORKING_BASE)?);
        knative::apply_settings(&mut foundations, &settings);
        let guards = read(serving, &[files::SERVING_WEBHOOKS])?;
        let mut programs = read(serving, &files::SERVING_DEPLOYMENTS)?;
        knative::place_deployments(&mut programs, &settings);
        programs.extend(read(serving, &[files::SERVING_CACHE])?);
        let mut prometheus = embedded(manifests::PROMETHEUS)?;
        knative::pin_deployments(&mut prometheus, &system_node);
        let dns = embedded(manifests::COREDNS)?;
        programs.extend(prometheus.extract_if(.., |document| document["kind"] == "Deployment"));
        foundations.extend(prometheus);

        let mut all = Self {
            applier: Applier::new(client.clone()),
            dns,
            definitions,
            foundations,
            guards,
            programs,
            kubectl: components.path(Component::Kubectl)?.to_owned(),
            deploy: spec.deploy.clone(),
        };
        all.replace_images(images)?;
        Ok(all)
    }

    fn replace_images(&mut self, images: &NodeImages) -> Result<(), ClusterError> {
        let phases = [&mut self.dns, &mut self.definitions, &mut self.foundations, &mut self.guards, &mut self.programs];
        let mut unknown = Vec::new();
        for document in phases.into_iter().flatten() {
            unknown.extend(knative::replace_images(document, &|name| images.resolve(name)));
        }
        if unknown.is_empty() { Ok(()) } else { Err(ClusterError::UnknownImages(unknown.join(", "))) }
    }

    /// What needs no node: definitions, namespaces, rights, settings; and cluster DNS, so that it
    /// is up before those who ask it.
    pub(super) async fn apply_foundations(&self) -> Result<(), ClusterError> {
        self.applier.apply_in_order(&self.dns).await?;
        self.applier.apply(&self.definitions).await?;
        let (namespaces, rest): (Vec<Value>, Vec<Value>) =
            self.foundations.iter().cloned().partition(|document| document["kind"] == "Namespace");
        self.applier.apply(&namespaces).await?;
        self.applier.apply(&rest).await?;
        Ok(())
    }

    /// The programs, our own among them. The settings must be there already: from now on they are
    /// guarded by a program that is still to come.
    pub(super) async fn apply_programs(&self, kubeconfig: &Path) -> Result<(), ClusterError> {
        let knative = async {
            self.applier.apply(&self.guards).await?;
            self.applier.apply(&self.programs).await?;
            Ok(())
        };
        futures::try_join!(knative, self.apply_deploy(kubeconfig))?;
        Ok(())
    }

    /// Applies our own manifests the way any user would.
    async fn apply_deploy(&self, kubeconfig: &Path) -> Result<(), ClusterError> {
        let Some(folder) = &self.deploy else { return Ok(()) };
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["apply", "--server-side", "--field-manager=netem-lab", "-k"])
            .arg(folder)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(ClusterError::run(&self.kubectl))?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(ClusterError::Kustomization { folder: folder.clone(), message })
    }

    /// The namespaces whose workloads have to be ready.
    pub(super) fn namespaces(&self) -> Vec<&'static str> {
        let mut namespaces = vec!["kube-system", "knative-serving", "monitoring"];
        if self.deploy.is_some() {
            namespaces.push("kantai-system");
        }
        namespaces
    }
}

fn read(root: &Path, paths: &[&str]) -> Result<Vec<Value>, ClusterError> {
    let mut documents = Vec::new();
    for path in paths {
        documents.extend(read_documents(&root.join(path))?);
    }
    Ok(documents)
}

fn embedded(text: &str) -> Result<Vec<Value>, ClusterError> {
    parse_documents(text)
        .map_err(|message| super::apply::ApplyError::Parse { path: "a manifest of the lab".into(), message }.into())
}
