#!/usr/bin/env bash
# hdr-histogram-js: percentiles in the summary are cut off, not rounded, and p99 may exceed max.
#
# Part:     hdr-histogram-js 3.0.1 (npm), which autocannon and others use.
# Date:     28 November 2026.
# Expected: a histogram of two significant digits is within 1 % of what was recorded, in
#           getValueAtPercentile as in the summary and the JSON form of the same histogram.
# Seen:     the summary keeps the leading digits and replaces the rest by zeros. 1,999 us becomes
#           1,900 (5 % less) with two digits and 1,990 with three; with one digit 19 becomes 10,
#           half of it. max is not treated so: one recorded value of 109,999 has p50 = p99 =
#           110,000 and max = 109,999. getValueAtPercentile is as exact as promised.
# Who meets it: whoever stores or compares latencies by toJSON(), summary or the printed form. Two
#           nodes with 1.90 and 1.99 ms look the same, and the error always flatters.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in node npm; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
npm install --silent --no-audit --no-fund --prefix "$work" hdr-histogram-js@3.0.1 >"$work/npm.log" 2>&1 \
    || { cat "$work/npm.log"; echo "cannot run: npm failed"; exit 2; }

cat >"$work/run.cjs" <<'JS'
const { build } = require("hdr-histogram-js");

function one(digits, microseconds) {
  const histogram = build({ numberOfSignificantValueDigits: digits });
  histogram.recordValue(microseconds);
  const exact = histogram.getValueAtPercentile(50);
  const { p50, p99, max } = JSON.parse(JSON.stringify(histogram));
  console.log(`${digits} digits, ${microseconds} us: getValueAtPercentile ${exact}, JSON p50 ${p50}, p99 ${p99}, max ${max}`);
  return { exact, p50, p99, max };
}

const low = one(1, 19);
const two = one(2, 1999);
const three = one(3, 1999);
const high = one(2, 109999);
const seen =
  low.p50 === 10 && two.exact === 1999 && two.p50 === 1900 && three.p50 === 1990 && high.p99 > high.max;
console.log(
  seen
    ? "seen: the summary cuts percentiles to the leading digits, and p99 is above max"
    : "not seen: the summary's percentiles are other ones than before",
);
process.exit(seen ? 0 : 1);
JS
node "$work/run.cjs"
