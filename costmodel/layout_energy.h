/* Joules, price and carbon of a step whose time is known. */
#ifndef TEMPER_COSTMODEL_LAYOUT_ENERGY_H
#define TEMPER_COSTMODEL_LAYOUT_ENERGY_H

#include "costmodel/layout_cost.h"
#include "costmodel/layout_step.h"

/* Fills energy_j, price and carbon_g; absent where the cluster does not give what they are made
 * from. */
void layout_energy(const struct cluster *cluster, const struct layout_step *step,
                   struct layout_prediction *out);

#endif
