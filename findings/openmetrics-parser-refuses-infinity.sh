#!/usr/bin/env bash
# openmetrics-parser: refuses the page that prometheus-client writes for an infinite gauge.
#
# Part:     openmetrics-parser 0.5.1 and prometheus-client 0.25.2 (Rust crates).
# Date:     28 November 2026.
# Expected: both crates follow OpenMetrics, whose grammar of a number has "inf", in any case and
#           with or without a sign. A page that the one writes is read by the other. Series of one
#           family may have different label names: the text format asks only that no two are alike.
# Seen:     prometheus-client writes "rtt_ratio inf"; the parser wants "+Inf" and refuses the whole
#           page, in both of its formats. It also refuses a family of which one series has a label
#           more than the others, "Metrics in family have different label sets", as a page of
#           federated servers has.
# Who meets it: whoever checks the pages of a Rust daemon with a Rust parser, or reads federated
#           measurements. One gauge that divides by zero costs all the others of the page.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v cargo >/dev/null || { echo "cannot run: cargo is missing"; exit 2; }
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
openmetrics-parser = "=0.5.1"
prometheus-client = "=0.25.2"
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::sync::atomic::AtomicU64;

use openmetrics_parser::{openmetrics::parse_openmetrics, prometheus::parse_prometheus};
use prometheus_client::{encoding::text::encode, metrics::gauge::Gauge, registry::Registry};

fn page(value: f64) -> String {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    let mut registry = Registry::default();
    registry.register("rtt_ratio", "Slowest by fastest", gauge);
    let mut page = String::new();
    encode(&mut page, &registry).expect("a String takes it all");
    page
}

const MIXED: &str = r#"# TYPE rtt_seconds gauge
rtt_seconds{from="a",to="b"} 0.02
rtt_seconds{from="a",to="c",zone="z"} 0.03
"#;

fn main() {
    let (finite, infinite) = (page(2.5), page(f64::INFINITY));
    let written = infinite.lines().find(|line| !line.starts_with('#')).unwrap_or_default().to_owned();
    let reads = |result: bool| if result { "read" } else { "refused" };
    let finite_ok = parse_openmetrics(&finite).is_ok();
    let infinite_ok = parse_openmetrics(&infinite).is_ok();
    let signed_ok = parse_openmetrics(&infinite.replace(" inf\n", " +Inf\n")).is_ok();
    let mixed = parse_prometheus(MIXED).err().map(|error| error.to_string());
    println!("a page with 2.5: {}; with \"{written}\": {}", reads(finite_ok), reads(infinite_ok));
    println!("the same page with +Inf: {}", reads(signed_ok));
    println!("label names that differ within a family: {}", mixed.as_deref().unwrap_or("read"));
    let seen = finite_ok && !infinite_ok && signed_ok && written == "rtt_ratio inf" && mixed.is_some();
    if seen {
        println!("seen: inf and a family of mixed labels are refused");
    } else {
        println!("not seen: the parser reads more than before, or the client writes otherwise");
    }
    std::process::exit(i32::from(!seen));
}
RUST
(cd "$work" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) 2>"$work/cargo.log" \
    || { cat "$work/cargo.log"; echo "cannot run: cargo build failed"; exit 2; }
"$work/target/debug/finding"
