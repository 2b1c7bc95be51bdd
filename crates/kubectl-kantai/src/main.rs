//! `kubectl-kantai`: see `kubectl kantai --help`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use kubectl_kantai::{Options, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    ops_http::init_logging(ops_http::LogFormat::Text);
    let mut stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    run(options, &mut stdout, is_terminal).await.unwrap_or_else(|error| error.report())
}
