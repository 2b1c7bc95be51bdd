//! Cluster-wide defaults: ConfigMaps `config-autoscaler` and `config-deployment`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{BURST_RULE, LEAST_TARGET, WINDOW, WINDOW_RULE, is_burst_capacity};
use super::reader::{Reader, is_whole_seconds};

/// The keys of `config-autoscaler` (and one of `config-deployment`) that decisions depend on, with
/// Knative's own defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// The class of revisions that name none.
    pub pod_autoscaler_class: String,
    /// Share of a pod's concurrency to aim at, 0..1.
    pub target_utilization: f64,
    /// Concurrent requests per pod where nothing else says.
    pub concurrency_target: f64,
    /// Requests per second per pod where nothing else says.
    pub rps_target: f64,
    /// Spare capacity below which activators stay in the request path; see
    /// [`RevisionSettings::burst_capacity`].
    ///
    /// [`RevisionSettings::burst_capacity`]: super::RevisionSettings::burst_capacity
    pub burst_capacity: Option<f64>,
    /// Requests that one activator is counted on to hold.
    pub activator_capacity: f64,
    /// Over how long demand is averaged.
    pub stable_window: Duration,
    /// The panic window in percent of the stable one.
    pub panic_window_percentage: f64,
    /// Panic when the short window asks for this many times the ready pods.
    pub panic_threshold: f64,
    /// At most this many times the ready pods at once.
    pub max_scale_up_rate: f64,
    /// At least the ready pods divided by this.
    pub max_scale_down_rate: f64,
    /// How long a lower count must have been wanted.
    pub scale_down_delay: Duration,
    /// Whether the last pod may go at all.
    pub scale_to_zero: bool,
    /// How long activators get to come into the way before the last pod goes.
    pub scale_to_zero_grace: Duration,
    /// How long the last pod stays at least.
    pub scale_to_zero_retention: Duration,
    /// Pods a new revision starts with.
    pub initial_scale: u32,
    /// Whether that may be none.
    pub allow_zero_initial_scale: bool,
    /// Pods at least.
    pub min_scale: u32,
    /// Pods at most; `None` is no limit.
    pub max_scale: Option<u32>,
    /// What a revision may set as its most pods; `None` is no limit. Knative refuses new revisions
    /// beyond it and leaves older ones alone.
    pub max_scale_limit: Option<u32>,
    /// How long a revision may take to get its first pod ready.
    pub progress_deadline: Duration,
}

impl ClusterSettings {
    /// Name of the ConfigMap, in Knative's own namespace.
    pub const AUTOSCALER: &'static str = "config-autoscaler";
    /// Name of the other.
    pub const DEPLOYMENT: &'static str = "config-deployment";

    /// Reads both ConfigMaps' data. A value that is malformed has its default; see [`Self::follow`]
    /// for why.
    #[must_use]
    pub fn read(autoscaler: &BTreeMap<String, String>, deployment: &BTreeMap<String, String>) -> Self {
        Self {
            progress_deadline: progress_deadline(&mut Reader::new(deployment)),
            ..read_autoscaler(&mut Reader::new(autoscaler))
        }
    }

    /// Applies the data of both ConfigMaps. Returns the problems found.
    ///
    /// As in stock, a map with one malformed value changes nothing. (A stock autoscaler that starts
    /// with such a map stops. Here [`Self::read`] ignores single values, since revisions without an
    /// autoscaler are worse.)
    #[must_use]
    pub fn follow(&mut self, autoscaler: &BTreeMap<String, String>, deployment: &BTreeMap<String, String>) -> Vec<String> {
        let named = |map: &'static str| move |problem| format!("ConfigMap {map}: {problem}");
        let mut reader = Reader::new(autoscaler);
        let next = read_autoscaler(&mut reader);
        if reader.problems.is_empty() {
            *self = Self { progress_deadline: self.progress_deadline, ..next };
        }
        let mut problems: Vec<String> = reader.problems.into_iter().map(named(Self::AUTOSCALER)).collect();
        let mut reader = Reader::new(deployment);
        let next = progress_deadline(&mut reader);
        if reader.problems.is_empty() {
            self.progress_deadline = next;
        }
        problems.extend(reader.problems.into_iter().map(named(Self::DEPLOYMENT)));
        problems
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self::read(&BTreeMap::new(), &BTreeMap::new())
    }
}

fn progress_deadline(reader: &mut Reader<'_>) -> Duration {
    let is_valid = |deadline: Duration| !deadline.is_zero() && is_whole_seconds(deadline);
    // Knative reads the older spelling first, so the newer one wins.
    reader
        .duration(&["progress-deadline", "progressDeadline"], is_valid, "a duration above 0 in whole seconds")
        .unwrap_or(Duration::from_secs(600))
}

fn read_autoscaler(reader: &mut Reader<'_>) -> ClusterSettings {
    let any = |_: f64| true;
    let class = reader.text(&["pod-autoscaler-class"]).map_or("kpa.autoscaling.knative.dev", |(_, class)| class.trim());

    const PERCENTAGE: &str = "container-concurrency-target-percentage";
    const CONCURRENCY: &str = "container-concurrency-target-default";
    // Knative accepts both 0.7 and 70.
    let mut target_utilization = reader
        .float(&[PERCENTAGE], |share| share > 0.0 && share <= 100.0, "above 0 and at most 100")
        .map_or(0.7, |share| if share <= 1.0 { share } else { share / 100.0 });
    let mut concurrency_target = reader.float(&[CONCURRENCY], any, "a number").unwrap_or(100.0);
    if target_utilization * concurrency_target < LEAST_TARGET {
        reader.refuse(CONCURRENCY, concurrency_target, format!("such that {PERCENTAGE} of it is at least {LEAST_TARGET}"));
        (target_utilization, concurrency_target) = (0.7, 100.0);
    }

    let allow_zero_initial_scale = reader.bool("allow-zero-initial-scale").unwrap_or(false);
    let initial_scale = reader.count(&["initial-scale"], u32::from(!allow_zero_initial_scale)).unwrap_or(1);
    let unlimited = |count: u32| Some(count).filter(|count| *count > 0);
    let max_scale_limit = reader.count(&["max-scale-limit"], 0).and_then(unlimited);
    let mut max_scale = reader.count(&["max-scale"], 0).and_then(unlimited);
    if let Some(limit) = max_scale_limit
        && max_scale.is_none_or(|most| most > limit)
    {
        reader.refuse("max-scale", max_scale.unwrap_or(0), format!("from 1 to max-scale-limit, {limit}"));
        max_scale = Some(limit);
    }
    let mut min_scale = reader.count(&["min-scale"], 0).unwrap_or(0);
    if let Some(most) = max_scale
        && min_scale > most
    {
        reader.refuse("min-scale", min_scale, format!("at most max-scale, {most}"));
        min_scale = 0;
    }

    let positive = |duration: Duration| !duration.is_zero();
    ClusterSettings {
        pod_autoscaler_class: class.to_owned(),
        target_utilization,
        concurrency_target,
        rps_target: reader
            .float(&["requests-per-second-target-default"], |target| target >= LEAST_TARGET, "at least 0.01")
            .unwrap_or(200.0),
        burst_capacity: reader.float(&["target-burst-capacity"], is_burst_capacity, BURST_RULE),
        activator_capacity: reader.float(&["activator-capacity"], |capacity| capacity >= 1.0, "at least 1").unwrap_or(100.0),
        stable_window: reader
            .duration(&["stable-window"], |window| WINDOW.contains(&window) && is_whole_seconds(window), WINDOW_RULE)
            .unwrap_or(Duration::from_secs(60)),
        panic_window_percentage: reader
            .float(&["panic-window-percentage"], |percent| (1.0..=100.0).contains(&percent), "from 1 to 100")
            .unwrap_or(10.0),
        // Knative bounds it for revisions only.
        panic_threshold: reader.float(&["panic-threshold-percentage"], any, "a number").unwrap_or(200.0) / 100.0,
        max_scale_up_rate: reader.float(&["max-scale-up-rate"], |rate| rate > 1.0, "above 1").unwrap_or(1000.0),
        max_scale_down_rate: reader.float(&["max-scale-down-rate"], |rate| rate > 1.0, "above 1").unwrap_or(2.0),
        scale_down_delay: reader
            .duration(&["scale-down-delay"], is_whole_seconds, "a duration in whole seconds")
            .unwrap_or_default(),
        scale_to_zero: reader.bool("enable-scale-to-zero").unwrap_or(true),
        scale_to_zero_grace: reader
            .duration(&["scale-to-zero-grace-period"], positive, "a duration above 0")
            .unwrap_or(Duration::from_secs(30)),
        scale_to_zero_retention: reader
            .duration(&["scale-to-zero-pod-retention-period"], |_| true, "a duration")
            .unwrap_or_default(),
        initial_scale,
        allow_zero_initial_scale,
        min_scale,
        max_scale,
        max_scale_limit,
        progress_deadline: Duration::from_secs(600),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn autoscaler<const N: usize>(pairs: [(&str, &str); N]) -> ClusterSettings {
        ClusterSettings::read(&map(pairs), &BTreeMap::new())
    }

    fn problems<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
        ClusterSettings::default().follow(&map(pairs), &BTreeMap::new())
    }

    #[rstest]
    #[case("1", true)]
    #[case("t", true)]
    #[case("T", true)]
    #[case("TRUE", true)]
    #[case("true", true)]
    #[case("True", true)]
    #[case("0", false)]
    #[case("f", false)]
    #[case("F", false)]
    #[case("FALSE", false)]
    #[case("false", false)]
    #[case("False", false)]
    fn booleans_have_every_spelling(#[case] text: &str, #[case] value: bool) {
        assert_eq!(autoscaler([("enable-scale-to-zero", text)]).scale_to_zero, value);
        assert_eq!(autoscaler([("allow-zero-initial-scale", text)]).allow_zero_initial_scale, value);
    }

    #[test]
    fn defaults_are_knatives() {
        let settings = ClusterSettings::default();
        assert_eq!(settings.pod_autoscaler_class, "kpa.autoscaling.knative.dev");
        assert_eq!((settings.target_utilization, settings.concurrency_target, settings.rps_target), (0.7, 100.0, 200.0));
        assert_eq!((settings.burst_capacity, settings.activator_capacity), (None, 100.0));
        assert_eq!((settings.stable_window, settings.panic_window_percentage), (Duration::from_secs(60), 10.0));
        assert_eq!((settings.panic_threshold, settings.max_scale_up_rate, settings.max_scale_down_rate), (2.0, 1000.0, 2.0));
        assert_eq!((settings.scale_down_delay, settings.scale_to_zero_retention), (Duration::ZERO, Duration::ZERO));
        assert_eq!((settings.scale_to_zero, settings.scale_to_zero_grace), (true, Duration::from_secs(30)));
        assert_eq!((settings.initial_scale, settings.allow_zero_initial_scale), (1, false));
        assert_eq!((settings.min_scale, settings.max_scale, settings.max_scale_limit), (0, None, None));
        assert_eq!(settings.progress_deadline, Duration::from_secs(600));
    }

    #[test]
    fn every_key_is_read() {
        let settings = autoscaler([
            ("pod-autoscaler-class", " miporin.autoscaling.bonavadeur.io\n"),
            ("container-concurrency-target-percentage", "80"),
            ("container-concurrency-target-default", "50"),
            ("requests-per-second-target-default", "1e2"),
            ("target-burst-capacity", "0"),
            ("activator-capacity", "42.5"),
            ("stable-window", "1m30s"),
            ("panic-window-percentage", "20"),
            ("panic-threshold-percentage", "150"),
            ("max-scale-up-rate", "10"),
            ("max-scale-down-rate", "1.5"),
            ("scale-down-delay", "15s"),
            ("enable-scale-to-zero", "F"),
            ("scale-to-zero-grace-period", "500ms"),
            ("scale-to-zero-pod-retention-period", "1.5s"),
            ("initial-scale", "0"),
            ("allow-zero-initial-scale", "T"),
            ("min-scale", "2"),
            ("max-scale", "8"),
            ("max-scale-limit", "9"),
        ]);
        let expected = ClusterSettings {
            pod_autoscaler_class: "miporin.autoscaling.bonavadeur.io".to_owned(),
            target_utilization: 0.8,
            concurrency_target: 50.0,
            rps_target: 100.0,
            burst_capacity: Some(0.0),
            activator_capacity: 42.5,
            stable_window: Duration::from_secs(90),
            panic_window_percentage: 20.0,
            panic_threshold: 1.5,
            max_scale_up_rate: 10.0,
            max_scale_down_rate: 1.5,
            scale_down_delay: Duration::from_secs(15),
            scale_to_zero: false,
            scale_to_zero_grace: Duration::from_millis(500),
            scale_to_zero_retention: Duration::from_millis(1500),
            initial_scale: 0,
            allow_zero_initial_scale: true,
            min_scale: 2,
            max_scale: Some(8),
            max_scale_limit: Some(9),
            progress_deadline: Duration::from_secs(600),
        };
        assert_eq!(settings, expected);
    }

    /// What Knative's own validation refuses, one by one.
    #[rstest]
    #[case("enable-scale-to-zero", "yes")]
    #[case("container-concurrency-target-percentage", "0")]
    #[case("container-concurrency-target-percentage", "101")]
    #[case("container-concurrency-target-default", "0.01")]
    #[case("container-concurrency-target-default", "nan")]
    #[case("requests-per-second-target-default", "0.001")]
    #[case("target-burst-capacity", "-2")]
    #[case("activator-capacity", "0.9")]
    #[case("stable-window", "5s")]
    #[case("stable-window", "61m")]
    #[case("stable-window", "10500ms")]
    #[case("stable-window", "60")]
    #[case("panic-window-percentage", "0.5")]
    #[case("panic-threshold-percentage", "much")]
    #[case("max-scale-up-rate", "1")]
    #[case("max-scale-down-rate", "1.0")]
    #[case("scale-down-delay", "-1s")]
    #[case("scale-down-delay", "1500ms")]
    #[case("scale-to-zero-grace-period", "0")]
    #[case("scale-to-zero-pod-retention-period", "-1s")]
    #[case("initial-scale", "0")]
    #[case("initial-scale", "-1")]
    #[case("min-scale", "-1")]
    #[case("max-scale", "1.5")]
    #[case("max-scale-limit", "4")]
    fn a_malformed_value_is_named_and_has_its_default(#[case] key: &str, #[case] value: &str) {
        let problems = problems([(key, value)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("ConfigMap config-autoscaler: "), "{problems:?}");
        let mut expected = ClusterSettings::default();
        if key == "max-scale-limit" {
            // Without a limit of its own a revision would pass the cluster's.
            (expected.max_scale, expected.max_scale_limit) = (Some(4), Some(4));
        }
        assert_eq!(autoscaler([(key, value)]), expected);
    }

    #[test]
    fn a_map_with_a_malformed_value_changes_nothing() {
        let mut settings = autoscaler([("min-scale", "3")]);
        let problems =
            settings.follow(&map([("min-scale", "5"), ("stable-window", "soon")]), &map([("progress-deadline", "30s")]));
        let expected = "ConfigMap config-autoscaler: stable-window: \"soon\" is ignored, it must be whole seconds from 6s to 1h";
        assert_eq!(problems, [expected]);
        assert_eq!((settings.min_scale, settings.progress_deadline), (3, Duration::from_secs(30)));
        let problems = settings.follow(&map([("min-scale", "5")]), &map([("progress-deadline", "0")]));
        assert_eq!((settings.min_scale, settings.progress_deadline, problems.len()), (5, Duration::from_secs(30), 1));
    }

    #[test]
    fn bounds_must_fit_each_other() {
        assert!(problems([("max-scale", "5"), ("max-scale-limit", "4")])[0].contains("max-scale-limit"));
        assert!(problems([("max-scale", "5"), ("min-scale", "6")])[0].contains("min-scale"));
        assert!(problems([("max-scale", "0"), ("min-scale", "6")]).is_empty());
        assert!(problems([("max-scale", "4"), ("max-scale-limit", "4")]).is_empty());
    }
}
