//! A short run of the fuzz targets, on whatever compiler there is; the scorecard does the long one.

#[path = "../fuzz/src/runner.rs"]
mod runner;
#[allow(unreachable_pub, reason = "a library for cargo-fuzz, a module here")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

#[test]
fn no_parser_breaks_on_what_comes_from_outside() {
    for target in &targets::TARGETS {
        let ran = runner::run(target.run, target.seeds, target.words, 5_000, 1);
        // Inputs that are all refused at the door would try nothing behind it.
        assert!(ran.as_ref().is_ok_and(|ran| ran.executions == 5_000 && ran.understood > 20), "{}: {ran:02x?}", target.name);
        assert!(target.seeds.iter().all(|seed| (target.run)(seed)), "{}", target.name);
    }
}

/// The runner itself: it finds what is there to be found, and says what it was.
#[test]
fn a_finding_is_reported_with_its_input() {
    let planted = |bytes: &[u8]| {
        assert!(!bytes.starts_with(b"ab!"), "planted");
        bytes.starts_with(b"ab")
    };
    let finding = runner::run(planted, &[b"abc"], &[], 1_000_000, 7).unwrap_err();
    assert!(finding.starts_with(b"ab!"), "{finding:?}");
}
