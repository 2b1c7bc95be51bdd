"""Network-latency-aware placement: costs, scores, plans, routes and reasons.

Times are seconds, demand is requests in flight. What is not known of a pair is None or NaN; it is never 0 and never
better than what is known. What the library refuses is a ValueError that says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict, final

class _Array(Protocol):
    """An array of numpy, or another one that gives lists."""

    def tolist(self) -> Any: ...

_Table = _Array | Sequence[Sequence[float | None]]
_State = Literal["known", "stale", "unknown", "unreachable"]

class PairStats(TypedDict):
    """Statistics of the round trips of an ordered pair. Numbers that no link can have make the pair unknown."""

    min: float
    p50: float
    p90: float
    p99: float
    ewma: float
    jitter: float
    loss_ratio: float
    age_seconds: float
    samples: int

class NodeCapacity(TypedDict, total=False):
    """Where replicas may run: `node` and `max_replicas` are needed, the rest has defaults."""

    node: str
    max_replicas: int
    min_replicas: int
    schedulable: bool
    excluded: str | dict[str, str] | None

class Segment(TypedDict):
    """A part of a serving curve: its width in utilisation and what more demand costs there, seconds."""

    width: float
    marginal_seconds: float

@final
class LatencyMatrix:
    """What was measured of the pairs of some nodes; nothing yet. A node to itself is 0."""

    def __init__(self, nodes: Sequence[str]) -> None: ...
    @property
    def nodes(self) -> list[str]: ...
    def set(self, source: str, target: str, rtt_seconds: float, *, symmetric: bool = False) -> None:
        """One round trip, measured now. NaN, negative times and those above 10 s make the pair unknown."""
    def set_stats(
        self, source: str, target: str, stats: PairStats, *, stale: bool = False, symmetric: bool = False
    ) -> None: ...
    def set_unreachable(self, source: str, target: str, *, symmetric: bool = False) -> None:
        """Nothing may be sent this way."""
    def set_unknown(self, source: str, target: str, *, symmetric: bool = False) -> None: ...
    def get(self, source: str, target: str) -> tuple[_State, PairStats | None]: ...
    def costs(
        self,
        *,
        statistic: Literal["min", "p50", "p90", "p99"] = "p50",
        jitters: float | None = None,
        stale_factor: float | None = None,
        loss_seconds: float | None = None,
    ) -> Costs:
        """Costs by a statistic of each pair, or with `jitters` by its mean and so many times its jitter. A stale pair
        costs `stale_factor` times as much (1.5), a lost packet `loss_seconds` (0.2)."""

@final
class Costs:
    """What a pair of nodes costs, seconds. It never changes; several threads may use it."""

    def __init__(self, nodes: Sequence[str], seconds: _Table) -> None:
        """From a square table, one row per sending node: an array of numpy or nested lists. None or NaN: not known;
        infinity: nothing may be sent."""
    @staticmethod
    def by_site(
        sites: Sequence[tuple[str, int]], between: _Table, *, access: Sequence[float] | None = None
    ) -> Costs:
        """For thousands of nodes: each node with its site, seconds between sites, and what each node adds."""
    @property
    def nodes(self) -> list[str]: ...
    def seconds(self, source: str, target: str) -> float | None:
        """None where it is not known, infinity where nothing may be sent."""
    def __len__(self) -> int: ...

@final
class Problem:
    """One service, and all that its placement depends on: the fields of crates/placement/schema/problem-spec.json."""

    def __init__(
        self,
        service: str,
        costs: Costs,
        *,
        replicas: int,
        replica_concurrency: float,
        nodes: Mapping[str, int] | Sequence[NodeCapacity],
        demand: Mapping[str, float] = ...,
        running: Mapping[str, int] = ...,
        serving: Sequence[Segment] = ...,
        model: Literal["local-first", "uniform"] = ...,
        move_seconds: float = ...,
        keep_running: bool = ...,
        effort: Literal["quick", "usual", "thorough"] = ...,
        most_steps: int | None = ...,
        zones: Mapping[str, str] = ...,
        least_zones: int = ...,
        node_share: float | None = ...,
    ) -> None: ...
    @staticmethod
    def from_json(text: str) -> Problem: ...
    def to_json(self) -> str: ...
    def solve(self) -> Plan:
        """The best plan. Other threads run meanwhile."""
    def explain(self, plan: Plan) -> dict[str, Any]:
        """Why a plan of this problem is what it is. For a human who asks: every alternative is priced."""
    def explain_text(self, plan: Plan) -> str:
        """The same in English, one line per node."""

@final
class Planner:
    """Plans one service again and again: begins where the plan before ended."""

    def __init__(self) -> None: ...
    def plan(self, problem: Problem) -> Plan: ...

@final
class Plan:
    """Which nodes get how many replicas, who is served where, and what could not be done."""

    @property
    def replicas(self) -> dict[str, int]: ...
    @property
    def flows(self) -> list[tuple[str, str, float]]:
        """Source node, serving node, requests in flight."""
    @property
    def unplaced(self) -> int:
        """Replicas without a place; `to_dict` says why."""
    @property
    def network_seconds(self) -> float:
        """Mean network time of a served request."""
    @property
    def utilisation(self) -> float: ...
    @property
    def proven(self) -> bool:
        """Whether no placement is better."""
    def routes(self, costs: Costs, sources: Sequence[str] | None = None) -> dict[str, dict[str, int]]:
        """Per source node (all, if none are named) the shares of its requests per serving node; each sums to 100."""
    def to_dict(self) -> dict[str, Any]: ...

def score_demand(
    costs: Costs,
    demand: Mapping[str, float],
    *,
    serving_seconds: float = 0.0,
    candidates: Sequence[str] | None = None,
    best: int = 100,
) -> dict[str, int]:
    """Scores nodes by the mean response time that demand would see there: the best gets `best`, one with twice its
    response time half of that, one that no source reaches 0."""

def score_dependencies(
    costs: Costs, called: Sequence[str], *, candidates: Sequence[str] | None = None, best: int = 100
) -> dict[str, int]:
    """Scores nodes for a pod that will call pods on these nodes (one entry a pod): the cheapest gets `best`, the dearest
    0, one with a way that is not known 0 while the others get at least 1."""

def requirements(
    costs: Costs, called: Sequence[tuple[str, float]], *, candidates: Sequence[str] | None = None
) -> dict[str, tuple[int, int]]:
    """Per node how many of the pods that it will call are near enough (at most so many seconds away), and how many
    not. What is not known is not near."""
