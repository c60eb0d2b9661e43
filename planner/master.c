#include "planner/master.h"
#include <glpk.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

/* Rows a column stands in: tile, two links, tau, gamma, memory, budget, traits. */
enum { PER_COLUMN_MAX = 7 + PROBLEM_TRAITS };

/* Choices that are above the budget by less than GLPK can see: no more are excluded than this. */
enum { EXCLUDED_MAX = 50 };

/* A row block of one row a stage whose left side is at most a variable of its own. */
struct maximum {
    int first_row; /* 0: weighs nothing, left out */
    int variable;
    double scale;  /* the largest coefficient: rows are divided by it */
    double weight; /* of the unscaled maximum */
    double spend;  /* of the budget, likewise */
};

/* The row of the second resource; 0: no budget. Spending is shifted by each stage's thriftiest
 * column and divided by `scale`. */
struct budget {
    int row;
    double scale;
    double left;        /* of the cap when every stage is at its thriftiest */
    double *stage_base; /* [stages] */
};

struct master {
    const struct problem *problem;
    const struct columns *columns;
    const struct search_limits *limits;
    double threshold;
    glp_prob *lp;
    size_t *column_of; /* [kept]: which column each of the first in `lp` is */
    size_t kept;
    int *drop; /* [columns + 1]: those to leave out */
    struct maximum tau, gamma, memory;
    struct budget budget;
    int trait_rows[PROBLEM_TRAITS]; /* 0: not needed */
    double unit;                    /* objective coefficients are divided by it */
    double base;                    /* fixed_cost and all of stage_base */
    double *stage_base; /* [stages]: the cheapest column's cost, which the others are compared to */
    double *stage_work; /* [stages + 1]: GLPK counts from 1 */
    int *exclusion;     /* [stages + 1] */
    int *chosen_columns; /* [stages]: in `lp` */
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

static void scale_budget(struct master *master)
{
    struct budget *budget = &master->budget;
    const struct columns *columns = master->columns;
    const struct problem *problem = master->problem;
    for (size_t p = 0; p < problem->stages; p++)
        budget->stage_base[p] = INFINITY;
    for (size_t q = 0; q < columns->count; q++) {
        double *base = &budget->stage_base[columns->items[q].stage];
        *base = fmin(*base, columns->items[q].spend);
    }
    budget->left = problem_spend_most(problem);
    for (size_t p = 0; p < problem->stages; p++)
        budget->left -= budget->stage_base[p];
    budget->scale =
        fmax(master->tau.spend * master->tau.scale, master->gamma.spend * master->gamma.scale);
    for (size_t q = 0; q < columns->count; q++) {
        const struct column *column = &columns->items[q];
        budget->scale = fmax(budget->scale, column->spend - budget->stage_base[column->stage]);
    }
    if (budget->scale <= 0)
        budget->scale = 1;
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
    if ((maximum->weight <= 0 && maximum->spend <= 0) || maximum->scale <= 0)
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
    double spend = column->spend - master->budget.stage_base[column->stage];
    if (master->budget.row > 0 && spend > 0)
        put(&entries, master->budget.row, spend / master->budget.scale);
    for (int t = 0; t < PROBLEM_TRAITS; t++) {
        if (master->trait_rows[t] > 0 && (column->traits >> t & 1) != 0)
            put(&entries, master->trait_rows[t], 1);
    }
    glp_set_col_kind(master->lp, index, GLP_BV);
    glp_set_obj_coef(master->lp, index, column_objective(master, column));
    glp_set_mat_col(master->lp, index, entries.count, entries.rows, entries.values);
}

/* After the maxima, whose variables stand in it too, and before the columns. */
static void build_budget(struct master *master)
{
    const struct maximum *maxima[2] = {&master->tau, &master->gamma};
    struct budget *budget = &master->budget;
    int index[3] = {0};
    double value[3] = {0};
    int count = 0;
    if (!problem_has_budget(master->problem))
        return;
    for (int i = 0; i < 2; i++) {
        if (maxima[i]->first_row == 0 || maxima[i]->spend <= 0)
            continue;
        index[++count] = maxima[i]->variable;
        value[count] = maxima[i]->spend * maxima[i]->scale / budget->scale;
    }
    budget->row = add_rows(master, 1, GLP_UP, budget->left / budget->scale);
    glp_set_mat_row(master->lp, budget->row, count, index, value);
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
    build_budget(master);
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
    for (size_t i = 0; i < master->kept; i++) {
        size_t q = master->column_of[i];
        if (glp_mip_col_val(master->lp, (int)i + 1) < 0.5)
            continue;
        result->chosen[master->columns->items[q].stage] = q;
        master->chosen_columns[master->columns->items[q].stage] = (int)i + 1;
        chosen_count++;
    }
    result->found = chosen_count == master->problem->stages;
}

/* Leave out of the tree what is in no choice below the threshold: with such a column the relaxation
 * is at least its bound and the column's reduced cost. */
static void drop_columns(struct master *master, double bound)
{
    enum { SLACK_SHARE = 1000000 }; /* of a unit: GLPK's reduced costs are not exact */
    double slack = master->unit / SLACK_SHARE;
    int *dropped = master->drop;
    int count = 0;
    size_t kept = 0;
    for (size_t q = 0; q < master->columns->count; q++) {
        int index = (int)q + 1;
        double reduced = glp_get_col_dual(master->lp, index) * master->unit;
        if (glp_get_col_stat(master->lp, index) == GLP_NL &&
            bound + reduced - slack >= master->threshold)
            dropped[++count] = index;
        else
            master->column_of[kept++] = q;
    }
    master->kept = kept;
    if (count > 0)
        glp_del_cols(master->lp, count, dropped);
    master->tau.variable -= count;
    master->gamma.variable -= count;
    master->memory.variable -= count;
}

/* ---- exact comparisons ---- */

/* INFINITY when it is above the budget. */
static double choice_value(const struct master *master, const size_t *chosen)
{
    const struct problem *problem = master->problem;
    double cost = 0, tau = 0, gamma = 0, memory = 0, spend = 0;
    for (size_t p = 0; p < master->problem->stages; p++) {
        const struct column *column = &master->columns->items[chosen[p]];
        cost += column->cost;
        spend += column->spend;
        tau = fmax(tau, column->tau);
        gamma = fmax(gamma, column->gamma);
        memory = fmax(memory, memory_of(column));
    }
    spend += problem->spend_tau * tau + problem->spend_gamma * gamma;
    if (!problem_affords(problem, spend))
        return INFINITY;
    return cost + problem->weight_tau * tau + problem->weight_gamma * gamma +
           problem->weight_memory * memory;
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

/* Not the last choice again. */
static void exclude_choice(struct master *master)
{
    size_t stages = master->problem->stages;
    int row = glp_add_rows(master->lp, 1);
    int *index = master->exclusion;
    double *value = master->stage_work;
    for (size_t p = 0; p < stages; p++) {
        index[p + 1] = master->chosen_columns[p];
        value[p + 1] = 1;
    }
    glp_set_row_bnds(master->lp, row, GLP_UP, 0, (double)stages - 1);
    glp_set_mat_row(master->lp, row, (int)stages, index, value);
}

static enum status solve_guarded(struct master *master, double gap_target,
                                 struct master_result *result, struct error *err)
{
    bool solved;
    build(master);
    TRY(solve_relaxation(master, &solved, result, err));
    if (!solved)
        return STATUS_OK;
    drop_columns(master, result->bound);
    for (int excluded = 0;; excluded++) {
        double bound = result->bound;
        TRY(solve_tree(master, gap_target, result, err));
        read_choice(master, result);
        if (!result->found || choice_value(master, result->chosen) < INFINITY)
            return STATUS_OK;
        result->found = result->proven = false;
        if (excluded >= EXCLUDED_MAX || limits_reached(master->limits))
            return STATUS_OK;
        exclude_choice(master);
        TRY(solve_relaxation(master, &solved, result, err));
        result->bound = fmax(result->bound, bound);
        if (!solved)
            return STATUS_OK;
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
                         double threshold, double gap_target, const struct search_limits *limits,
                         struct master_result *result, struct error *err)
{
    size_t stages = problem->stages;
    bool one_stage = stages == 1;
    struct master master = {
        .problem = problem,
        .columns = columns,
        .limits = limits,
        .threshold = threshold,
        .tau = {.weight = one_stage ? 0 : problem->weight_tau,
                .spend = one_stage || !problem_has_budget(problem) ? 0 : problem->spend_tau},
        .gamma = {.weight = one_stage ? 0 : problem->weight_gamma,
                  .spend = one_stage || !problem_has_budget(problem) ? 0 : problem->spend_gamma},
        .memory.weight = one_stage ? 0 : problem->weight_memory,
        .stage_base = malloc((3 * stages + 1) * sizeof(*master.stage_base)),
        .exclusion = malloc((2 * stages + 1) * sizeof(*master.exclusion)),
        .column_of = malloc((columns->count + 1) * sizeof(*master.column_of)),
        .drop = malloc((columns->count + 1) * sizeof(*master.drop)),
    };
    enum status status = STATUS_OK;
    if (!master.stage_base || !master.exclusion || !master.column_of || !master.drop) {
        status =
            error_memory(err, (columns->count + 3 * stages) * sizeof(double), "the master problem");
        goto free_work;
    }
    master.chosen_columns = master.exclusion + stages + 1;
    master.budget.stage_base = master.stage_base + stages;
    master.stage_work = master.budget.stage_base + stages;
    result->found = false;
    result->proven = true;
    result->bound = INFINITY;
    scale_objective(&master);
    if (every_stage_has_columns(&master)) {
        result->proven = false;
        result->bound = -INFINITY;
        scale_budget(&master);
        status = call_glpk(&master, gap_target, result, err);
    }
    if (status == STATUS_OK && result->found)
        improve_choice(&master, result->chosen);
free_work:
    free(master.drop);
    free(master.column_of);
    free(master.exclusion);
    free(master.stage_base);
    return status;
}
