#include "planner/space.h"
#include <stdlib.h>

enum { PLACEMENTS_MAX = 64 };

/* ---- schedules ---- */

static size_t block_layers(const struct model *model)
{
    return model_layer_count(model) - 2;
}

int interleaved_stage(const struct model *model, size_t layer, int virtual_stages)
{
    size_t inner = block_layers(model);
    if (layer == 0)
        return 0;
    if (layer > inner)
        return virtual_stages - 1;
    return (int)((layer - 1) * (size_t)virtual_stages / inner);
}

static enum status push_shape(struct space *space, const struct shape *shape, struct error *err)
{
    const struct shape item = *shape; /* which may stand in what is about to move */
    if (space->count == space->capacity) {
        size_t capacity = space->capacity > 0 ? 2 * space->capacity : 32;
        struct shape *grown = realloc(space->shapes, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the search space");
        space->shapes = grown;
        space->capacity = capacity;
    }
    space->shapes[space->count++] = item;
    return STATUS_OK;
}

static bool is_excluded(const struct space *space, const struct mesh *mesh, enum schedule schedule,
                        int virtual_stages)
{
    const struct planner_request *request = space->request;
    const struct shape_pattern shape = {
        .ranks = mesh->placement.ranks,
        .threads = mesh->placement.threads,
        .pipeline = mesh->pipeline,
        .data_parallel = mesh->data_parallel,
        .tensor_parallel = mesh->tensor_parallel,
        .virtual_stages = virtual_stages,
        .micro_batch = mesh->micro_batch,
        .has_schedule = true,
        .schedule = schedule,
    };
    for (size_t i = 0; i < request->excluded_count; i++) {
        if (shape_pattern_has(&request->excluded[i], &shape))
            return true;
    }
    return false;
}

static bool schedule_is_possible(const struct space *space, const struct mesh *mesh,
                                 enum schedule schedule, int virtual_stages)
{
    const struct pins *pins = &space->request->pins;
    const struct schedule_shape shape = {schedule, mesh->pipeline, virtual_stages,
                                         mesh->micro_batches};
    struct error ignored;
    if (pins->schedule_fixed ? pins->schedule != schedule : schedule == SCHEDULE_GPIPE)
        return false;
    if (pins->virtual_stages > 0 && pins->virtual_stages != virtual_stages)
        return false;
    if (is_excluded(space, mesh, schedule, virtual_stages))
        return false;
    if (mesh->pipeline == 1)
        return schedule == SCHEDULE_1F1B && virtual_stages == 1;
    if (virtual_stages > 1 &&
        (size_t)mesh->pipeline * (size_t)virtual_stages > block_layers(space->request->model))
        return false;
    return schedule_check(&shape, &ignored) == STATUS_OK;
}

/* The shapes of the mesh that is priced next. */
static enum status add_schedules(struct space *space, const struct mesh *mesh, struct error *err)
{
    int pinned = space->request->pins.virtual_stages;
    const struct {
        enum schedule schedule;
        int virtual_stages;
    } offers[] = {
        {SCHEDULE_1F1B, 1},
        {SCHEDULE_GPIPE, 1},
        {SCHEDULE_INTERLEAVED, 2},
        {SCHEDULE_INTERLEAVED, 4},
        {SCHEDULE_INTERLEAVED, pinned},
    };
    size_t count = sizeof(offers) / sizeof(*offers);
    if (pinned <= 2 || pinned == 4)
        count--;
    for (size_t i = 0; i < count; i++) {
        const struct shape shape = {.prices = space->prices_count,
                                    .schedule = offers[i].schedule,
                                    .virtual_stages = offers[i].virtual_stages,
                                    .half = PRECISION_BF16};
        if (schedule_is_possible(space, mesh, shape.schedule, shape.virtual_stages))
            TRY(push_shape(space, &shape, err));
    }
    return STATUS_OK;
}

/* ---- meshes ---- */

static enum status grow_prices(struct space *space, struct error *err)
{
    if (space->prices_count < space->prices_capacity)
        return STATUS_OK;
    size_t capacity = space->prices_capacity > 0 ? 2 * space->prices_capacity : 8;
    struct prices *grown = realloc(space->prices, capacity * sizeof(*grown));
    if (!grown)
        return error_memory(err, capacity * sizeof(*grown), "the search space");
    space->prices = grown;
    space->prices_capacity = capacity;
    return STATUS_OK;
}

static bool pins_have(const struct space *space, enum precision precision)
{
    for (size_t i = 0; i < space->groups.count; i++) {
        const struct layer_group *group = &space->groups.items[i];
        if (group->pins.precision_fixed[group->kind] &&
            group->pins.precision[group->kind] == precision &&
            layer_admits_precision(group->kind, precision))
            return true;
    }
    return false;
}

/* The shapes of the last mesh, once for each 16-bit precision that it was priced in; where pins
 * name one, the layers that are free may have that one. */
static enum status add_halves(struct space *space, size_t first, struct error *err)
{
    const bool *has = space->prices[space->prices_count - 1].has_precision;
    bool pins_bf16 = pins_have(space, PRECISION_BF16), pins_fp16 = pins_have(space, PRECISION_FP16);
    bool bf16 = has[PRECISION_BF16] && (pins_bf16 || !pins_fp16);
    bool fp16 = has[PRECISION_FP16] && (pins_fp16 || !pins_bf16);
    size_t end = space->count;
    for (size_t i = first; fp16 && i < end; i++) {
        if (bf16)
            TRY(push_shape(space, &space->shapes[i], err));
        space->shapes[bf16 ? space->count - 1 : i].half = PRECISION_FP16;
    }
    return STATUS_OK;
}

static enum status add_mesh(struct space *space, const struct mesh *mesh, struct error *err)
{
    const struct pins *pins = &space->request->pins;
    size_t before = space->count;
    struct error missing;
    if ((pins->micro_batch > 0 && mesh->micro_batch != pins->micro_batch) ||
        (pins->micro_batches > 0 && mesh->micro_batches != pins->micro_batches))
        return STATUS_OK;
    space->any_batch = true;
    TRY(grow_prices(space, err));
    TRY(add_schedules(space, mesh, err));
    if (space->count == before)
        return STATUS_OK;
    space->any_schedule = true;
    enum status status = prices_open(&space->prices[space->prices_count], space->request,
                                     &space->groups, mesh, &missing);
    if (status == STATUS_OK) {
        space->prices_count++;
        return add_halves(space, before, err);
    }
    space->count = before;
    if (status == STATUS_MEMORY) {
        *err = missing;
        return status;
    }
    if (space->missing.status == STATUS_OK)
        space->missing = missing;
    return STATUS_OK;
}

static enum status add_micro_batches(struct space *space, struct mesh mesh, struct error *err)
{
    int64_t share = space->request->global_batch / mesh.data_parallel;
    if (space->request->global_batch % mesh.data_parallel != 0)
        return STATUS_OK;
    for (int64_t divisor = 1; divisor <= share / divisor; divisor++) {
        if (share % divisor != 0)
            continue;
        mesh.micro_batch = divisor;
        mesh.micro_batches = share / divisor;
        TRY(add_mesh(space, &mesh, err));
        if (divisor == share / divisor)
            continue;
        mesh.micro_batch = share / divisor;
        mesh.micro_batches = divisor;
        TRY(add_mesh(space, &mesh, err));
    }
    return STATUS_OK;
}

/* Can the largest tensor-parallel degree be T? */
static bool pins_allow_widest(const struct space *space, int widest)
{
    bool some_is_free = false, some_is_widest = false;
    for (size_t i = 0; i < space->groups.count; i++) {
        const struct layer_group *group = &space->groups.items[i];
        int pinned = group->pins.tensor_parallel[group->kind];
        if (pinned > 0 && widest % pinned != 0)
            return false;
        some_is_free |= pinned == 0;
        some_is_widest |= pinned == widest;
    }
    return some_is_free || some_is_widest;
}

static enum status add_placement(struct space *space, struct placement placement, struct error *err)
{
    const struct planner_request *request = space->request;
    const struct pins *pins = &request->pins;
    if (placement.ranks > request->ranks ||
        (pins->threads > 0 && placement.threads != pins->threads))
        return STATUS_OK;
    space->any_placement = true;
    for (int pipeline = 1; pipeline <= placement.ranks; pipeline++) {
        int stage_ranks = placement.ranks / pipeline;
        if (placement.ranks % pipeline != 0 ||
            (size_t)pipeline > model_layer_count(request->model) ||
            (pins->pipeline > 0 && pipeline != pins->pipeline))
            continue;
        for (int widest = 1; widest <= stage_ranks; widest++) {
            const struct mesh mesh = {.placement = placement,
                                      .pipeline = pipeline,
                                      .data_parallel = stage_ranks / widest,
                                      .tensor_parallel = widest};
            if (stage_ranks % widest != 0 || !pins_allow_widest(space, widest) ||
                (pins->data_parallel > 0 && mesh.data_parallel != pins->data_parallel))
                continue;
            space->any_mesh = true;
            TRY(add_micro_batches(space, mesh, err));
        }
    }
    return STATUS_OK;
}

/* ---- all ---- */

enum status space_open(struct space *out, const struct planner_request *request, struct error *err)
{
    struct placement placements[PLACEMENTS_MAX];
    *out = (struct space){.request = request};
    enum status status = layer_groups_open(&out->groups, request->model, &request->pins, err);
    size_t count = profile_placements(request->profile, placements, PLACEMENTS_MAX);
    if (count > PLACEMENTS_MAX)
        count = PLACEMENTS_MAX;
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        status = add_placement(out, placements[i], err);
    if (status != STATUS_OK)
        space_close(out);
    return status;
}

void space_close(struct space *space)
{
    for (size_t i = 0; i < space->prices_count; i++)
        prices_close(&space->prices[i]);
    free(space->prices);
    free(space->shapes);
    layer_groups_close(&space->groups);
    *space = (struct space){0};
}

bool space_is_single(const struct space *space)
{
    if (space->count != 1)
        return false;
    const struct prices *prices = &space->prices[space->shapes[0].prices];
    for (size_t i = 0; i < space->groups.count; i++) {
        const struct layer_group *group = &space->groups.items[i];
        const struct priced_kind *of = &prices->kinds[group->kind];
        size_t admitted = 0;
        for (size_t k = 0; k < of->count; k++)
            admitted += prices_admit(prices, group, &of->items[k].strategy);
        if (admitted != 1)
            return false;
    }
    return prices->mesh.pipeline == 1 || space->shapes[0].schedule == SCHEDULE_INTERLEAVED;
}
