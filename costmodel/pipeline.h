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
 * Exact where all stages are alike and transfers alike and shorter than passes. */
double pipeline_time_s(const struct simulation_input *input);

/* Of a step: after its last backward pass stage i waits for reduce_s[i] seconds of its gradients'
 * synchronisation, which the stages before it hide with theirs:
 *
 *     pipeline_time_s + max_i (reduce_s[i] - sum_{j < i} B_j)
 *
 * with B_j the backward time of stage j's first chunk. */
double pipeline_step_s(const struct simulation_input *input, const double *reduce_s);

#endif
