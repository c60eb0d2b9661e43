/* Closed forms of a pipeline's step: what the search adds up, and what costmodel/simulate.h checks.
 * The equations and how close they come stand in docs/costmodel.md. */
#ifndef TEMPER_COSTMODEL_PIPELINE_H
#define TEMPER_COSTMODEL_PIPELINE_H

#include "costmodel/simulate.h"

/* Seconds from the first forward pass to the end of the last backward pass (Narayanan et al. 2021).
 * With T_i the forward and backward time of one micro-batch on all chunks of stage i, c_j that of
 * both transfers between virtual stages j and j + 1:
 *
 *     GPipe         (m - 1) max_i T_i + sum_i T_i + sum_j c_j
 *     1F1B          the same + (m - 1 - ceil((m - 1) / p)) max_j c_j
 *     interleaved   m max_i T_i + (sum_i T_i - max_i T_i) / v + sum_j c_j
 *
 *     zb-h1         sum_i fill_i + sum_j c_j + max_i (m T_i - fill_i - late W_i
 *                     + (m - 1 - ceil((m - 1) / p)) max(0, max_j c_j - W_i))
 *       late = min(m, p) - 1
 *       fill_i = F_i + B_i + max(0, W_i - min(F_i, B_i)) late / (p - 1)
 *
 * with F_i the forward time, W_i what gradients of weights take of the backward time and B_i the
 * rest of it: for stages that are alike and m >= p, m T + (p - 1) max(F + B - W, F, B) (Qi et al.
 * 2024, whose bubble is the first of the three; docs/layout-model.md derives it).
 *
 * Exact where all stages are alike and transfers alike and shorter than passes. */
double pipeline_time_s(const struct simulation_input *input);

/* ---- one stage's part, for who knows its stages in another form ---- */

/* Of one micro-batch on one stage: F, B and W above. */
struct split_pass {
    double forward_s, inputs_s, weights_s;
};

/* fill_i above. */
double split_fill_s(const struct split_pass *pass, int64_t stages, int64_t micro_batches);
/* m T_i - fill_i - late W_i. */
double split_repeat_s(const struct split_pass *pass, int64_t stages, int64_t micro_batches);
/* Of the further micro-batches' transfers, both_s there and back, what `weights_s` of weights'
 * gradients does not hide; 0 of those is 1F1B. */
double waits_s(int64_t stages, int64_t micro_batches, double both_s, double weights_s);

/* Of a step: after its last backward pass stage i waits for reduce_s[i] seconds of its gradients'
 * synchronisation, which the stages before it hide with theirs:
 *
 *     pipeline_time_s + max_i (reduce_s[i] - sum_{j < i} B_j)
 *
 * with B_j the backward time of stage j's first chunk. */
double pipeline_step_s(const struct simulation_input *input, const double *reduce_s);

#endif
