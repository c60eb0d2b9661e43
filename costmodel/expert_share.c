#include "costmodel/expert_share.h"

struct expert_share expert_share(const struct node_group *group, const struct model *model,
                                 const struct layout *layout, struct device_tokens tokens)
{
    double t = (double)layout->tensor, k = (double)model->experts_per_token;
    struct expert_share share = {.local = 0};
    if (model->experts == 0)
        return share;
    int64_t local = model->experts / layout->expert;
    share.local = (double)local;
    share.sent = tokens.stream * k;
    share.copies = tokens.products * k;
    share.rows = share.copies / share.local;
    share.ffn = (double)model->expert_ffn / t;
    share.shared = (double)model->shared_ffn / t;
    share.router = (double)model->experts + (model->shared_ffn > 0 ? 1 : 0);
    share.exchange = tier_exchange(group, (struct tier_group){layout->expert, layout->tensor});
    return share;
}
