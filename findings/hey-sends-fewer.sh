#!/usr/bin/env bash
# hey: ten requests by three workers are nine, and percentiles that it cannot tell are 0 seconds.
#
# Part:     github.com/rakyll/hey v0.1.5 (Go module).
# Date:     28 November 2026.
# Expected: "-n 10 -c 3" sends the ten requests that -n stands for, and the latency distribution
#           has a line for each percentile, or leaves out what ten samples cannot tell.
# Seen:     the server gets nine, three for each worker; the remainder of n / c is dropped without
#           a word. The lines for the 90th, 95th and 99th percentile all read "0%% in 0.0000 secs":
#           the label is gone, the time looks like a very good one, and the percent sign is
#           doubled.
# Who meets it: whoever compares counts at both ends to find lost requests, or reads the last line
#           of the distribution by a script. A p99 of 0.0000 is the best that any node can have.
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
GOPATH="$work/go" GOBIN="$work/bin" GOFLAGS=-modcacherw go install github.com/rakyll/hey@v0.1.5 \
    >"$work/go.log" 2>&1 || { cat "$work/go.log"; echo "cannot run: go install failed"; exit 2; }

cat >"$work/server.py" <<'PY'
import http.server
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print("request", flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(server.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
PY
python3 "$work/server.py" "$work/port" >"$work/requests" 2>/dev/null &
server=$!
for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.1; done

timeout 60 "$work/bin/hey" -n 10 -c 3 "http://127.0.0.1:$(cat "$work/port")/" >"$work/told"
requests=$(wc -l <"$work/requests")
zeros=$(grep -c '0%% in 0.0000 secs' "$work/told" || true)
example=$(grep -m 1 ' 0%* in ' "$work/told" || true)
echo "the server got $requests requests of 10; $zeros lines of the distribution read: $example"
if [ "$requests" = 9 ] && [ "$zeros" = 3 ]; then
    echo "seen: nine requests for ten, and three percentiles without a name at 0 seconds"
else
    echo "not seen: all ten requests are sent, or percentiles have their names"
    exit 1
fi
