#!/usr/bin/env bash
# OR-Tools: costs with fractions are refused one by one, and cut to integers when given as an
# array.
#
# Part:     ortools 9.15.6755 (PyPI), numpy 2.4.6.
# Date:     28 November 2026.
# Expected: the graph solvers take integer costs. One arc with a cost of 1.7 is refused with a
#           TypeError, so an array of such costs should be refused as well.
# Seen:     add_arcs_with_capacity_and_unit_cost and add_arcs_with_cost take the array of floats
#           without a word and drop the fractions. Costs of 0.4, 0.3 and 0.2 are all 0, the solver
#           reports OPTIMAL with cost 0, and which arcs carry the flow is left to chance.
# Who meets it: whoever assigns traffic to nodes by round trips in milliseconds. Inside a zone they
#           are all below one, so every pair costs 0 and any assignment is "OPTIMAL". Costs must be
#           scaled (to microseconds) before they get there, and nothing says so.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v python3 >/dev/null || { echo "cannot run: python3 is missing"; exit 2; }
python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: --target "$work/lib" \
    ortools==9.15.6755 numpy==2.4.6 pandas==3.1.1 protobuf==6.33.6 absl-py==2.5.1 immutabledict==4.3.1 \
    2>"$work/pip.log" || { cat "$work/pip.log"; echo "cannot run: pip failed"; exit 2; }

PYTHONPATH="$work/lib" python3 - <<'PY'
import sys

import numpy as np
from ortools.graph.python import linear_sum_assignment, min_cost_flow

single = min_cost_flow.SimpleMinCostFlow()
try:
    single.add_arc_with_capacity_and_unit_cost(0, 1, 5, 1.7)
    refused = False
except TypeError:
    refused = True
print(f"one arc with cost 1.7: {'TypeError' if refused else 'taken'}")

# Five units from 0 to 2: over 1 at 0.7 ms a unit, or straight at 0.2 ms, at most three of them.
flow = min_cost_flow.SimpleMinCostFlow()
arcs = flow.add_arcs_with_capacity_and_unit_cost(
    np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([5, 5, 3]), np.array([0.4, 0.3, 0.2])
)
flow.set_nodes_supplies(np.array([0, 2]), np.array([5, -5]))
status = flow.solve()
print(f"costs of 0.4, 0.3 and 0.2 as an array: {status.name}, cost {flow.optimal_cost()}, true optimum 2.0")
costs = [flow.unit_cost(arc) for arc in arcs]

pairs = linear_sum_assignment.SimpleLinearSumAssignment()
pairs.add_arcs_with_cost(
    np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0.9, 0.1, 0.1, 0.9])
)
pairs.solve()
print(f"assignment of costs 0.9, 0.1, 0.1, 0.9: {pairs.optimal_cost()}, true optimum 0.2")

seen = (
    refused
    and status == flow.OPTIMAL
    and costs == [0, 0, 0]
    and flow.optimal_cost() == 0
    and pairs.optimal_cost() == 0
)
if seen:
    print("seen: a single float is refused, an array of floats is cut to integers and called optimal")
else:
    print("not seen: single floats and arrays of floats are treated otherwise than before")
sys.exit(0 if seen else 1)
PY
