// The library placement of Kantai for C. docs/embed-c.md shows it in use; four rules hold for all:
//
// - Handles are given back by the _free of their kind, in any order. Costs, problems and plans never
//   change, and several threads may use one; a matrix or planner belongs to one thread at a time.
// - Where the last argument is not NULL, it gets the text of an error, or NULL where all went well.
//   The caller gives the text back by kantai_string_free. Results are written only with
//   KANTAI_STATUS_OK.
// - A fault of this library is KANTAI_STATUS_PANIC: nothing unwinds into the caller.
// - Unknown is a value of its own and never 0: NaN, KANTAI_PAIR_UNKNOWN, KANTAI_NO_POSITION.
//
// Written by cbindgen; see README.md.

#ifndef KANTAI_PLACEMENT_H
#define KANTAI_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The position of a node that is not listed.
#define KANTAI_NO_POSITION SIZE_MAX

// The version of this interface. It rises with every change that a compiled caller would notice.
#define KANTAI_ABI_VERSION 1

// The shortest round trip stands for a pair.
#define KANTAI_STATISTIC_MIN 0

// The median stands for a pair.
#define KANTAI_STATISTIC_P50 1

// The 90th percentile stands for a pair.
#define KANTAI_STATISTIC_P90 2

// The 99th percentile stands for a pair.
#define KANTAI_STATISTIC_P99 3

// The weighted mean and some times the jitter stand for a pair.
#define KANTAI_STATISTIC_MEAN_PLUS_JITTER 4

// Measured lately.
#define KANTAI_PAIR_KNOWN 0

// Measured, but longer ago than is trusted.
#define KANTAI_PAIR_STALE 1

// Never measured, forgotten, or measured as nonsense.
#define KANTAI_PAIR_UNKNOWN 2

// Probed and not answering: nothing may be sent this way.
#define KANTAI_PAIR_UNREACHABLE 3

// How a call ended.
typedef enum KantaiStatus {
  // All went well.
  KANTAI_STATUS_OK = 0,
  // A pointer is NULL or not aligned.
  KANTAI_STATUS_POINTER = 1,
  // A text is not UTF-8.
  KANTAI_STATUS_TEXT = 2,
  // A count does not fit: too large, or not that of the nodes.
  KANTAI_STATUS_LENGTH = 3,
  // A position beyond the list of nodes.
  KANTAI_STATUS_POSITION = 4,
  // Data that cannot be true or read. The error text says what.
  KANTAI_STATUS_INVALID = 5,
  // A fault of this library.
  KANTAI_STATUS_PANIC = 6,
} KantaiStatus;

// What a pair of nodes costs: seconds.
typedef struct KantaiCosts KantaiCosts;

// What was measured of the pairs of some nodes.
typedef struct KantaiMatrix KantaiMatrix;

// Which nodes get how many replicas, who is served where, and what could not be done.
typedef struct KantaiPlan KantaiPlan;

// Plans one service again and again: begins where the plan before ended.
typedef struct KantaiPlanner KantaiPlanner;

// One service, and all that its placement depends on.
typedef struct KantaiProblem KantaiProblem;

// How the state of a pair becomes a cost.
typedef struct KantaiPolicy {
  // One of KANTAI_STATISTIC_...
  uint32_t statistic;
  // How many times the jitter is added, with KANTAI_STATISTIC_MEAN_PLUS_JITTER.
  double jitters;
  // A stale pair costs this many times its last cost, at least 1.
  double stale_factor;
  // What a lost packet costs, seconds.
  double loss_seconds;
} KantaiPolicy;

// Statistics of the round trips of an ordered pair. Numbers that no link can have make the pair
// unknown.
typedef struct KantaiPairStats {
  // Shortest round trip, seconds.
  double min_seconds;
  // Median, seconds.
  double p50_seconds;
  // 90th percentile, seconds.
  double p90_seconds;
  // 99th percentile, seconds.
  double p99_seconds;
  // Exponentially weighted mean, seconds.
  double ewma_seconds;
  // Mean deviation between successive round trips, seconds.
  double jitter_seconds;
  // Lost probes over sent probes, 0 to 1.
  double loss_ratio;
  // Seconds since the newest sample.
  double age_seconds;
  // Samples, at least 1.
  uint64_t samples;
} KantaiPairStats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is linked. A caller should refuse to go on where this is not the
// KANTAI_ABI_VERSION that it was compiled with.
uint32_t kantai_abi_version(void);

// The median; a stale pair is half as costly again; a lost packet costs 0.2 s.
struct KantaiPolicy kantai_policy_default(void);

// Costs from measurements; `policy` may be NULL for the default. Later changes of the matrix
// change nothing here.
enum KantaiStatus kantai_costs_from_matrix(const struct KantaiMatrix *matrix,
                                           const struct KantaiPolicy *policy,
                                           struct KantaiCosts **costs,
                                           char **error);

// Costs from a table of `node_count * node_count` seconds, one row per sending node. NaN: not
// known; infinity: nothing may be sent. Negative seconds and those above 10 count as not known;
// the diagonal becomes 0.
enum KantaiStatus kantai_costs_from_seconds(const char *const *node_names,
                                            size_t node_count,
                                            const double *seconds,
                                            size_t seconds_count,
                                            struct KantaiCosts **costs,
                                            char **error);

// Costs by site, for thousands of nodes: the site of each node, a square table of the seconds
// between `site_count` sites (one row per sending site; the diagonal is inside a site), and the
// seconds that each node adds, NULL for none. Of a node whose site is KANTAI_NO_POSITION nothing
// is known.
enum KantaiStatus kantai_costs_by_site(const char *const *node_names,
                                       const size_t *sites,
                                       const double *access_seconds,
                                       size_t node_count,
                                       const double *between_seconds,
                                       size_t site_count,
                                       struct KantaiCosts **costs,
                                       char **error);

// Gives costs back. NULL is allowed.
void kantai_costs_free(struct KantaiCosts *costs);

// The number of nodes.
enum KantaiStatus kantai_costs_nodes(const struct KantaiCosts *costs,
                                     size_t *nodes,
                                     char **error);

// The position of a node by its name; KANTAI_NO_POSITION where it is not listed, which is no
// error.
enum KantaiStatus kantai_costs_position(const struct KantaiCosts *costs,
                                        const char *node_name,
                                        size_t *position,
                                        char **error);

// What an ordered pair of positions costs, seconds: NaN where it is not known, infinity where
// nothing may be sent. Of a position beyond the list nothing is known.
enum KantaiStatus kantai_costs_seconds(const struct KantaiCosts *costs,
                                       size_t from,
                                       size_t to,
                                       double *seconds,
                                       char **error);

// Gives back a text of this library. NULL is allowed.
void kantai_string_free(char *text);

// A matrix of nodes, of whose pairs nothing is known yet; a node to itself is 0. No two nodes may
// have the same name. Nodes are positions in this list from here on.
enum KantaiStatus kantai_matrix_new(const char *const *node_names,
                                    size_t node_count,
                                    struct KantaiMatrix **matrix,
                                    char **error);

// Gives a matrix back. NULL is allowed.
void kantai_matrix_free(struct KantaiMatrix *matrix);

// Sets an ordered pair to one round trip in seconds, measured now. NaN, or a time that no link can
// have (negative, or more than 10 s), makes it unknown.
enum KantaiStatus kantai_matrix_set_rtt(struct KantaiMatrix *matrix,
                                        size_t from,
                                        size_t to,
                                        double rtt_seconds,
                                        char **error);

// Sets an ordered pair: `state` is one of KANTAI_PAIR_..., and `stats` is needed where that is
// known or stale.
enum KantaiStatus kantai_matrix_set(struct KantaiMatrix *matrix,
                                    size_t from,
                                    size_t to,
                                    uint32_t state,
                                    const struct KantaiPairStats *stats,
                                    char **error);

// Reads an ordered pair: its state, and its statistics where it is known or stale. `stats` may be
// NULL.
enum KantaiStatus kantai_matrix_get(const struct KantaiMatrix *matrix,
                                    size_t from,
                                    size_t to,
                                    uint32_t *state,
                                    struct KantaiPairStats *stats,
                                    char **error);

// Gives a plan back. NULL is allowed.
void kantai_plan_free(struct KantaiPlan *plan);

// The replicas on a node; 0 on one that has none or is not listed.
enum KantaiStatus kantai_plan_replicas(const struct KantaiPlan *plan,
                                       const char *node_name,
                                       uint32_t *replicas,
                                       char **error);

// The whole plan as JSON: replicas, flows, what has no place and why, cost, proof. The caller
// gives the text back.
enum KantaiStatus kantai_plan_json(const struct KantaiPlan *plan,
                                   char **json,
                                   char **error);

// Which share of the requests that enter at a node goes to each node: whole numbers that sum to
// 100, in the order of the costs' nodes, of which there are `weight_count`.
enum KantaiStatus kantai_plan_weights(const struct KantaiPlan *plan,
                                      const struct KantaiCosts *costs,
                                      size_t source,
                                      uint32_t *weights,
                                      size_t weight_count,
                                      char **error);

// Why the plan of this problem is what it is, as JSON: for each node with replicas what they cost
// and where one would go otherwise, for each other node what speaks against it. For a human who
// asks: every alternative is priced. The caller gives the text back.
enum KantaiStatus kantai_explain_json(const struct KantaiProblem *problem,
                                      const struct KantaiPlan *plan,
                                      char **json,
                                      char **error);

// The same in English, one line per node. The caller gives the text back.
enum KantaiStatus kantai_explain_text(const struct KantaiProblem *problem,
                                      const struct KantaiPlan *plan,
                                      char **lines,
                                      char **error);

// A problem from JSON, as crates/placement/schema/problem-spec.json has it. Where `costs` is not
// NULL, the JSON has no field "costs", and these count.
enum KantaiStatus kantai_problem_from_json(const char *json,
                                           const struct KantaiCosts *costs,
                                           struct KantaiProblem **problem,
                                           char **error);

// Gives a problem back. NULL is allowed.
void kantai_problem_free(struct KantaiProblem *problem);

// The best plan of a problem. It takes as long as the effort that the problem asks for.
enum KantaiStatus kantai_problem_solve(const struct KantaiProblem *problem,
                                       struct KantaiPlan **plan,
                                       char **error);

// A planner that knows nothing yet.
enum KantaiStatus kantai_planner_new(struct KantaiPlanner **planner,
                                     char **error);

// Gives a planner back. NULL is allowed.
void kantai_planner_free(struct KantaiPlanner *planner);

// The plan of the next problem of the same service, in a part of the time of kantai_problem_solve.
enum KantaiStatus kantai_planner_plan(struct KantaiPlanner *planner,
                                      const struct KantaiProblem *problem,
                                      struct KantaiPlan **plan,
                                      char **error);

// Scores candidates by the mean response time that demand would see there: the best gets `best`,
// one with twice its response time half of that, and one that no source reaches 0.
//
// Sources are positions with their requests in flight; without any that is above 0, all candidates
// count alike. `candidates` are positions, or NULL for all nodes in order; one that is not listed
// (KANTAI_NO_POSITION) is as far as an unknown pair. `scores` gets `candidate_count` numbers.
enum KantaiStatus kantai_score_demand(const struct KantaiCosts *costs,
                                      const size_t *sources,
                                      const double *requests,
                                      size_t source_count,
                                      double serving_seconds,
                                      const size_t *candidates,
                                      size_t candidate_count,
                                      uint8_t best,
                                      uint8_t *scores,
                                      char **error);

// Scores candidates for a pod that will call pods on these nodes (positions, one entry a pod): the
// cheapest candidate gets `best`, the dearest 0, and one with a way that is not known or cut 0
// while the others get at least 1. Without pods that are called, all get `best`.
//
// `candidates` and `scores` as in kantai_score_demand; a candidate that is not listed gets 0, and
// a pod on a node that is not listed is left out.
enum KantaiStatus kantai_score_dependencies(const struct KantaiCosts *costs,
                                            const size_t *called,
                                            size_t called_count,
                                            const size_t *candidates,
                                            size_t candidate_count,
                                            uint8_t best,
                                            uint8_t *scores,
                                            char **error);

// Counts for each candidate how many of the pods that it will call are near enough: on the same
// node, or at most so many seconds away. What is not known is not near. `satisfied` gets
// `candidate_count` numbers; the others of `called_count` are violated. A scheduler's filter
// should refuse a node where more are violated than satisfied.
enum KantaiStatus kantai_requirements(const struct KantaiCosts *costs,
                                      const size_t *called,
                                      const double *most_seconds,
                                      size_t called_count,
                                      const size_t *candidates,
                                      size_t candidate_count,
                                      uint32_t *satisfied,
                                      char **error);

// Gives back a text of this library. NULL is allowed.
void kantai_string_free(char *text);

// A matrix of nodes, of whose pairs nothing is known yet; a node to itself is 0. No two nodes may
// have the same name. Nodes are positions in this list from here on.
enum KantaiStatus kantai_matrix_new(const char *const *node_names,
                                    size_t node_count,
                                    struct KantaiMatrix **matrix,
                                    char **error);

// Gives a matrix back. NULL is allowed.
void kantai_matrix_free(struct KantaiMatrix *matrix);

// Sets an ordered pair to one round trip in seconds, measured now. NaN, or a time that no link can
// have (negative, or more than 10 s), makes it unknown.
enum KantaiStatus kantai_matrix_set_rtt(struct KantaiMatrix *matrix,
                                        size_t from,
                                        size_t to,
                                        double rtt_seconds,
                                        char **error);

// Sets an ordered pair: `state` is one of KANTAI_PAIR_..., and `stats` is needed where that is
// known or stale.
enum KantaiStatus kantai_matrix_set(struct KantaiMatrix *matrix,
                                    size_t from,
                                    size_t to,
                                    uint32_t state,
                                    const struct KantaiPairStats *stats,
                                    char **error);

// Reads an ordered pair: its state, and its statistics where it is known or stale. `stats` may be
// NULL.
enum KantaiStatus kantai_matrix_get(const struct KantaiMatrix *matrix,
                                    size_t from,
                                    size_t to,
                                    uint32_t *state,
                                    struct KantaiPairStats *stats,
                                    char **error);

// The median; a stale pair is half as costly again; a lost packet costs 0.2 s.
struct KantaiPolicy kantai_policy_default(void);

// Costs from measurements; `policy` may be NULL for the default. Later changes of the matrix
// change nothing here.
enum KantaiStatus kantai_costs_from_matrix(const struct KantaiMatrix *matrix,
                                           const struct KantaiPolicy *policy,
                                           struct KantaiCosts **costs,
                                           char **error);

// Costs from a table of `node_count * node_count` seconds, one row per sending node. NaN: not
// known; infinity: nothing may be sent. Negative seconds and those above 10 count as not known;
// the diagonal becomes 0.
enum KantaiStatus kantai_costs_from_seconds(const char *const *node_names,
                                            size_t node_count,
                                            const double *seconds,
                                            size_t seconds_count,
                                            struct KantaiCosts **costs,
                                            char **error);

// Costs by site, for thousands of nodes: the site of each node, a square table of the seconds
// between `site_count` sites (one row per sending site; the diagonal is inside a site), and the
// seconds that each node adds, NULL for none. Of a node whose site is KANTAI_NO_POSITION nothing
// is known.
enum KantaiStatus kantai_costs_by_site(const char *const *node_names,
                                       const size_t *sites,
                                       const double *access_seconds,
                                       size_t node_count,
                                       const double *between_seconds,
                                       size_t site_count,
                                       struct KantaiCosts **costs,
                                       char **error);

// Gives costs back. NULL is allowed.
void kantai_costs_free(struct KantaiCosts *costs);

// The number of nodes.
enum KantaiStatus kantai_costs_nodes(const struct KantaiCosts *costs,
                                     size_t *nodes,
                                     char **error);

// The position of a node by its name; KANTAI_NO_POSITION where it is not listed, which is no
// error.
enum KantaiStatus kantai_costs_position(const struct KantaiCosts *costs,
                                        const char *node_name,
                                        size_t *position,
                                        char **error);

// What an ordered pair of positions costs, seconds: NaN where it is not known, infinity where
// nothing may be sent. Of a position beyond the list nothing is known.
enum KantaiStatus kantai_costs_seconds(const struct KantaiCosts *costs,
                                       size_t from,
                                       size_t to,
                                       double *seconds,
                                       char **error);

// Scores candidates by the mean response time that demand would see there: the best gets `best`,
// one with twice its response time half of that, and one that no source reaches 0.
//
// Sources are positions with their requests in flight; without any that is above 0, all candidates
// count alike. `candidates` are positions, or NULL for all nodes in order; one that is not listed
// (KANTAI_NO_POSITION) is as far as an unknown pair. `scores` gets `candidate_count` numbers.
enum KantaiStatus kantai_score_demand(const struct KantaiCosts *costs,
                                      const size_t *sources,
                                      const double *requests,
                                      size_t source_count,
                                      double serving_seconds,
                                      const size_t *candidates,
                                      size_t candidate_count,
                                      uint8_t best,
                                      uint8_t *scores,
                                      char **error);

// Scores candidates for a pod that will call pods on these nodes (positions, one entry a pod): the
// cheapest candidate gets `best`, the dearest 0, and one with a way that is not known or cut 0
// while the others get at least 1. Without pods that are called, all get `best`.
//
// `candidates` and `scores` as in kantai_score_demand; a candidate that is not listed gets 0, and
// a pod on a node that is not listed is left out.
enum KantaiStatus kantai_score_dependencies(const struct KantaiCosts *costs,
                                            const size_t *called,
                                            size_t called_count,
                                            const size_t *candidates,
                                            size_t candidate_count,
                                            uint8_t best,
                                            uint8_t *scores,
                                            char **error);

// Counts for each candidate how many of the pods that it will call are near enough: on the same
// node, or at most so many seconds away. What is not known is not near. `satisfied` gets
// `candidate_count` numbers; the others of `called_count` are violated. A scheduler's filter
// should refuse a node where more are violated than satisfied.
enum KantaiStatus kantai_requirements(const struct KantaiCosts *costs,
                                      const size_t *called,
                                      const double *most_seconds,
                                      size_t called_count,
                                      const size_t *candidates,
                                      size_t candidate_count,
                                      uint32_t *satisfied,
                                      char **error);

// A problem from JSON, as crates/placement/schema/problem-spec.json has it. Where `costs` is not
// NULL, the JSON has no field "costs", and these count.
enum KantaiStatus kantai_problem_from_json(const char *json,
                                           const struct KantaiCosts *costs,
                                           struct KantaiProblem **problem,
                                           char **error);

// Gives a problem back. NULL is allowed.
void kantai_problem_free(struct KantaiProblem *problem);

// The best plan of a problem. It takes as long as the effort that the problem asks for.
enum KantaiStatus kantai_problem_solve(const struct KantaiProblem *problem,
                                       struct KantaiPlan **plan,
                                       char **error);

// A planner that knows nothing yet.
enum KantaiStatus kantai_planner_new(struct KantaiPlanner **planner,
                                     char **error);

// Gives a planner back. NULL is allowed.
void kantai_planner_free(struct KantaiPlanner *planner);

// The plan of the next problem of the same service, in a part of the time of kantai_problem_solve.
enum KantaiStatus kantai_planner_plan(struct KantaiPlanner *planner,
                                      const struct KantaiProblem *problem,
                                      struct KantaiPlan **plan,
                                      char **error);

// Gives a plan back. NULL is allowed.
void kantai_plan_free(struct KantaiPlan *plan);

// The replicas on a node; 0 on one that has none or is not listed.
enum KantaiStatus kantai_plan_replicas(const struct KantaiPlan *plan,
                                       const char *node_name,
                                       uint32_t *replicas,
                                       char **error);

// The whole plan as JSON: replicas, flows, what has no place and why, cost, proof. The caller
// gives the text back.
enum KantaiStatus kantai_plan_json(const struct KantaiPlan *plan,
                                   char **json,
                                   char **error);

// Which share of the requests that enter at a node goes to each node: whole numbers that sum to
// 100, in the order of the costs' nodes, of which there are `weight_count`.
enum KantaiStatus kantai_plan_weights(const struct KantaiPlan *plan,
                                      const struct KantaiCosts *costs,
                                      size_t source,
                                      uint32_t *weights,
                                      size_t weight_count,
                                      char **error);

// Why the plan of this problem is what it is, as JSON: for each node with replicas what they cost
// and where one would go otherwise, for each other node what speaks against it. For a human who
// asks: every alternative is priced. The caller gives the text back.
enum KantaiStatus kantai_explain_json(const struct KantaiProblem *problem,
                                      const struct KantaiPlan *plan,
                                      char **json,
                                      char **error);

// The same in English, one line per node. The caller gives the text back.
enum KantaiStatus kantai_explain_text(const struct KantaiProblem *problem,
                                      const struct KantaiPlan *plan,
                                      char **lines,
                                      char **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KANTAI_PLACEMENT_H */
