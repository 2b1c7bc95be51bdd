#!/usr/bin/env bash
# kmedoids: FasterPAM sums the rows of an asymmetric matrix for one medoid, its columns for two.
#
# Part:     kmedoids 0.5.5 (PyPI), the Python face of the Rust crate of the same name; numpy 2.4.6.
# Date:     28 November 2026.
# Expected: distances from node i to node j stand in one fixed place. Whichever place it is, the
#           reported loss is the sum over all nodes of the distance to (or from) their medoid, for
#           one medoid as for two.
# Seen:     with k = 1 the loss is the sum of d[medoid][node]; with k = 2, on the same matrix, the
#           sum of d[node][medoid]. The medoid for k = 1 is chosen by the other sum too: below it
#           is node 0, which the others reach at a cost of 180, while node 3 is reached at 12.
# Who meets it: whoever places k replicas by measured one-way costs, or by round trips that differ
#           with the side that measures. Symmetric matrices hide it. The places for k = 1 and k = 2
#           then answer two different questions. Averaging a matrix with its transpose helps.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v python3 >/dev/null || { echo "cannot run: python3 is missing"; exit 2; }
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$work/lib" \
    kmedoids==0.5.5 numpy==2.4.6 2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

PYTHONPATH="$work/lib" python3 - <<'PY'
import sys

import kmedoids
import numpy as np

cost = np.array(
    [
        [0.0, 1.0, 100.0, 3.0],
        [50.0, 0.0, 100.0, 4.0],
        [100.0, 100.0, 0.0, 5.0],
        [30.0, 40.0, 50.0, 0.0],
    ]
)
nodes = np.arange(len(cost))


def sums(found):
    medoid = found.medoids[found.labels]
    return cost[medoid, nodes].sum(), cost[nodes, medoid].sum()


one = kmedoids.fasterpam(cost, 1, random_state=0)
two = kmedoids.fasterpam(cost, 2, random_state=0)
for name, found in (("k=1", one), ("k=2", two)):
    outwards, inwards = sums(found)
    print(f"{name}: medoids {found.medoids}, loss {found.loss}; from the medoids {outwards}, to them {inwards}")

turned = (
    one.loss == sums(one)[0] != sums(one)[1]
    and two.loss == sums(two)[1] != sums(two)[0]
)
if turned:
    print("seen: the loss counts distances from the medoid for k = 1, and to the medoids for k = 2")
else:
    print("not seen: both losses count the same direction, or another one than before")
sys.exit(0 if turned else 1)
PY
