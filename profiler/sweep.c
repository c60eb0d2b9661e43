#include "profiler/sweep.h"
#include "base/text.h"
#include "base/units.h"

/* Micro-batches of an automatic sweep: 1, 2, 4, ... */
enum { AUTOMATIC_SIZES = 6 };

/* Estimates only share the time; they are calibrated by what is measured. */
#define BACKWARD_OVER_FORWARD 2.0
#define SCORES_OVER_FORWARD   0.2 /* of an attention layer, once more */
#define CALL_OVERHEAD_S       20e-6
/* Small products run this much below the peak rate, before anything is measured. */
#define FIRST_CALIBRATION 2.0

static double estimate_layer_s(const struct chain *chain, enum layer_kind kind,
                               struct chain_setting setting,
                               const double matmul_flops[PRECISION_COUNT])
{
    struct layer_precision_mode mode = chain_mode(kind, setting);
    struct micro_batch_shape shape = {
        .sequences = setting.micro_batch, .seq_length = chain->model.seq_length, .threads = 1};
    double rate = matmul_flops[mode.precision];
    double passes = 1.0 + BACKWARD_OVER_FORWARD;
    if (mode.recompute == RECOMPUTE_FULL)
        passes += 1.0;
    bool remakes_scores =
        mode.recompute == RECOMPUTE_SELECTIVE || mode.attention == ATTENTION_TILED;
    if (kind == LAYER_ATTENTION && remakes_scores)
        passes += SCORES_OVER_FORWARD;
    struct layer_part part = chain_part(chain, kind, setting.split);
    double flops = layer_part_forward_flops(&chain->model, &part, &shape);
    return CALL_OVERHEAD_S + (rate > 0 ? passes * flops / rate : 0);
}

static double estimate_s(const struct chain *chain, struct chain_setting setting,
                         const double matmul_flops[PRECISION_COUNT])
{
    double seconds = 0;
    for (size_t i = 0; i < chain->layer_count; i++) {
        enum layer_kind kind = chain->layers[i].kind;
        if ((kind != LAYER_HEAD || setting.with_head) && chain_admits(chain, kind, setting.split))
            seconds += estimate_layer_s(chain, kind, setting, matmul_flops);
    }
    return seconds;
}

/* Parts take less than whole layers, so that one word for both is enough. */
static void warn_too_large(const struct session *session, struct chain_setting setting,
                           uint64_t bytes)
{
    char size[UNIT_TEXT_BYTES], limit[UNIT_TEXT_BYTES];
    if (!session_leads(session) || setting.split.ways > 1)
        return;
    report_warning(
        &session->request->reporter,
        "micro-batch %lld in %s with recompute %s is not measured: it takes %s, the limit "
        "is %s a rank",
        (long long)setting.micro_batch, precision_name(setting.precision),
        recompute_name(setting.recompute), format_bytes((double)bytes, size),
        format_bytes((double)session->memory_limit_bytes, limit));
}

/* ---- sizes and splits ---- */

/* The embedding and the head admit the same; without them there is no chain. */
static void add_split(struct sweep *sweep, const struct chain *chain, struct chain_split split)
{
    if (sweep->split_count < SWEEP_SPLITS_MAX && chain_admits(chain, LAYER_EMBEDDING, split))
        sweep->splits[sweep->split_count++] = split;
}

static void choose_splits(struct sweep *sweep, const struct chain *chain)
{
    int ranks = comm_size(chain->session->comm);
    for (int ways = 1; ways <= ranks; ways++) {
        if (ranks % ways != 0)
            continue;
        add_split(sweep, chain, (struct chain_split){.ways = ways});
        if (ways > 1)
            add_split(sweep, chain, (struct chain_split){.ways = ways, .sequence_parallel = true});
    }
}

/* One micro-batch size under construction. */
struct size_choice {
    const struct chain *chain;
    const double *matmul_flops;
    bool with_parts, warns;
};

static void add_setting(struct sweep_size *size, const struct size_choice *choice,
                        struct chain_setting setting, size_t split)
{
    const struct chain *chain = choice->chain;
    uint64_t bytes = chain_activation_bytes(chain, setting);
    if (bytes + chain_static_bytes(chain) > chain->session->memory_limit_bytes) {
        if (choice->warns)
            warn_too_large(chain->session, setting, bytes + chain_static_bytes(chain));
        return;
    }
    size->settings[size->setting_count++] = (struct sweep_setting){
        .setting = setting,
        .split = split,
        .estimate_s = estimate_s(chain, setting, choice->matmul_flops),
        .activation_bytes = bytes,
    };
}

static bool has_split(const struct size_choice *choice, int64_t micro_batch,
                      struct chain_split split)
{
    int64_t tokens = micro_batch * choice->chain->model.seq_length;
    if (split.sequence_parallel && tokens % split.ways != 0)
        return false;
    return split.ways == 1 || choice->with_parts;
}

/* Every recompute mode with every kernel. The head runs in the first setting alone, where its only
 * mode is measured; elsewhere it would cost time and tell nothing new. */
static void add_modes(struct sweep_size *size, const struct size_choice *choice,
                      enum precision precision, const struct sweep *sweep, size_t split)
{
    for (unsigned a = 0; a < ATTENTION_KERNEL_COUNT; a++) {
        for (unsigned r = 0; r < RECOMPUTE_COUNT; r++) {
            struct chain_setting setting = {
                .precision = precision,
                .recompute = (enum recompute)r,
                .attention = (enum attention_kernel)a,
                .micro_batch = size->micro_batch,
                .split = sweep->splits[split],
                .with_head = r == RECOMPUTE_NONE && a == ATTENTION_PLAIN,
            };
            add_setting(size, choice, setting, split);
        }
    }
}

static struct sweep_size make_size(const struct sweep *sweep, const struct size_choice *choice,
                                   int64_t micro_batch)
{
    struct sweep_size size = {.micro_batch = micro_batch};
    for (size_t s = 0; s < sweep->split_count; s++) {
        if (!has_split(choice, micro_batch, sweep->splits[s]))
            continue;
        for (unsigned p = 0; p < PRECISION_COUNT; p++)
            if (choice->matmul_flops[p] > 0)
                add_modes(&size, choice, (enum precision)p, sweep, s);
    }
    return size;
}

/* Parts are measured at small sizes, which are the surest to fit the time, and one larger. */
static bool measures_parts(size_t index, size_t count)
{
    return count <= 3 || index < 2 || index == 3;
}

static double size_estimate_s(const struct sweep_size *size, size_t from)
{
    double seconds = 0;
    for (size_t i = from; i < size->setting_count; i++)
        seconds += size->settings[i].estimate_s;
    return seconds;
}

double sweep_minimum_s(const struct sweep *sweep, const struct sweep_size *size)
{
    return SWEEP_PASSES_MINIMUM * sweep->calibration * size_estimate_s(size, 0);
}

static void leave_out_hopeless(struct sweep *sweep, double seconds)
{
    double needed_s = 0;
    for (size_t i = 0; i < sweep->size_count; i++) {
        needed_s += sweep_minimum_s(sweep, &sweep->sizes[i]);
        if (i > 0 && needed_s > seconds)
            sweep->size_count = i;
    }
}

enum status sweep_plan(struct sweep *out, const struct chain *chain,
                       const double matmul_flops[PRECISION_COUNT], double seconds,
                       struct error *err)
{
    const struct profile_request *request = chain->session->request;
    size_t asked = request->micro_batch_count;
    *out = (struct sweep){.is_automatic = asked == 0, .calibration = FIRST_CALIBRATION};
    choose_splits(out, chain);
    size_t count = out->is_automatic ? AUTOMATIC_SIZES : asked;
    for (size_t i = 0; i < count; i++) {
        int64_t micro_batch = out->is_automatic ? INT64_C(1) << i : request->micro_batches[i];
        struct size_choice choice = {chain, matmul_flops, measures_parts(i, count),
                                     !out->is_automatic};
        struct sweep_size size = make_size(out, &choice, micro_batch);
        if (size.setting_count > 0)
            out->sizes[out->size_count++] = size;
    }
    if (out->size_count == 0) {
        char limit[UNIT_TEXT_BYTES];
        return error_set(err, STATUS_INVALID,
                         "nothing of the model can be measured within %s a rank: raise the memory "
                         "limit, or choose a smaller micro-batch or sequence",
                         format_bytes((double)chain->session->memory_limit_bytes, limit));
    }
    if (out->is_automatic)
        leave_out_hopeless(out, seconds);
    return STATUS_OK;
}

size_t sweep_pieces(const struct sweep *sweep)
{
    size_t pieces = 0;
    for (size_t i = 0; i < sweep->size_count; i++)
        pieces += sweep->sizes[i].setting_count;
    return pieces;
}

double sweep_share(const struct sweep *sweep, size_t size_index, size_t setting_index)
{
    double remaining_s = size_estimate_s(&sweep->sizes[size_index], setting_index);
    for (size_t i = size_index + 1; i < sweep->size_count; i++)
        remaining_s += size_estimate_s(&sweep->sizes[i], 0);
    return sweep->sizes[size_index].settings[setting_index].estimate_s / remaining_s;
}

void sweep_warn_left_out(const struct sweep *sweep, size_t size_index,
                         const struct reporter *reporter)
{
    struct text list = {0};
    for (size_t i = size_index; i < sweep->size_count; i++)
        text_printf(&list, "%s%lld", i == size_index ? "" : ", ",
                    (long long)sweep->sizes[i].micro_batch);
    report_warning(reporter, "micro-batch %s not measured: the time budget is used up",
                   list.data ? list.data : "");
    text_free(&list);
}
