#!/usr/bin/env bash
# icmplib: a loss below half a percent is 0.0, and a host that never answered has an RTT of 0.0 ms.
#
# Part:     icmplib 3.0.4 (PyPI).
# Date:     28 November 2026.
# Expected: one reply missing of 300 is a packet_loss of 0.0033. A host without any reply has no
#           round-trip time: None or NaN.
# Seen:     packet_loss is rounded to two digits, so 1 of 300 is 0.0 and 2 of 300 is 0.01. Without
#           any reply min_rtt, avg_rtt, max_rtt and jitter are all 0.0, better than any real link.
# Who meets it: whoever alerts on loss or sorts nodes by RTT. A link that loses 0.4 % looks clean,
#           a dead node looks nearest. Loss must be taken from packets_sent and packets_received,
#           and is_alive be asked before any time is read.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v python3 >/dev/null || { echo "cannot run: python3 is missing"; exit 2; }
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$work/lib" \
    icmplib==3.0.4 2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

PYTHONPATH="$work/lib" python3 - <<'PY'
import sys

from icmplib import Host

# What ping() returns, made from the replies instead of by sending: address, sent, times in ms.
one_lost = Host("192.0.2.1", 300, [0.8] * 299)
two_lost = Host("192.0.2.1", 300, [0.8] * 298)
dead = Host("192.0.2.2", 300, [])
for name, host in (("1 of 300 lost", one_lost), ("2 of 300 lost", two_lost), ("all lost", dead)):
    print(
        f"{name}: packet_loss {host.packet_loss}, {host.packets_received} of {host.packets_sent}, "
        f"avg_rtt {host.avg_rtt}, jitter {host.jitter}, is_alive {host.is_alive}"
    )

seen = (
    one_lost.packet_loss == 0.0
    and two_lost.packet_loss == 0.01
    and dead.packet_loss == 1.0
    and dead.avg_rtt == dead.min_rtt == dead.max_rtt == 0.0
)
if seen:
    print("seen: one loss in 300 is none, and no reply is an RTT of 0.0 ms")
else:
    print("not seen: loss or the RTT of a dead host is told otherwise than before")
sys.exit(0 if seen else 1)
PY
