#!/usr/bin/env bash
# Prometheus summaries in Rust and JavaScript: quantiles of a time without samples are 0.
#
# Part:     metrics-exporter-prometheus 0.18.3 with metrics 0.24.6 (Rust crates), prom-client
#           15.1.3 (npm).
# Date:     28 November 2026.
# Expected: a summary tells quantiles of a moving window. When nothing was recorded within the
#           window they are NaN, as in Prometheus' own client for Go, or are left out.
# Seen:     every quantile is 0, before the first sample, and again as soon as the window holds
#           none; sum and count stay as they were. The window is a minute by default in Rust; in
#           JavaScript there is one only with maxAgeSeconds, and pruneAgedBuckets leaves the series
#           out instead. Both windows are two seconds here.
# Who meets it: whoever exports round-trip times this way. A peer that stops answering has a p99 of
#           0 a minute later, the best of all, and so does one that was never measured. An alert on
#           "above 100 ms" falls silent just then.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in cargo node npm; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
metrics = "=0.24.6"
metrics-exporter-prometheus = { version = "=0.18.3", default-features = false }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;

/// The largest round trip of the page's window.
fn largest(page: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with("rtt_seconds{quantile=\"1\"}"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn main() {
    let builder = PrometheusBuilder::new()
        .set_bucket_duration(Duration::from_secs(1))
        .map(|builder| builder.set_bucket_count(NonZeroU32::MIN.saturating_add(1)))
        .expect("a second is a duration");
    let recorder = builder.build_recorder();
    let page = recorder.handle();
    metrics::set_global_recorder(recorder).expect("there is no other");

    let rtt = metrics::histogram!("rtt_seconds");
    let never = largest(&page.render());
    rtt.record(0.05);
    let measured = largest(&page.render());
    // The window is over after two seconds; a busy machine has more.
    let start = Instant::now();
    let mut silent = measured;
    while silent == measured && start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(500));
        silent = largest(&page.render());
    }
    println!("Rust, largest RTT: before any sample {never:?}, after one of 0.05 s {measured:?}, after a silence {silent:?}");
    let seen = never == Some(0.0) && measured.is_some_and(|it| it > 0.04) && silent == Some(0.0);
    std::process::exit(i32::from(!seen));
}
RUST
(cd "$work" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) 2>"$work/cargo.log" \
    || { cat "$work/cargo.log"; echo "cannot run: cargo build failed"; exit 2; }

npm install --silent --no-audit --no-fund --prefix "$work/js" prom-client@15.1.3 >"$work/npm.log" 2>&1 \
    || { cat "$work/npm.log"; echo "cannot run: npm failed"; exit 2; }
cat >"$work/js/run.cjs" <<'JS'
const { Registry, Summary } = require("prom-client");

const registry = new Registry();
const rtt = new Summary({
  name: "rtt_seconds",
  help: "Round trip",
  registers: [registry],
  percentiles: [0.5, 1],
  maxAgeSeconds: 1,
  ageBuckets: 2,
});
const largest = async () => Number((await registry.metrics()).match(/quantile="1"} (.*)/)[1]);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

(async () => {
  const never = await largest();
  rtt.observe(0.05);
  const measured = await largest();
  let silent = measured;
  for (let tries = 0; tries < 60 && silent === measured; tries += 1) {
    await pause(500);
    silent = await largest();
  }
  console.log(`JavaScript, largest RTT: before any sample ${never}, after one of 0.05 s ${measured}, after a silence ${silent}`);
  process.exit(never === 0 && measured > 0.04 && silent === 0 ? 0 : 1);
})();
JS
if timeout 60 "$work/target/debug/finding" && timeout 60 node "$work/js/run.cjs"; then
    echo "seen: without samples the quantiles are 0"
else
    echo "not seen: quantiles without samples are told otherwise than as 0"
    exit 1
fi
