#!/usr/bin/env bash
# tdigest for Python: percentiles of repeated values lie far below the smallest value.
#
# Part:     tdigest 0.5.2.2, accumulation_tree 0.6.4, pyudorandom 1.0.0 (PyPI).
# Date:     28 November 2026. Upstream has reports of negative percentiles, closed as corrected.
# Expected: 100 round trips of 5 ms and one of 50 ms: the 25th, the 50th and the 75th percentile
#           are 5 ms. A sketch may be a little off, but never outside of what it was given.
# Seen:     equal values are merged into one centroid, and percentiles are drawn as a straight line
#           between its neighbours: the 25th is -17.05 ms, the 75th 27.9 ms, the 99th 49.5 ms.
# Who meets it: whoever sums up round trips that a tool rounded to whole milliseconds, where most
#           samples of a link are the same number. A negative latency is noticed; a 75th percentile
#           of five times the truth is not. fastdigest 0.12.0 answers 5 ms to all of these.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v python3 >/dev/null || { echo "cannot run: python3 is missing"; exit 2; }
python3 -m pip install --quiet --disable-pip-version-check --target "$work/lib" \
    tdigest==0.5.2.2 accumulation_tree==0.6.4 pyudorandom==1.0.0 fastdigest==0.12.0 \
    2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

PYTHONPATH="$work/lib" python3 - <<'PY'
import sys

from fastdigest import TDigest as Other
from tdigest import TDigest

milliseconds = [5.0] * 100 + [50.0]
digest = TDigest()
digest.batch_update(milliseconds)
other = Other.from_values(milliseconds)
for percent in (25, 50, 75, 99):
    print(f"p{percent}: tdigest {digest.percentile(percent):.2f} ms, fastdigest {other.quantile(percent / 100):.2f} ms")

seen = digest.percentile(25) < 0 and digest.percentile(75) > 20 and other.quantile(0.75) == 5
if seen:
    print("seen: the 25th percentile is below zero, the 75th above 20 ms; all but one sample are 5 ms")
else:
    print("not seen: the percentiles of repeated values are other ones than before")
sys.exit(0 if seen else 1)
PY
