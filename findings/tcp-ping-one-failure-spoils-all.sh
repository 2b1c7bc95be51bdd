#!/usr/bin/env bash
# tcp-ping: one failed attempt of four leaves no average, no minimum and no maximum.
#
# Part:     tcp-ping 0.1.1 (npm).
# Date:     28 November 2026.
# Expected: four attempts at a TCP port, the last one refused: average, minimum and maximum are
#           those of the three that connected; failures are counted apart.
# Seen:     avg is NaN, min and max are undefined (null and nothing in JSON), as if no attempt had
#           connected. There is no number of failures, and the package's own probe() takes an
#           undefined minimum for a dead port.
# Who meets it: whoever measures connect times across a link with loss. A link that loses one
#           packet in a hundred has no figures at all, and NaN < x is false for every x, so a
#           comparison neither chooses nor refuses such a node.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in node npm; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
npm install --silent --no-audit --no-fund --prefix "$work" tcp-ping@0.1.1 >"$work/npm.log" 2>&1 \
    || { cat "$work/npm.log"; echo "cannot run: npm failed"; exit 2; }

cat >"$work/run.cjs" <<'JS'
const net = require("net");
const { ping } = require("tcp-ping");

const attempts = 4;
const server = net.createServer((socket) => socket.destroy());
server.listen(0, "127.0.0.1", () => {
  // The listener goes away just before the last attempt.
  let connects = 0;
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...given) {
    connects += 1;
    if (connects === attempts) server.close();
    return connect.apply(this, given);
  };
  ping({ address: "127.0.0.1", port: server.address().port, attempts, timeout: 5000 }, (error, found) => {
    const connected = found.results.filter((one) => one.time !== undefined);
    console.log(`connected: ${connected.map((one) => `${one.time.toFixed(3)} ms`).join(", ")} of ${attempts} attempts`);
    console.log(`avg ${found.avg}, min ${found.min}, max ${found.max}`);
    const seen =
      connected.length === attempts - 1 &&
      Number.isNaN(found.avg) &&
      found.min === undefined &&
      found.max === undefined;
    console.log(
      seen
        ? "seen: three attempts of four connected, and there is no average, minimum or maximum"
        : "not seen: the attempts that connected count, or another number of them did",
    );
    process.exit(seen ? 0 : 1);
  });
});
JS
cd "$work" && timeout 60 node run.cjs
