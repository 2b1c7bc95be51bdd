#!/usr/bin/env bash
# bombardier: requests that ran into the timeout are sent again and told as one slow success.
#
# Part:     github.com/codesenberg/bombardier v1.2.6 (Go module), with its default client.
# Date:     28 November 2026.
# Expected: of five requests with a timeout of 300 ms, to a server that takes 2 s for every other
#           one and answers the rest at once, those that take too long are counted as errors. The
#           server sees five requests.
# Seen:     five answers of class 2xx, no error. The server sees ten requests or more: the client
#           repeats a GET that timed out, silently, on a new connection. The reported latency of
#           each is the timeout plus the second try, some 300 ms.
# Who meets it: whoever looks for the load that a placement bears, or for the loss on a link. The
#           load is not the one that was asked for, failures do not show, and latencies just above
#           the timeout are the only sign of them.
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
GOPATH="$work/go" GOBIN="$work/bin" GOFLAGS=-modcacherw go install github.com/codesenberg/bombardier@v1.2.6 \
    >"$work/go.log" 2>&1 || { cat "$work/go.log"; echo "cannot run: go install failed"; exit 2; }

# Takes 2 s for the first, the third, the fifth ... request, and writes down how many there were.
cat >"$work/server.py" <<'PY'
import http.server
import os
import sys
import threading
import time

port_file, count_file = sys.argv[1:]
lock = threading.Lock()
count = 0


def write(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global count
        with lock:
            count += 1
            mine = count
            write(count_file, str(count))
        if mine % 2 == 1:
            time.sleep(2)
        try:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            pass

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
write(port_file, str(server.server_port))
server.serve_forever()
PY
python3 "$work/server.py" "$work/port" "$work/count" 2>/dev/null &
server=$!
for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.1; done

timeout 60 "$work/bin/bombardier" --connections 1 --requests 5 --timeout 300ms --print r --format json \
    "http://127.0.0.1:$(cat "$work/port")/" >"$work/result.json"
python3 - "$work/result.json" "$(cat "$work/count")" <<'PY'
import json
import sys

with open(sys.argv[1]) as file:
    result = json.load(file)["result"]
server_saw = int(sys.argv[2])
errors = result.get("errors", [])
told = {key: result[key] for key in ("req1xx", "req2xx", "req3xx", "req4xx", "req5xx", "others")}
mean = result["latency"]["mean"] / 1000
print(f"told: {told}, errors {errors}, mean latency {mean:.0f} ms; the server saw {server_saw} requests")
seen = result["req2xx"] == 5 and result["others"] == 0 and not errors and server_saw >= 10 and mean >= 300
if seen:
    print(f"seen: five successes and no error, of {server_saw} requests of which half ran into the timeout")
else:
    print("not seen: timeouts are told as errors, or not repeated")
sys.exit(0 if seen else 1)
PY
