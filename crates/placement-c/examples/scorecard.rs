//! How long a score takes for a Go program that calls the C ABI. It needs Go and a C compiler.
//!
//! ```console
//! $ cargo run --release -p placement-c --example scorecard
//! ```

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use scorecards::{Goal, Report, note};

#[path = "../tests/library/mod.rs"]
mod library;

fn main() -> ExitCode {
    note("5,000 nodes at 50 sites, 10 peers; the median of 501 calls, the slower of both kinds of score");
    let mut report = Report::default();
    match slowest_microseconds() {
        Ok(slowest) => {
            report.figure("cgo_call_us", slowest, "us", Goal::AtMost(400.0));
            report.exit_code()
        }
        Err(why) => {
            report.absent("cgo_call_us", "us", &why);
            ExitCode::FAILURE
        }
    }
}

fn slowest_microseconds() -> Result<f64, String> {
    let mut go = Command::new("go");
    go.args(["run", "."]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/go")).stderr(Stdio::inherit());
    let output = go.env("CGO_ENABLED", "1").env("CGO_LDFLAGS", library::newest()).output();
    let output = output.map_err(|error| format!("failed to start go: {error}"))?;
    if !output.status.success() {
        return Err(format!("go run ended with {}", output.status));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut slowest = f64::NAN;
    for line in said.lines() {
        note(line);
        if let Some(("demand_us" | "dependencies_us", value)) = line.split_once(' ') {
            slowest = slowest.max(value.parse::<f64>().map_err(|error| format!("failed to read {line}: {error}"))?);
        }
    }
    Ok(slowest)
}
