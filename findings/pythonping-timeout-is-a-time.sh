#!/usr/bin/env bash
# pythonping: replies that never came count as round trips of the timeout's length.
#
# Part:     pythonping 1.1.4 (PyPI).
# Date:     28 November 2026.
# Expected: a host that answers none of its pings has no round-trip times; lost pings appear in
#           packet_loss only.
# Seen:     rtt_min_ms, rtt_avg_ms and rtt_max_ms are the timeout, here 300 ms. With some lost, the
#           average mixes real times with timeouts, and doubles when the caller doubles the
#           timeout.
# Who meets it: whoever averages RTTs over a link with loss. Loss of 10 % and the default timeout
#           of 2 s make 200 ms out of a link of 0.2 ms; loss is then counted twice, once as loss
#           and once as latency. Times must be taken from the responses whose success is true.
#
# Needs root: pings go to the loopback of a network namespace that is told not to answer.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in python3 unshare ip sysctl; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "cannot run: needs root for a network namespace"; exit 2; }
python3 -m pip install --quiet --disable-pip-version-check --target "$work/lib" pythonping==1.1.4 \
    2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

cat >"$work/run.py" <<'PY'
import sys

from pythonping import ping

found = ping("127.0.0.1", count=3, timeout=0.3, interval=0.1)
print(f"packet_loss {found.packet_loss}, replies {found.stats_packets_returned} of {found.stats_packets_sent}")
print(f"rtt_min_ms {found.rtt_min_ms}, rtt_avg_ms {found.rtt_avg_ms}, rtt_max_ms {found.rtt_max_ms}")
seen = found.packet_loss == 1.0 and found.rtt_min_ms >= 290 and found.rtt_avg_ms >= 290
if seen:
    print("seen: no reply at all, and round-trip times of about the timeout")
else:
    print("not seen: lost replies have no round-trip times, or the loopback answered")
sys.exit(0 if seen else 1)
PY
# The namespace goes away with the process.
unshare --net bash -c 'ip link set lo up && sysctl -qw net.ipv4.icmp_echo_ignore_all=1 && exec "$@"' -- \
    env PYTHONPATH="$work/lib" timeout 30 python3 "$work/run.py"
