//! A short run of the fuzz targets, on whatever compiler there is; the scorecard does the long one.

#[path = "../fuzz/src/runner.rs"]
mod runner;
#[allow(unreachable_pub, reason = "a library for cargo-fuzz, a module here")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

#[test]
fn no_parser_breaks_on_what_comes_from_outside() {
    for target in &targets::TARGETS {
        assert_eq!(runner::run(target.run, target.seeds, 20_000, 1), Ok(20_000), "{}", target.name);
    }
}

/// The runner itself: it finds what is there to be found, and says what it was.
#[test]
fn a_finding_is_reported_with_its_input() {
    let planted = |bytes: &[u8]| assert!(!bytes.starts_with(b"ab!"), "planted");
    let finding = runner::run(planted, &[b"abc"], 1_000_000, 7).unwrap_err();
    assert!(finding.starts_with(b"ab!"), "{finding:?}");
}
