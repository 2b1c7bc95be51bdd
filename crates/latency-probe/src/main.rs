//! `latency-probe`: see `--help`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use latency_probe::report::{Matrix, fetch_row};
use latency_probe::{Command, MatrixOptions, OnceOptions, Options, RunOptions, once, run_daemon};

// Probing and answering have threads of their own; this runtime serves scrapes and one watch.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    match Options::parse().command {
        Command::Run(options) => run(&options).await,
        Command::Once(options) => run_once(&options).await,
        Command::Matrix(options) => draw(&options).await,
    }
}

async fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    ops_http::init_logging(options.log_format());
    let stop = ops_http::stop_on_signal()?;
    run_daemon(options, stop).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_once(options: &OnceOptions) -> anyhow::Result<ExitCode> {
    let row = once::run(options).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&row)?);
    } else {
        print!("{}", once::table(&row));
        if options.bandwidth {
            print!("\n{}", once::bandwidth_table(&row));
        }
    }
    Ok(if once::all_known(&row) && once::all_estimated(&row, options) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn draw(options: &MatrixOptions) -> anyhow::Result<ExitCode> {
    let asked = options.probers.iter().map(|prober| fetch_row(prober, options.port));
    let mut rows = Vec::new();
    let mut complete = true;
    for fetched in futures::future::join_all(asked).await {
        match fetched {
            Ok(row) => rows.push(row),
            Err(error) => {
                eprintln!("{error}");
                complete = false;
            }
        }
    }
    let matrix = Matrix::new(&rows);
    let write = |path: Option<&Path>, picture: String| match path {
        Some(path) => std::fs::write(path, picture).with_context(|| format!("failed to write {}", path.display())),
        None => Ok(()),
    };
    write(options.svg.as_deref(), matrix.svg())?;
    write(options.html.as_deref(), matrix.html())?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", matrix.text());
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
