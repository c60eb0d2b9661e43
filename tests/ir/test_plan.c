#include "support.h"

#include "base/hash.h"
#include "ir/model.h"
#include "ir/plan.h"

static struct quantity measured(double value)
{
    return (struct quantity){value, value / 64.0, PROVENANCE_MEASURED};
}

static void predict(struct plan *plan)
{
    struct prediction *p = &plan->prediction;
    p->layer_count = plan->layer_count;
    p->layers = calloc(p->layer_count, sizeof(*p->layers));
    assert_non_null(p->layers);
    p->time_s = measured(0.0);
    p->memory_bytes = measured(0.0);
    p->energy_j = quantity_absent();
    for (int i = 0; i < PHASE_COUNT; i++) {
        p->phase_time_s[i] = measured(0.1 * (i + 1));
        p->phase_energy_j[i] = quantity_absent();
        p->time_s = quantity_add(p->time_s, p->phase_time_s[i]);
    }
    for (int i = 0; i < MEMORY_TERM_COUNT; i++) {
        p->memory_term_bytes[i] = measured(1e6 / (i + 3));
        p->memory_bytes = quantity_add(p->memory_bytes, p->memory_term_bytes[i]);
    }
    for (size_t l = 0; l < p->layer_count; l++) {
        for (int i = 0; i < PHASE_COUNT; i++) {
            p->layers[l].time_s[i] = measured(1.0 / (double)(l + 3));
            p->layers[l].energy_j[i] = quantity_absent();
        }
        p->layers[l].saved_bytes = 64 * l;
        p->layers[l].scratch_bytes = 128 * l;
        p->layers[l].static_bytes = 4096 + l;
    }
}

/* Two data-parallel ranks of one stage. */
static struct plan make(const char *source, int64_t blocks)
{
    struct model_overrides overrides = {.layers = blocks};
    struct plan plan = {
        .ranks = 2,
        .data_parallel = 2,
        .tensor_parallel = 1,
        .pipeline = 1,
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = 1,
        .global_batch = 24,
        .micro_batch = 4,
        .micro_batches = 3,
        .memory_cap_bytes = UINT64_C(2) << 30,
        .status = PLAN_GAP,
        .objective = {.weight_time = 0.7,
                      .weight_memory = 0.3,
                      .time_unit_s = 0.1,
                      .memory_unit_bytes = 1e9,
                      .value = 1.25,
                      .bound = 1.2,
                      .gap = 0.04},
        .pins = "micro-batch=4",
        .profile_hash = "0123456789abcdef",
        .host = "a \"host\"",
        .created_unix_ms = 1795161600000,
    };
    struct error err;
    assert_ok(model_load(&plan.model, source, &overrides, &err), &err);
    hash_format(model_hash(&plan.model), plan.model_hash);
    plan.layer_count = model_layer_count(&plan.model);
    plan.layers = calloc(plan.layer_count, sizeof(*plan.layers));
    assert_non_null(plan.layers);
    for (size_t i = 0; i < plan.layer_count; i++) {
        enum layer_kind kind = model_layer(&plan.model, i).kind;
        plan.layers[i].tensor_parallel = 1;
        if (kind == LAYER_ATTENTION)
            plan.layers[i].recompute = i % 3 == 0 ? RECOMPUTE_FULL : RECOMPUTE_SELECTIVE;
        plan.layers[i].precision = kind == LAYER_MLP ? PRECISION_BF16 : PRECISION_FP32;
    }
    predict(&plan);
    assert_ok(plan_validate(&plan, "made", &err), &err);
    return plan;
}

/* Every split at once: 2 stages of 2 chunks, 3 replicas of 4 ranks in each. The attentions are
 * shared by all 4, the mlps by 2, the others by none; each kind has its ZeRO stage. */
static struct plan make_split(const char *source)
{
    static const struct layer_strategy by_kind[LAYER_KIND_COUNT] = {
        [LAYER_EMBEDDING] = {.tensor_parallel = 1, .zero_stage = 1},
        [LAYER_ATTENTION] = {.tensor_parallel = 4,
                             .sequence_parallel = true,
                             .zero_stage = 3,
                             .recompute = RECOMPUTE_FULL,
                             .precision = PRECISION_FP16},
        [LAYER_MLP] = {.tensor_parallel = 2, .zero_stage = 2, .precision = PRECISION_BF16},
        [LAYER_HEAD] = {.tensor_parallel = 1, .zero_stage = 1},
    };
    static const int stages[] = {0, 0, 1, 1, 2, 2, 3, 3};
    struct plan plan = make(source, 3);
    struct error err;
    assert_int_equal(plan.layer_count, COUNT(stages));
    plan.ranks = 24;
    plan.data_parallel = 3;
    plan.tensor_parallel = 4;
    plan.pipeline = 2;
    plan.virtual_stages = 2;
    plan.schedule = SCHEDULE_INTERLEAVED;
    plan.micro_batches = 2;
    for (size_t i = 0; i < plan.layer_count; i++) {
        plan.layers[i] = by_kind[model_layer(&plan.model, i).kind];
        plan.layers[i].stage = stages[i];
    }
    assert_ok(plan_validate(&plan, "made", &err), &err);
    return plan;
}

static char *json_of(const struct plan *plan)
{
    struct text text = {0};
    struct error err;
    assert_ok(plan_write_json(plan, &text, &err), &err);
    return text.data;
}

static void check_round_trip(const struct plan *plan)
{
    struct plan back;
    struct error err;
    char *first = json_of(plan);
    assert_ok(plan_parse(&back, first, "text", &err), &err);
    char *second = json_of(&back);
    assert_string_equal(first, second);
    assert_true(plan_hash(plan) == plan_hash(&back));
    assert_int_equal(back.tensor_parallel, plan->tensor_parallel);
    assert_int_equal(back.virtual_stages, plan->virtual_stages);
    assert_int_equal(back.schedule, plan->schedule);
    for (size_t i = 0; i < plan->layer_count; i++) {
        assert_int_equal(back.layers[i].stage, plan->layers[i].stage);
        assert_int_equal(back.layers[i].tensor_parallel, plan->layers[i].tensor_parallel);
        assert_int_equal(back.layers[i].sequence_parallel, plan->layers[i].sequence_parallel);
        assert_int_equal(back.layers[i].zero_stage, plan->layers[i].zero_stage);
        assert_int_equal(back.layers[i].recompute, plan->layers[i].recompute);
        assert_int_equal(back.layers[i].precision, plan->layers[i].precision);
    }
    assert_true(plan->prediction.time_s.value == back.prediction.time_s.value);
    assert_true(plan->prediction.time_s.deviation == back.prediction.time_s.deviation);
    assert_int_equal(back.prediction.energy_j.provenance, PROVENANCE_ABSENT);
    assert_int_equal(back.prediction.layers[2].saved_bytes, 128);
    assert_string_equal(back.host, "a \"host\"");
    assert_true(back.created_unix_ms == plan->created_unix_ms);
    free(first);
    free(second);
    plan_clear(&back);
}

static void test_plan__round_trip_is_exact(void **state)
{
    (void)state;
    static const char *const sources[] = {"gpt2", "llama-3-8b", "mistral-7b"};
    for (size_t i = 0; i < COUNT(sources); i++) {
        struct plan plan = make(sources[i], 3), split = make_split(sources[i]);
        check_round_trip(&plan);
        check_round_trip(&split);
        plan_clear(&plan);
        plan_clear(&split);
    }
}

static void test_plan__saved_plan_loads(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1), back;
    struct error err;
    const char *path = temporary_file("");
    assert_ok(plan_save(&plan, path, &err), &err);
    assert_ok(plan_load(&back, path, &err), &err);
    assert_true(plan_hash(&plan) == plan_hash(&back));
    unlink(path);
    assert_int_not_equal(plan_load(&back, path, &err), STATUS_OK);
    assert_contains(err.message, path);
    assert_int_not_equal(plan_save(&plan, "/nonexistent/p.json", &err), STATUS_OK);
    plan_clear(&plan);
    plan_clear(&back);
}

static void test_plan__without_a_prediction_everything_is_absent(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1), back;
    struct error err;
    prediction_clear(&plan.prediction);
    char *text = json_of(&plan);
    assert_contains(text, "\"prediction\": null");
    assert_ok(plan_parse(&back, text, "text", &err), &err);
    assert_null(back.prediction.layers);
    assert_int_equal(back.prediction.time_s.provenance, PROVENANCE_ABSENT);
    assert_int_equal(back.prediction.phase_time_s[PHASE_OTHER].provenance, PROVENANCE_ABSENT);
    assert_int_equal(back.prediction.memory_term_bytes[0].provenance, PROVENANCE_ABSENT);
    free(text);
    plan_clear(&plan);
    plan_clear(&back);
}

static void test_plan__copy_is_deep(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1), copy;
    struct error err;
    assert_ok(plan_copy(&copy, &plan, &err), &err);
    char *before = json_of(&copy);
    plan.layers[1].recompute = RECOMPUTE_NONE;
    plan.prediction.layers[1].saved_bytes = 1;
    plan_clear(&plan);
    char *after = json_of(&copy);
    assert_string_equal(before, after);
    free(before);
    free(after);
    plan_clear(&copy);
    plan_clear(&copy); /* a cleared plan may be cleared again */
}

static void test_plan__each_broken_relation_is_named(void **state)
{
    (void)state;
    struct error err;
#define BREAK(change, part)                                                                        \
    do {                                                                                           \
        struct plan p = make("gpt2", 2);                                                           \
        change;                                                                                    \
        assert_int_not_equal(plan_validate(&p, "here", &err), STATUS_OK);                          \
        assert_contains(err.message, "here: key '" part "'");                                      \
        plan_clear(&p);                                                                            \
    } while (0)
    BREAK(p.model.heads = 5, "model.kv_heads");
    BREAK(p.model.norm_epsilon = 2e-5, "model_hash");
    BREAK(p.ranks = 3, "ranks");
    BREAK(p.ranks = 0, "ranks");
    BREAK(p.data_parallel = -2, "data_parallel");
    BREAK(p.data_parallel = 1, "ranks");
    BREAK(p.pipeline = 2, "ranks");
    BREAK((p.pipeline = 2, p.data_parallel = 1, p.micro_batches = 6), "layers[5].stage");
    BREAK(p.virtual_stages = 2, "virtual_stages");
    BREAK(p.schedule = SCHEDULE_GPIPE, "schedule");
    BREAK(p.schedule = (enum schedule)9, "schedule");
    BREAK((p.tensor_parallel = 2, p.data_parallel = 1, p.micro_batches = 6), "tensor_parallel");
    BREAK(p.threads = 0, "threads");
    BREAK(p.global_batch = 25, "global_batch");
    BREAK(p.micro_batch = 0, "micro_batch");
    BREAK(p.micro_batch = INT64_MAX, "micro_batch");
    BREAK(p.micro_batches = 4, "global_batch");
    BREAK(p.memory_cap_bytes = UINT64_MAX, "memory_cap_bytes");
    BREAK(p.status = (enum plan_status)9, "status");
    BREAK(p.layer_count = 5, "layers");
    BREAK((free(p.layers), p.layers = NULL), "layers");
    BREAK(p.layers[0].recompute = RECOMPUTE_FULL, "layers[0].recompute");
    BREAK(p.layers[0].precision = PRECISION_BF16, "layers[0].precision");
    BREAK(p.layers[5].recompute = RECOMPUTE_SELECTIVE, "layers[5].recompute");
    BREAK(p.layers[5].recompute = RECOMPUTE_FULL, "layers[5].recompute");
    BREAK(p.layers[1].recompute = (enum recompute)17, "layers[1].recompute");
    BREAK(p.layers[1].precision = (enum precision)17, "layers[1].precision");
    BREAK(p.layers[2].attention = ATTENTION_TILED, "layers[2].attention");
    BREAK(p.layers[1].attention = (enum attention_kernel)7, "layers[1].attention");
    BREAK(p.layers[1].stage = 1, "layers[1].stage");
    BREAK(p.layers[1].stage = -1, "layers[1].stage");
    BREAK(p.layers[1].tensor_parallel = 2, "layers[1].tensor_parallel");
    BREAK(p.layers[1].sequence_parallel = true, "layers[1].sequence_parallel");
    BREAK(p.layers[1].zero_stage = 4, "layers[1].zero_stage");
    BREAK(p.layers[1].zero_stage = -1, "layers[1].zero_stage");
    BREAK(p.layers[0].zero_stage = 1, "layers[5].zero_stage");
    BREAK(p.objective.weight_time = -1.0, "objective.weight_time");
    BREAK(p.objective.value = 0.0 / 0.0, "objective.value");
    BREAK(p.objective.bound = 2.0, "objective.bound");
    BREAK(p.objective.gap = 1.5, "objective.gap");
    BREAK(p.prediction.layer_count = 2, "prediction.layers");
    BREAK(p.prediction.time_s.value *= 1.1, "prediction.time_s");
    BREAK(p.prediction.memory_bytes.value += 1e4, "prediction.memory_bytes");
    BREAK(p.model_hash[0] = 'x', "model_hash");
#undef BREAK
}

/* Relations that only a plan with every split can break, and what the message says is right. */
static void test_plan__each_broken_split_is_named(void **state)
{
    (void)state;
    struct error err;
#define BREAK(change, part)                                                                        \
    do {                                                                                           \
        struct plan p = make_split("gpt2");                                                        \
        change;                                                                                    \
        assert_int_equal(plan_validate(&p, "here", &err), STATUS_INVALID);                         \
        assert_contains(err.message, "here: key '" part);                                          \
        plan_clear(&p);                                                                            \
    } while (0)
    BREAK(p.ranks = 12, "ranks': must be pipeline 2 times data_parallel 3 times tensor_parallel 4 "
                        "= 24, is 12");
    BREAK(p.global_batch = 25, "global_batch': must be micro_batch 4 times micro_batches 2 times "
                               "data_parallel 3 = 24, is 25");
    BREAK(p.schedule = SCHEDULE_1F1B, "schedule': 1f1b has 1 virtual stage, not 2");
    BREAK((p.schedule = SCHEDULE_ZB_H1, p.virtual_stages = 1),
          "schedule': 'zb-h1' is planned but not run: has to be gpipe, 1f1b or interleaved");
    BREAK(p.virtual_stages = 1, "schedule': interleaved needs 2 or more virtual_stages, not 1");
    BREAK((p.micro_batches = 1, p.global_batch = 12),
          "schedule': interleaved needs micro_batches in multiples of pipeline 2, not 1");
    BREAK(p.virtual_stages = 3,
          "layers[7].stage': must be the last of pipeline 2 times virtual_stages 3, 5, is 3");
    BREAK(p.layers[0].stage = 1, "layers[0].stage': must be from 0 to 0, is 1");
    BREAK(p.layers[2].stage = 2, "layers[2].stage': must be from 0 to 1, is 2");
    BREAK(p.layers[5].stage = 1, "layers[5].stage': must be from 2 to 3, is 1");
    BREAK(p.layers[7].stage = 4, "layers[7].stage': must be from 3 to 3, is 4");
    BREAK(p.layers[2].tensor_parallel = 3,
          "layers[2].tensor_parallel': must divide the plan's tensor_parallel 4, is 3");
    BREAK((p.tensor_parallel = 8, p.ranks = 48, p.micro_batch = 8, p.global_batch = 48),
          "tensor_parallel': must be the largest of any layer, 4, is 8");
    BREAK((p.micro_batch = 2, p.global_batch = 12), "layers[0].tensor_parallel': 1 of the plan's 4 "
                                                    "leaves 4 groups to share a micro_batch of 2");
    BREAK(p.layers[3].sequence_parallel = p.layers[0].sequence_parallel = true,
          "layers[0].sequence_parallel': must be false where tensor_parallel is 1");
    BREAK(p.layers[7].tensor_parallel = 2, "layers[7].tensor_parallel': must be the embedding's 1");
    BREAK(p.layers[7].zero_stage = 3, "layers[7].zero_stage': must be the embedding's 1");
    BREAK(p.layers[1].zero_stage = 4, "layers[1].zero_stage': must be from 0 to 3, is 4");
#undef BREAK
}

static void test_plan__an_untied_head_is_split_as_it_likes(void **state)
{
    (void)state;
    struct plan plan = make_split("llama-3-8b");
    struct error err;
    plan.layers[7].tensor_parallel = 4;
    plan.layers[7].sequence_parallel = true;
    plan.layers[7].zero_stage = 3;
    assert_ok(plan_validate(&plan, "here", &err), &err);
    plan_clear(&plan);
}

/* T ranks that share every layer of make(): what divides, divides. */
static enum status validate_shared(int ways, int64_t seq_length, bool sequence_parallel,
                                   struct error *err)
{
    struct plan plan = make("gpt2", 1);
    plan.model.seq_length = seq_length;
    plan.tensor_parallel = ways;
    plan.ranks = ways * plan.data_parallel;
    plan.micro_batch = 1;
    plan.global_batch = plan.micro_batches * plan.data_parallel;
    for (size_t i = 0; i < plan.layer_count; i++) {
        plan.layers[i].tensor_parallel = ways;
        plan.layers[i].sequence_parallel = sequence_parallel;
    }
    enum status status = plan_validate(&plan, "here", err);
    plan_clear(&plan);
    return status;
}

static void test_plan__what_is_shared_must_divide(void **state)
{
    (void)state;
    struct error err;
    /* 12 heads */
    assert_ok(validate_shared(4, 1024, true, &err), &err);
    assert_int_equal(validate_shared(5, 1024, false, &err), STATUS_INVALID);
    assert_contains(err.message, "here: key 'layers[1].tensor_parallel': attention: 12 heads");
    /* 1022 tokens over 4 ranks: only without sequence parallelism */
    assert_ok(validate_shared(4, 1022, false, &err), &err);
    assert_int_equal(validate_shared(4, 1022, true, &err), STATUS_INVALID);
    assert_contains(err.message, "here: key 'layers[0].sequence_parallel': ");
    assert_contains(err.message, "1022 tokens");
}

static void test_plan__hostile_texts_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *old, *by, *part;
    } cases[] = {
        {"temper-plan", "temper-cluster", "'format'"},
        {"\"format\": \"temper-plan\",", "", "'format'"},
        {"\"version\": 3", "\"version\": 4", "newer"},
        {"\"version\": 3", "\"version\": 0", "'version'"},
        {"\"version\": 3", "\"version\": 1", "'tensor_parallel'"},
        {"\"version\": 3", "\"version\": 2", "'gradient_reduction'"},
        {"\"gradient_reduction\": \"fp32\"", "\"gradient_reduction\": \"fp16\"", "fp32, bf16"},
        {"\"gradient_reduction\": \"fp32\",", "", "'gradient_reduction'"},
        {"\"attention\": \"plain\"", "\"attention\": \"flash\"", "plain, tiled"},
        {"\"tensor_parallel\": 1,", "", "'tensor_parallel'"},
        {"\"virtual_stages\": 1", "\"virtual_stages\": 0", "'virtual_stages'"},
        {"\"schedule\": \"1f1b\"", "\"schedule\": \"2f2b\"", "gpipe, 1f1b, interleaved"},
        {"\"sequence_parallel\": false", "\"sequence_parallel\": 0",
         "'layers[0].sequence_parallel'"},
        {"\"zero_stage\": 0", "\"zero_stage\": 4", "'layers[0].zero_stage'"},
        {"\"ranks\": 2", "\"ranks\": 2.0", "'ranks'"},
        {"\"ranks\": 2", "\"ranks\": 4294967298", "'ranks'"},
        {"\"ranks\": 2,", "", "'ranks'"},
        {"\"threads\": 1", "\"threads\": \"1\"", "'threads'"},
        {"\"threads\": 1", "\"threads\": 1, \"thread\": 2", "'thread'"},
        {"\"memory_cap_bytes\": 2147483648", "\"memory_cap_bytes\": -1", "'memory_cap_bytes'"},
        {"\"status\": \"gap\"", "\"status\": \"good\"", "optimal, gap, predicted"},
        {"\"micro-batch=4\"", "4", "'pins'"},
        {"\"0123456789abcdef\"", "\"0123456789abcdef0\"", "'profile_hash'"},
        {"\"family\": \"gpt2\"", "\"family\": \"bert\"", "'model.family'"},
        {"\"heads\": 12", "\"heads\": 13", "'model."},
        {"\"heads\": 12", "\"heads\": 12, \"wings\": 2", "'model.wings'"},
        {"\"tied_head\": true", "\"tied_head\": 1", "'model.tied_head'"},
        {"\"raw\": false", "\"raw\": null", "'objective.raw'"},
        {"\"value\": 1.25", "\"value\": \"1.25\"", "'objective.value'"},
        {"\"kind\": \"attention\"", "\"kind\": \"mlp\"", "'layers[1].kind'"},
        {"\"layer\": 0", "\"layer\": 1", "'layers[0].layer'"},
        {"\"recompute\": \"none\"", "\"recompute\": \"all\"", "none, selective, full"},
        {"\"precision\": \"fp32\"", "\"precision\": \"fp16\"", "'layers[0].precision'"},
        {"\"precision\": \"fp32\"", "\"precision\": \"fp32\", \"x\": 1", "'layers[0].x'"},
        {"\"prediction\": {", "\"prediction\": 3, \"y\": {", "'y'"},
        {"\"time_s\": {", "\"time_s\": 5, \"z\": {", "'prediction.z'"},
        {"\"provenance\": \"measured\"", "\"provenance\": \"absent\"", "prediction.time_s"},
        {"\"provenance\": \"measured\"", "\"provenance\": \"guessed\"",
         "measured, interpolated, modelled, absent"},
        {"\"saved_bytes\": 0", "\"saved_bytes\": -64", "saved_bytes"},
        {"\"created_unix_ms\": 1795161600000", "\"created_unix_ms\": -1", "created_unix_ms"},
    };
    struct plan plan = make("gpt2", 1);
    char *text = json_of(&plan);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *changed = replaced(text, cases[i].old, cases[i].by);
        struct plan back = {.ranks = 77};
        struct error err;
        if (plan_parse(&back, changed, "p.json", &err) == STATUS_OK)
            fail_msg("accepted: %s -> %s", cases[i].old, cases[i].by);
        assert_contains(err.message, "p.json: ");
        assert_contains(err.message, cases[i].part);
        assert_int_equal(back.ranks, 77);
        free(changed);
    }
    free(text);
    plan_clear(&plan);
}

static void test_plan__every_truncation_is_refused(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1);
    char *text = json_of(&plan);
    size_t end = strlen(text);
    while (end > 0 && text[end - 1] != '}')
        end--;
    for (size_t bytes = 0; bytes < end; bytes += 41) {
        struct plan back;
        struct error err;
        char *part = strndup(text, bytes);
        assert_non_null(part);
        assert_int_equal(plan_parse(&back, part, "p.json", &err), STATUS_INVALID);
        free(part);
    }
    free(text);
    plan_clear(&plan);
}

static void test_plan__hash_covers_all_but_prediction_and_time(void **state)
{
    (void)state;
#define CHANGES(expected, change)                                                                  \
    do {                                                                                           \
        struct plan p = make("gpt2", 2);                                                           \
        uint64_t before = plan_hash(&p);                                                           \
        change;                                                                                    \
        assert_true((plan_hash(&p) != before) == (expected));                                      \
        plan_clear(&p);                                                                            \
    } while (0)
    CHANGES(false, prediction_clear(&p.prediction));
    CHANGES(false, p.created_unix_ms++);
    CHANGES(true, p.model.seq_length--);
    CHANGES(true, p.model.ffn++);
    CHANGES(true, p.ranks++);
    CHANGES(true, p.data_parallel++);
    CHANGES(true, p.pipeline++);
    CHANGES(true, p.threads++);
    CHANGES(true, p.global_batch++);
    CHANGES(true, p.micro_batch++);
    CHANGES(true, p.micro_batches++);
    CHANGES(true, p.memory_cap_bytes++);
    CHANGES(true, p.status = PLAN_OPTIMAL);
    CHANGES(true, p.objective.weight_energy = 1.0);
    CHANGES(true, p.objective.raw = true);
    CHANGES(true, p.pins[0] = 'x');
    CHANGES(true, p.host[0] = 'x');
    CHANGES(true, p.profile_hash[0] = 'x');
    CHANGES(true, p.layers[3].recompute = RECOMPUTE_NONE);
    CHANGES(true, p.layers[3].precision = PRECISION_BF16);
    CHANGES(true, p.layers[3].zero_stage = 1);
    CHANGES(true, p.layers[3].stage = 1);
    CHANGES(true, p.layers[3].tensor_parallel = 2);
    CHANGES(true, p.layers[3].sequence_parallel = true);
    CHANGES(true, p.tensor_parallel++);
    CHANGES(true, p.virtual_stages++);
    CHANGES(true, p.schedule = SCHEDULE_GPIPE);
#undef CHANGES
}

static void test_plan__shape_is_the_micro_batch(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1);
    struct micro_batch_shape shape = plan_shape(&plan);
    assert_int_equal(shape.sequences, 4);
    assert_int_equal(shape.seq_length, 1024);
    assert_int_equal(shape.threads, 1);
    plan_clear(&plan);
}

static void test_plan__schedule_is_of_the_whole_plan(void **state)
{
    (void)state;
    struct plan plan = make_split("gpt2");
    struct schedule_shape shape = plan_schedule(&plan);
    assert_int_equal(shape.kind, SCHEDULE_INTERLEAVED);
    assert_int_equal(shape.stages, 2);
    assert_int_equal(shape.chunks, 2);
    assert_int_equal(shape.micro_batches, 2);
    plan_clear(&plan);
}

static void test_plan__fp16_of_any_layer_is_found(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1);
    assert_false(plan_has_fp16(&plan));
    plan.layers[3].precision = PRECISION_FP16;
    assert_true(plan_has_fp16(&plan));
    plan_clear(&plan);
}

/* tests/ir/data/plan_1.json was written before there were splits. */
static void test_plan__version_1_is_read(void **state)
{
    (void)state;
    struct plan plan;
    struct error err;
    assert_ok(plan_load(&plan, TEMPER_SOURCE_DIR "/tests/ir/data/plan_1.json", &err), &err);
    assert_int_equal(plan.ranks, 2);
    assert_int_equal(plan.tensor_parallel, 1);
    assert_int_equal(plan.virtual_stages, 1);
    assert_int_equal(plan.schedule, SCHEDULE_1F1B);
    for (size_t i = 0; i < plan.layer_count; i++)
        assert_false(plan.layers[i].sequence_parallel);

    /* phases stand under their names, and what it did not do took no time */
    const struct prediction *p = &plan.prediction;
    assert_true(p->phase_time_s[PHASE_BACKWARD].value == 0.01554);
    assert_true(p->phase_time_s[PHASE_GRAD_REDUCE].value == 0.0002);
    assert_true(p->phase_time_s[PHASE_OPTIMIZER].value == 0.0019);
    assert_true(p->phase_time_s[PHASE_OTHER].deviation == 2e-06);
    assert_true(p->phase_time_s[PHASE_TENSOR].value == 0.0);
    assert_int_equal(p->phase_time_s[PHASE_PIPELINE].provenance, PROVENANCE_MEASURED);
    assert_int_equal(p->phase_energy_j[PHASE_PARAM_GATHER].provenance, PROVENANCE_ABSENT);
    assert_true(p->layers[1].time_s[PHASE_GRAD_REDUCE].value == 0.0001);
    assert_int_equal(p->layers[3].energy_j[PHASE_TENSOR].provenance, PROVENANCE_ABSENT);

    /* and it is written as the newest */
    struct plan back;
    char *text = json_of(&plan);
    assert_contains(text, "\"version\": 3");
    assert_ok(plan_parse(&back, text, "text", &err), &err);
    assert_true(plan_hash(&plan) == plan_hash(&back));
    free(text);
    plan_clear(&plan);
    plan_clear(&back);
}

/* Cuts out a key and its value, which is not the first of its object. */
static bool cut_key(char *text, const char *key_and_value)
{
    char *found = strstr(text, key_and_value);
    if (found == NULL)
        return false;
    char *end = found + strlen(key_and_value);
    while (*found != ',')
        found--;
    memmove(found, end, strlen(end) + 1);
    return true;
}

/* What version 2 did not say is plain, and fp32. */
static void test_plan__version_2_is_read(void **state)
{
    (void)state;
    struct plan plan = make("gpt2", 1), back;
    struct error err;
    char *text = json_of(&plan), *at = strstr(text, "\"version\": 3");
    assert_non_null(at);
    at[strlen("\"version\": ")] = '2';
    size_t cut = 0;
    while (cut_key(text, "\"attention\": \"plain\""))
        cut++;
    assert_int_equal(cut, plan.layer_count);
    assert_true(cut_key(text, "\"gradient_reduction\": \"fp32\""));
    assert_ok(plan_parse(&back, text, "text", &err), &err);
    assert_true(plan_hash(&plan) == plan_hash(&back));
    plan.layers[1].attention = ATTENTION_TILED;
    assert_false(plan_hash(&plan) == plan_hash(&back));
    plan.layers[1].attention = ATTENTION_PLAIN;
    plan.gradient_reduction = GRADIENTS_BF16;
    assert_false(plan_hash(&plan) == plan_hash(&back));
    free(text);
    plan_clear(&plan);
    plan_clear(&back);
}

static void test_plan__page_example_parses(void **state)
{
    (void)state;
    char *text = page_example("docs/plan.md");
    struct plan plan;
    struct error err;
    assert_ok(plan_parse(&plan, text, "docs/plan.md", &err), &err);
    assert_non_null(plan.prediction.layers);
    assert_int_equal(strlen(plan.model_hash), 16);
    plan_clear(&plan);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan__round_trip_is_exact),
        cmocka_unit_test(test_plan__saved_plan_loads),
        cmocka_unit_test(test_plan__without_a_prediction_everything_is_absent),
        cmocka_unit_test(test_plan__copy_is_deep),
        cmocka_unit_test(test_plan__each_broken_relation_is_named),
        cmocka_unit_test(test_plan__each_broken_split_is_named),
        cmocka_unit_test(test_plan__an_untied_head_is_split_as_it_likes),
        cmocka_unit_test(test_plan__what_is_shared_must_divide),
        cmocka_unit_test(test_plan__hostile_texts_name_the_key),
        cmocka_unit_test(test_plan__every_truncation_is_refused),
        cmocka_unit_test(test_plan__hash_covers_all_but_prediction_and_time),
        cmocka_unit_test(test_plan__shape_is_the_micro_batch),
        cmocka_unit_test(test_plan__schedule_is_of_the_whole_plan),
        cmocka_unit_test(test_plan__fp16_of_any_layer_is_found),
        cmocka_unit_test(test_plan__version_1_is_read),
        cmocka_unit_test(test_plan__version_2_is_read),
        cmocka_unit_test(test_plan__page_example_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
