//! Measures seika-controller; see `tests/examples/seika-controller-scorecard`.

use std::process::ExitCode;

fn main() -> ExitCode {
    scorecards::run_example_of_tests("seika-controller-scorecard")
}
