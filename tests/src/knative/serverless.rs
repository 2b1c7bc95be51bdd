//! Stands in for Knative's ServerlessService controller and for the activators: a status follows
//! its spec and the revision's ready pods, and a probe of a public Service that routes to the
//! activators is answered as an activator answers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use k8s_api::{ConditionStatus, ServerlessService, ServingMode};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::net::TcpListener;

use super::kubelets::{Kubelets, follow};
use super::stage::{NAMESPACE, is_ready, revision_of};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Knative's part.
#[derive(Clone)]
pub struct Serverless {
    all: Api<ServerlessService>,
    services: Api<Service>,
    store: Store<ServerlessService>,
    kubelets: Kubelets,
    /// Revisions whose public Service leads to the activators.
    held: Arc<Mutex<BTreeSet<String>>>,
}

impl Serverless {
    /// Works until the runtime ends. Listens on port 80 of every address.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub async fn start(client: Client, kubelets: Kubelets) -> anyhow::Result<Self> {
        let all: Api<ServerlessService> = Api::namespaced(client.clone(), NAMESPACE);
        let (store, held) = (follow(all.clone()), Arc::new(Mutex::new(BTreeSet::new())));
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).await?;
        let answers = Router::new().fallback(answer).with_state(held.clone());
        tokio::spawn(async { axum::serve(listener, answers).await });
        let serverless = Self { all, services: Api::namespaced(client, NAMESPACE), store, kubelets, held };
        let working = serverless.clone();
        tokio::spawn(async move {
            loop {
                working.look().await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(serverless)
    }

    async fn look(&self) {
        let pods = self.kubelets.pods();
        let ready: BTreeSet<&str> = pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| revision_of(pod)).collect();
        for service in self.store.state() {
            self.act(&service, ready.contains(service.name_any().as_str())).await;
        }
    }

    /// What fails is tried again at the next look.
    async fn act(&self, service: &ServerlessService, any_ready: bool) {
        let name = service.name_any();
        let activators = service.spec.mode == ServingMode::Proxy || !any_ready;
        let held = service.status.clone().unwrap_or_default();
        let condition = |kind: &str, holds: bool| {
            let same =
                |condition: &&k8s_api::Condition| condition.kind == kind && (condition.status == ConditionStatus::True) == holds;
            let since = held.conditions.iter().find(same).and_then(|condition| condition.last_transition_time);
            let since = since.unwrap_or_else(k8s_openapi::jiff::Timestamp::now);
            json!({"type": kind, "status": if holds { "True" } else { "Unknown" }, "lastTransitionTime": since.to_string()})
        };
        let status = json!({
            "observedGeneration": service.metadata.generation, "serviceName": name, "privateServiceName": format!("{name}-private"),
            "conditions": [condition("ActivatorEndpointsPopulated", activators), condition("Ready", any_ready)],
        });
        if held.service_name.is_empty() {
            self.make_public_service(service).await;
        }
        if activators {
            self.held.lock().unwrap().insert(name.clone())
        } else {
            self.held.lock().unwrap().remove(&name)
        };
        if serde_json::to_value(&held).is_ok_and(|held| held != status) {
            let _ = self.all.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
        }
    }

    async fn make_public_service(&self, service: &ServerlessService) {
        let made: Result<Service, _> = serde_json::from_value(json!({
            "metadata": {"name": service.name_any()},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8012}]},
        }));
        let Ok(mut made) = made else { return };
        made.metadata.owner_references = service.controller_owner_ref(&()).map(|owner| vec![owner]);
        let _ = self.services.create(&PostParams::default(), &made).await;
    }
}

async fn answer(State(held): State<Arc<Mutex<BTreeSet<String>>>>, headers: HeaderMap) -> &'static str {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let revision = host.split('.').next().unwrap_or_default();
    if held.lock().unwrap().contains(revision) { "activator" } else { "queue" }
}
