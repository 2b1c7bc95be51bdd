//! `events`: what the daemons said lately.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::{Cluster, Scope};
use crate::daemons::{DECIDER, INGRESS, SEIKAS};
use crate::error::PluginError;
use crate::options::EventsOptions;
use crate::output::{Output, age};

pub(crate) async fn run(cluster: &Cluster, options: &EventsOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let mut told = read(cluster, &cluster.scope(&options.namespaces)?).await?;
    told.retain(|one| {
        options.object.as_ref().is_none_or(|name| one.name == *name) && (!options.warnings || one.kind_of_event == "Warning")
    });
    if options.form.is_json() {
        return out.json(&told);
    }
    if told.is_empty() {
        return Ok(out.line("No events of Kantai's. Clusters forget events, usually after an hour.")?);
    }
    let now = Timestamp::now();
    let rows: Vec<_> = told.iter().map(|one| one.row(now)).collect();
    Ok(out.table(&["LAST SEEN", "NAMESPACE", "TYPE", "REASON", "OBJECT", "COUNT", "NOTE"], &rows)?)
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Told {
    /// When it was seen last; `None` where the event does not say.
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) namespace: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub(crate) kind_of_event: String,
    pub(crate) reason: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// How often it was seen.
    pub(crate) count: i32,
    pub(crate) note: String,
    /// Which daemon said it.
    pub(crate) by: String,
}

impl Told {
    fn of(event: &Event) -> Option<Self> {
        let by = event.reporting_controller.as_deref()?;
        if ![DECIDER, INGRESS, SEIKAS].contains(&by) {
            return None;
        }
        let series = event.series.as_ref();
        let about = event.regarding.clone().unwrap_or_default();
        let created = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Some(Self {
            last_seen: series
                .map(|series| series.last_observed_time.0)
                .or(event.event_time.as_ref().map(|time| time.0))
                .or(created),
            namespace: event.namespace().unwrap_or_default(),
            kind_of_event: event.type_.clone().unwrap_or_default(),
            reason: event.reason.clone().unwrap_or_default(),
            kind: about.kind.unwrap_or_default(),
            name: about.name.unwrap_or_default(),
            count: series.map_or(1, |series| series.count),
            note: event.note.clone().unwrap_or_default(),
            by: by.to_owned(),
        })
    }

    fn row(&self, now: Timestamp) -> Vec<String> {
        let seen = self.last_seen.map_or("?".to_owned(), |seen| age(now.as_second() - seen.as_second()));
        let object = format!("{}/{}", self.kind.to_lowercase(), self.name);
        let (count, note) = (self.count.to_string(), self.note.clone());
        vec![seen, self.namespace.clone(), self.kind_of_event.clone(), self.reason.clone(), object, count, note]
    }
}

/// The daemons' events, the latest last.
pub(crate) async fn read(cluster: &Cluster, scope: &Scope) -> Result<Vec<Told>, PluginError> {
    let events = cluster.list("list events", cluster.api::<Event>(scope), ListParams::default()).await?;
    let mut told: Vec<Told> = events.iter().filter_map(Told::of).collect();
    told.sort_by_key(|one| one.last_seen);
    Ok(told)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(by: &str, series: &serde_json::Value) -> Event {
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": by, "reason": "NoRoom", "type": "Warning", "note": "node1: no cpu",
            "regarding": {"kind": "PodAutoscaler", "name": "hello-00001"}, "series": series,
        }))
        .unwrap()
    }

    #[test]
    fn events_of_others_are_left_out_and_repeated_ones_are_as_old_as_the_last() {
        assert_eq!(Told::of(&event("kubelet", &json!(null))), None);
        let once = Told::of(&event(DECIDER, &json!(null))).unwrap();
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(once.row(now), ["60s", "default", "Warning", "NoRoom", "podautoscaler/hello-00001", "1", "node1: no cpu"]);
        let series = json!({"count": 7, "lastObservedTime": "2026-01-01T00:00:50.000000Z"});
        let repeated = Told::of(&event(DECIDER, &series)).unwrap();
        assert_eq!((repeated.row(now)[0].as_str(), repeated.count), ("10s", 7));
    }
}
