#!/usr/bin/env bash
# prometheus-parse: labels with a comma or an equals sign are lost, with a brace the whole sample.
#
# Part:     prometheus-parse 0.2.5 (Rust crate).
# Date:     28 November 2026.
# Expected: label values are any text between quotes, and names of recording rules have colons.
#           Five valid lines of the text format are five samples with all their labels; a line that
#           cannot be read is an error.
# Seen:     two whole samples and one half. A value is split at commas and equals signs inside of
#           its quotes and the label then left out; a line with a closing brace inside of a value,
#           and one whose metric name has a colon, are skipped. parse() returns Ok.
# Who meets it: whoever reads measurements from a page of Prometheus, by federation above all,
#           which serves recording rules. Two pairs of nodes that differ only in such a label
#           become one, or a pair is not there, and nothing says so.
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
"#;

fn main() {
    let read = prometheus_parse::Scrape::parse(PAGE.as_bytes().lines()).expect("it returns Ok");
    for sample in &read.samples {
        println!("{} {{{}}} {:?}", sample.metric, sample.labels, sample.value);
    }
    let to: Vec<_> = read.samples.iter().map(|it| it.labels.get("to")).collect();
    let seen = to == [Some("b"), None, None] || to == [Some("b"), Some("rack 1"), None];
    if seen {
        println!("seen: of five samples two are missing and two have lost the label \"to\"");
    } else {
        println!("not seen: other samples or labels are read than before: {to:?}");
    }
    std::process::exit(i32::from(!seen));
}
RUST
(cd "$work" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) 2>"$work/cargo.log" \
    || { cat "$work/cargo.log"; echo "cannot run: cargo build failed"; exit 2; }
"$work/target/debug/finding"
