use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn annotations<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), value.to_owned())).collect()
}

/// Over Knative's defaults, without a hard limit, reachable.
fn read<const N: usize>(pairs: [(&str, &str); N]) -> RevisionSettings {
    RevisionSettings::read(&annotations(pairs), 0, true, &ClusterSettings::default())
}

#[test]
fn the_demo_has_a_target_of_seven_over_twelve_seconds() {
    let settings = read([("target", "10"), ("window", "12s"), ("metric", "")]);
    assert_eq!((settings.target, settings.capacity), (7.0, 10.0));
    assert_eq!((settings.stable_window, settings.panic_window), (Duration::from_secs(12), Duration::from_secs(1)));
    assert_eq!((settings.burst_capacity, settings.initial_scale, settings.max_scale), (None, 1, None));
    assert_eq!(settings.problems, Vec::<String>::new());
}

#[test]
fn older_spellings_and_the_hard_limit_are_honoured() {
    let own = annotations([("target", "10"), ("minScale", "2"), ("maxScale", "5"), ("targetUtilizationPercentage", "100")]);
    let settings = RevisionSettings::read(&own, 4, true, &ClusterSettings::default());
    assert_eq!((settings.target, settings.min_scale, settings.max_scale), (4.0, 2, Some(5)));
}

/// Each older spelling that Knative knows, and that the newer one wins.
#[rstest]
#[case("initial-scale", "initialScale", "3")]
#[case("max-scale", "maxScale", "3")]
#[case("min-scale", "minScale", "3")]
#[case("metric-aggregation-algorithm", "metricAggregationAlgorithm", "weightedExponential")]
#[case("panic-threshold-percentage", "panicThresholdPercentage", "300")]
#[case("panic-window-percentage", "panicWindowPercentage", "30")]
#[case("scale-down-delay", "scaleDownDelay", "30s")]
#[case("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod", "30s")]
#[case("target-burst-capacity", "targetBurstCapacity", "30")]
#[case("target-utilization-percentage", "targetUtilizationPercentage", "30")]
fn every_older_spelling_is_read(#[case] name: &str, #[case] older: &str, #[case] value: &str) {
    let settings = read([(name, value)]);
    assert_ne!(settings, read([]));
    assert_eq!(read([(older, value)]), settings);
    assert_eq!(read([(older, "1"), (name, value)]), settings);
}

#[test]
fn what_never_had_an_older_spelling_has_none() {
    let older = [("activationScale", "3"), ("Target", "3"), ("Window", "30s")];
    assert_eq!(read(older), read([]));
}

#[rstest]
#[case("target", "5", |s: &RevisionSettings| (s.target, s.capacity) == (3.5, 5.0))]
#[case("target-utilization-percentage", "85", |s: &RevisionSettings| s.target == 85.0)]
#[case("target-burst-capacity", "-1", |s: &RevisionSettings| s.burst_capacity == Some(-1.0))]
#[case("target-burst-capacity", "0", |s: &RevisionSettings| s.burst_capacity == Some(0.0))]
#[case("window", "1m30s", |s: &RevisionSettings| s.stable_window.as_secs() == 90 && s.panic_window.as_secs() == 9)]
#[case("panic-window-percentage", "100", |s: &RevisionSettings| s.panic_window.as_secs() == 60)]
#[case("panic-threshold-percentage", "110", |s: &RevisionSettings| s.panic_threshold == 1.1)]
#[case("scale-down-delay", "1h", |s: &RevisionSettings| s.scale_down_delay.as_secs() == 3600)]
#[case("scale-to-zero-pod-retention-period", "1m5s", |s: &RevisionSettings| s.scale_to_zero_retention.as_secs() == 65)]
#[case("initial-scale", "5", |s: &RevisionSettings| s.initial_scale == 5)]
#[case("min-scale", "2", |s: &RevisionSettings| s.min_scale == 2)]
#[case("max-scale", "0", |s: &RevisionSettings| s.max_scale.is_none())]
#[case("activation-scale", "2", |s: &RevisionSettings| s.activation_scale == 2)]
#[case("metric-aggregation-algorithm", "weighted-exponential", |s: &RevisionSettings| s.aggregation == Aggregation::WeightedExponential)]
#[case("metric", "rps", |s: &RevisionSettings| s.metric == Metric::Rps && (s.target, s.capacity) == (140.0, 200.0))]
fn every_annotation_is_read(#[case] name: &str, #[case] value: &str, #[case] holds: fn(&RevisionSettings) -> bool) {
    let settings = read([(name, value)]);
    assert!(holds(&settings) && settings.problems.is_empty(), "{settings:?}");
}

/// The stable window and its share in percent, and the panic window that stock makes of them.
#[rstest]
#[case(6, "10", 1)]
#[case(15, "10", 2)]
#[case(45, "70", 32)]
#[case(35, "10", 4)]
#[case(60, "1", 1)]
#[case(64, "1.5", 1)]
#[case(100, "1.5", 2)]
fn the_panic_window_is_rounded_as_stock_does(#[case] stable: u64, #[case] percentage: &str, #[case] panic: u64) {
    let settings = read([("window", &format!("{stable}s")), ("panic-window-percentage", percentage)]);
    assert_eq!(settings.panic_window, Duration::from_secs(panic));
}

#[test]
fn an_unreachable_revision_keeps_nothing() {
    let own = annotations([("min-scale", "3"), ("scale-down-delay", "1m"), ("scale-to-zero-pod-retention-period", "1m")]);
    let settings = RevisionSettings::read(&own, 0, false, &ClusterSettings::default());
    assert_eq!((settings.min_scale, settings.scale_down_delay), (0, Duration::ZERO));
    assert_eq!(settings.scale_to_zero_retention, Duration::ZERO);
}

#[test]
fn the_hard_limit_bounds_concurrency_only() {
    let read = |pairs: &[(&str, &str)], limit| {
        let own = pairs.iter().map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), (*value).to_owned())).collect();
        let settings = RevisionSettings::read(&own, limit, true, &ClusterSettings::default());
        (settings.target, settings.capacity)
    };
    assert_eq!(read(&[], 10), (7.0, 10.0));
    assert_eq!(read(&[("target", "20")], 10), (7.0, 10.0));
    assert_eq!(read(&[("target", "5")], 10), (3.5, 5.0));
    assert_eq!(read(&[("target", "20"), ("metric", "rps")], 10), (14.0, 20.0));
}

/// One by one, what the webhook of Knative refuses.
#[rstest]
#[case("target", "NaN")]
#[case("target", "Inf")]
#[case("target", "0.001")]
#[case("target", "ten")]
#[case("target-utilization-percentage", "0.5")]
#[case("target-utilization-percentage", "101")]
#[case("target-burst-capacity", "-7")]
#[case("window", "1s")]
#[case("window", "61m")]
#[case("window", "6500ms")]
#[case("window", "60")]
#[case("panic-window-percentage", "0")]
#[case("panic-window-percentage", "101")]
#[case("panic-threshold-percentage", "109")]
#[case("panic-threshold-percentage", "1001")]
#[case("scale-down-delay", "61m")]
#[case("scale-down-delay", "1500ms")]
#[case("scale-to-zero-pod-retention-period", "-1s")]
#[case("initial-scale", "0")]
#[case("initial-scale", "-1")]
#[case("min-scale", "-3")]
#[case("max-scale", "2147483648")]
#[case("activation-scale", "1")]
#[case("metric-aggregation-algorithm", "quadratic")]
fn nonsense_is_named_and_falls_back_to_the_defaults(#[case] name: &str, #[case] value: &str) {
    let mut settings = read([(name, value)]);
    let problems = std::mem::take(&mut settings.problems);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(&format!("autoscaling.knative.dev/{name}: {value:?} is ignored")), "{problems:?}");
    assert_eq!(settings, read([]));
}

/// Such a metric's target is in its own unit, so it is not taken for one of concurrency.
#[rstest]
#[case("cpu")]
#[case("memory")]
#[case("queue_length")]
fn the_metric_of_another_class_is_named(#[case] metric: &str) {
    let mut settings = read([("metric", metric), ("target", "80")]);
    let problems = std::mem::take(&mut settings.problems);
    assert!(problems[0].contains("concurrency is counted") && problems[1].contains("target"), "{problems:?}");
    assert_eq!(settings, read([]));
}

#[test]
fn bounds_that_do_not_fit_are_named() {
    let limited = ClusterSettings { max_scale_limit: Some(4), max_scale: Some(4), ..ClusterSettings::default() };
    let problems = |own: &[(&str, &str)]| {
        let own = own.iter().map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), (*value).to_owned())).collect();
        RevisionSettings::read(&own, 0, true, &limited).problems.len()
    };
    assert_eq!(problems(&[]), 0);
    assert_eq!(problems(&[("max-scale", "4"), ("min-scale", "4"), ("activation-scale", "4")]), 0);
    assert_eq!(problems(&[("max-scale", "5")]), 1);
    assert_eq!(problems(&[("max-scale", "0")]), 1);
    assert_eq!(problems(&[("min-scale", "5")]), 1);
    assert_eq!(problems(&[("activation-scale", "5")]), 1);
}

#[test]
fn the_wishes_about_places_are_read() {
    let wishes = [("p95", "80ms"), ("warm", "1"), ("zones", "2"), ("node-share", "0.5")];
    let own = wishes.map(|(key, value)| (format!("placement.kantai.dev/{key}"), value.to_owned()));
    let settings = RevisionSettings::read(&BTreeMap::from(own), 0, true, &ClusterSettings::default());
    assert_eq!((settings.p95, settings.warm), (Some(Duration::from_millis(80)), 1));
    assert_eq!((settings.zones, settings.node_share), (2, Some(0.5)));
    assert!(settings.problems.is_empty());
    assert_eq!((read([]).p95, read([]).warm, read([]).zones, read([]).node_share), (None, 0, 1, None));
}

#[rstest]
#[case("p95", "0s")]
#[case("p95", "80")]
#[case("p95", "-80ms")]
#[case("warm", "-1")]
#[case("warm", "one")]
#[case("zones", "0")]
#[case("node-share", "0")]
#[case("node-share", "1.01")]
#[case("node-share", "50%")]
fn a_wish_that_cannot_be_is_named(#[case] name: &str, #[case] value: &str) {
    let own = BTreeMap::from([(format!("placement.kantai.dev/{name}"), value.to_owned())]);
    let mut settings = RevisionSettings::read(&own, 0, true, &ClusterSettings::default());
    assert_eq!(std::mem::take(&mut settings.problems).len(), 1);
    assert_eq!(settings, read([]));
}

#[test]
fn a_problem_quotes_little() {
    let settings = read([("target", &"9x".repeat(100_000))]);
    assert!(settings.problems[0].len() < 200, "{}", settings.problems[0].len());
}

/// Stock's numbers: as many as hold all that the pods can carry, and the burst.
#[rstest]
#[case(Some(0.0), 1000, 2)]
#[case(Some(-1.0), 0, 2)]
#[case(Some(-1.0), 3, 3)]
#[case(Some(211.0), 0, 3)]
#[case(Some(211.0), 1, 4)]
#[case(Some(1.0), 2, 3)]
#[case(None, 1, 4)]
fn activators_cover_pods_and_burst(#[case] burst: Option<f64>, #[case] ready: u32, #[case] activators: u32) {
    let settings = RevisionSettings { burst_capacity: burst, ..read([]) };
    assert_eq!(settings.activators(ready), activators);
}

#[test]
fn settings_survive_the_trace() {
    let settings = read([("target", "0.7"), ("window", "13s"), ("metric", "cpu")]);
    let text = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<RevisionSettings>(&text).unwrap(), settings);
}

proptest! {
    #[test]
    fn hostile_annotations_never_panic_and_targets_are_sound(
        own in prop::collection::btree_map(
            prop::sample::select(vec!["target", "window", "min-scale", "max-scale", "initial-scale", "panic-window-percentage"]),
            prop_oneof![".{0,12}", "-?[0-9]{1,12}(\\.[0-9]{0,9})?(s|m|h|e5)?"],
            0..6,
        ),
        limit in any::<u32>(),
        reachable in any::<bool>(),
    ) {
        let own = own.into_iter().map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), value)).collect();
        let settings = RevisionSettings::read(&own, limit, reachable, &ClusterSettings::default());
        prop_assert!(settings.target >= LEAST_TARGET && settings.target.is_finite());
        prop_assert!(WINDOW.contains(&settings.stable_window));
        prop_assert!(settings.panic_window >= Duration::from_secs(1) && settings.panic_window <= settings.stable_window);
    }
}

#[test]
fn warm_pods_count_as_min_scale_within_max_scale_and_while_a_route_leads_there() {
    let read = |reachable, max: &str| {
        let own = [("placement.kantai.dev/warm", "3"), ("autoscaling.knative.dev/max-scale", max)];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = RevisionSettings::read(&BTreeMap::from(own), 0, reachable, &ClusterSettings::default());
        (settings.warm, settings.min_scale, settings.problems.len())
    };
    assert_eq!((read(true, "0"), read(true, "2"), read(false, "0")), ((3, 3, 0), (2, 2, 0), (0, 0, 0)));
}
