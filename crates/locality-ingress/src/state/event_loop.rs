//! The loop around [`ControlPlaneState`]: applies changes, and passes on each
//! [`ProgressReport`](crate::status::ProgressReport).

use std::time::Instant;

use std::collections::BTreeSet;

use event_writer::EventWriter;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ControlPlaneState;
use super::change::{ChangeSource, ObjectChange};
use crate::demand::peers::ReplicaAddresses;
use crate::kubernetes::objects::ObjectName;
use crate::metrics::Metrics;
use crate::status::progress::{GatewayPod, IngressProgress, REFUSED_BY_GATEWAY};
use crate::xds::server::NackReport;

/// Changes per batch, so that a long list does not delay what came before it.
const BATCH: usize = 4096;

/// Receivers of outcomes.
pub(crate) struct Outputs {
    /// Progress of Ingresses.
    pub progress_changes: mpsc::UnboundedSender<(ObjectName, Option<IngressProgress>)>,
    /// The gateways; `None` until the caches are synced.
    pub gateways: watch::Sender<Option<Vec<GatewayPod>>>,
    /// The other replicas.
    pub(crate) replicas: watch::Sender<ReplicaAddresses>,
    /// Writer of warnings about Ingresses.
    pub events: Option<EventWriter>,
    /// Set when the caches are synced.
    pub readiness: ops_http::Readiness,
    /// Metrics of the daemon.
    pub metrics: Metrics,
}

/// Runs until the stop, or until all senders of changes are gone. Nothing is published before every
/// [`ChangeSource`] was listed.
pub(crate) async fn run(
    mut state: ControlPlaneState,
    mut changes: mpsc::Receiver<ObjectChange>,
    mut nacks: mpsc::Receiver<NackReport>,
    outputs: Outputs,
    stop: CancellationToken,
) {
    let mut unlisted: BTreeSet<ChangeSource> = ChangeSource::ALL.into();
    let mut batch = Vec::new();
    loop {
        let wake_at = state.wake_at(Instant::now()).map(tokio::time::Instant::from_std);
        tokio::select! {
            received = changes.recv_many(&mut batch, BATCH) => if received == 0 { return },
            Some(report) = nacks.recv() => blame(&mut state, &report, &outputs),
            () = async { tokio::time::sleep_until(wake_at.unwrap_or_else(tokio::time::Instant::now)).await }, if wake_at.is_some() => {}
            () = stop.cancelled() => return,
        }
        for change in batch.drain(..) {
            if let ObjectChange::Listed(source) = change
                && unlisted.remove(&source)
                && unlisted.is_empty()
            {
                tracing::info!("caches are synced");
                outputs.readiness.reached("caches");
                outputs.gateways.send_if_modified(|gateways| gateways.get_or_insert_default().is_empty());
            }
            state.apply_change(change);
        }
        if !unlisted.is_empty() {
            continue;
        }
        let news = state.publish_changes(Instant::now());
        if let Some(gateways) = news.gateways {
            tracing::info!(count = gateways.len(), "gateways changed");
            outputs.gateways.send_replace(Some(gateways));
        }
        if let Some(replicas) = news.replicas {
            outputs.replicas.send_if_modified(|known| {
                let changed = *known != replicas;
                *known = replicas;
                changed
            });
        }
        for (ingress, reason, note) in news.warnings {
            warn(&state, &outputs, ingress, reason, note);
        }
        for standing in news.progress_changes {
            // The receiver is gone only while the process stops.
            let _ = outputs.progress_changes.send(standing);
        }
        let (ingresses, refused) = state.ingress_counts();
        outputs.metrics.ingresses.set(count(ingresses));
        outputs.metrics.ingresses_refused.set(count(refused));
        outputs.metrics.planned_revisions.set(count(state.planned_revisions()));
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Warns each Ingress at fault for a NACK.
fn blame(state: &mut ControlPlaneState, report: &NackReport, outputs: &Outputs) {
    for ingress in state.apply_nack(&report.node, &report.nack) {
        warn(state, outputs, ingress, REFUSED_BY_GATEWAY, report.nack.by_gateway_of(&report.node));
    }
}

fn warn(state: &ControlPlaneState, outputs: &Outputs, ingress: ObjectName, reason: &'static str, note: String) {
    let Some(events) = &outputs.events else { return };
    let about = ObjectReference {
        api_version: Some("networking.internal.knative.dev/v1alpha1".to_owned()),
        kind: Some("Ingress".to_owned()),
        uid: state.uid(&ingress),
        namespace: Some(ingress.namespace),
        name: Some(ingress.name),
        ..ObjectReference::default()
    };
    let (type_, action) = (EventType::Warning, "Route".to_owned());
    events.write(&about, Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None });
}
