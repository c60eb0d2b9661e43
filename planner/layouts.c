#include "planner/layouts.h"

#include "ir/model.h"
#include <math.h>
#include <stdlib.h>

enum { TENSOR_MAX = 64, CONTEXT_MAX = 64, CHUNKS_MAX = 16, LOOK_EVERY = 1024 };

static const double gib_bytes = 1024.0 * 1024.0 * 1024.0;

/* An enumeration under way: `trial` is filled degree by degree. */
struct enumeration {
    const struct layouts_request *request;
    struct layout_list *list;
    struct layout trial;
    uint64_t cap_bytes; /* 0: what the device has */
};

struct layout_pins layout_pins_none(void)
{
    return (struct layout_pins){.sequence_parallel = -1, .zero_stage = -1, .recompute = -1};
}

static bool allows(int64_t pinned, int64_t value)
{
    return pinned == 0 || pinned == value;
}

static bool allows_choice(int pinned, int value)
{
    return pinned < 0 || pinned == value;
}

/* ---- one layout ---- */

static enum status push(struct layout_list *list, const struct priced_layout *row,
                        struct error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity > 0 ? 2 * list->capacity : 1024;
        struct priced_layout *grown = realloc(list->rows, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the layouts");
        list->rows = grown;
        list->capacity = capacity;
    }
    list->rows[list->count++] = *row;
    return STATUS_OK;
}

static bool fits(const struct enumeration *all, const struct layout_prediction *prediction)
{
    return layout_fits(all->request->cluster, prediction) &&
           (all->cap_bytes == 0 || prediction->memory_bytes.value <= (double)all->cap_bytes);
}

/* Memory first: most of a large model's layouts end there. */
static enum status price(struct enumeration *all, struct error *err)
{
    const struct layouts_request *request = all->request;
    struct layout_list *list = all->list;
    struct layout_prediction prediction = {.model_flops = 0};
    struct error ignored;
    if (layout_check(&all->trial, request->model, "layout", &ignored) != STATUS_OK)
        return STATUS_OK;
    list->considered++;
    TRY(layout_memory(request->cluster, request->model, &all->trial, &prediction, err));
    if (prediction.memory_bytes.value < list->leanest_bytes) {
        list->leanest_bytes = prediction.memory_bytes.value;
        list->leanest = all->trial;
    }
    if (!fits(all, &prediction))
        return STATUS_OK;
    TRY(layout_time(request->cluster, request->model, &all->trial, &prediction, err));
    const struct priced_layout row = {
        .layout = all->trial,
        .time_s = prediction.time_s.value,
        .memory_bytes = prediction.memory_bytes.value,
        .energy_j = prediction.energy_j.value,
    };
    return push(list, &row, err);
}

/* ---- the choices, outermost last ---- */

static enum status each_recompute(struct enumeration *all, struct error *err)
{
    for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
        bool is_same = recompute == RECOMPUTE_SELECTIVE && all->trial.fused_attention;
        if (!allows_choice(all->request->pins.recompute, recompute) ||
            (is_same && all->request->pins.recompute < 0))
            continue; /* fused attention keeps nothing that selective recompute would drop */
        all->trial.recompute = (enum recompute)recompute;
        TRY(price(all, err));
    }
    return STATUS_OK;
}

static enum status each_sharding(struct enumeration *all, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    int sequences = all->trial.tensor > 1 ? 2 : 1;
    for (int sequence = 0; sequence < sequences; sequence++) {
        for (int zero = 0; zero <= 3; zero++) {
            bool has_nobody = zero > 0 && all->trial.data * all->trial.context == 1;
            if (!framework_has_zero_stage(all->trial.framework, zero) ||
                !allows_choice(pins->sequence_parallel, sequence) ||
                !allows_choice(pins->zero_stage, zero) || (has_nobody && pins->zero_stage < 0))
                continue;
            all->trial.sequence_parallel = sequence != 0;
            all->trial.zero_stage = zero;
            all->trial.shard = zero > 0 ? all->trial.data * all->trial.context : 1;
            TRY(each_recompute(all, err));
        }
    }
    return STATUS_OK;
}

/* Stages may be uneven; chunks of a stage are alike, embedding and head counting as a block each
 * where that makes them so. */
static bool divides_blocks(int64_t blocks, int64_t stages, int64_t chunks)
{
    return chunks == 1 || blocks % (stages * chunks) == 0 || (blocks + 2) % (stages * chunks) == 0;
}

static enum status each_chunking(struct enumeration *all, struct error *err)
{
    struct layout *trial = &all->trial;
    int64_t most = trial->pipeline > 1 ? CHUNKS_MAX : 1;
    for (int64_t chunks = 1; chunks <= most; chunks++) {
        bool is_out_of_step = chunks > 1 && layout_micro_batches(trial) % trial->pipeline != 0;
        if (is_out_of_step || !allows(all->request->pins.virtual_stages, chunks) ||
            !divides_blocks(all->request->model->blocks, trial->pipeline, chunks))
            continue;
        trial->virtual_stages = chunks;
        trial->schedule = chunks > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
        TRY(each_sharding(all, err));
    }
    return STATUS_OK;
}

static enum status each_micro_batch(struct enumeration *all, struct error *err)
{
    int64_t share = all->trial.global_batch / all->trial.data;
    for (int64_t size = 1; size <= share; size++) {
        if (share % size != 0 || !allows(all->request->pins.micro_batch, size) ||
            (all->request->pins.micro_batch == 0 && (size & (size - 1)) != 0))
            continue;
        all->trial.micro_batch = size;
        TRY(each_chunking(all, err));
    }
    return STATUS_OK;
}

static enum status each_data(struct enumeration *all, int64_t replicas, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    for (int64_t context = 1; context <= CONTEXT_MAX && context <= replicas; context *= 2) {
        int64_t data = replicas / context;
        if (replicas % context != 0 || all->trial.global_batch % data != 0 ||
            !allows(pins->context, context) || !allows(pins->data, data))
            continue;
        all->trial.context = context;
        all->trial.data = data;
        TRY(each_micro_batch(all, err));
        if (limits_reached(&all->request->limits)) {
            all->list->is_whole = false;
            return STATUS_OK;
        }
    }
    return STATUS_OK;
}

/* What layout_check asks of every layer, before all that would fail it is tried. */
static bool divides_layers(const struct model *model, int64_t ways)
{
    static const enum layer_kind kinds[] = {LAYER_ATTENTION, LAYER_MLP, LAYER_HEAD};
    struct error ignored;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct layer_part part = {.kind = kinds[i], .ways = (int)ways};
        if (layer_part_check(model, &part, &ignored) != STATUS_OK)
            return false;
    }
    return true;
}

static enum status each_split(struct enumeration *all, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    struct layout *trial = &all->trial;
    int64_t deepest = all->request->model->blocks;
    for (int64_t stages = 1; stages <= deepest && all->list->is_whole; stages++) {
        report_progress(&all->request->reporter, "layouts", (size_t)stages - 1, (size_t)deepest);
        if (trial->devices % stages != 0 || !allows(pins->pipeline, stages))
            continue;
        trial->pipeline = stages;
        for (int64_t ways = 1; ways <= TENSOR_MAX && all->list->is_whole; ways++) {
            if (trial->devices / stages % ways != 0 || !allows(pins->tensor, ways) ||
                !divides_layers(all->request->model, ways))
                continue;
            trial->tensor = ways;
            TRY(each_data(all, trial->devices / stages / ways, err));
        }
    }
    report_progress(&all->request->reporter, "layouts", (size_t)deepest, (size_t)deepest);
    return STATUS_OK;
}

enum status layouts_price(const struct layouts_request *request, struct layout_list *out,
                          struct error *err)
{
    *out = (struct layout_list){.is_whole = true, .leanest_bytes = INFINITY};
    struct enumeration all = {
        .request = request,
        .list = out,
        .cap_bytes = request->memory_cap_bytes,
        .trial = {.framework = request->framework,
                  .devices = cluster_devices(request->cluster),
                  .expert = 1,
                  .global_batch = request->global_batch,
                  .arithmetic = request->arithmetic,
                  .fused_attention = request->fused,
                  .fused_cross_entropy = request->fused,
                  .overlap_gradients = request->overlaps,
                  .overlap_parameters = request->overlaps,
                  .overlap_tensor = request->overlaps},
    };
    enum status status = each_split(&all, err);
    if (status != STATUS_OK)
        layouts_free(out);
    return status;
}

void layouts_free(struct layout_list *list)
{
    free(list->rows);
    *list = (struct layout_list){.rows = NULL};
}

/* ---- ranking ---- */

struct ranked_layout {
    double objective;
    struct priced_layout row;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked_layout *x = a, *y = b;
    if (x->objective != y->objective)
        return x->objective < y->objective ? -1 : 1;
    return (x->row.memory_bytes > y->row.memory_bytes) -
           (x->row.memory_bytes < y->row.memory_bytes);
}

static struct priced_layout units_of(const struct layout_list *list, bool raw)
{
    struct priced_layout best = {.time_s = 1, .memory_bytes = gib_bytes, .energy_j = 1};
    for (size_t i = 0; i < list->count && !raw; i++) {
        const struct priced_layout *row = &list->rows[i];
        best.time_s = i == 0 ? row->time_s : fmin(best.time_s, row->time_s);
        best.memory_bytes = i == 0 ? row->memory_bytes : fmin(best.memory_bytes, row->memory_bytes);
        best.energy_j = i == 0 ? row->energy_j : fmin(best.energy_j, row->energy_j);
    }
    return best;
}

enum status layouts_rank(struct layout_list *list, const struct layout_weights *weights,
                         double *objectives, struct error *err)
{
    const struct priced_layout units = units_of(list, weights->raw);
    struct ranked_layout *ranked = malloc((list->count > 0 ? list->count : 1) * sizeof(*ranked));
    if (!ranked)
        return error_memory(err, list->count * sizeof(*ranked), "the layouts");
    for (size_t i = 0; i < list->count; i++) {
        const struct priced_layout *row = &list->rows[i];
        double energy = weights->energy > 0 ? weights->energy * row->energy_j / units.energy_j : 0;
        ranked[i] = (struct ranked_layout){
            .objective = weights->time * row->time_s / units.time_s +
                         weights->memory * row->memory_bytes / units.memory_bytes + energy,
            .row = *row,
        };
    }
    qsort(ranked, list->count, sizeof(*ranked), compare_ranked);
    for (size_t i = 0; i < list->count; i++) {
        list->rows[i] = ranked[i].row;
        if (objectives)
            objectives[i] = ranked[i].objective;
    }
    free(ranked);
    return STATUS_OK;
}

/* ---- the front ---- */

static int compare_numbers(double a, double b)
{
    return (a > b) - (a < b);
}

static int compare_rows(const void *a, const void *b)
{
    const struct priced_layout *x = a, *y = b;
    int order = compare_numbers(x->time_s, y->time_s);
    if (order == 0)
        order = compare_numbers(x->memory_bytes, y->memory_bytes);
    return order != 0 ? order : compare_numbers(x->energy_j, y->energy_j);
}

/* At least as good in every axis. */
static bool covers(const struct priced_layout *a, const struct priced_layout *b, unsigned axes)
{
    return (!(axes & FRONT_TIME) || a->time_s <= b->time_s) &&
           (!(axes & FRONT_MEMORY) || a->memory_bytes <= b->memory_bytes) &&
           (!(axes & FRONT_ENERGY) || a->energy_j <= b->energy_j);
}

static bool is_covered(const struct layout_list *list, size_t kept, const struct priced_layout *row,
                       unsigned axes)
{
    for (size_t i = 0; i < kept; i++)
        if (covers(&list->rows[i], row, axes))
            return true;
    return false;
}

/* Without time as an axis a later row may cover one that was kept. */
static size_t drop_covered(struct layout_list *list, size_t kept, const struct priced_layout *row,
                           unsigned axes)
{
    size_t left = 0;
    for (size_t i = 0; i < kept; i++)
        if (!covers(row, &list->rows[i], axes))
            list->rows[left++] = list->rows[i];
    return left;
}

void layouts_keep_front(struct layout_list *list, unsigned axes)
{
    size_t kept = 0;
    if (list->count > 0)
        qsort(list->rows, list->count, sizeof(*list->rows), compare_rows);
    for (size_t i = 0; i < list->count; i++) {
        const struct priced_layout row = list->rows[i];
        if (is_covered(list, kept, &row, axes))
            continue;
        kept = drop_covered(list, kept, &row, axes);
        list->rows[kept++] = row;
    }
    list->count = kept;
}
