#include "planner/master.h"
#include <glpk.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

/* Rows a column stands in: tile, two links, tau, gamma, memory, traits. */
enum { PER_COLUMN_MAX = 6 + PROBLEM_TRAITS };

/* A row block of one row a stage whose left side is at most a variable of its own. */
struct maximum {
    int first_row; /* 0: weighs nothing, left out */
    int variable;
    double scale;  /* the largest coefficient: rows are divided by it */
    double weight; /* of the unscaled maximum */
};

struct master {
    const struct problem *problem;
    const struct columns *columns;
    const struct search_limits *limits;
    glp_prob *lp;
    struct maximum tau, gamma, memory;
    int trait_rows[PROBLEM_TRAITS]; /* 0: not needed */
    double unit;                    /* objective coefficients are divided by it */
    double base;                    /* fixed_cost and all of stage_base */
    double *stage_base; /* [stages]: the cheapest column's cost, which the others are compared to */
    double *stage_work; /* [stages] */
};

/* GLPK reports what it takes for bugs through a hook and then expects not to be returned to. */
struct escape {
    jmp_buf target;
};

static void escape_from_glpk(void *info)
{
    struct escape *escape = info;
    longjmp(escape->target, 1);
}

/* ---- coefficients ---- */

static double memory_of(const struct column *column)
{
    return (double)column->peak_bytes;
}

/* Costs are shifted by each stage's cheapest column, so that digits go to the differences. */
static void scale_objective(struct master *master)
{
    const struct columns *columns = master->columns;
    for (size_t p = 0; p < master->problem->stages; p++)
        master->stage_base[p] = INFINITY;
    for (size_t q = 0; q < columns->count; q++) {
        const struct column *column = &columns->items[q];
        master->stage_base[column->stage] = fmin(master->stage_base[column->stage], column->cost);
        master->tau.scale = fmax(master->tau.scale, column->tau);
        master->gamma.scale = fmax(master->gamma.scale, column->gamma);
        master->memory.scale = fmax(master->memory.scale, memory_of(column));
    }
    double largest = fmax(
        fmax(master->tau.scale * master->tau.weight, master->gamma.scale * master->gamma.weight),
        master->memory.scale * master->memory.weight);
    master->base = master->problem->fixed_cost;
    for (size_t p = 0; p < master->problem->stages; p++)
        master->base += master->stage_base[p];
    for (size_t q = 0; q < columns->count; q++) {
        const struct column *column = &columns->items[q];
        largest = fmax(largest, column->cost - master->stage_base[column->stage]);
    }
    master->unit = largest > 0 ? largest : 1;
}

static double column_objective(const struct master *master, const struct column *column)
{
    double cost = column->cost - master->stage_base[column->stage];
    if (master->problem->stages == 1)
        cost += master->problem->weight_memory * memory_of(column);
    return cost / master->unit;
}

/* ---- rows and columns ---- */

static int add_rows(struct master *master, size_t count, int type, double right)
{
    int first = glp_add_rows(master->lp, (int)count);
    for (size_t i = 0; i < count; i++)
        glp_set_row_bnds(master->lp, first + (int)i, type, right, right);
    return first;
}

static void build_maximum(struct master *master, struct maximum *maximum)
{
    if (maximum->weight <= 0 || maximum->scale <= 0)
        return;
    maximum->first_row = add_rows(master, master->problem->stages, GLP_UP, 0);
    maximum->variable = glp_add_cols(master->lp, 1);
    glp_set_col_bnds(master->lp, maximum->variable, GLP_LO, 0, 0);
    glp_set_obj_coef(master->lp, maximum->variable,
                     maximum->weight * maximum->scale / master->unit);
    for (size_t p = 0; p < master->problem->stages; p++) {
        int row = maximum->first_row + (int)p;
        int index[2] = {0, maximum->variable};
        double value[2] = {0, -1};
        glp_set_mat_row(master->lp, row, 1, index, value);
    }
}

struct entries {
    int rows[PER_COLUMN_MAX + 1]; /* GLPK counts from 1 */
    double values[PER_COLUMN_MAX + 1];
    int count;
};

static void put(struct entries *entries, int row, double value)
{
    entries->count++;
    entries->rows[entries->count] = row;
    entries->values[entries->count] = value;
}

static void put_maximum(struct entries *entries, const struct maximum *maximum, size_t stage,
                        double value)
{
    if (maximum->first_row > 0 && value > 0)
        put(entries, maximum->first_row + (int)stage, value / maximum->scale);
}

/* Rows 1 .. P tile the stages; link rows follow, [P - 1][layer_count - 1] by the place of the cut.
 */
static int link_row(const struct problem *problem, size_t stage, size_t cut)
{
    return (int)(1 + problem->stages + stage * (problem->layer_count - 1) + cut - 1);
}

static void build_column(struct master *master, size_t q)
{
    const struct problem *problem = master->problem;
    const struct column *column = &master->columns->items[q];
    struct entries entries = {.count = 0};
    int index = (int)q + 1;
    put(&entries, 1 + (int)column->stage, 1);
    if (column->stage + 1 < problem->stages)
        put(&entries, link_row(problem, column->stage, column->end), 1);
    if (column->stage > 0)
        put(&entries, link_row(problem, column->stage - 1, column->first), -1);
    put_maximum(&entries, &master->tau, column->stage, column->tau);
    put_maximum(&entries, &master->gamma, column->stage, column->gamma);
    put_maximum(&entries, &master->memory, column->stage, memory_of(column));
    for (int t = 0; t < PROBLEM_TRAITS; t++) {
        if (master->trait_rows[t] > 0 && (column->traits >> t & 1) != 0)
            put(&entries, master->trait_rows[t], 1);
    }
    glp_set_col_kind(master->lp, index, GLP_BV);
    glp_set_obj_coef(master->lp, index, column_objective(master, column));
    glp_set_mat_col(master->lp, index, entries.count, entries.rows, entries.values);
}

static void build(struct master *master)
{
    const struct problem *problem = master->problem;
    glp_add_cols(master->lp, (int)master->columns->count);
    add_rows(master, problem->stages, GLP_FX, 1);
    if (problem->stages > 1)
        add_rows(master, (problem->stages - 1) * (problem->layer_count - 1), GLP_FX, 0);
    for (int t = 0; problem->stages > 1 && t < PROBLEM_TRAITS; t++) {
        if ((problem->needs >> t & 1) != 0)
            master->trait_rows[t] = add_rows(master, 1, GLP_LO, 1);
    }
    build_maximum(master, &master->tau);
    build_maximum(master, &master->gamma);
    build_maximum(master, &master->memory);
    for (size_t q = 0; q < master->columns->count; q++)
        build_column(master, q);
}

/* ---- solving ---- */

static void watch_tree(glp_tree *tree, void *info)
{
    const struct master *master = info;
    if (limits_reached(master->limits))
        glp_ios_terminate(tree);
}

static int time_left_ms(const struct search_limits *limits)
{
    double left_ms = 1e3 * (limits->deadline_s - clock_s());
    if (left_ms < 1)
        return 1;
    return left_ms > 1e9 ? 1000000000 : (int)left_ms;
}

static enum status refuse(const char *what, int code, struct error *err)
{
    return error_set(err, STATUS_FAILED,
                     "GLPK %s failed (code %d) on the planner's master problem; this is a defect "
                     "of the planner, please report it with the command line",
                     what, code);
}

/* The relaxation first: the tree starts from its basis. Not *solved: no tiling, or no time. */
static enum status solve_relaxation(struct master *master, bool *solved,
                                    struct master_result *result, struct error *err)
{
    glp_smcp options;
    glp_init_smcp(&options);
    options.msg_lev = GLP_MSG_OFF;
    options.tol_bnd = options.tol_dj = 1e-9;
    options.tm_lim = time_left_ms(master->limits);
    int code = glp_simplex(master->lp, &options);
    int found = glp_get_status(master->lp);
    *solved = false;
    if (code == GLP_ETMLIM)
        return STATUS_OK;
    if (code != 0)
        return refuse("simplex", code, err);
    if (found == GLP_NOFEAS) {
        result->proven = true;
        result->bound = INFINITY;
        return STATUS_OK;
    }
    if (found != GLP_OPT)
        return refuse("simplex", found, err);
    *solved = true;
    result->bound = master->base + glp_get_obj_val(master->lp) * master->unit;
    return STATUS_OK;
}

/* How much of a maximum's price each stage's row carries in the relaxation; false when it has none.
 */
static bool read_duals(const struct master *master, const struct maximum *maximum, double *shares)
{
    double total = 0;
    for (size_t p = 0; maximum->first_row > 0 && p < master->problem->stages; p++) {
        shares[p] = fmax(-glp_get_row_dual(master->lp, maximum->first_row + (int)p), 0);
        total += shares[p];
    }
    for (size_t p = 0; total > 0 && p < master->problem->stages; p++)
        shares[p] /= total;
    return total > 0;
}

static void read_shares(const struct master *master, struct stage_shares *out)
{
    double *shares = master->stage_work;
    size_t stages = master->problem->stages;
    bool tau = read_duals(master, &master->tau, shares);
    for (size_t p = 0; tau && p < stages; p++)
        out[p].tau = shares[p];
    bool gamma = read_duals(master, &master->gamma, shares);
    for (size_t p = 0; gamma && p < stages; p++)
        out[p].gamma = shares[p];
    bool memory = read_duals(master, &master->memory, shares);
    for (size_t p = 0; memory && p < stages; p++)
        out[p].memory = shares[p];
}

static enum status solve_tree(struct master *master, double gap_target,
                              struct master_result *result, struct error *err)
{
    glp_iocp options;
    glp_init_iocp(&options);
    options.msg_lev = GLP_MSG_OFF;
    options.tol_int = 1e-9;
    options.tol_obj = 1e-12;
    options.mip_gap = gap_target;
    options.cb_func = watch_tree;
    options.cb_info = master;
    int code = glp_intopt(master->lp, &options);
    if (code != 0 && code != GLP_EMIPGAP && code != GLP_ESTOP)
        return refuse("branch and bound", code, err);
    result->proven = code != GLP_ESTOP;
    return STATUS_OK;
}

static void read_choice(const struct master *master, struct master_result *result)
{
    int found = glp_mip_status(master->lp);
    if (found != GLP_OPT && found != GLP_FEAS)
        return;
    size_t chosen_count = 0;
    for (size_t q = 0; q < master->columns->count; q++) {
        if (glp_mip_col_val(master->lp, (int)q + 1) < 0.5)
            continue;
        result->chosen[master->columns->items[q].stage] = q;
        chosen_count++;
    }
    result->found = chosen_count == master->problem->stages;
}

static enum status solve_guarded(struct master *master, double gap_target,
                                 struct master_result *result, struct error *err)
{
    bool solved;
    build(master);
    TRY(solve_relaxation(master, &solved, result, err));
    if (!solved)
        return STATUS_OK;
    read_shares(master, result->shares);
    TRY(solve_tree(master, gap_target, result, err));
    read_choice(master, result);
    return STATUS_OK;
}

/* ---- exact comparisons ---- */

static double choice_value(const struct master *master, const size_t *chosen)
{
    double cost = 0, tau = 0, gamma = 0, memory = 0;
    for (size_t p = 0; p < master->problem->stages; p++) {
        const struct column *column = &master->columns->items[chosen[p]];
        cost += column->cost;
        tau = fmax(tau, column->tau);
        gamma = fmax(gamma, column->gamma);
        memory = fmax(memory, memory_of(column));
    }
    return cost + master->problem->weight_tau * tau + master->problem->weight_gamma * gamma +
           master->problem->weight_memory * memory;
}

/* Replace single columns by better ones of the same stage and interval. */
static void improve_choice(const struct master *master, size_t *chosen)
{
    double value = choice_value(master, chosen);
    for (size_t q = 0; q < master->columns->count; q++) {
        const struct column *column = &master->columns->items[q];
        size_t before = chosen[column->stage];
        const struct column *other = &master->columns->items[before];
        if (q == before || other->first != column->first || other->end != column->end ||
            (master->problem->needs & other->traits & ~column->traits) != 0)
            continue;
        chosen[column->stage] = q;
        double changed = choice_value(master, chosen);
        if (changed < value)
            value = changed;
        else
            chosen[column->stage] = before;
    }
}

static bool every_stage_has_columns(const struct master *master)
{
    for (size_t p = 0; p < master->problem->stages; p++) {
        if (master->stage_base[p] == INFINITY)
            return false;
    }
    return true;
}

/* GLPK with its hook set: `status` of the work, or the escape's. */
static enum status call_glpk(struct master *master, double gap_target, struct master_result *result,
                             struct error *err)
{
    struct escape escape;
    int terminal = glp_term_out(GLP_OFF);
    if (setjmp(escape.target) != 0) {
        /* Nothing of GLPK's may be touched after its hook but this, which frees the problem too. */
        glp_free_env();
        result->found = result->proven = false;
        return refuse("itself", 0, err);
    }
    glp_error_hook(escape_from_glpk, &escape);
    master->lp = glp_create_prob();
    enum status status = solve_guarded(master, gap_target, result, err);
    glp_delete_prob(master->lp);
    glp_error_hook(NULL, NULL);
    glp_term_out(terminal);
    return status;
}

enum status master_solve(const struct problem *problem, const struct columns *columns,
                         double gap_target, const struct search_limits *limits,
                         struct master_result *result, struct error *err)
{
    bool one_stage = problem->stages == 1;
    struct master master = {
        .problem = problem,
        .columns = columns,
        .limits = limits,
        .tau.weight = one_stage ? 0 : problem->weight_tau,
        .gamma.weight = one_stage ? 0 : problem->weight_gamma,
        .memory.weight = one_stage ? 0 : problem->weight_memory,
        .stage_base = malloc(2 * problem->stages * sizeof(*master.stage_base)),
    };
    if (!master.stage_base)
        return error_memory(err, 2 * problem->stages * sizeof(double), "the master problem");
    master.stage_work = master.stage_base + problem->stages;
    result->found = false;
    result->proven = true;
    result->bound = INFINITY;
    enum status status = STATUS_OK;
    scale_objective(&master);
    if (every_stage_has_columns(&master)) {
        result->proven = false;
        result->bound = -INFINITY;
        status = call_glpk(&master, gap_target, result, err);
    }
    if (status == STATUS_OK && result->found)
        improve_choice(&master, result->chosen);
    free(master.stage_base);
    return status;
}
