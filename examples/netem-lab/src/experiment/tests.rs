use super::*;

const GOOD: &str = r#"
name = "coast"
title = "t"
reproduces = "r"
differs = "d"
[nodes]
names = ["east", "west"]
[[phases]]
name = "rush"
seconds = 10
load = [{ from = "east", per_second = 30 }]
[[goals]]
name = "g"
measure = "p95_ms"
column = "ours"
phase = "rush"
from = "east"
at_most = 10
"#;

fn error(text: &str) -> String {
    Experiment::from_text(text, "x").expect_err("an error").to_string()
}

#[test]
fn what_is_left_out_has_a_default() {
    let experiment = Experiment::from_text(GOOD, "x").unwrap();
    assert_eq!((experiment.columns.len(), experiment.repeat, &experiment.service), (3, 3, &Service::default()));
    let Work::Phases(phases) = &experiment.work else { panic!("phases") };
    assert_eq!((phases[0].loads[0].timeout_seconds, phases[0].fault.as_ref()), (30.0, None));
}

#[test]
fn what_makes_no_sense_is_named_with_its_line() {
    for (instead, of, expected) in [
        ("from = \"north\", per_second = 30", "from = \"east\", per_second = 30", "line 11: unknown node \"north\""),
        ("from = \"east\"", "from = \"east\", per_second = 30", "line 11: a load needs either"),
        ("phase = \"calm\"", "phase = \"rush\"", "line 16: unknown phase \"calm\"; the phases are rush"),
        ("from = \"west\"\nat_most", "from = \"east\"\nat_most", "line 17: node \"west\" sends nothing then"),
        ("column = \"warm\"", "column = \"ours\"", "line 15: column \"warm\" is none of this experiment"),
        ("at_mist = 10", "at_most = 10", "unknown field `at_mist`"),
        ("measure = \"p42_ms\"", "measure = \"p95_ms\"", "unknown variant `p42_ms`"),
        ("seconds = -1.0", "seconds = 10", "`seconds` is -1"),
    ] {
        let text = GOOD.replacen(of, instead, 1);
        assert_ne!(text, GOOD);
        assert!(error(&text).contains(expected), "{instead}: {}", error(&text));
    }
}

#[test]
fn starts_are_from_zero() {
    let starts = "[starts]\nservices = 2\nrounds = 1\nfrom = [\"east\"]\npause_seconds = 1\n";
    assert!(error(&format!("{GOOD}{starts}")).contains("either `starts` or `phases`"));
    let (head, _) = GOOD.split_once("[[phases]]").unwrap();
    assert!(error(&format!("{head}{starts}")).contains("\"rival\" cannot reach"));
    let columns = head.replace("title", "columns = [\"ours\", \"stock\"]\ntitle");
    let experiment = Experiment::from_text(&format!("{columns}{starts}"), "x").unwrap();
    assert_eq!(experiment.phase_names(), [START_PHASE]);
    assert!(error(&format!("{columns}[service]\nmin_pods = 1\n{starts}")).contains("keeps pods"));
    assert!(error(head).contains("needs `phases` or `starts`"));
}

#[test]
fn the_experiments_that_are_shipped_can_be_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
    let all = Experiment::all_in(&folder).unwrap();
    assert!(all.iter().any(|experiment| experiment.name == "steady"));
    for experiment in all {
        assert!(folder.join(format!("{}.toml", experiment.name)).exists(), "{}: the file has another name", experiment.name);
    }
}
