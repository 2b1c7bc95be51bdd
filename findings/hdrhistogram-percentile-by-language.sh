#!/usr/bin/env bash
# HdrHistogram: the 99th percentile of the same 170 values is 1 ms in two languages, 50 ms in two.
#
# Part:     hdrhistogram 0.10.8 (PyPI), hdr-histogram-js 3.0.1 (npm),
#           github.com/HdrHistogram/hdrhistogram-go v1.4.0 (Go module), hdrhistogram 7.6.0 (Rust
#           crate).
# Date:     28 November 2026.
# Expected: one format and one algorithm, ported by one community: 168 round trips of 1,000 us and
#           two of 50,000 us, in histograms of the same range and three digits, have one 99th
#           percentile.
# Seen:     99 % of 170 are 168.3 values. Python and Go round that to 168 and answer 1,000;
#           JavaScript and Rust take the next whole number, 169, and answer 50,000. The largest
#           value is 50,000 in JavaScript and 50,015, the upper edge of its bucket, in the others.
# Who meets it: whoever compares tails that tools of different languages have told, over few
#           hundred samples, as a prober has them of one pair in some minutes. Merged histograms
#           agree, what is read from them does not.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in python3 node npm go cargo; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
failed() { cat "$1"; echo "cannot run: a package could not be installed"; exit 2; }

mkdir -p "$work/js" "$work/golang" "$work/rust/src"
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$work/lib" hdrhistogram==0.10.8 \
    2>"$work/pip.log" || failed "$work/pip.log"
cat >"$work/run.py" <<'PY'
from hdrh.histogram import HdrHistogram

histogram = HdrHistogram(1, 3_600_000_000, 3)
histogram.record_value(1_000, 168)
histogram.record_value(50_000, 2)
print(histogram.get_value_at_percentile(99), histogram.get_max_value())
PY

npm install --silent --no-audit --no-fund --prefix "$work/js" hdr-histogram-js@3.0.1 >"$work/npm.log" 2>&1 || failed "$work/npm.log"
cat >"$work/js/run.cjs" <<'JS'
const { build } = require("hdr-histogram-js");
const histogram = build({ lowestDiscernibleValue: 1, highestTrackableValue: 3_600_000_000, numberOfSignificantValueDigits: 3 });
histogram.recordValueWithCount(1_000, 168);
histogram.recordValueWithCount(50_000, 2);
console.log(histogram.getValueAtPercentile(99), histogram.maxValue);
JS

cat >"$work/golang/main.go" <<'GO'
package main

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func main() {
	histogram := hdrhistogram.New(1, 3_600_000_000, 3)
	_ = histogram.RecordValues(1_000, 168)
	_ = histogram.RecordValues(50_000, 2)
	fmt.Println(histogram.ValueAtPercentile(99), histogram.Max())
}
GO
(export GOPATH="$work/go" GOFLAGS=-modcacherw && cd "$work/golang" && go mod init finding \
    && go get github.com/HdrHistogram/hdrhistogram-go@v1.4.0 && go build -o finding .) >"$work/go.log" 2>&1 || failed "$work/go.log"

cat >"$work/rust/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
hdrhistogram = { version = "=7.6.0", default-features = false }
TOML
cat >"$work/rust/src/main.rs" <<'RUST'
fn main() {
    let mut histogram = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are fine");
    histogram.record_n(1_000, 168).expect("it is in range");
    histogram.record_n(50_000, 2).expect("it is in range");
    println!("{} {}", histogram.value_at_percentile(99.0), histogram.max());
}
RUST
(cd "$work/rust" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) >"$work/cargo.log" 2>&1 \
    || failed "$work/cargo.log"

python_read=$(PYTHONPATH="$work/lib" python3 "$work/run.py")
js_read=$(node "$work/js/run.cjs")
go_read=$("$work/golang/finding")
rust_read=$("$work/target/debug/finding")
echo "99th percentile and maximum of 168 times 1000 us and twice 50000 us:"
printf '%-12s%s\n' Python "$python_read" JavaScript "$js_read" Go "$go_read" Rust "$rust_read"
if [ "$python_read" = "1000 50015" ] && [ "$js_read" = "50015 50000" ] && [ "$go_read" = "1000 50015" ] \
    && [ "$rust_read" = "50015 50015" ]; then
    echo "seen: two languages answer 1000 us, two 50015 us"
else
    echo "not seen: the languages answer otherwise than before"
    exit 1
fi
