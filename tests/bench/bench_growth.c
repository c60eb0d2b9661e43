/* How the search grows: time, labels, columns and gap over the number of layers, the pipeline's
 * depth and the strategies a layer, for chains of identical layers, of dense and MoE blocks in
 * turn, and of layers that are all unlike; and an outer loop over depths and micro-batches that
 * hands its best on. The costs are synthetic but shaped as a transformer's: each strategy is a
 * degree of tensor parallelism and a share of recomputed activations, faster where it holds more. A
 * release build, run by hand: bench_growth [SECONDS-A-CASE [CHART.svg]]. */
#include "base/clock.h"
#include "base/rng.h"
#include "planner/bounds.h"
#include "planner/search.h"
#include "traces/svg.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum kind_of_chain { CHAIN_IDENTICAL, CHAIN_ALTERNATING, CHAIN_UNLIKE, CHAIN_KINDS };

static const char *const chain_names[CHAIN_KINDS] = {"identical", "dense and MoE", "all unlike"};

struct growth_case {
    enum kind_of_chain chain;
    size_t layers, stages, strategies;
    size_t micro_batches;
    size_t micro_batch; /* samples in one */
    uint64_t cap_bytes; /* 0: half as much again as the leanest */
    double upper_bound; /* INFINITY: none */
    double budget;      /* share of what the best without a budget spends; 0: none */
};

struct growth {
    double seconds, gap; /* gap: share of the value; INFINITY: nothing found */
    double value, bound;
    uint64_t labels, columns;
};

struct chain {
    struct problem problem;
    size_t *layer_class;
    struct layer_class *classes;
    struct strategy *strategies;
    struct stage_rule *rules;
};

static void *checked(void *memory)
{
    if (!memory) {
        (void)fputs("bench_growth: no memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* ---- chains ---- */

/* Class 0 is an embedding, 1 a head; the others blocks. */
static double class_work(enum kind_of_chain chain, size_t class)
{
    if (class < 2)
        return class == 0 ? 0.2 : 0.9;
    if (chain == CHAIN_IDENTICAL)
        return 1;
    if (chain == CHAIN_ALTERNATING)
        return class == 2 ? 1 : 1.7;
    return 0.7 + 0.6 * rng_uniform(1, 11, class);
}

static size_t class_of(enum kind_of_chain chain, size_t layers, size_t layer)
{
    if (layer == 0 || layer + 1 == layers)
        return layer == 0 ? 0 : 1;
    if (chain == CHAIN_UNLIKE)
        return 1 + layer;
    return chain == CHAIN_ALTERNATING ? 2 + layer % 2 : 2;
}

/* Strategy s: splits of 1, 2, 4, 8 ranks, the others by the share that is recomputed. */
static struct strategy make_strategy(const struct growth_case *of, size_t class, size_t s)
{
    enum { SPLITS = 4 };
    const double split_loss = 0.06, batch_gain = 0.05, send = 0.02, reduce = 0.05;
    const double static_bytes = 3.0e9, inflight_bytes = 4.0e8, kept_least = 0.06;
    const double scratch_kept = 5.0e7, scratch_recomputed = 2.0e8;
    size_t splits = of->strategies < SPLITS ? of->strategies : SPLITS;
    size_t shares = (of->strategies + splits - 1) / splits;
    double split = (double)(1u << (s % splits)), work = class_work(of->chain, class);
    double kept = shares > 1 ? 1 - (double)(s / splits) / (double)(shares - 1) : 1;
    double noise = 1 + 0.02 * rng_uniform(2, class, s), skew = 1 + 0.1 * rng_uniform(3, class, s);
    double batch = (double)of->micro_batch, samples = batch * (double)of->micro_batches;
    double forward = work * noise * (1 + split_loss * log2(split)) / 3;
    forward *= batch * (1 - batch_gain * log2(batch));
    double both = forward * (3 + (1 - kept));
    return (struct strategy){
        .cost = both,
        .tau = both,
        .head = forward,
        .gamma = reduce * samples * work / split,
        .send_cost = send * batch,
        .spend = both * (1 + 0.3 * rng_uniform(4, class, s)) * (1.3 - 0.3 * kept),
        .static_bytes = (uint64_t)(static_bytes * work / split),
        .inflight_bytes = (uint64_t)(inflight_bytes * batch * work * skew *
                                     (kept_least + (1 - kept_least) * kept) / split),
        .scratch_bytes = (uint64_t)(batch * (kept < 1 ? scratch_recomputed : scratch_kept) / split),
    };
}

static void open_chain(const struct growth_case *of, struct chain *out)
{
    size_t classes = of->chain == CHAIN_UNLIKE        ? of->layers
                     : of->chain == CHAIN_ALTERNATING ? 4
                                                      : 3;
    size_t m = of->micro_batches;
    out->layer_class = checked(calloc(of->layers, sizeof(*out->layer_class)));
    out->classes = checked(calloc(classes, sizeof(*out->classes)));
    out->strategies = checked(calloc(classes * of->strategies, sizeof(*out->strategies)));
    out->rules = checked(calloc(of->stages, sizeof(*out->rules)));
    for (size_t l = 0; l < of->layers; l++)
        out->layer_class[l] = class_of(of->chain, of->layers, l);
    for (size_t c = 0; c < classes; c++) {
        struct strategy *own = &out->strategies[c * of->strategies];
        out->classes[c] = (struct layer_class){.strategy_count = of->strategies, .strategies = own};
        for (size_t s = 0; s < of->strategies; s++)
            own[s] = make_strategy(of, c, s);
    }
    for (size_t p = 0; p < of->stages; p++) {
        size_t passes = of->stages - p < m ? of->stages - p : m;
        out->rules[p] =
            (struct stage_rule){.in_flight = passes,
                                .warm_up = m > 1 ? (double)(passes - 1) / (double)(m - 1) : 0,
                                .cap_bytes = PROBLEM_NO_CAP};
    }
    out->problem = (struct problem){.layer_count = of->layers,
                                    .layer_class = out->layer_class,
                                    .places = 1,
                                    .class_count = classes,
                                    .classes = out->classes,
                                    .stages = of->stages,
                                    .rules = out->rules,
                                    .weight_tau = (double)(m - 1),
                                    .weight_gamma = 1,
                                    .spend_cap = INFINITY};
}

static void close_chain(struct chain *chain)
{
    free(chain->layer_class);
    free(chain->classes);
    free(chain->strategies);
    free(chain->rules);
}

static void fail(const struct error *err)
{
    (void)fprintf(stderr, "bench_growth: %s\n", err->message);
    exit(1);
}

/* Half as much again as the leanest: so that memory decides, and the answer is not obvious. */
static void set_cap(struct chain *chain, uint64_t cap_bytes)
{
    struct error err;
    uint64_t leanest;
    if (problem_leanest(&chain->problem, &leanest, NULL, &err) != STATUS_OK)
        fail(&err);
    for (size_t p = 0; p < chain->problem.stages; p++)
        chain->rules[p].cap_bytes = cap_bytes > 0 ? cap_bytes : leanest + leanest / 2;
}

static void set_budget(struct chain *chain, double share, double limit_s)
{
    struct problem *problem = &chain->problem;
    const struct search_options options = {.upper_bound = INFINITY,
                                           .limits = {.deadline_s = clock_s() + limit_s}};
    struct solution solution;
    struct error err;
    double spend = 0;
    if (problem_solve(problem, &options, &solution, &err) != STATUS_OK)
        fail(&err);
    for (size_t l = 0; l < problem->layer_count; l++) {
        const struct strategy *strategies = problem->classes[problem->layer_class[l]].strategies;
        spend += strategies[solution.assignment.strategies[l]].spend;
    }
    problem->spend_cap = share * spend;
    solution_free(&solution);
}

static struct growth measure(const struct growth_case *of, double limit_s)
{
    struct chain chain;
    struct solution solution;
    struct error err;
    open_chain(of, &chain);
    set_cap(&chain, of->cap_bytes);
    if (of->budget > 0)
        set_budget(&chain, of->budget, limit_s);
    double began_s = clock_s();
    const struct search_options options = {.upper_bound = of->upper_bound,
                                           .limits = {.deadline_s = began_s + limit_s}};
    if (problem_solve(&chain.problem, &options, &solution, &err) != STATUS_OK)
        fail(&err);
    struct growth out = {.seconds = clock_s() - began_s,
                         .gap = INFINITY,
                         .value = solution.found ? solution.value : INFINITY,
                         .bound = solution.bound,
                         .labels = solution.labels,
                         .columns = solution.columns};
    if (solution.found)
        out.gap = fmax(0, (solution.value - solution.bound) / solution.value);
    solution_free(&solution);
    close_chain(&chain);
    return out;
}

static struct growth show(const struct growth_case *of, double limit_s)
{
    const struct growth found = measure(of, limit_s);
    (void)printf("| %s | %zu | %zu | %zu | %.3f | %llu | %llu | ", chain_names[of->chain],
                 of->layers, of->stages, of->strategies, found.seconds,
                 (unsigned long long)found.labels, (unsigned long long)found.columns);
    if (found.gap < INFINITY)
        (void)printf("%.2g %% |\n", 100 * found.gap);
    else
        (void)printf("none found |\n");
    (void)fflush(stdout);
    return found;
}

/* ---- the tables ---- */

enum { SIZES = 5, DEPTHS = 7 };

static void show_head(const char *title)
{
    (void)printf(
        "\n%s\n\n| layers | number | stages | strategies | seconds | labels | columns | gap |"
        "\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        title);
}

static struct growth_case usual_case(enum kind_of_chain chain)
{
    return (struct growth_case){.chain = chain,
                                .layers = 96,
                                .stages = 8,
                                .strategies = 16,
                                .micro_batches = 32,
                                .micro_batch = 1,
                                .upper_bound = INFINITY};
}

static const size_t layer_counts[SIZES] = {25, 50, 100, 200, 500};

static void show_layers(double limit_s, struct growth found[CHAIN_KINDS][SIZES])
{
    show_head("Over the number of layers");
    for (int chain = 0; chain < CHAIN_KINDS; chain++) {
        for (size_t i = 0; i < SIZES; i++) {
            struct growth_case of = usual_case((enum kind_of_chain)chain);
            of.layers = layer_counts[i];
            found[chain][i] = show(&of, limit_s);
        }
    }
}

static void show_depths(double limit_s)
{
    static const size_t depths[DEPTHS] = {1, 2, 4, 8, 16, 32, 64};
    show_head("Over the pipeline's depth");
    for (int chain = 0; chain < CHAIN_KINDS; chain++) {
        for (size_t i = 0; i < DEPTHS; i++) {
            struct growth_case of = usual_case((enum kind_of_chain)chain);
            of.layers = chain == CHAIN_UNLIKE ? 500 : of.layers;
            of.stages = depths[i];
            of.micro_batches = 4 * depths[i];
            (void)show(&of, limit_s);
        }
    }
}

static void show_strategies(double limit_s)
{
    static const size_t strategies[SIZES] = {4, 8, 16, 32, 64};
    show_head("Over the strategies of a layer");
    for (int chain = 0; chain < CHAIN_KINDS; chain++) {
        for (size_t i = 0; i < SIZES; i++) {
            struct growth_case of = usual_case((enum kind_of_chain)chain);
            of.strategies = strategies[i];
            (void)show(&of, limit_s);
        }
    }
}

static void show_budget(double limit_s)
{
    static const size_t depths[] = {1, 4, 8, 32};
    show_head("With a budget of 98 % of what the best without one spends");
    for (int chain = 0; chain < CHAIN_KINDS; chain++) {
        for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++) {
            struct growth_case of = usual_case((enum kind_of_chain)chain);
            of.stages = depths[i];
            of.micro_batches = 4 * depths[i];
            of.budget = 0.98;
            (void)show(&of, limit_s);
        }
    }
}

/* ---- an outer loop ---- */

struct outer_candidate {
    struct growth_case of;
    double bound;
};

static int compare_bounds(const void *a, const void *b)
{
    const struct outer_candidate *x = a, *y = b;
    return (x->bound > y->bound) - (x->bound < y->bound);
}

static double cheap_bound(const struct growth_case *of)
{
    struct chain chain;
    struct bounds bounds;
    struct error err;
    open_chain(of, &chain);
    set_cap(&chain, of->cap_bytes);
    if (bounds_init(&bounds, &chain.problem, NULL, INFINITY, &err) != STATUS_OK)
        fail(&err);
    double bound = bounds_total(&bounds);
    bounds_free(&bounds);
    close_chain(&chain);
    return bound;
}

/* 64 devices' share of one batch: deeper pipelines have fewer copies, and so more micro-batches
 * each. The most promising first, and none whose bound is above the best. */
static void show_outer_loop(double limit_s)
{
    enum { BATCHES = 3, CANDIDATES = DEPTHS * BATCHES };
    struct outer_candidate candidates[CANDIDATES];
    double best = INFINITY, began_s = clock_s();
    size_t solved = 0;
    for (size_t i = 0; i < CANDIDATES; i++) {
        struct growth_case *of = &candidates[i].of;
        *of = usual_case(CHAIN_IDENTICAL);
        of->stages = (size_t)1 << (i / BATCHES);
        of->micro_batch = (size_t)1 << (i % BATCHES);
        of->micro_batches = 4 * of->stages / of->micro_batch;
        of->cap_bytes = UINT64_C(80) << 30;
        candidates[i].bound = cheap_bound(of);
    }
    qsort(candidates, CANDIDATES, sizeof(*candidates), compare_bounds);
    show_head("An outer loop over depths and micro-batches");
    for (; solved < CANDIDATES && candidates[solved].bound < best; solved++) {
        candidates[solved].of.upper_bound = best;
        best = fmin(best, show(&candidates[solved].of, limit_s).value);
    }
    (void)printf("\n%d candidates, %zu solved, the others bounded away: %.3f s in all\n",
                 CANDIDATES, solved, clock_s() - began_s);
}

/* ---- the chart ---- */

static void draw(struct text *out, struct growth found[CHAIN_KINDS][SIZES])
{
    static const char *const colors[CHAIN_KINDS] = {"#1f77b4", "#d62728", "#2ca02c"};
    double least = INFINITY, most = -INFINITY;
    for (int i = 0; i < CHAIN_KINDS * SIZES; i++) {
        double seconds = log10(found[i / SIZES][i % SIZES].seconds);
        least = fmin(least, seconds);
        most = fmax(most, seconds);
    }
    const struct plot plot = {.out = out,
                              .height_px = 280,
                              .x = axis_fit(log10((double)layer_counts[0]),
                                            log10((double)layer_counts[SIZES - 1]), AXIS_PLAIN,
                                            "layers, power of ten"),
                              .y = axis_fit(least, most, AXIS_PLAIN, "seconds, power of ten")};
    text_append(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"400\" "
                     "font-family=\"sans-serif\" font-size=\"12\">\n<style>line{stroke:#ccc}"
                     "path{fill:none;stroke-width:2}");
    for (int chain = 0; chain < CHAIN_KINDS; chain++)
        text_printf(out, ".c%d{stroke:%s}text.k%d,circle.c%d{fill:%s}", chain, colors[chain], chain,
                    chain, colors[chain]);
    text_append(out, "</style>\n<rect width=\"720\" height=\"400\" fill=\"#fff\"/>\n"
                     "<svg x=\"70\" y=\"50\" width=\"620\" height=\"280\" overflow=\"visible\">\n");
    plot_axes(&plot);
    for (int chain = 0; chain < CHAIN_KINDS; chain++) {
        struct path path;
        char class[] = {'c', (char)('0' + chain), '\0'};
        path_begin(&path, &plot, class, false);
        for (size_t i = 0; i < SIZES; i++)
            path_point(&path, log10((double)layer_counts[i]), log10(found[chain][i].seconds));
        path_end(&path);
        for (size_t i = 0; i < SIZES; i++)
            plot_dot(&plot, log10((double)layer_counts[i]), log10(found[chain][i].seconds), class,
                     chain_names[chain]);
    }
    text_append(out, "</svg>\n");
    for (int chain = 0; chain < CHAIN_KINDS; chain++)
        text_printf(out, "<text class=\"k%d\" x=\"%d\" y=\"385\">%s</text>\n", chain,
                    70 + 140 * chain, chain_names[chain]);
    text_append(out, "</svg>\n");
}

static void write_chart(const char *path, struct growth found[CHAIN_KINDS][SIZES])
{
    struct text out = {0};
    struct error err;
    draw(&out, found);
    FILE *file = fopen(path, "w");
    bool is_written = file && text_check(&out, &err) == STATUS_OK &&
                      fwrite(out.data, 1, out.bytes, file) == out.bytes;
    is_written = (!file || fclose(file) == 0) && is_written;
    text_free(&out);
    if (!is_written) {
        (void)fprintf(stderr, "bench_growth: cannot write '%s'\n", path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    double limit_s = argc > 1 ? strtod(argv[1], NULL) : 60;
    struct growth found[CHAIN_KINDS][SIZES];
    if (!(limit_s > 0)) {
        (void)fputs("usage: bench_growth [SECONDS-A-CASE [CHART.svg]]\n", stderr);
        return 2;
    }
    show_outer_loop(limit_s);
    show_layers(limit_s, found);
    if (argc > 2)
        write_chart(argv[2], found);
    show_strategies(limit_s);
    show_depths(limit_s);
    show_budget(limit_s);
    return 0;
}
