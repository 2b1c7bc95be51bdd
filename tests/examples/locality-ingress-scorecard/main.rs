//! Measures locality-ingress and compares with its goals:
//! `cargo run --release -p kantai-tests --example locality-ingress-scorecard`. Needs root.
//!
//! Everything is real but the pods: an API server, Envoys started from the deployed bootstrap, the
//! daemon in a process of its own under its own rights, all in a network namespace that goes with
//! this process. Pods are tasks that answer like a queue-proxy. With names as arguments only the
//! parts so called run.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short`. Ends with an
//! error when one is short.

mod demand;
mod failures;
mod figure;
mod gateways;
mod hop;
mod hostile;
mod idle;
mod load;
mod patience;
mod reporter;
mod reports;
mod scale;
mod stage;
mod steering;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use kantai_tests::ingress::{bench, daemon};
use locality_ingress::endpoints::LocalityPolicy;
use scorecards::{Figure, Report};
use stage::Stage;

fn main() -> anyhow::Result<ExitCode> {
    // Gateways at the level of the protocol, and the daemon, run in processes of their own: so that
    // their memory is not taken for another's, and that they can be killed.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(gateways::ARGUMENT) => {
            on_own_runtime(gateways::run(arguments.into_iter().skip(1)))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(stage::ARGUMENT) => {
            let [_, kubeconfig, routes_url] = arguments.as_slice() else {
                anyhow::bail!("failed to start the daemon: no addresses")
            };
            on_own_runtime(daemon::serve(Path::new(kubeconfig), LocalityPolicy::Locality, routes_url))?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == part);
    let mut report = Report::default();
    let mut print = |figures: Vec<Figure>| figures.iter().for_each(|figure| report.print(figure));
    if wanted("hostile") {
        print(hostile::measure()?);
    }
    if wanted("scale") {
        print(on_own_runtime(scale::measure())?);
    }
    if wanted("reports") {
        print(on_own_runtime(reports::measure())?);
    }
    // The last two leave other gateways behind, at other addresses.
    let parts = [
        "traffic",
        "weights",
        "local",
        "spill",
        "demand",
        "hop",
        "failover",
        "control-plane",
        "upload",
        "stall",
        "idle",
        "update",
        "drain",
    ];
    if parts.into_iter().any(wanted) {
        bench::in_own_network(async |components| {
            let mut stage = Stage::set(components).await?;
            for part in parts.into_iter().filter(|part| wanted(part)) {
                eprintln!("measuring {part}");
                print(match part {
                    "traffic" => steering::endpoint_to_traffic(&stage).await?,
                    "weights" => steering::weights(&stage).await?,
                    "local" => steering::local_when_possible(&stage).await?,
                    "spill" => demand::spill(&stage).await?,
                    "demand" => demand::seen(&stage).await?,
                    "failover" => failures::serving_node_cut_off(&stage).await?,
                    "control-plane" => failures::control_plane_down(&mut stage).await?,
                    "hop" => hop::measure(&mut stage).await?,
                    "upload" => patience::uploads_to_a_pausing_pod(&stage).await?,
                    "stall" => patience::silent_api_server(&mut stage).await?,
                    "idle" => idle::measure(&mut stage).await?,
                    "drain" => patience::long_requests_across_a_roll_out(&mut stage).await?,
                    _ => failures::updates_and_restarts(&mut stage).await?,
                });
            }
            Ok(())
        })?;
    }
    Ok(report.exit_code())
}

fn on_own_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the async runtime")?.block_on(work)
}
