#!/usr/bin/env bash
# autocannon: the smallest latency is reported above the median.
#
# Part:     autocannon 9.0.0 (npm).
# Date:     28 November 2026.
# Expected: the minimum is no larger than the median, and latencies below a millisecond are told as
#           fractions of one.
# Seen:     latencies are cut to whole milliseconds, so what takes less than one counts as 0. Mean
#           and percentiles include these zeros, "min" is the smallest value that is not zero.
#           Where 19 of 20 answers take a fraction of a millisecond, the median is 0 and the
#           minimum 1 or more.
# Who meets it: whoever measures a service on the caller's own node. min, the usual estimate of the
#           bare path, is then the fastest of the slow answers.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in node npm; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
npm install --silent --no-audit --no-fund --prefix "$work" autocannon@9.0.0 >"$work/npm.log" 2>&1 \
    || { cat "$work/npm.log"; echo "cannot run: npm failed"; exit 2; }

# The server is a process of its own. Every twentieth answer takes 30 ms.
cat >"$work/server.cjs" <<'JS'
const http = require("http");
let count = 0;
const server = http.createServer((request, response) => {
  count += 1;
  if (count % 20 === 0) setTimeout(() => response.end("late"), 30);
  else response.end("soon");
});
server.listen(0, "127.0.0.1", () => process.send(server.address().port));
process.on("disconnect", () => process.exit(0));
JS
cat >"$work/run.cjs" <<'JS'
const { fork } = require("child_process");
const autocannon = require("autocannon");

const server = fork(`${__dirname}/server.cjs`);
server.once("message", async (port) => {
  // A busy machine needs more than a millisecond for some: what matters is that the median is 0.
  let latency;
  for (let attempt = 0; attempt < 10 && latency?.p50 !== 0; attempt += 1) {
    ({ latency } = await autocannon({ url: `http://127.0.0.1:${port}/`, connections: 1, amount: 400 }));
  }
  server.disconnect();
  const { min, p50, mean, p75, max } = latency;
  console.log(`min ${min}, p50 ${p50}, mean ${mean}, p75 ${p75}, max ${max} ms`);
  if (p50 !== 0) {
    console.log("cannot run: this machine is too busy, half of the answers take a millisecond or more");
    process.exit(2);
  }
  const seen = min >= 1 && min > p50;
  console.log(
    seen
      ? `seen: the minimum is ${min} ms and the median 0 ms`
      : "not seen: the minimum is no larger than the median",
  );
  process.exit(seen ? 0 : 1);
});
JS
cd "$work" && timeout 90 node run.cjs
