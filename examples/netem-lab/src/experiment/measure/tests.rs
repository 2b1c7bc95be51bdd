use proptest::prelude::*;

use super::*;

fn sample(repetition: u32, from: &str, by: Option<&str>, seconds: f64) -> Sample {
    Sample {
        column: Column::Ours,
        repetition,
        phase: "a".to_owned(),
        timeout_seconds: 2.0,
        outcome: Outcome {
            from_node: from.to_owned(),
            status: Some(if by.is_some() { 200 } else { 503 }),
            served_by_node: by.map(str::to_owned),
            served_by_pod: None,
            seconds,
            at_unix_seconds: 1.0,
            error: None,
            late_seconds: 0.0,
        },
        pod_seconds: None,
        ready_seconds: None,
    }
}

fn pod(node: &str, ready: f64, ends: Option<f64>) -> PodLife {
    let (ready_unix_seconds, ends_unix_seconds) = (Some(ready), ends);
    PodLife { node: Some(node.to_owned()), made_unix_seconds: ready - 1.0, ready_unix_seconds, ends_unix_seconds }
}

fn stretch(pods: Vec<PodLife>) -> Stretch {
    Stretch {
        column: Column::Ours,
        repetition: 1,
        phase: "a".to_owned(),
        from_unix_seconds: 10.0,
        to_unix_seconds: 20.0,
        pods,
        cpu: None,
        emulator_late_p99_ms: None,
    }
}

fn all(samples: &[Sample], stretches: &[Stretch]) -> Vec<Row> {
    rows(&[Column::Ours], &["a".to_owned()], &["x".to_owned(), "y".to_owned()], samples, stretches)
}

#[test]
fn a_request_that_failed_counts_as_its_whole_time_out() {
    let samples = [sample(1, "x", Some("x"), 0.010), sample(1, "x", None, 0.001), sample(2, "x", Some("y"), 0.060)];
    let rows = all(&samples, &[]);
    let row = rows.iter().find(|row| row.from.as_deref() == Some("x") && row.phase.is_some()).unwrap();
    assert_eq!((row.requests, row.failed), (3, 1));
    assert!(row.max_ms.is_some_and(|max| (max - 2_000.0).abs() < 2.0), "{row:?}");
    assert!(row.completed_pct.is_some_and(|share| (share - 66.7).abs() < 0.1), "{row:?}");
    assert_eq!(row.local_pct, Some(50.0));
    assert_eq!(row.p95_ms_by_repetition.len(), 2);
    assert_eq!(row.failures.values().sum::<usize>(), 1);
}

#[test]
fn sources_that_sent_nothing_have_no_row_and_columns_without_a_request_have_an_empty_one() {
    let rows = all(&[sample(1, "x", Some("x"), 0.01)], &[]);
    assert!(rows.iter().all(|row| row.from.as_deref() != Some("y")), "{rows:?}");
    let rows = all(&[], &[]);
    assert_eq!((rows.len(), rows[0].p50_ms, rows[0].completed_pct), (2, None, None));
}

#[test]
fn pods_are_counted_while_they_serve() {
    let one = stretch(vec![pod("x", 5.0, Some(15.0)), pod("y", 12.0, None), pod("y", 25.0, None)]);
    assert_eq!(one.pods_over_time(None), [(10.0, 1), (12.0, 2), (15.0, 1), (20.0, 1)]);
    assert_eq!(one.pods_over_time(Some("y")), [(10.0, 0), (12.0, 1), (20.0, 1)]);
    let rows = all(&[sample(1, "x", Some("x"), 0.1), sample(1, "y", Some("y"), 0.1)], &[one]);
    let ready = |from: &str| rows.iter().find(|row| row.from.as_deref() == Some(from)).and_then(|row| row.ready_seconds);
    assert_eq!((ready("x"), ready("y")), (Some(0.0), Some(2.0)));
    assert_eq!((rows[0].most_pods, rows[0].pods_made), (Some(2.0), Some(1.0)));
}

#[test]
fn a_node_without_a_pod_in_one_repetition_was_never_ready() {
    let stretches = [stretch(vec![pod("x", 5.0, None)]), Stretch { repetition: 2, ..stretch(Vec::new()) }];
    let rows = all(&[sample(1, "x", Some("x"), 0.1)], &stretches);
    assert_eq!(rows.iter().find(|row| row.from.is_some()).and_then(|row| row.ready_seconds), None);
}

proptest! {
    #[test]
    fn quantiles_are_in_order_and_within_what_was_seen(seconds in proptest::collection::vec(0.0..100.0_f64, 1..200)) {
        let samples: Vec<Sample> = seconds.iter().map(|one| sample(1, "x", Some("x"), *one)).collect();
        let row = all(&samples, &[]).remove(0);
        let all = [row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms].map(|one| one.unwrap_or(f64::NAN));
        prop_assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "{all:?}");
        let largest = seconds.iter().copied().fold(0.0, f64::max) * 1e3;
        prop_assert!((all[3] - largest).abs() <= largest * 0.002 + 0.002);
    }
}
