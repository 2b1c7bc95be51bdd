use super::*;
use crate::wire::{EmulatorKind, Link};

fn request(step: &str, from: &str, served_by: Option<&str>, at: f64, seconds: f64) -> RequestReport {
    RequestReport {
        step: step.to_owned(),
        from_node: from.to_owned(),
        status: served_by.map(|_| 200),
        served_by_node: served_by.map(str::to_owned),
        seconds,
        at_unix_seconds: at,
        error: served_by.is_none().then(|| "reset".to_owned()),
    }
}

fn links() -> LinkMatrix {
    let mut links = LinkMatrix::uniform(vec!["a".into(), "b<".into()], Link { delay_seconds: 0.010, ..Link::default() });
    links.set("a", "b<", Link { delay_seconds: 0.015, ..Link::default() });
    links
}

fn status(slices: Vec<Slice>) -> WireStatus {
    WireStatus { kind: EmulatorKind::Userspace, refused: Vec::new(), compensation_seconds: 0.0001, links: links(), slices }
}

fn report() -> Report {
    Report {
        run: RunFacts {
            scenario: "small".into(),
            description: "a <test> & more".into(),
            nodes: vec!["a".into(), "b<".into()],
            service: "default/x".into(),
            class: "some.class".into(),
            began_at_unix_seconds: 1_700_000_000.0,
            seconds: 60.0,
            kernel: "6.1".into(),
            processors: 2,
        },
        ok: false,
        components: BTreeMap::from([("etcd".into(), "3.6".into())]),
        injected_rtt_ms: injected_rtt_ms(&links()),
        measured_rtt_ms: RttTable::from([("a".into(), BTreeMap::from([("b<".into(), 25.2)]))]),
        emulator_lateness_ms: LatenessMs::default(),
        emulator: judge_emulator(&status(Vec::new()), &Lateness::default()),
        steps: vec![StepReport {
            name: "load <b>".into(),
            ok: false,
            seconds: 9.0,
            began_at_unix_seconds: 1_700_000_010.0,
            detail: "expected 1, saw 2".into(),
        }],
        not_applicable_steps: vec![SkippedStep { name: "toggle".into(), reason: "no toggle".into() }],
        requests: vec![
            request("load <b>", "a", Some("a"), 1_700_000_010.0, 0.010),
            request("load <b>", "a", Some("b<"), 1_700_000_011.0, 0.030),
            request("load <b>", "a", None, 1_700_000_012.0, 5.0),
            request("load <b>", "b<", Some("b<"), 1_700_000_012.0, 0.020),
        ],
        seika_ready: None,
        failed_requests: 1,
        cold_start: Some(ColdStart { class: "some.class".into(), seconds_to_pod_created: None, seconds_to_response: 0.9 }),
        footprint: BTreeMap::from([("etcd".into(), Footprint { rss_mib: 60.0, mcores: 12.0 })]),
    }
}

#[test]
fn summaries_count_failures_and_the_share_answered_at_home() {
    let summaries = summaries(&report().requests);
    assert_eq!(summaries.len(), 2);
    let first = &summaries[0];
    assert_eq!((first.from_node.as_str(), first.requests, first.failed), ("a", 3, 1));
    assert_eq!(first.local_share, Some(0.5));
    assert_eq!((first.p50_seconds, first.max_seconds), (Some(0.010), Some(0.030)));
    assert_eq!(summaries[1].local_share, Some(1.0));
}

#[test]
fn nothing_answered_has_no_share_and_no_times() {
    let summaries = summaries(&[request("s", "a", None, 0.0, 1.0)]);
    assert_eq!((summaries[0].local_share, summaries[0].p50_seconds), (None, None));
}

#[test]
fn both_files_are_written_and_hold_what_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let page = report().write(&folder.path().join("deep/er")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(page.with_file_name("report.json")).unwrap()).unwrap();
    for field in [
        "components",
        "injected_rtt_ms",
        "measured_rtt_ms",
        "emulator_lateness_ms",
        "emulator",
        "steps",
        "requests",
        "seika_ready",
        "failed_requests",
        "cold_start",
        "footprint",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(json["injected_rtt_ms"]["a"]["b<"], 25.0);
    assert_eq!(json["requests"][2]["status"], serde_json::Value::Null);
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("a &lt;test&gt; &amp; more") && !html.contains("<test>") && !html.contains("load <b>"));
    for outside in ["http://", "https://", "<script", "src=", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("unknown"), "a pair that was not measured is not zero");
}

#[test]
fn late_packets_and_lost_room_make_a_run_unreliable() {
    let mut slice = Slice::starting_at(1.0);
    slice.lateness.record(3_000_000);
    let judged = judge_emulator(&status(vec![slice.clone()]), &slice.lateness);
    assert!(judged.unreliable && judged.reason.unwrap().contains("3.0 ms late"));
    assert!(!judge_emulator(&status(vec![slice]), &Lateness::default()).unreliable, "late only in bursts");

    let mut full = Slice::starting_at(1.0);
    full.overflowed = 4;
    assert!(judge_emulator(&status(vec![full]), &Lateness::default()).unreliable);
}
