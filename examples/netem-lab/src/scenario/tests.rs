use super::*;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::from_text(text, "a.toml", &Overrides::default()).map_err(|error| error.to_string())
}

const SMALL: &str = r#"name = "small"
[nodes]
count = 3
[service]
name = "greeter"
image = "dev.local/x:1"
"#;

#[test]
fn the_default_scenario_is_what_the_readme_promises() {
    let scenario = Scenario::from_text(DEFAULT_SCENARIO, "built in", &Overrides::default()).unwrap();
    let nodes = scenario.links.nodes().to_vec();
    assert_eq!(nodes.len(), 3);
    let rtt = |a: usize, b: usize| scenario.links.rtt_seconds(&nodes[a], &nodes[b]).unwrap();
    assert!((rtt(0, 1) - 0.001).abs() < 1e-12);
    assert!((rtt(0, 2) - 0.050).abs() < 1e-12);
    assert!((rtt(2, 1) - 0.050).abs() < 1e-12);
    assert_eq!(scenario.steps.far, nodes[2]);
    assert_eq!(scenario.service.class, KANTAI_CLASS);
    assert_eq!(scenario.service.window_seconds, 12);
}

#[test]
fn a_small_file_gets_defaults() {
    let scenario = parse(SMALL).unwrap();
    assert_eq!(scenario.links.nodes(), ["node1", "node2", "node3"]);
    assert_eq!(scenario.service.namespace, "default");
    assert_eq!(scenario.links.get("node1", "node2"), Some(crate::wire::Link::default()));
    assert_ne!(scenario.steps.near, scenario.steps.far);
}

#[test]
fn far_and_near_follow_from_the_links() {
    let scenario = parse(
        r#"name = "line"
[nodes]
names = ["east", "mid", "west"]
[[links]]
between = ["east", "mid"]
rtt_ms = 10
[[links]]
between = ["mid", "west"]
rtt_ms = 30.0
[[links]]
between = ["east", "west"]
rtt_ms = 40.0
jitter_ms = 4
[[links]]
from = "west"
to = "east"
one_way_ms = 25.0
loss_ratio = 0.01
[service]
name = "greeter"
namespace = "shop"
image = "x"
"#,
    )
    .unwrap();
    assert_eq!((scenario.steps.far.as_str(), scenario.steps.near.as_str()), ("west", "mid"));
    let there = scenario.links.get("east", "west").unwrap();
    assert!((there.delay_seconds - 0.020).abs() < 1e-12 && (there.jitter_seconds - 0.002).abs() < 1e-12);
    let back = scenario.links.get("west", "east").unwrap();
    assert!((back.delay_seconds - 0.025).abs() < 1e-12 && back.jitter_seconds == 0.0 && (back.loss_ratio - 0.01).abs() < 1e-12);
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides { node_count: Some(5), class: Some(KPA_CLASS.to_owned()) };
    let scenario = Scenario::from_text(SMALL, "a.toml", &overrides).unwrap();
    assert_eq!(scenario.links.nodes().len(), 5);
    assert_eq!(scenario.service.class, KPA_CLASS);

    let error = Scenario::from_text(DEFAULT_SCENARIO, "built in", &overrides).unwrap_err().to_string();
    assert!(error.contains("5 nodes were asked for"), "{error}");
}

/// Appends lines to the small file; its own lines are 1 to 6.
fn error_of(more: &str) -> String {
    parse(&format!("{SMALL}{more}")).unwrap_err()
}

#[test]
fn an_unknown_node_is_named_with_its_line() {
    let error = error_of("[[links]]\nbetween = [\"node1\", \"moon\"]\nrtt_ms = 3\n");
    assert_eq!(error, "failed to use scenario a.toml, line 8: unknown node \"moon\"; the nodes are node1, node2, node3");
    let error = error_of("[steps]\nfar = \"moon\"\n");
    assert!(error.contains("line 8") && error.contains("\"moon\""), "{error}");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    for (more, line, key) in [
        ("colour = \"red\"\n", "line 7", "colour"),
        ("[steps]\nfaar = \"node1\"\n", "line 8", "faar"),
        ("[[links]]\nbetween = [\"node1\", \"node2\"]\nrtt = 3\n", "line 9", "rtt"),
    ] {
        let error = error_of(more);
        assert!(error.contains(line) && error.contains(key), "{error}");
    }
}

#[test]
fn numbers_out_of_range_are_named_with_their_line() {
    for (more, line, name) in [
        ("[link_defaults]\nrtt_ms = -1\n", "line 8", "rtt_ms"),
        ("[link_defaults]\nrtt_ms = nan\n", "line 8", "rtt_ms"),
        ("[link_defaults]\nrtt_ms = inf\n", "line 8", "rtt_ms"),
        ("[link_defaults]\nrtt_ms = \"fast\"\n", "line 8", "rtt_ms"),
        ("[link_defaults]\nrtt_ms = 1\nloss_ratio = 1.5\n", "line 9", "loss_ratio"),
        ("window_seconds = 3\n", "line 7", "window_seconds"),
        ("target = 0\n", "line 7", "target"),
        ("[steps]\nin_flight = 0\n", "line 8", "in_flight"),
        ("[link_defaults]\nrtt_ms = 4\njitter_ms = 5\n", "line 8", "jitter"),
    ] {
        let error = error_of(more);
        assert!(error.contains(line) && error.contains(name), "{error}");
    }
}

#[test]
fn links_that_say_too_much_or_too_little() {
    for (more, expected) in [
        ("[[links]]\nrtt_ms = 3\n", "a link needs `between`"),
        ("[[links]]\nbetween = [\"node1\", \"node2\"]\none_way_ms = 3\n", "needs `rtt_ms`"),
        ("[[links]]\nfrom = \"node1\"\nto = \"node2\"\nrtt_ms = 3\n", "needs `one_way_ms`"),
        ("[[links]]\nbetween = [\"node1\", \"node1\"]\nrtt_ms = 3\n", "to itself"),
        ("[steps]\nfar = \"node1\"\nnear = \"node1\"\n", "the same node"),
    ] {
        let error = error_of(more);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn node_lists_that_make_no_sense() {
    let with_nodes = |nodes: &str| parse(&SMALL.replace("count = 3", nodes)).unwrap_err();
    assert!(with_nodes("count = 0").contains("1 to 8 nodes"));
    assert!(with_nodes("count = 9").contains("1 to 8 nodes"));
    assert!(with_nodes("names = []").contains("1 to 8 nodes"));
    assert!(with_nodes("names = [\"a\", \"a\"]").contains("named twice"));
    assert!(with_nodes("names = [\"A b\"]").contains("lower-case"));
    assert!(with_nodes("count = 2\nnames = [\"a\"]").contains("both"));
    assert!(with_nodes("prefix = \"x\"").contains("`names` or `count`"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Scenario::from_file(Path::new("/no/such.toml"), &Overrides::default()).unwrap_err().to_string();
    assert_eq!(error, "failed to read scenario /no/such.toml");
}
