#!/usr/bin/env bash
# prometheus-query: an infinite value of Prometheus arrives as NaN.
#
# Part:     prometheus-query 3.5.1 (npm).
# Date:     28 November 2026.
# Expected: Prometheus' HTTP interface writes sample values as strings, "+Inf", "-Inf" and "NaN"
#           among them; the client makes Infinity, -Infinity and NaN of them.
# Seen:     all three are NaN, in instant and in range queries: the strings go through parseFloat,
#           which knows "Infinity" only.
# Who meets it: whoever asks for a ratio whose divisor is 0, or for a quantile above the last
#           bucket of a histogram without any other bucket. "Endlessly far" and "not known" become
#           one, and a filter that drops what is not a number drops the worst node from the list.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in node npm; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
npm install --silent --no-audit --no-fund --prefix "$work" prometheus-query@3.5.1 >"$work/npm.log" 2>&1 \
    || { cat "$work/npm.log"; echo "cannot run: npm failed"; exit 2; }

cat >"$work/run.mjs" <<'JS'
import http from "node:http";
import client from "prometheus-query";

// Answers as Prometheus' documentation of its HTTP interface gives them.
const sent = ["+Inf", "-Inf", "NaN", "0.25"];
const instant = {
  resultType: "vector",
  result: sent.map((value, at) => ({ metric: { to: `node${at}` }, value: [1700000000, value] })),
};
const range = {
  resultType: "matrix",
  result: [{ metric: { to: "node0" }, values: sent.map((value, at) => [1700000000 + 15 * at, value]) }],
};
const server = http.createServer((request, response) => {
  const data = request.url.includes("query_range") ? range : instant;
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ status: "success", data }));
});
server.listen(0, "127.0.0.1", async () => {
  const driver = new client.PrometheusDriver({ endpoint: `http://127.0.0.1:${server.address().port}` });
  const one = (await driver.instantQuery("rtt")).result.map((series) => series.value.value);
  const many = (await driver.rangeQuery("rtt", 1700000000000, 1700000060000, 15)).result[0].values.map((it) => it.value);
  console.log(`sent ${sent}; instant query ${one}; range query ${many}`);
  const asNone = (values) => Number.isNaN(values[0]) && Number.isNaN(values[1]) && values[3] === 0.25;
  const seen = asNone(one) && asNone(many);
  console.log(seen ? "seen: +Inf and -Inf arrive as NaN" : "not seen: infinite values arrive as what they are");
  process.exit(seen ? 0 : 1);
});
JS
cd "$work" && timeout 60 node run.mjs
