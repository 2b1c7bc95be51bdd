//! The smallest scheduler runs and decides what its comments promise.

use std::process::Command;

#[test]
fn viewers_are_served_where_they_are_as_far_as_there_is_room() {
    let output = Command::new(env!("CARGO_BIN_EXE_smallest-scheduler")).output().expect("failed to run the example");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("failed to read the example's output as text");
    for line in
        ["danang: 1 replicas for 10.0 viewers", "hanoi: 2 replicas for 24.0 viewers", "saigon: 2 replicas for 18.0 viewers"]
    {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("cloud:"), "{text}");
    assert!(text.contains("requests at cloud -> saigon 100"), "{text}");
    assert!(text.contains("Optimal"), "{text}");
}
