//! The first taste shows what the README promises, in the terminal and as a page.

use std::process::{Command, Output};

fn taste(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_embed-placement")).args(arguments).output().expect("failed to run the first taste")
}

#[test]
fn the_terminal_and_the_page_show_matrix_plan_routes_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/fleets/coast.toml");
    let output = taste(&[fleet, page.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let page = std::fs::read_to_string(&page).unwrap();
    for shown in [
        "58.0",
        "~60.0",
        "replicas move: the gain is worth it",
        "what runs is kept: the best plan gains too little to move replicas for it",
        "replicas have no place",
        "excluded: not ready",
        "cordoned: takes no new replicas",
        "would cost",
    ] {
        assert!(text.contains(shown), "{shown} is missing in\n{text}");
        assert!(page.contains(shown), "{shown} is missing in\n{page}");
    }
    assert!(!page.contains("http"), "the page needs another file");
}

#[test]
fn a_file_that_is_no_fleet_is_an_error_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, "nodes = 3").unwrap();
    let output = taste(&[file.to_str().unwrap()]);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("failed to understand the fleet file") && error.contains("nodes"), "{error}");
}
