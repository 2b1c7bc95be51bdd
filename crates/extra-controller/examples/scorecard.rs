//! Measures extra-controller; see `tests/examples/extra-controller-scorecard`.

use std::process::ExitCode;

fn main() -> ExitCode {
    scorecards::run_example_of_tests("extra-controller-scorecard")
}
