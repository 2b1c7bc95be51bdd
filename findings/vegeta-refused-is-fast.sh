#!/usr/bin/env bash
# vegeta: requests that nobody answered count as latencies, so a dead backend makes the median
# better.
#
# Part:     github.com/tsenart/vegeta/v12 v12.13.0 (Go module).
# Date:     28 November 2026.
# Expected: twenty requests in turn to a server that takes 100 ms and to a port that refuses: the
#           success ratio is 0.5, and minimum and median are those of the answers, 100 ms.
# Seen:     the refused connections are latencies like the others. The minimum is a fraction of a
#           millisecond and the 50th percentile anything between it and 100 ms; the mean is some 50
#           ms, half of what any client had to wait for an answer.
# Who meets it: whoever compares placements by vegeta's report while a node is down. The one that
#           lost a node reports the better mean and minimum. With a timeout instead of a refusal it
#           is the other way round, and the maximum is the timeout.
set -euo pipefail

work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
for tool in go python3; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
GOPATH="$work/go" GOBIN="$work/bin" GOFLAGS=-modcacherw go install github.com/tsenart/vegeta/v12@v12.13.0 \
    >"$work/go.log" 2>&1 || { cat "$work/go.log"; echo "cannot run: go install failed"; exit 2; }

# One port that answers after 100 ms, one that is bound and refuses since nobody listens.
cat >"$work/server.py" <<'PY'
import http.server
import os
import socket
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.1)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


refusing = socket.socket()
refusing.bind(("127.0.0.1", 0))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"GET http://127.0.0.1:{server.server_port}/\n")
    file.write(f"GET http://127.0.0.1:{refusing.getsockname()[1]}/\n")
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
PY
python3 "$work/server.py" "$work/targets" 2>/dev/null &
server=$!
for _ in $(seq 100); do [ -s "$work/targets" ] && break; sleep 0.1; done

timeout 60 "$work/bin/vegeta" attack -targets "$work/targets" -rate 20 -duration 1s -timeout 20s >"$work/results"
"$work/bin/vegeta" report -type json "$work/results" >"$work/report.json"
python3 - "$work/report.json" <<'PY'
import json
import sys

with open(sys.argv[1]) as file:
    report = json.load(file)
milliseconds = {key: value / 1e6 for key, value in report["latencies"].items()}
print(
    f"{report['requests']} requests, success {report['success']}, status codes {report['status_codes']}; "
    f"min {milliseconds['min']:.2f}, mean {milliseconds['mean']:.1f}, max {milliseconds['max']:.1f} ms"
)
seen = report["success"] == 0.5 and milliseconds["min"] < 100 and report["status_codes"].get("0") == 10
if seen:
    print("seen: the minimum is below what any answer took, since refused connections are counted")
else:
    print("not seen: latencies are those of the answers")
sys.exit(0 if seen else 1)
PY
