//! Measures locality-ingress and compares with its goals: `cargo run --release -p locality-ingress --example scorecard`.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short`. Ends with an error when one is short.

mod gateways;
mod scale;

use std::process::ExitCode;

/// One figure.
struct Figure {
    /// Its name.
    id: &'static str,
    /// What was measured.
    value: f64,
    /// In which unit.
    unit: &'static str,
    /// At most this.
    goal: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // The gateways run in a process of their own, so that their memory is not taken for the server's.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(gateways::ARGUMENT) {
        gateways::run(arguments).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let figures = scale::measure().await?;
    let mut short = false;
    for Figure { id, value, unit, goal } in figures {
        let verdict = if value <= goal { "ok" } else { "short" };
        short |= value > goal;
        println!("{id}\t{value:.1}\t{unit}\t<= {goal}\t{verdict}");
    }
    Ok(if short { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
