#!/usr/bin/env bash
# prometheus-parse: skips lines with an empty pair of braces, as Envoy writes them, and others.
#
# Part:     prometheus-parse 0.2.5 (Rust crate).
# Date:     28 November 2026.
# Expected: braces may be empty, label values are any text between quotes, names of recording rules
#           have colons. Six valid lines of the text format are six samples with all their labels;
#           a line that cannot be read is an error.
# Seen:     three whole samples and two halves are lost, and parse() returns Ok. A line with {} is
#           skipped, and so is one with a closing brace inside of a value, and one whose metric
#           name has a colon. A value is split at commas and equals signs inside of its quotes, and
#           what does not fit is left out.
# Who meets it: whoever reads the statistics of Envoy 1.40, where everything without labels has {}:
#           94 of the 416 counters and gauges of a small proxy. And whoever reads measurements by
#           federation, which serves recording rules: two pairs of nodes that differ only in such a
#           label become one.
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
prometheus-parse = "=0.2.5"
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::io::BufRead;

const PAGE: &str = r#"# TYPE rtt_seconds gauge
rtt_seconds{from="a",to="b"} 1
rtt_seconds{from="a",to="rack 1, slot 2"} 2
rtt_seconds{from="a",to="zone=b"} 3
rtt_seconds{from="a",to="{b}"} 4
zone:rtt_seconds:max5m{from="a",to="b"} 5
# TYPE envoy_server_live gauge
envoy_server_live{} 1
"#;

fn main() {
    let read = prometheus_parse::Scrape::parse(PAGE.as_bytes().lines()).expect("it returns Ok");
    for sample in &read.samples {
        println!("{} {{{}}} {:?}", sample.metric, sample.labels, sample.value);
    }
    let to: Vec<_> = read.samples.iter().map(|it| it.labels.get("to")).collect();
    let seen = to == [Some("b"), Some("rack 1"), None];
    if seen {
        println!("seen: of six samples three are missing and two have lost the label \"to\"");
    } else {
        println!("not seen: other samples or labels are read than before: {to:?}");
    }
    std::process::exit(i32::from(!seen));
}
RUST
(cd "$work" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) 2>"$work/cargo.log" \
    || { cat "$work/cargo.log"; echo "cannot run: cargo build failed"; exit 2; }
"$work/target/debug/finding"
