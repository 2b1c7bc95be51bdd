/* Where should a video service run? See docs/embed-c.md for how to build and run it. */
#include "kantai_placement.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES 4

/* Every call says how it went; the text is ours to give back. */
#define TRY(call)                                                  \
    do {                                                           \
        char *error = NULL;                                        \
        if (call != KANTAI_STATUS_OK) {                            \
            fprintf(stderr, "%s\n", error);                        \
            kantai_string_free(error);                             \
            exit(1);                                               \
        }                                                          \
    } while (0)

int main(void) {
    const char *const names[NODES] = {"hanoi", "danang", "saigon", "cloud"};
    const double seconds[NODES * NODES] = {
        0.000, 0.014, 0.032, 0.058, /* from hanoi */
        0.014, 0.000, 0.019, NAN,   /* from danang: nobody measured the way to the cloud */
        0.032, 0.019, 0.000, 0.040, /* from saigon */
        0.058, NAN,   0.040, 0.000, /* from the cloud */
    };
    const char *const question =
        "{\"version\": 1, \"service\": \"video\", \"replicas\": 5, \"replica_concurrency\": 12.0,"
        " \"nodes\": [{\"node\": \"hanoi\", \"max_replicas\": 2}, {\"node\": \"danang\", \"max_replicas\": 1},"
        "             {\"node\": \"saigon\", \"max_replicas\": 2}, {\"node\": \"cloud\", \"max_replicas\": 50}],"
        " \"demand\": {\"hanoi\": 30.0, \"danang\": 4.0, \"saigon\": 18.0}, \"running\": {\"cloud\": 1}}";
    KantaiCosts *costs = NULL;
    KantaiProblem *problem = NULL;
    KantaiPlan *plan = NULL;
    char *why = NULL;

    TRY(kantai_costs_from_seconds(names, NODES, seconds, NODES * NODES, &costs, &error));
    TRY(kantai_problem_from_json(question, costs, &problem, &error));
    TRY(kantai_problem_solve(problem, &plan, &error));
    for (size_t node = 0; node < NODES; node++) {
        uint32_t replicas = 0, weights[NODES];
        TRY(kantai_plan_replicas(plan, names[node], &replicas, &error));
        TRY(kantai_plan_weights(plan, costs, node, weights, NODES, &error));
        printf("%s: %u replicas; requests there go to", names[node], replicas);
        for (size_t to = 0; to < NODES; to++) {
            if (weights[to] > 0) printf(" %s %u %%", names[to], weights[to]);
        }
        printf("\n");
    }
    TRY(kantai_explain_text(problem, plan, &why, &error));
    printf("%s", why);
    kantai_string_free(why);
    kantai_plan_free(plan);
    kantai_problem_free(problem);
    kantai_costs_free(costs);
    return 0;
}
