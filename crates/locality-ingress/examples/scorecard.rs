//! Measures locality-ingress; see `tests/examples/locality-ingress-scorecard`.

use std::process::ExitCode;

fn main() -> ExitCode {
    scorecards::run_example_of_tests("locality-ingress-scorecard")
}
