//! The steps of one service's life, but for those under load.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::diagnostics::kubectl_output;
use super::super::journal::{Failure, StepResult};
use super::super::objects::listed;
use super::super::{check, flow, service};
use super::{LOOK_EVERY, Runner};
use crate::report::ColdStart;

const READY_WITHIN: Duration = Duration::from_secs(120);
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(90);
/// Beside the service's own window: at most the stock grace period of 30 s.
const ZERO_WITHIN: Duration = Duration::from_secs(120);
const STATUS_WITHIN: Duration = Duration::from_secs(15);
const GONE_WITHIN: Duration = Duration::from_secs(120);

impl Runner<'_, '_> {
    pub(super) async fn apply(&mut self) -> StepResult {
        self.objects.apply().await?;
        let begun = Instant::now();
        loop {
            let (ready, condition) = self.objects.service_ready().await?;
            if ready {
                return Ok(service::url(&self.scenario.service, "/"));
            }
            if begun.elapsed() > READY_WITHIN {
                return Err(Failure::new(format!("Ready within {} s", READY_WITHIN.as_secs()), format!("Ready is {condition}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A queue-proxy ends 30 s after its last request, whatever is asked of its pod. That is not
    /// waited for: what is terminating serves nobody, and that it ends is seen at the last step.
    pub(super) async fn handed_over(&mut self) -> StepResult {
        let begun = Instant::now();
        loop {
            let replicas = self.objects.deployment_replicas().await?;
            let pods = self.objects.pods().await?;
            let stays = pods.iter().any(|pod| !pod.of_seika && !pod.terminating);
            if replicas == 0 && !stays {
                return Ok(format!("the Deployment is at 0 and its pods end; pods: {}", listed(&pods)));
            }
            if begun.elapsed() > HANDED_OVER_WITHIN {
                return Err(Failure::new(
                    format!("the Deployment at 0 and without pods that stay within {} s", HANDED_OVER_WITHIN.as_secs()),
                    format!("{replicas} replicas, pods: {}", listed(&pods)),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn scaled_to_zero(&mut self) -> StepResult {
        let begun = Instant::now();
        let patience = ZERO_WITHIN + Duration::from_secs(self.scenario.service.window_seconds.into());
        loop {
            let pods = self.objects.pods().await?;
            if pods.iter().all(|pod| pod.terminating) {
                let seconds = begun.elapsed().as_secs_f64();
                return Ok(format!("no pods that stay {seconds:.1} s after this step began; pods: {}", listed(&pods)));
            }
            if begun.elapsed() > patience {
                let expected = format!("no pods that stay within {} s", patience.as_secs());
                return Err(Failure::new(expected, format!("pods: {}", listed(&pods))));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn cold_request(&mut self) -> StepResult {
        let far = self.scenario.steps.far.clone();
        let failed = |error: super::RunError| Failure::new("a request", error.to_string());
        let node = self.stage.node(&self.scenario.name, &far).map_err(failed)?;
        let url = service::url(&self.scenario.service, "/");
        let outcome = flow::request(node, &url, &self.outcomes).await.map_err(failed)?;
        // The watch may lag behind the answer by a moment.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let created = self.pods.first_created_after(self.objects.label(), outcome.at_unix_seconds);
        let cold_start = ColdStart {
            class: self.scenario.service.class.clone(),
            seconds_to_pod_created: created.map(|at| at - outcome.at_unix_seconds),
            seconds_to_response: outcome.seconds,
        };
        let pod = cold_start
            .seconds_to_pod_created
            .map_or("no new pod was seen".to_owned(), |seconds| format!("its pod was created after {seconds:.3} s"));
        self.cold_start = Some(cold_start);
        let served_by = outcome.served_by_node.as_deref();
        let seen = match (served_by, outcome.served_by_pod.as_deref()) {
            (Some(node), Some(pod_name)) => format!("answered by {pod_name} in {node} after {:.3} s; {pod}", outcome.seconds),
            _ => format!("{}; {pod}", check::describe(&outcome)),
        };
        let at_home = served_by == Some(far.as_str());
        if outcome.succeeded() && served_by.is_some() && (at_home || !self.is_kantai()) {
            return Ok(seen);
        }
        let expected = if self.is_kantai() { format!("an answer by a pod in {far}") } else { "an answer by a pod".to_owned() };
        Err(Failure::new(expected, seen))
    }

    pub(super) async fn objects_shown(&mut self) -> StepResult {
        let expected = check::ready_column(self.scenario.links.nodes(), &BTreeMap::from([(self.scenario.steps.far.clone(), 1)]));
        let begun = Instant::now();
        let mut seen = self.objects.seika_ready().await?;
        while self.is_kantai() && seen != [expected.as_str()] && begun.elapsed() < STATUS_WITHIN {
            tokio::time::sleep(LOOK_EVERY).await;
            seen = self.objects.seika_ready().await?;
        }
        let kinds = if self.is_kantai() { "ksvc,pod,seika" } else { "ksvc,pod" };
        let namespace = self.scenario.service.namespace.clone();
        let table = match self.stage.cluster.kubeconfig() {
            Some(kubeconfig) => {
                kubectl_output(&self.stage.kubectl, kubeconfig, &["get", kinds, "-n", &namespace, "-o", "wide"]).await
            }
            None => String::new(),
        };
        let table = table.trim_end().to_owned();
        if !self.is_kantai() {
            return Ok(table);
        }
        self.seika_ready = seen.first().cloned();
        if seen == [expected.as_str()] {
            Ok(table)
        } else {
            Err(Failure::new(format!("one Seika, READY {expected}"), format!("READY {}\n{table}", listed(&seen))))
        }
    }

    pub(super) async fn nothing_left(&mut self) -> StepResult {
        let revisions = self.objects.revisions().await?;
        self.objects.delete().await?;
        let begun = Instant::now();
        loop {
            let left = self.objects.left(&revisions).await?;
            if left.is_empty() {
                return Ok("no pods, Seikas, ServerlessServices, PodAutoscalers, Services or other objects of it".to_owned());
            }
            if begun.elapsed() > GONE_WITHIN {
                return Err(Failure::new(format!("nothing left within {} s", GONE_WITHIN.as_secs()), listed(&left)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
