#!/usr/bin/env bash
# locust: percentiles lie below the smallest and above the largest response time.
#
# Part:     locust 2.47.0 (PyPI).
# Date:     28 November 2026.
# Expected: a percentile lies between the minimum and the maximum of what was measured.
# Seen:     response times are rounded before they are counted, to tens from 100 ms, to hundreds
#           from 1,000 ms and to thousands from 10,000 ms; minimum, maximum and average are kept as
#           they were. Ten requests of 1,449 ms have a 50th percentile of 1,400 ms, below their
#           minimum; ten of 149.6 ms a 99th of 150 ms, above their maximum. median_response_time
#           alone is put back into the range, so it differs from the 50th percentile of the same
#           entry.
# Who meets it: whoever compares two placements by their tails. 1,351 and 1,449 ms are one and the
#           same 1,400, so a gain of 7 % may not show at all.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v python3 >/dev/null || { echo "cannot run: python3 is missing"; exit 2; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: locust==2.47.0 \
    2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

"$work/venv/bin/python" - <<'PY'
import sys

from locust.stats import RequestStats


def entry(milliseconds):
    stats = RequestStats()
    for one in milliseconds:
        stats.log_request("GET", "/", one, 2)
    return stats.get("/", "GET")


low = entry([1449] * 10)
high = entry([149.6] * 10)
for found in (low, high):
    print(
        f"min {found.min_response_time}, max {found.max_response_time}, avg {found.avg_response_time}, "
        f"p50 {found.get_response_time_percentile(0.5)}, p99 {found.get_response_time_percentile(0.99)}, "
        f"median_response_time {found.median_response_time}"
    )
same = entry([1351] * 10).get_response_time_percentile(0.5) == low.get_response_time_percentile(0.5)
seen = (
    low.get_response_time_percentile(0.5) == 1400 < low.min_response_time
    and high.get_response_time_percentile(0.99) == 150 > high.max_response_time
    and low.median_response_time == 1449
    and same
)
if seen:
    print("seen: the 50th percentile is below the minimum, the 99th above the maximum")
else:
    print("not seen: percentiles are counted otherwise than before")
sys.exit(0 if seen else 1)
PY
