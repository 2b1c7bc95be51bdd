"""What the module promises. Plain unittest: nothing to install. numpy is used where it is there."""

import array
import math
import threading
import unittest

import kantai_placement as kp

NODES = ["a", "b", "c"]
SECONDS = [[0.0, 0.010, 0.030], [0.010, 0.0, None], [0.030, math.inf, 0.0]]


class Table:
    """An array as numpy has it: a buffer of two dimensions."""

    def __new__(cls, rows, code):
        flat = array.array(code, [cell for row in rows for cell in row])
        return memoryview(flat).cast("B").cast(code, [len(rows), len(rows[0])])


def problem(costs, **more):
    fields = {"replicas": 2, "replica_concurrency": 10.0, "nodes": {"a": 2, "b": 2}, "demand": {"b": 8.0, "c": 2.0}}
    return kp.Problem("hello", costs, **(fields | more))


class Costs(unittest.TestCase):
    def test_unknown_is_none_and_cut_is_infinite(self):
        costs = kp.Costs(NODES, SECONDS)
        self.assertEqual((costs.nodes, len(costs)), (NODES, 3))
        self.assertEqual(costs.seconds("a", "b"), 0.010)
        self.assertIsNone(costs.seconds("b", "c"))
        self.assertIsNone(costs.seconds("a", "gone"))
        self.assertEqual(costs.seconds("c", "b"), math.inf)

    def test_arrays_are_read_as_lists_are(self):
        rows = [[0.0, 0.25, 0.5], [0.125, 0.0, math.nan], [1.0, math.inf, 0.0]]
        cells = lambda costs: [[costs.seconds(one, other) for other in NODES] for one in NODES]
        expected = cells(kp.Costs(NODES, rows))
        for code in "df":
            self.assertEqual(cells(kp.Costs(NODES, Table(rows, code))), expected)
        whole = [[0, 1, 2], [3, 0, 4], [5, 6, 0]]
        self.assertEqual(cells(kp.Costs(NODES, Table(whole, "i"))), cells(kp.Costs(NODES, whole)))

    def test_arrays_of_numpy(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("numpy is not installed; buffers are tested without it")
        table = numpy.array(SECONDS, dtype=float)
        for same in (table, numpy.asfortranarray(table), numpy.repeat(table, 2, axis=1)[:, ::2]):
            costs = kp.Costs(NODES, same)
            self.assertEqual([costs.seconds("a", "b"), costs.seconds("b", "c"), costs.seconds("c", "b")], [0.01, None, math.inf])

    def test_what_has_another_shape_is_refused(self):
        for wrong in ([[0.0]], [[0.0, 1.0, 2.0]] * 2, [[0.0, 1.0, 2.0], [0.0], [0.0, 1.0, 2.0]], Table([[0.0, 1.0]], "d")):
            with self.assertRaisesRegex(ValueError, "shape"):
                kp.Costs(NODES, wrong)

    def test_by_site(self):
        costs = kp.Costs.by_site([("a", 0), ("b", 0), ("c", 1)], [[0.001, 0.03], [0.03, 0.001]], access=[0.0, 0.0, 0.002])
        self.assertAlmostEqual(costs.seconds("a", "c"), 0.032)
        with self.assertRaisesRegex(ValueError, "1 numbers for 3 nodes"):
            kp.Costs.by_site([("a", 0), ("b", 0), ("c", 0)], [[0.0]], access=[0.0])


class Matrix(unittest.TestCase):
    def test_measurements_become_costs(self):
        matrix = kp.LatencyMatrix(NODES)
        self.assertEqual(matrix.get("a", "b"), ("unknown", None))
        matrix.set("a", "b", 0.010, symmetric=True)
        matrix.set("a", "c", -0.010)
        self.assertEqual(matrix.get("a", "c")[0], "unknown")
        stats = dict(matrix.get("b", "a")[1], p99=0.05, samples=9)
        matrix.set_stats("a", "c", stats, stale=True)
        matrix.set_unreachable("c", "a")
        self.assertEqual(matrix.get("c", "a"), ("unreachable", None))
        costs = matrix.costs()
        self.assertEqual((costs.seconds("b", "a"), costs.seconds("c", "a")), (0.010, math.inf))
        self.assertAlmostEqual(costs.seconds("a", "c"), 0.015)
        self.assertAlmostEqual(matrix.costs(statistic="p99", stale_factor=2.0).seconds("a", "c"), 0.1)
        self.assertAlmostEqual(matrix.costs(jitters=2.0).seconds("a", "b"), 0.010)
        self.assertIsNone(costs.seconds("b", "c"))
        for call in (
            lambda: matrix.set("a", "gone", 0.1),
            lambda: matrix.costs(statistic="p12"),
            lambda: kp.LatencyMatrix(["a", "a"]),
            lambda: matrix.set_stats("a", "b", {"min": 1.0}),
        ):
            self.assertRaises(ValueError, call)


class Plans(unittest.TestCase):
    def setUp(self):
        self.costs = kp.Costs(NODES, [[0.0, 0.010, 0.030], [0.010, 0.0, 0.050], [0.030, 0.050, 0.0]])

    def test_plan_routes_and_reasons(self):
        question = problem(self.costs)
        plan = question.solve()
        self.assertEqual(sum(plan.replicas.values()), 2)
        self.assertTrue(plan.proven)
        self.assertEqual(plan.unplaced, 0)
        self.assertAlmostEqual(sum(flow for _, _, flow in plan.flows), 10.0)
        routes = plan.routes(self.costs)
        self.assertEqual(list(routes), NODES)
        for targets in routes.values():
            self.assertEqual(sum(targets.values()), 100)
        self.assertEqual(plan.routes(self.costs, ["b"]), {"b": routes["b"]})
        self.assertRaises(ValueError, plan.routes, self.costs, ["gone"])
        self.assertEqual(plan.to_dict()["replicas"], plan.replicas)
        why = question.explain(plan)
        self.assertEqual({chosen["node"] for chosen in why["chosen"]}, set(plan.replicas))
        self.assertIn("replicas; network", question.explain_text(plan))

    def test_the_same_from_json_and_by_a_planner(self):
        question = problem(self.costs, running={"a": 1}, zones={"a": "west"})
        again = kp.Problem.from_json(question.to_json())
        self.assertEqual(again.solve().to_dict(), question.solve().to_dict())
        planner = kp.Planner()
        self.assertEqual(planner.plan(question).to_dict(), question.solve().to_dict())

    def test_what_has_no_place_is_said(self):
        plan = problem(self.costs, replicas=5, nodes=[{"node": "a", "max_replicas": 2, "schedulable": True}]).solve()
        self.assertEqual((plan.replicas, plan.unplaced), ({"a": 2}, 3))
        self.assertEqual(plan.to_dict()["unplaced"]["reasons"], {"a": {"full": {"max_replicas": 2}}})

    def test_nonsense_is_refused(self):
        for more in ({"demand": {"a": -1.0}}, {"colour": "red"}, {"replica_concurrency": 0.0}, {"demand": {"a": math.nan}}):
            with self.assertRaises(ValueError):
                problem(self.costs, **more)
        self.assertRaises(ValueError, kp.Problem.from_json, "{")

    def test_threads_share_costs(self):
        plans = []
        work = lambda: plans.append(problem(self.costs).solve().to_dict())
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(plans, [plans[0]] * 4)


class Scores(unittest.TestCase):
    def test_scores_by_demand_and_by_dependencies(self):
        costs = kp.Costs(NODES, SECONDS)
        by_demand = kp.score_demand(costs, {"a": 3.0}, serving_seconds=0.010)
        self.assertEqual(by_demand, {"a": 100, "b": 50, "c": 25})
        self.assertEqual(kp.score_demand(costs, {"a": 3.0}, candidates=["c", "b"], serving_seconds=0.010, best=10), {"c": 5, "b": 10})
        self.assertEqual(kp.score_dependencies(costs, ["c"]), {"a": 1, "b": 0, "c": 100})
        self.assertEqual(kp.score_dependencies(costs, ["a"], candidates=["gone", "a"]), {"gone": 0, "a": 100})
        near = kp.requirements(costs, [("a", 0.015), ("b", 0.001)])
        self.assertEqual(near, {"a": (1, 1), "b": (2, 0), "c": (0, 2)})


if __name__ == "__main__":
    unittest.main()
