"""Where should a video service run? Five replicas among three sites and a cloud region."""

from kantai_placement import Costs, Problem, score_demand, score_dependencies

nodes = ["hanoi", "danang", "saigon", "cloud"]
milliseconds = [
    [0, 14, 32, 58],
    [14, 0, 19, None],  # nobody measured the way from danang to the cloud
    [32, 19, 0, 40],
    [58, None, 40, 0],
]
try:
    import numpy

    table = numpy.array(milliseconds, dtype=float) / 1000.0
except ImportError:  # lists will do
    table = [[None if cell is None else cell / 1000.0 for cell in row] for row in milliseconds]

costs = Costs(nodes, table)
viewers = {"hanoi": 30.0, "danang": 4.0, "saigon": 18.0}
problem = Problem(
    "video",
    costs,
    replicas=5,
    replica_concurrency=12.0,  # one replica streams to twelve viewers
    nodes={"hanoi": 2, "danang": 1, "saigon": 2, "cloud": 50},
    demand=viewers,
    running={"cloud": 1},
)
plan = problem.solve()
print("replicas", plan.replicas)
print(f"mean network time {plan.network_seconds * 1000:.2f} ms, proven best: {plan.proven}")
for source, targets in plan.routes(costs).items():
    print(f"requests at {source} ->", ", ".join(f"{target} {share} %" for target, share in targets.items()))
print("scores by demand", score_demand(costs, viewers, serving_seconds=0.004))
print("scores for a pod that calls one in danang", score_dependencies(costs, ["danang"]))
print(problem.explain_text(plan), end="")
