//! Measures the scheduler-extender and compares with its goals:
//! `cargo run --release -p scheduler-extender --example scorecard`.
//!
//! Prints a line per figure, tab-separated: id, value, unit, goal, `ok` or `short`. Needs Go for
//! the comparison with the network-aware plugin's algorithm, and starts an API server and
//! kube-scheduler (`tests/examples/scheduler-extender-rate`). It takes a few minutes.

mod client;
mod networkoverhead;

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use placement::CostMatrix;
use scorecards::{Goal, Report, note, progress};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use client::{Client, Quantiles};

/// Nodes of the cluster that requests name.
const NODES: usize = 5_000;
/// Nodes with endpoints of the Service that the pod talks to.
const ENDPOINTS: usize = 10;
/// Requests per figure, after as many that warm up.
const REQUESTS: usize = 2_000;

fn main() -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    // As the program itself has it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(over_http(&mut report))?;
    progress("the plugin's algorithm in Go");
    match networkoverhead::ratio() {
        Ok(ratio) => report.figure("score_vs_networkoverhead", ratio, "ratio", Goal::AtLeast(20.0)),
        Err(why) => report.absent("score_vs_networkoverhead", "ratio", &format!("{why:#}")),
    }
    report.absent("oracle", "cases", "the plugins' own test cases are not in this repository");
    progress("kube-scheduler with and without the extender");
    let rate = scorecards::run_example_of_tests("scheduler-extender-rate");
    Ok(if report.is_short() { ExitCode::FAILURE } else { rate })
}

async fn over_http(report: &mut Report) -> anyhow::Result<()> {
    note(&format!("{NODES} names of 21 bytes, {ENDPOINTS} endpoints, one connection over loopback, {REQUESTS} requests"));
    let names: Vec<String> = (0..NODES).map(|node| format!("worker-{node:05}.site-{:02}", node % 50)).collect();
    let cell = |at: usize| {
        let (from, to) = (at / NODES, at % NODES);
        if from == to { 0.0 } else { 0.0002 + 0.002 * (from % 50).abs_diff(to % 50) as f64 }
    };
    progress("a network of 25 million pairs");
    let costs = CostMatrix::from_row_major(
        names.iter().map(|name| name.as_str().into()).collect(),
        (0..NODES * NODES).map(cell).collect(),
    );
    let endpoints: Vec<_> = (0..ENDPOINTS)
        .map(|number| json!({"addresses": [format!("10.0.0.{number}")], "nodeName": names[number * 499]}))
        .collect();
    let slice: EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": "cart-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "cart"}}}))?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let server = {
        let stop = stop.clone();
        tokio::spawn(async move { scheduler_extender::measuring::serve(listener, costs, &[slice], stop).await })
    };
    let opted_in = json!({"placement.kantai.dev/talks-to": "cart", "placement.kantai.dev/max-rtt": "50ms"});
    let measured = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(address)?;
        progress("pods that opted in");
        let judged = client.measure(&names, &opted_in, REQUESTS, |answer| answer.len() > 10_000)?;
        progress("pods that did not");
        let neutral = client.measure(&names, &json!({}), REQUESTS, |answer| answer == b"[]")?;
        anyhow::Ok((judged, neutral))
    });
    let (judged, neutral): (Quantiles, Quantiles) = measured.await??;
    stop.cancel();
    server.await?;
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    report.figure("ext_p50_ms", milliseconds(judged.p50), "ms", Goal::AtMost(0.6));
    report.figure("ext_p99_ms", milliseconds(judged.p99), "ms", Goal::AtMost(1.5));
    report.figure("ext_neutral_us", milliseconds(neutral.p99) * 1e3, "us", Goal::AtMost(300.0));
    let micros = |duration: Duration| milliseconds(duration) * 1e3;
    let rest = [judged.least, neutral.p50, neutral.least].map(micros);
    note(&format!(
        "the fastest: {:.0} us; a pod that did not opt in: p50 {:.0} us, the fastest {:.0} us",
        rest[0], rest[1], rest[2]
    ));
    Ok(())
}
