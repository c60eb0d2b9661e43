#include "costmodel/expert_pass.h"

#include "costmodel/device_ops.h"

/* Router in fp32: its logits are written, read by softmax; that is written, read by top-k; the map
 * of tokens to experts is written, read by the permutation. Backward the same gradients. */
static const double router_passes = 6, fp32_bytes = 4;

/* Kernels, counted in Megatron-Core's all-to-all dispatcher: router 9 (product, softmax, top-k, two
 * scatters, auxiliary loss), counts 3, permutation 3, exchange 2, its way back 7; and for each
 * local expert two products and two of its activation. Backward twice as many. */
static const double routing_launches = 24, launches_of_expert = 4;

/* Rows of hidden that move. Forward: a row is read and written for each expert of its token, and on
 * the way back multiplied with the router's weight (read, written) and added up (read, the sum
 * written). Backward: each is read for its gradient (written), multiplied with the weight (read,
 * written), with the row itself for the weight's gradient (read), and added up again. Where a
 * device has several experts, what arrives is sorted by expert (read, written), and back. */
static double permuted_rows(const struct layout_share *share, int pass)
{
    const struct expert_share *experts = &share->experts;
    double rows = pass == PASS_FORWARD ? 5 * experts->sent : 6 * experts->sent;
    double sorted = experts->local > 1 && share->layout->expert > 1 ? 4 * experts->copies : 0;
    return rows + share->stream_tokens + sorted;
}

double routing_traffic_s(const struct layout_share *share, int pass)
{
    double hidden = (double)share->model->hidden, e = share->element_bytes;
    double products = pass == PASS_FORWARD ? 1 : 2; /* read the tokens; so does the weight's */
    double router = share->stream_tokens *
                    (products * e * hidden + router_passes * fp32_bytes * share->experts.router);
    return traffic_s(share->device, router) +
           traffic_s(share->device, e * hidden * permuted_rows(share, pass));
}

/* All-to-all there and back; the copies are then gathered over the tensor group, and what it made
 * of them is scattered. Backward the gradients take the same ways. */
double dispatch_exchange_s(const struct layout_share *share)
{
    double row_bytes = (double)share->model->hidden * share->element_bytes;
    return 2 * all_to_all_s(&share->experts.exchange, share->experts.sent * row_bytes) +
           2 * ring_all_gather_s(&share->tensor, share->experts.copies * row_bytes);
}

double expert_launches(const struct layout_share *share, int pass)
{
    double launches = routing_launches + launches_of_expert * share->experts.local;
    return pass == PASS_FORWARD ? launches : 2 * launches;
}
