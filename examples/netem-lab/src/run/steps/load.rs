//! The steps under load: it flows from when it begins until the last of them is over.

use std::time::Duration;

use tokio::time::Instant;

use super::super::check::{self, Tally};
use super::super::flow::{Flow, in_node};
use super::super::journal::{Failure, StepResult, unix_seconds};
use super::super::objects::{listed, ready_per_node};
use super::super::{RunError, service};
use super::{LOOK_EVERY, Runner};
use crate::load::Pace;
use crate::scenario::KPA_CLASS;

/// Pods have moved when so long a time of requests was answered at home.
const MOVED_SECONDS: f64 = 3.0;

/// Requests sent longer ago than this have their answers, if the service answers as it should.
const ANSWER_SECONDS: f64 = 1.5;

/// How long to wait before looking at what the stock autoscaler did by itself.
const BASELINE_SETTLES: Duration = Duration::from_secs(15);

const TOGGLED_WITHIN: Duration = Duration::from_secs(90);

impl Runner<'_, '_> {
    pub(super) async fn loads(&mut self) -> Result<(), RunError> {
        let (near, far) = (self.scenario.steps.near.clone(), self.scenario.steps.far.clone());
        self.load_step(&format!("load from {near}"), &near, std::slice::from_ref(&near)).await?;
        if near != far {
            self.load_step(&format!("load from {near} and {far}"), &far, &[near, far.clone()]).await?;
        }
        Ok(())
    }

    /// Adds load from one more node, waits until all loaded nodes are served at home, and measures.
    async fn load_step(&mut self, name: &str, one_more: &str, loaded: &[String]) -> Result<(), RunError> {
        let open = self.journal.begin(name);
        self.journal.mark(&format!("{name}, settling"));
        let begun = unix_seconds();
        let url = service::url(&self.scenario.service, &self.scenario.steps.load_path);
        let node = self.stage.node(&self.scenario.name, one_more)?;
        let pace = Pace::InFlight(self.scenario.steps.in_flight);
        self.flows.push(Flow::start(in_node(node)?, one_more, &url, pace, &self.outcomes)?);
        let result = self.settled_and_measured(name, begun, loaded).await;
        self.journal.end(open, result);
        Ok(())
    }

    async fn settled_and_measured(&mut self, name: &str, begun: f64, loaded: &[String]) -> StepResult {
        let settled_after = self.settle(begun, loaded).await;
        self.journal.mark(name);
        let from = unix_seconds();
        tokio::time::sleep(Duration::from_secs_f64(self.scenario.steps.load_seconds)).await;
        let to = unix_seconds();
        // Answers to the last of these requests.
        tokio::time::sleep(Duration::from_secs_f64(ANSWER_SECONDS)).await;

        let outcomes = self.outcomes.all();
        let pods = self.objects.pods().await?;
        let mut lines = vec![format!("settled after {settled_after:.1} s; pods: {}", listed(&pods))];
        let mut held = true;
        for node in loaded {
            let settling = Tally::of(&outcomes, node, begun, from);
            let measured = Tally::of(&outcomes, node, from, to);
            lines.push(format!("while settling {}", settling.describe(node)));
            lines.push(format!("measured {}", measured.describe(node)));
            held &= settling.failed == 0 && measured.failed == 0 && measured.requests > 0;
            if self.is_kantai() {
                held &= measured.is_local() && ready_per_node(&pods).contains_key(node);
            }
        }
        let seen = lines.join("\n");
        if held {
            return Ok(seen);
        }
        let demand = if self.is_kantai() {
            format!(
                ", pods on {}, and {:.0} % of requests answered on the node they entered",
                loaded.join(" and "),
                check::LOCAL_SHARE * 100.0
            )
        } else {
            String::new()
        };
        Err(Failure::new(format!("no request failed{demand}"), seen))
    }

    /// Waits until all loaded nodes are served at home, at most as long as the scenario allows.
    /// Answers with how long it took.
    async fn settle(&mut self, begun: f64, loaded: &[String]) -> f64 {
        if !self.is_kantai() {
            tokio::time::sleep(BASELINE_SETTLES).await;
            return unix_seconds() - begun;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = unix_seconds();
            if now - begun > self.scenario.steps.settle_seconds || self.all_at_home(loaded, begun, now) {
                return now - begun;
            }
        }
    }

    /// Whether all requests of the last seconds that can have an answer by now were answered at
    /// home.
    fn all_at_home(&self, loaded: &[String], begun: f64, now: f64) -> bool {
        let to = now - ANSWER_SECONDS;
        let from = to - MOVED_SECONDS;
        let outcomes = self.outcomes.all();
        from >= begun && loaded.iter().all(|node| Tally::of(&outcomes, node, from, to).is_local())
    }

    /// Turns Kantai's switch under load, and waits until the revision has changed hands: off, when
    /// only the Deployment's pods serve; on, when every loaded node is served at home again. (By
    /// whose pods does not matter then: the Deployment's count where they run until they go.)
    pub(super) async fn toggled(&mut self, on: bool) -> StepResult {
        let before = unix_seconds();
        self.objects.set_toggle(on).await?;
        let mut loaded = vec![self.scenario.steps.near.clone(), self.scenario.steps.far.clone()];
        loaded.dedup();
        let class = if on { self.scenario.service.class.clone() } else { KPA_CLASS.to_owned() };
        let state = if on {
            format!("{:.0} % of requests answered on the node they entered", check::LOCAL_SHARE * 100.0)
        } else {
            "all pods the Deployment's and at least one ready".to_owned()
        };
        let expected = format!("class {class}, {state}, within {} s, and no request failed", TOGGLED_WITHIN.as_secs());
        let begun = Instant::now();
        loop {
            let classes = self.objects.classes().await?;
            let pods = self.objects.pods().await?;
            let staying: Vec<_> = pods.iter().filter(|pod| !pod.terminating).collect();
            let serves = if on {
                self.all_at_home(&loaded, before, unix_seconds())
            } else {
                staying.iter().any(|pod| pod.ready) && staying.iter().all(|pod| !pod.of_seika)
            };
            if serves && classes == [class.as_str()] {
                break;
            }
            if begun.elapsed() > TOGGLED_WITHIN {
                return Err(Failure::new(expected, format!("class {}; pods: {}", listed(&classes), listed(&pods))));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = begun.elapsed().as_secs_f64();
        // Load goes on for a while under the new hands.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let outcomes = self.outcomes.all();
        let mut lines = vec![format!("class {class} after {took:.1} s; pods: {}", listed(&self.objects.pods().await?))];
        let mut held = true;
        for node in &loaded {
            let tally = Tally::of(&outcomes, node, before, f64::MAX);
            held &= tally.failed == 0 && tally.requests > 0;
            lines.push(tally.describe(node));
        }
        let seen = lines.join("\n");
        if held { Ok(seen) } else { Err(Failure::new(expected, seen)) }
    }
}
