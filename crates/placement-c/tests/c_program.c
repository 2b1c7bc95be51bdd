/* What a C program may do with the library, and what it may do wrong. Run under AddressSanitizer and
 * UndefinedBehaviorSanitizer by tests/c_program.rs: a leak, a use after free or an access beyond
 * a buffer ends it with a failure. */
#include "kantai_placement.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local int checks;

#define CHECK(condition)                                                          \
    do {                                                                          \
        checks++;                                                                 \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

/* A call that has to go well. */
#define OK(call)                                                                  \
    do {                                                                          \
        char *error = NULL;                                                       \
        KantaiStatus status = call;                                               \
        if (status != KANTAI_STATUS_OK || error != NULL) {                        \
            fprintf(stderr, "%s:%d: %d %s\n", __FILE__, __LINE__, status, error); \
            exit(1);                                                              \
        }                                                                         \
        checks++;                                                                 \
    } while (0)

/* A call that has to be refused with a status and a text that contains some words. */
#define REFUSED(expected, words, call)                                            \
    do {                                                                          \
        char *error = NULL;                                                       \
        KantaiStatus status = call;                                               \
        if (status != expected || error == NULL || strstr(error, words) == NULL) { \
            fprintf(stderr, "%s:%d: %d %s\n", __FILE__, __LINE__, status,         \
                    error == NULL ? "(no text)" : error);                         \
            exit(1);                                                              \
        }                                                                         \
        kantai_string_free(error);                                                \
        checks++;                                                                 \
    } while (0)

static const char *const NAMES[] = {"hanoi", "danang", "saigon", "cloud"};
#define NODES 4

static KantaiCosts *measured(void) {
    KantaiMatrix *matrix = NULL;
    KantaiCosts *costs = NULL;
    KantaiPairStats stats = {.min_seconds = 0.030, .p50_seconds = 0.032, .p90_seconds = 0.040,
                             .p99_seconds = 0.050, .ewma_seconds = 0.033, .jitter_seconds = 0.001,
                             .loss_ratio = 0.0, .age_seconds = 1.0, .samples = 20};
    uint32_t state = 99;
    KantaiPairStats found;

    OK(kantai_matrix_new(NAMES, NODES, &matrix, &error));
    OK(kantai_matrix_set_rtt(matrix, 0, 1, 0.014, &error));
    OK(kantai_matrix_set_rtt(matrix, 1, 0, 0.014, &error));
    OK(kantai_matrix_set(matrix, 0, 2, KANTAI_PAIR_KNOWN, &stats, &error));
    OK(kantai_matrix_set(matrix, 2, 0, KANTAI_PAIR_STALE, &stats, &error));
    OK(kantai_matrix_set(matrix, 1, 3, KANTAI_PAIR_UNREACHABLE, NULL, &error));
    OK(kantai_matrix_set_rtt(matrix, 2, 1, 0.019, &error));
    OK(kantai_matrix_set_rtt(matrix, 1, 2, -1.0, &error)); /* no link has that */

    OK(kantai_matrix_get(matrix, 0, 2, &state, &found, &error));
    CHECK(state == KANTAI_PAIR_KNOWN && found.p90_seconds == 0.040 && found.samples == 20);
    OK(kantai_matrix_get(matrix, 1, 2, &state, NULL, &error));
    CHECK(state == KANTAI_PAIR_UNKNOWN);
    OK(kantai_matrix_get(matrix, 3, 3, &state, &found, &error));
    CHECK(state == KANTAI_PAIR_KNOWN && found.p50_seconds == 0.0);

    REFUSED(KANTAI_STATUS_POSITION, "beyond the 4 nodes", kantai_matrix_set_rtt(matrix, 0, 4, 0.1, &error));
    REFUSED(KANTAI_STATUS_INVALID, "state of a pair", kantai_matrix_set(matrix, 0, 1, 17, NULL, &error));
    REFUSED(KANTAI_STATUS_POINTER, "statistics", kantai_matrix_set(matrix, 0, 1, KANTAI_PAIR_KNOWN, NULL, &error));
    REFUSED(KANTAI_STATUS_POINTER, "place for a state", kantai_matrix_get(matrix, 0, 1, NULL, NULL, &error));
    REFUSED(KANTAI_STATUS_POINTER, "matrix", kantai_matrix_set_rtt(NULL, 0, 1, 0.1, &error));

    OK(kantai_costs_from_matrix(matrix, NULL, &costs, &error));
    kantai_matrix_free(matrix); /* costs do not need it any more */
    return costs;
}

static void costs_and_unknown_pairs(void) {
    KantaiCosts *costs = measured();
    double seconds = 0.0;
    size_t position = 0, nodes = 0;

    OK(kantai_costs_nodes(costs, &nodes, &error));
    CHECK(nodes == NODES);
    OK(kantai_costs_seconds(costs, 0, 2, &seconds, &error));
    CHECK(seconds == 0.032);
    OK(kantai_costs_seconds(costs, 2, 0, &seconds, &error));
    CHECK(fabs(seconds - 0.048) < 1e-12); /* stale: half as much again */
    OK(kantai_costs_seconds(costs, 1, 2, &seconds, &error));
    CHECK(isnan(seconds));
    OK(kantai_costs_seconds(costs, 1, 3, &seconds, &error));
    CHECK(isinf(seconds));
    OK(kantai_costs_seconds(costs, 0, 77, &seconds, &error));
    CHECK(isnan(seconds));
    OK(kantai_costs_position(costs, "saigon", &position, &error));
    CHECK(position == 2);
    OK(kantai_costs_position(costs, "gone", &position, &error));
    CHECK(position == KANTAI_NO_POSITION);
    REFUSED(KANTAI_STATUS_TEXT, "UTF-8", kantai_costs_position(costs, "\xff", &position, &error));
    REFUSED(KANTAI_STATUS_POINTER, "name", kantai_costs_position(costs, NULL, &position, &error));
    kantai_costs_free(costs);

    KantaiPolicy policy = kantai_policy_default();
    KantaiMatrix *matrix = NULL;
    costs = NULL;
    policy.statistic = 42;
    OK(kantai_matrix_new(NAMES, NODES, &matrix, &error));
    REFUSED(KANTAI_STATUS_INVALID, "statistic", kantai_costs_from_matrix(matrix, &policy, &costs, &error));
    CHECK(costs == NULL);
    policy.statistic = KANTAI_STATISTIC_P99;
    OK(kantai_costs_from_matrix(matrix, &policy, &costs, &error));
    kantai_costs_free(costs);
    kantai_matrix_free(matrix);

    const char *const twice[] = {"one", "one"};
    REFUSED(KANTAI_STATUS_INVALID, "listed twice", kantai_matrix_new(twice, 2, &matrix, &error));
    const char *const hole[] = {"one", NULL};
    REFUSED(KANTAI_STATUS_POINTER, "names", kantai_matrix_new(hole, 2, &matrix, &error));
    REFUSED(KANTAI_STATUS_LENGTH, "in memory", kantai_matrix_new(NAMES, SIZE_MAX / 2, &matrix, &error));
    /* Who wants no text gets none. */
    CHECK(kantai_matrix_new(NULL, 2, &matrix, NULL) == KANTAI_STATUS_POINTER);
}

static KantaiCosts *table(void) {
    /* hanoi - danang - saigon - cloud */
    const double seconds[NODES * NODES] = {
        0.000, 0.014, 0.032, 0.058, /* from hanoi */
        0.014, 0.000, 0.019, NAN,   /* from danang: nobody measured the way to the cloud */
        0.032, 0.019, 0.000, 0.040, /* from saigon */
        0.058, NAN, 0.040, 0.000,
    };
    KantaiCosts *costs = NULL;
    REFUSED(KANTAI_STATUS_LENGTH, "15 instead of 16", kantai_costs_from_seconds(NAMES, NODES, seconds, 15, &costs, &error));
    OK(kantai_costs_from_seconds(NAMES, NODES, seconds, 16, &costs, &error));
    return costs;
}

static void scores(void) {
    KantaiCosts *costs = table();
    /* One byte on either side of the buffer tells whether more is written than was asked for. */
    uint8_t buffer[NODES + 2];
    uint32_t satisfied[NODES];
    const size_t sources[] = {0, 2};
    const double requests[] = {30.0, 10.0};
    memset(buffer, 7, sizeof buffer);
    OK(kantai_score_demand(costs, sources, requests, 2, 0.010, NULL, NODES, 100, buffer + 1, &error));
    CHECK(buffer[0] == 7 && buffer[NODES + 1] == 7);
    CHECK(buffer[1] == 100); /* hanoi: three quarters of the requests enter there */
    CHECK(buffer[2] > buffer[3] && buffer[3] > buffer[4]);

    const size_t some[] = {3, KANTAI_NO_POSITION, 0};
    OK(kantai_score_demand(costs, sources, requests, 2, 0.010, some, 3, 10, buffer, &error));
    CHECK(buffer[2] == 10 && buffer[1] == 0 && buffer[0] > 0);

    const size_t called[] = {1, 1, KANTAI_NO_POSITION};
    const double most[] = {0.015, 0.001, 1.0};
    OK(kantai_score_dependencies(costs, called, 3, NULL, NODES, 100, buffer, &error));
    CHECK(buffer[1] == 100 && buffer[3] == 0 && buffer[2] >= 1 && buffer[0] > buffer[2]);
    OK(kantai_requirements(costs, called, most, 3, NULL, NODES, satisfied, &error));
    CHECK(satisfied[0] == 1 && satisfied[1] == 2 && satisfied[2] == 0 && satisfied[3] == 0);

    REFUSED(KANTAI_STATUS_LENGTH, "3 instead of 4",
            kantai_score_demand(costs, sources, requests, 2, 0.010, NULL, 3, 100, buffer, &error));
    REFUSED(KANTAI_STATUS_POINTER, "requests",
            kantai_score_demand(costs, sources, NULL, 2, 0.010, NULL, NODES, 100, buffer, &error));
    REFUSED(KANTAI_STATUS_POINTER, "place for scores",
            kantai_score_dependencies(costs, called, 3, NULL, NODES, 100, NULL, &error));
    REFUSED(KANTAI_STATUS_POINTER, "costs",
            kantai_score_dependencies(NULL, called, 3, NULL, NODES, 100, buffer, &error));
    /* Nothing asked, nothing needed. */
    OK(kantai_score_dependencies(costs, NULL, 0, some, 0, 100, NULL, &error));
    kantai_costs_free(costs);

    const size_t sites[] = {0, 0, 1, KANTAI_NO_POSITION};
    const double between[] = {0.0002, 0.030, 0.030, 0.0002};
    OK(kantai_costs_by_site(NAMES, sites, NULL, NODES, between, 2, &costs, &error));
    OK(kantai_score_dependencies(costs, called, 1, NULL, NODES, 100, buffer, &error));
    CHECK(buffer[1] == 100 && buffer[0] > buffer[2] && buffer[3] == 0);
    kantai_costs_free(costs);
}

static const char PROBLEM[] =
    "{\"version\": 1, \"service\": \"video\", \"replicas\": 3, \"replica_concurrency\": 12.0,"
    " \"nodes\": [{\"node\": \"hanoi\", \"max_replicas\": 2}, {\"node\": \"danang\", \"max_replicas\": 1},"
    "            {\"node\": \"saigon\", \"max_replicas\": 0}, {\"node\": \"cloud\", \"max_replicas\": 50}],"
    " \"demand\": {\"hanoi\": 20.0, \"danang\": 4.0}, \"running\": {\"cloud\": 1}}";

static void plans(void) {
    KantaiCosts *costs = table();
    KantaiProblem *problem = NULL;
    KantaiPlanner *planner = NULL;
    KantaiPlan *plan = NULL, *next = NULL;
    uint32_t replicas = 99, weights[NODES + 1], sum = 0;
    char *text = NULL;

    OK(kantai_problem_from_json(PROBLEM, costs, &problem, &error));
    OK(kantai_problem_solve(problem, &plan, &error));
    OK(kantai_plan_replicas(plan, "hanoi", &replicas, &error));
    CHECK(replicas == 2);
    OK(kantai_plan_replicas(plan, "gone", &replicas, &error));
    CHECK(replicas == 0);

    weights[NODES] = 4711;
    for (size_t source = 0; source < NODES; source++) {
        OK(kantai_plan_weights(plan, costs, source, weights, NODES, &error));
        sum = weights[0] + weights[1] + weights[2] + weights[3];
        CHECK(sum == 100 && weights[2] == 0 && weights[NODES] == 4711);
    }
    REFUSED(KANTAI_STATUS_LENGTH, "weights", kantai_plan_weights(plan, costs, 0, weights, NODES + 1, &error));
    REFUSED(KANTAI_STATUS_POSITION, "beyond", kantai_plan_weights(plan, costs, NODES, weights, NODES, &error));

    OK(kantai_plan_json(plan, &text, &error));
    CHECK(strstr(text, "\"hanoi\":2") != NULL);
    kantai_string_free(text);
    OK(kantai_explain_json(problem, plan, &text, &error));
    CHECK(strstr(text, "left_out") != NULL);
    kantai_string_free(text);
    OK(kantai_explain_text(problem, plan, &text, &error));
    CHECK(strstr(text, "saigon: no replica; it has as many as it may have: 0\n") != NULL);
    kantai_string_free(text);

    OK(kantai_planner_new(&planner, &error));
    OK(kantai_planner_plan(planner, problem, &next, &error));
    OK(kantai_plan_replicas(next, "hanoi", &replicas, &error));
    CHECK(replicas == 2);
    kantai_plan_free(next);
    kantai_planner_free(planner);
    kantai_plan_free(plan);
    kantai_problem_free(problem);

    problem = NULL;
    REFUSED(KANTAI_STATUS_INVALID, "JSON", kantai_problem_from_json("{", costs, &problem, &error));
    REFUSED(KANTAI_STATUS_INVALID, "costs", kantai_problem_from_json(PROBLEM, NULL, &problem, &error));
    REFUSED(KANTAI_STATUS_INVALID, "beside it",
            kantai_problem_from_json("{\"costs\": {\"nodes\": [], \"seconds\": []}}", costs, &problem, &error));
    REFUSED(KANTAI_STATUS_INVALID, "version 9",
            kantai_problem_from_json("{\"version\": 9, \"service\": \"s\", \"replicas\": 1, \"replica_concurrency\": 1, \"nodes\": []}",
                                     costs, &problem, &error));
    CHECK(problem == NULL);
    REFUSED(KANTAI_STATUS_POINTER, "problem", kantai_problem_solve(NULL, &plan, &error));
    kantai_costs_free(costs);
}

static void *score_often(void *costs) {
    uint8_t buffer[NODES];
    const size_t called[] = {0};
    for (int round = 0; round < 100; round++) {
        OK(kantai_score_dependencies(costs, called, 1, NULL, NODES, 100, buffer, &error));
        CHECK(buffer[0] == 100);
        REFUSED(KANTAI_STATUS_POINTER, "costs", kantai_score_dependencies(NULL, called, 1, NULL, NODES, 100, buffer, &error));
    }
    return NULL;
}

static void threads(void) {
    KantaiCosts *costs = table();
    pthread_t others[3];
    for (int at = 0; at < 3; at++) {
        CHECK(pthread_create(&others[at], NULL, score_often, costs) == 0);
    }
    for (int at = 0; at < 3; at++) {
        CHECK(pthread_join(others[at], NULL) == 0);
    }
    kantai_costs_free(costs);
}

int main(void) {
    CHECK(kantai_abi_version() == KANTAI_ABI_VERSION);
    costs_and_unknown_pairs();
    scores();
    plans();
    threads();
    kantai_matrix_free(NULL);
    kantai_costs_free(NULL);
    kantai_problem_free(NULL);
    kantai_planner_free(NULL);
    kantai_plan_free(NULL);
    kantai_string_free(NULL);
    printf("%d checks\n", checks);
    return 0;
}
