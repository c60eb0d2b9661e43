#include "support.h"

#include "held.h"
#include "written.h"

#include "base/hash.h"
#include "base/rng.h"
#include "executor/checkpoint.h"
#include "executor/safetensors.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

static struct comm *alone;
static struct device *device;

/* ---- a tiny model on one rank ---- */

struct tiny {
    struct plan plan;
    struct memory_layout layout;
};

static void open_tiny(struct tiny *out, const struct model *model, bool with_moments)
{
    out->plan = held_plan_of_one(model);
    held_open(&out->layout, device, &out->plan, 0, with_moments);
}

static void close_tiny(struct tiny *tiny)
{
    held_close(&tiny->layout);
    plan_clear(&tiny->plan);
}

static struct training_state state_at(int64_t step)
{
    return (struct training_state){.step = step,
                                   .next_sample = 24 * step,
                                   .global_batch = 24,
                                   .optimizer_time = step - 1,
                                   .skipped_steps = 1,
                                   .seed = UINT64_MAX - 41,
                                   .loss_scale = 0x1p-3,
                                   .scale_good_steps = 77};
}

static enum status save_step(const char *folder, const struct model *model, int64_t step,
                             int64_t keep, struct error *err)
{
    struct tiny tiny;
    struct training_state state = state_at(step);
    open_tiny(&tiny, model, true);
    held_fill(&tiny.layout, step);
    enum status status = checkpoint_save(folder, &tiny.layout, alone, &state, keep, err);
    close_tiny(&tiny);
    return status;
}

static void save(const char *folder, const struct model *model, int64_t step, int64_t keep)
{
    struct error err;
    assert_ok(save_step(folder, model, step, keep, &err), &err);
}

static char warnings[4096];

static void keep_warning(void *user, const char *message)
{
    (void)user;
    (void)snprintf(warnings + strlen(warnings), sizeof(warnings) - strlen(warnings), "%s\n",
                   message);
}

static const struct reporter reporter = {.warning = keep_warning};

static enum status load(const char *path, const struct tiny *tiny, struct training_state *state,
                        struct error *err)
{
    warnings[0] = '\0';
    return checkpoint_load(path, &tiny->layout, alone, state, &reporter, err);
}

static void assert_holds_step(const struct tiny *tiny, int64_t step)
{
    struct tiny expected;
    open_tiny(&expected, &tiny->plan.model, layout_has_moments(&tiny->layout));
    held_fill(&expected.layout, step);
    held_assert_same(&tiny->layout, &expected.layout);
    close_tiny(&expected);
}

/* What is loaded is what was saved at `step`, in every bit. */
static void assert_loads_step(const char *path, const struct model *model, int64_t step)
{
    struct tiny loaded;
    struct training_state state = {0}, expected_state = state_at(step);
    struct error err;
    open_tiny(&loaded, model, true);
    assert_ok(load(path, &loaded, &state, &err), &err);
    assert_holds_step(&loaded, step);
    assert_memory_equal(&state, &expected_state, sizeof(state));
    close_tiny(&loaded);
}

static void assert_load_refused(const char *path, const struct model *model, enum status expected,
                                const char *part, const char *other_part)
{
    struct tiny tiny;
    struct training_state state = {0};
    struct error err;
    open_tiny(&tiny, model, true);
    assert_refused(load(path, &tiny, &state, &err), expected, &err, part, other_part);
    assert_int_equal(state.step, 0);
    close_tiny(&tiny);
}

static size_t entries_in(const char *folder, const char *prefix)
{
    size_t count = 0;
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries))
        if (entry->d_name[0] != '.' || strncmp(entry->d_name, ".tmp", 4) == 0)
            count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(entries);
    return count;
}

/* A folder of this test alone, in static storage. */
static const char *fresh_folder(void)
{
    static char path[TEST_PATH_BYTES];
    static int number;
    (void)snprintf(path, sizeof(path), "%s/run-%d", test_folder, number++);
    return path;
}

static const char *inside(const char *folder, const char *name)
{
    static char paths[4][TEST_PATH_BYTES];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    int bytes = snprintf(path, TEST_PATH_BYTES, "%s/%s", folder, name);
    assert_in_range(bytes, 1, TEST_PATH_BYTES - 1);
    return path;
}

/* ---- saving and loading ---- */

static void test_checkpoint__gives_back_weights_moments_and_state(void **test)
{
    (void)test;
    static const char *const builtins[] = {"gpt2", "tinyllama-1.1b"};
    for (size_t i = 0; i < 4; i++) {
        const char *folder = fresh_folder();
        struct model model = held_model(builtins[i / 2], i % 2 == 0, 0), found;
        char resolved[TEST_PATH_BYTES];
        struct error err;
        save(folder, &model, 200, 1);
        assert_loads_step(folder, &model, 200);
        assert_loads_step(inside(folder, "step-00000200"), &model, 200);
        assert_loads_step(inside(folder, "step-00000200//"), &model, 200);
        assert_string_equal(warnings, "");
        assert_ok(checkpoint_model(folder, &found, resolved, sizeof(resolved), &err), &err);
        assert_string_equal(resolved, inside(folder, "step-00000200"));
        assert_true(model_same_weights(&found, &model));
        assert_int_equal(found.seq_length, model.seq_length);
        assert_refused(checkpoint_model(folder, &found, resolved, 4, &err), STATUS_INVALID, &err,
                       "longer than 4 bytes", "");
    }
}

static void test_checkpoint__weights_alone(void **test)
{
    (void)test;
    const char *folder = fresh_folder();
    struct model model = held_model("gpt2", true, 0);
    struct tiny weights;
    struct training_state state;
    struct error err;
    save(folder, &model, 9, 1);
    open_tiny(&weights, &model, false);
    assert_ok(load(folder, &weights, &state, &err), &err);
    assert_holds_step(&weights, 9);
    state = state_at(10);
    held_fill(&weights.layout, 10);
    assert_ok(checkpoint_save(folder, &weights.layout, alone, &state, 1, &err), &err);
    assert_false(file_exists(inside(folder, "step-00000010/optimizer.safetensors")));
    held_fill(&weights.layout, 11);
    assert_ok(load(folder, &weights, &state, &err), &err);
    assert_holds_step(&weights, 10);
    assert_load_refused(folder, &model, STATUS_INVALID, "step-00000010", "weights only");
    close_tiny(&weights);
}

static void test_checkpoint__keeps_the_newest_and_what_is_not_older(void **test)
{
    (void)test;
    const char *folder = fresh_folder();
    struct model model = held_model("gpt2", true, 0);
    for (int64_t step = 1; step <= 5; step++)
        save(folder, &model, step, 2);
    assert_int_equal(entries_in(folder, "step-"), 2);
    assert_loads_step(inside(folder, "step-00000004"), &model, 4);
    assert_loads_step(folder, &model, 5);
    save(folder, &model, 2, 1); /* of a run that began anew */
    assert_int_equal(entries_in(folder, "step-"), 3);
    assert_loads_step(inside(folder, "step-00000002"), &model, 2);
    save(folder, &model, 123456789012, 1);
    assert_int_equal(entries_in(folder, ""), 1);
    assert_loads_step(folder, &model, 123456789012);
}

static void test_checkpoint__a_step_saved_again_replaces_the_first(void **test)
{
    (void)test;
    const char *folder = fresh_folder();
    struct model model = held_model("gpt2", true, 0), other = held_model("tinyllama-1.1b", true, 0);
    save(folder, &model, 3, 2);
    save(folder, &other, 3, 2);
    assert_int_equal(entries_in(folder, ""), 1);
    assert_loads_step(folder, &other, 3);
}

static void test_checkpoint__refuses_another_model_by_field(void **test)
{
    (void)test;
    const char *folder = fresh_folder();
    struct model model = held_model("gpt2", true, 0);
    save(folder, &model, 1, 1);
    struct model other = model;
    other.seq_length = 8;
    (void)snprintf(other.name, sizeof(other.name), "another name");
    assert_loads_step(folder, &other, 1);
    other = model;
    other.ffn = 13;
    other.tied_head = false;
    assert_load_refused(folder, &other, STATUS_INVALID,
                        "'ffn' is 12 in the checkpoint and 13 in the model",
                        "'tied_head' is true in the checkpoint and false in the model");
    other = model;
    other.norm_epsilon = 1e-6;
    assert_load_refused(folder, &other, STATUS_INVALID, "'norm_epsilon' is 1", "another model");
    other = held_model("tinyllama-1.1b", true, 0);
    assert_load_refused(folder, &other, STATUS_INVALID, "'family' is gpt2", "llama in the model");
}

/* ---- damage ---- */

static const char *const file_names[] = {"model.safetensors", "optimizer.safetensors",
                                         "config.json", "state.json"};

enum damage { DAMAGE_MISSING, DAMAGE_EMPTY, DAMAGE_SHORT, DAMAGE_LONG, DAMAGE_FLIPPED, DAMAGES };

static void damage_file(const char *path, enum damage damage, size_t place)
{
    size_t bytes;
    char *data = get_bytes(path, &bytes);
    data = realloc(data, bytes + 1);
    assert_non_null(data);
    data[bytes] = ' ';
    data[place % bytes] = (char)(data[place % bytes] ^ (damage == DAMAGE_FLIPPED ? 4 : 0));
    if (damage == DAMAGE_MISSING)
        assert_int_equal(unlink(path), 0);
    else
        put_bytes(path, data,
                  damage == DAMAGE_EMPTY   ? 0
                  : damage == DAMAGE_SHORT ? bytes - 1
                  : damage == DAMAGE_LONG  ? bytes + 1
                                           : bytes);
    free(data);
}

static void test_checkpoint__passes_over_every_torn_one_by_name(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    const char *folder = fresh_folder();
    save(folder, &model, 100, 2);
    for (size_t i = 0; i < COUNT(file_names); i++)
        for (int damage = 0; damage < DAMAGES; damage++) {
            char newest[TEST_PATH_BYTES], damaged[TEST_PATH_BYTES + 32];
            (void)snprintf(newest, sizeof(newest), "%s", inside(folder, "step-00000200"));
            (void)snprintf(damaged, sizeof(damaged), "%s/%s", newest, file_names[i]);
            save(folder, &model, 200, 2);
            damage_file(damaged, (enum damage)damage, 100 * i + 77);
            assert_loads_step(folder, &model, 100);
            assert_contains(warnings, damaged);
            assert_load_refused(newest, &model,
                                damage == DAMAGE_MISSING ? STATUS_IO : STATUS_CORRUPT, damaged, "");
        }
    struct error err;
    assert_ok(folder_remove(inside(folder, "step-00000100"), &err), &err);
    assert_load_refused(folder, &model, STATUS_CORRUPT, "none of the 1 checkpoints", "state.json");
}

static void test_checkpoint__no_byte_of_its_state_can_change(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0), found;
    const char *folder = fresh_folder();
    char resolved[TEST_PATH_BYTES];
    struct error err;
    save(folder, &model, 7, 1);
    const char *path = inside(folder, "step-00000007/state.json");
    size_t bytes;
    char *data = get_bytes(path, &bytes);
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        data[bit / 8] = (char)(data[bit / 8] ^ (1 << bit % 8));
        put_bytes(path, data, bytes);
        if (checkpoint_model(folder, &found, resolved, sizeof(resolved), &err) == STATUS_OK)
            fail_msg("bit %zu of byte %zu is not noticed", bit % 8, bit / 8);
        assert_contains(err.message, "state.json");
        data[bit / 8] = (char)(data[bit / 8] ^ (1 << bit % 8));
    }
    put_bytes(path, data, bytes);
    assert_loads_step(folder, &model, 7);
    free(data);
}

static void replace_in_file(const char *path, const char *old, const char *by)
{
    size_t bytes;
    char *data = get_bytes(path, &bytes);
    char *at = strstr(data, old);
    assert_non_null(at);
    assert_int_equal(strlen(old), strlen(by));
    memcpy(at, by, strlen(by));
    put_bytes(path, data, bytes);
    free(data);
}

static void test_checkpoint__a_newer_format_is_not_passed_over(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    const char *folder = fresh_folder();
    save(folder, &model, 1, 2);
    save(folder, &model, 2, 2);
    const char *path = inside(folder, "step-00000002/state.json");
    replace_in_file(path, "\"version\": 2", "\"version\": 3");
    assert_load_refused(folder, &model, STATUS_UNSUPPORTED, path, "newer");
    replace_in_file(path, "\"version\": 3", "\"version\": 2");
    replace_in_file(path, "temper-checkpoint", "temper-pancake-xy");
    assert_loads_step(folder, &model, 1);
    assert_contains(warnings, "temper-pancake-xy");
}

/* `text` without the line that has `part`. */
static void cut_line(char *text, const char *part)
{
    char *at = strstr(text, part);
    assert_non_null(at);
    while (at > text && at[-1] != '\n')
        at--;
    char *end = strchr(at, '\n') + 1;
    memmove(at, end, strlen(end) + 1);
}

/* Version 1 knew no loss scale and one file of each kind. */
static void test_checkpoint__version_1_is_read(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    const char *folder = fresh_folder();
    struct training_state state = {0}, expected = state_at(4);
    struct tiny tiny;
    struct error err;
    size_t bytes;
    save(folder, &model, 4, 1);
    const char *path = inside(folder, "step-00000004/state.json");
    replace_in_file(path, "\"version\": 2", "\"version\": 1");
    char *text = get_bytes(path, &bytes);
    cut_line(text, "loss_scale");
    cut_line(text, "scale_good_steps");
    char *digits = text + strlen(text) - strlen("0123456789abcdef\"\n}\n"), hash[HASH_TEXT_BYTES];
    memset(digits, '0', HASH_TEXT_BYTES - 1);
    memcpy(digits, hash_format(hash_bytes(text, strlen(text)), hash), HASH_TEXT_BYTES - 1);
    put_bytes(path, text, strlen(text));
    free(text);
    open_tiny(&tiny, &model, true);
    assert_ok(load(folder, &tiny, &state, &err), &err);
    assert_holds_step(&tiny, 4);
    assert_string_equal(warnings, "");
    expected.loss_scale = 0;
    expected.scale_good_steps = 0;
    assert_memory_equal(&state, &expected, sizeof(state));
    close_tiny(&tiny);
}

static void test_checkpoint__what_is_no_checkpoint_is_told_so(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    struct error err;
    const char *folder = fresh_folder();
    assert_load_refused(folder, &model, STATUS_IO, folder, "No such file");
    assert_ok(folder_create(inside(folder, "step-12x"), &err), &err);
    assert_ok(folder_create(inside(folder, "step-"), &err), &err);
    assert_ok(folder_create(inside(folder, "step-1234567890123456789"), &err), &err);
    assert_ok(folder_create(inside(folder, ".tmp-step-00000009-1"), &err), &err);
    assert_load_refused(folder, &model, STATUS_INVALID, folder, "no checkpoint");
    put_bytes(inside(folder, "step-5"), "a file", 6);
    assert_load_refused(folder, &model, STATUS_IO, "step-5/state.json", "Not a directory");
    char *endless = malloc(10001);
    assert_non_null(endless);
    memset(endless, 'a', 10000);
    endless[10000] = '\0';
    assert_load_refused(endless, &model, STATUS_INVALID, "longer than 4095 bytes", "aaa");
    free(endless);
}

/* ---- what can stop a save ---- */

static void test_checkpoint__removes_what_a_dead_run_left(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    struct error err;
    const char *folder = fresh_folder();
    assert_ok(folder_create(inside(folder, ".tmp-step-00000009-1/deep"), &err), &err);
    put_bytes(inside(folder, ".tmp-step-00000009-1/model.safetensors"), "torn", 4);
    put_bytes(inside(folder, "notes.txt"), "mine", 4);
    save(folder, &model, 10, 1);
    assert_int_equal(entries_in(folder, ".tmp"), 0);
    assert_int_equal(entries_in(folder, "notes.txt"), 1);
}

static void test_checkpoint__refuses_a_second_writer(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    struct error err;
    const char *folder = fresh_folder();
    save(folder, &model, 1, 1);
    int other = open(folder, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(other, LOCK_SH), 0); /* keeps only an exclusive one out */
    assert_refused(save_step(folder, &model, 2, 1, &err), STATUS_IO, &err, folder,
                   "another process");
    assert_loads_step(folder, &model, 1);
    close(other);
    save(folder, &model, 2, 1);
}

static char mounted[TEST_PATH_BYTES];

/* Also when the test failed. */
static int unmount(void **test)
{
    (void)test;
    if (mounted[0] != '\0')
        (void)umount2(mounted, MNT_DETACH);
    return 0;
}

static void test_checkpoint__a_full_disk_leaves_the_older_ones(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    struct error err;
    const char *folder = fresh_folder();
    assert_ok(folder_create(folder, &err), &err);
    if (mount("temper-test", folder, "tmpfs", 0, "size=256k") != 0)
        skip(); /* needs the right to mount */
    (void)snprintf(mounted, sizeof(mounted), "%s", folder);
    int64_t step = 0;
    enum status status;
    do
        status = save_step(folder, &model, ++step, 1000, &err);
    while (status == STATUS_OK && step < 1000);
    assert_int_equal(entries_in(folder, ".tmp"), 0);
    assert_int_equal(entries_in(folder, "step-"), step - 1);
    assert_in_range(step, 3, 100);
    assert_refused(status, STATUS_IO, &err, "No space left", "saving the checkpoint of step");
    assert_loads_step(folder, &model, step - 1);
    assert_string_equal(warnings, "");
    assert_loads_step(inside(folder, "step-00000001"), &model, 1);
    assert_ok(folder_remove(inside(folder, "step-00000001"), &err), &err);
    save(folder, &model, step, 1);
    assert_loads_step(folder, &model, step);
}

/* In a process of its own, because the limit cannot be taken back. */
static int save_under_file_limit(const char *folder, const struct model *model, rlim_t bytes)
{
    struct error err;
    const struct rlimit limit = {bytes, bytes};
    (void)signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 2;
    return save_step(folder, model, 2, 1, &err) == STATUS_IO &&
                   strstr(err.message, "File too large")
               ? 0
               : 1;
}

static void test_checkpoint__a_refused_write_leaves_the_older_one(void **test)
{
    (void)test;
    static const rlim_t limits_bytes[] = {0, 100, 1000, 8192, 20000};
    struct model model = held_model("gpt2", true, 0);
    const char *folder = fresh_folder();
    save(folder, &model, 1, 1);
    for (size_t i = 0; i < COUNT(limits_bytes); i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0)
            _exit(save_under_file_limit(folder, &model, limits_bytes[i]));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_int_equal(entries_in(folder, ""), 1);
        assert_loads_step(folder, &model, 1);
    }
}

static void save_without_end(const char *folder, const struct model *model, int64_t step)
{
    struct error err;
    while (save_step(folder, model, step, 2, &err) == STATUS_OK)
        step++;
    _exit(1);
}

static void test_checkpoint__survives_being_killed_while_saving(void **test)
{
    (void)test;
    enum { KILLS = 20 };
    struct model model = held_model("gpt2", true, 0);
    const char *folder = fresh_folder();
    int64_t step = 1, left_over = 0;
    save(folder, &model, step, 2);
    for (uint64_t i = 0; i < KILLS; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0)
            save_without_end(folder, &model, step + 1);
        assert_int_equal(usleep((useconds_t)(1000 + rng_below(11, 0, i, 60000))), 0);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        left_over += (int64_t)entries_in(folder, ".tmp");

        struct tiny tiny;
        struct training_state state = {0};
        struct error err;
        open_tiny(&tiny, &model, true);
        assert_ok(load(folder, &tiny, &state, &err), &err);
        close_tiny(&tiny);
        assert_string_equal(warnings, ""); /* nothing torn is even seen */
        assert_true(state.step >= step);
        step = state.step;
        assert_loads_step(folder, &model, step);
    }
    assert_true(step > 1);
    assert_true(left_over > 0); /* some were killed in the middle */
    save(folder, &model, step + 1, 2);
    assert_int_equal(entries_in(folder, ".tmp"), 0);
    assert_int_equal(entries_in(folder, "step-"), 2);
}

/* ---- weights of other programs ---- */

enum { FOREIGN_MAX = 64 };

struct foreign {
    struct tensor_data tensors[FOREIGN_MAX];
    size_t count;
    float *values; /* of all tensors, owned */
};

/* The tensors of a model as another program would name them: without `cut` before their names. */
static void describe(const struct model *model, int64_t step, const char *cut, struct foreign *out)
{
    struct tensor_place *places;
    struct error err;
    uint64_t total = 0;
    assert_ok(tensor_places(model, &places, &out->count, &err), &err);
    assert_in_range(out->count, 1, FOREIGN_MAX - 8);
    for (size_t i = 0; i < out->count; i++)
        total += places[i].count;
    float *values = out->values = calloc(total, sizeof(*values));
    assert_non_null(values);
    for (size_t i = 0; i < out->count; i++) {
        const char *whole = places[i].name;
        size_t skip_bytes = strncmp(whole, cut, strlen(cut)) == 0 ? strlen(cut) : 0;
        struct tensor_data *tensor = &out->tensors[i];
        *tensor = (struct tensor_data){.data = values, .rank = places[i].rank};
        (void)snprintf(tensor->name, sizeof(tensor->name), "%s", whole + skip_bytes);
        memcpy(tensor->shape, places[i].shape, sizeof(places[i].shape));
        for (uint64_t k = 0; k < places[i].count; k++)
            *values++ = held_value(&places[i], ARRAY_PARAMETERS, step, k);
    }
    free(places);
}

static struct tensor_data *tensor_called(struct foreign *foreign, const char *name)
{
    for (size_t i = 0; i < foreign->count; i++)
        if (strcmp(foreign->tensors[i].name, name) == 0)
            return &foreign->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void add_tensor(struct foreign *foreign, const char *name, int rank, const int64_t *shape)
{
    struct tensor_data *tensor = &foreign->tensors[foreign->count++];
    *tensor = (struct tensor_data){.rank = rank, .data = foreign->tensors[0].data};
    (void)snprintf(tensor->name, sizeof(tensor->name), "%s", name);
    memcpy(tensor->shape, shape, (size_t)rank * sizeof(*shape));
}

static void write_foreign(const char *path, const struct tensor_data *tensors, size_t count)
{
    struct error err;
    assert_ok(write_tensors(path, tensors, count, &err), &err);
}

static void assert_weights_loaded(const char *path, const struct model *model, int64_t step)
{
    struct tiny loaded;
    struct error err;
    open_tiny(&loaded, model, false);
    assert_ok(weights_load_hf(path, &loaded.layout, &err), &err);
    assert_holds_step(&loaded, step);
    close_tiny(&loaded);
}

static void assert_weights_refused(const char *path, const struct model *model,
                                   enum status expected, const char *part, const char *other_part)
{
    struct tiny loaded;
    struct error err;
    open_tiny(&loaded, model, false);
    assert_refused(weights_load_hf(path, &loaded.layout, &err), expected, &err, part, other_part);
    close_tiny(&loaded);
}

static void test_checkpoint__weights_are_found_with_and_without_prefix(void **test)
{
    (void)test;
    struct error err;
    const char *folder = fresh_folder();
    const char *path = inside(folder, "model.safetensors");
    assert_ok(folder_create(folder, &err), &err);
    static const char *const builtins[] = {"gpt2", "tinyllama-1.1b"};
    static const char *const cuts[] = {"transformer.", "", "model.", ""};
    for (size_t i = 0; i < COUNT(cuts); i++) {
        struct model model = held_model(builtins[i / 2], true, 0);
        struct foreign foreign;
        describe(&model, 1, cuts[i], &foreign);
        add_tensor(&foreign, "h.1.attn.bias", 4, (const int64_t[]){1, 1, 2, 2});
        add_tensor(&foreign, "transformer.h.1.attn.masked_bias", 0, (const int64_t[]){0});
        add_tensor(&foreign, "layers.0.self_attn.rotary_emb.inv_freq", 1, (int64_t[]){2});
        add_tensor(&foreign, "lm_head.weight", 2, (int64_t[]){16, 8});
        write_foreign(path, foreign.tensors, foreign.count);
        assert_weights_loaded(path, &model, 1);
        assert_weights_loaded(folder, &model, 1);
        free(foreign.values);
    }
}

static void test_checkpoint__weights_that_do_not_fit_are_refused_by_name(void **test)
{
    (void)test;
    struct error err;
    const char *folder = fresh_folder();
    assert_ok(folder_create(folder, &err), &err);
    struct model model = held_model("gpt2", true, 0);
    assert_weights_refused("/no/such/file", &model, STATUS_IO, "/no/such/file", "No such file");
    assert_weights_refused(folder, &model, STATUS_INVALID, folder, "neither model.safetensors");
    const char *path = inside(folder, "model.safetensors");
    struct foreign foreign;

    describe(&model, 1, "", &foreign);
    struct tensor_data *tensor = tensor_called(&foreign, "transformer.h.1.attn.c_attn.weight");
    tensor->shape[0] = 24; /* as a Linear layer would store it */
    tensor->shape[1] = 8;
    write_foreign(path, foreign.tensors, foreign.count);
    assert_weights_refused(path, &model, STATUS_INVALID,
                           "tensor 'transformer.h.1.attn.c_attn.weight': has shape [24, 8]",
                           "needs [8, 24]");

    free(foreign.values);
    describe(&model, 1, "", &foreign);
    tensor = tensor_called(&foreign, "transformer.h.0.ln_1.bias");
    (void)snprintf(tensor->name, sizeof(tensor->name), "transformer.h.2.ln_1.bias");
    write_foreign(path, foreign.tensors, foreign.count);
    assert_weights_refused(path, &model, STATUS_INVALID, "'transformer.h.2.ln_1.bias'",
                           "not part of the model");
    (void)snprintf(tensor->name, sizeof(tensor->name), "h.0.attn.bias");
    write_foreign(path, foreign.tensors, foreign.count);
    assert_weights_refused(path, &model, STATUS_INVALID, "no tensor 'transformer.h.0.ln_1.bias'",
                           path);
    (void)snprintf(tensor->name, sizeof(tensor->name), "h.0.ln_1.weight");
    write_foreign(path, foreign.tensors, foreign.count);
    assert_weights_refused(path, &model, STATUS_INVALID, "'transformer.h.0.ln_1.weight'",
                           "more than once");

    struct model untied = held_model("gpt2", false, 0);
    free(foreign.values);
    describe(&model, 1, "", &foreign);
    write_foreign(path, foreign.tensors, foreign.count);
    assert_weights_refused(path, &untied, STATUS_INVALID, "no tensor 'lm_head.weight'", path);
    put_bytes(path, "PK\3\4 a pickle, say", 17);
    assert_weights_refused(path, &model, STATUS_CORRUPT, path, "not a safetensors file");
    free(foreign.values);
}

static void test_checkpoint__weights_are_gathered_from_shards(void **test)
{
    (void)test;
    static const char index[] = "{\"metadata\":{\"total_size\":1},\"weight_map\":{"
                                "\"transformer.wte.weight\":\"model-00001-of-00002.safetensors\","
                                "\"transformer.wpe.weight\":\"model-00002-of-00002.safetensors\","
                                "\"transformer.ln_f.bias\":\"model-00001-of-00002.safetensors\"}}";
    static const struct {
        const char *index;
        enum status status;
        const char *part;
    } hostile[] = {
        {"{}", STATUS_INVALID, "weight_map"},
        {"{\"weight_map\":{\"a\":7}}", STATUS_INVALID, "weight_map.a"},
        {"{\"weight_map\":{\"a\":\"../secret\"}}", STATUS_INVALID, "same folder"},
        {"{\"weight_map\":{\"a\":\"\"}}", STATUS_INVALID, "same folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", STATUS_INVALID, "same folder"},
        {"{\"weight_map\":{}}", STATUS_INVALID, "has no tensor"},
        {"{\"weight_map\":{\"a\":\"absent.safetensors\"}}", STATUS_IO, "absent.safetensors"},
        {"{", STATUS_INVALID, "JSON"},
    };
    struct error err;
    struct model model = held_model("gpt2", true, 0);
    struct foreign foreign;
    const char *folder = fresh_folder();
    assert_ok(folder_create(folder, &err), &err);
    describe(&model, 1, "", &foreign);
    write_foreign(inside(folder, "model-00001-of-00002.safetensors"), foreign.tensors, 9);
    write_foreign(inside(folder, "model-00002-of-00002.safetensors"), foreign.tensors + 9,
                  foreign.count - 9);
    const char *path = inside(folder, "model.safetensors.index.json");
    put_bytes(path, index, strlen(index));
    assert_weights_loaded(folder, &model, 1);
    for (size_t i = 0; i < COUNT(hostile); i++) {
        put_bytes(inside(folder, "model.safetensors.index.json"), hostile[i].index,
                  strlen(hostile[i].index));
        assert_weights_refused(folder, &model, hostile[i].status, folder, hostile[i].part);
    }
    free(foreign.values);
}

/* ---- docs/checkpoint.md ---- */

/* Values without rounding, so that the page's hashes are the same everywhere. */
static void count_up(struct memory_layout *layout)
{
    struct tensor_place *places;
    size_t count;
    struct error err;
    float value = 0;
    assert_ok(tensor_places(&layout->plan->model, &places, &count, &err), &err);
    for (size_t i = 0; i < count; i++) {
        float *whole = calloc(places[i].count, sizeof(*whole));
        assert_non_null(whole);
        for (uint64_t k = 0; k < places[i].count; k++)
            whole[k] = value++;
        for (int array = 0; array < ARRAY_COUNT; array++)
            shard_scatter(layout, &places[i], (enum tensor_array)array, whole);
        free(whole);
    }
    free(places);
}

/* With TEMPER_UPDATE_GOLDEN in the environment the page gets the text; otherwise it must have it.
 */
static void test_checkpoint__writes_the_example_of_its_page(void **test)
{
    (void)test;
    struct model model = held_model("gpt2", true, 0);
    const char *folder = fresh_folder();
    struct training_state state = {200, 4800, 24, 199, 1, 42, 0, 0};
    struct error err;
    struct tiny tiny;
    size_t bytes;
    open_tiny(&tiny, &model, true);
    count_up(&tiny.layout);
    assert_ok(checkpoint_save(folder, &tiny.layout, alone, &state, 1, &err), &err);
    close_tiny(&tiny);
    char *written = get_bytes(inside(folder, "step-00000200/state.json"), &bytes);
    char *example = page_example("docs/checkpoint.md", "json");
    if (getenv("TEMPER_UPDATE_GOLDEN") && strcmp(written, example) != 0) {
        const char *page = TEMPER_SOURCE_DIR "/docs/checkpoint.md";
        char *text = get_bytes(page, &bytes);
        char *at = strstr(text, example);
        FILE *file = fopen(page, "wb");
        assert_true(file && at);
        assert_true(
            fprintf(file, "%.*s%s%s", (int)(at - text), text, written, at + strlen(example)) > 0);
        assert_int_equal(fclose(file), 0);
        free(text);
    } else {
        assert_string_equal(written, example);
    }
    free(example);
    free(written);
}

static int open_all(void **test)
{
    struct error err;
    return comm_open_alone(&alone, &err) == STATUS_OK && device_open(&device, 1, &err) == STATUS_OK
               ? make_test_folder(test)
               : -1;
}

static int close_all(void **test)
{
    device_close(device);
    comm_close(alone);
    return remove_test_folder(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__gives_back_weights_moments_and_state),
        cmocka_unit_test(test_checkpoint__weights_alone),
        cmocka_unit_test(test_checkpoint__keeps_the_newest_and_what_is_not_older),
        cmocka_unit_test(test_checkpoint__a_step_saved_again_replaces_the_first),
        cmocka_unit_test(test_checkpoint__refuses_another_model_by_field),
        cmocka_unit_test(test_checkpoint__passes_over_every_torn_one_by_name),
        cmocka_unit_test(test_checkpoint__no_byte_of_its_state_can_change),
        cmocka_unit_test(test_checkpoint__a_newer_format_is_not_passed_over),
        cmocka_unit_test(test_checkpoint__version_1_is_read),
        cmocka_unit_test(test_checkpoint__what_is_no_checkpoint_is_told_so),
        cmocka_unit_test(test_checkpoint__removes_what_a_dead_run_left),
        cmocka_unit_test(test_checkpoint__refuses_a_second_writer),
        cmocka_unit_test_teardown(test_checkpoint__a_full_disk_leaves_the_older_ones, unmount),
        cmocka_unit_test(test_checkpoint__a_refused_write_leaves_the_older_one),
        cmocka_unit_test(test_checkpoint__survives_being_killed_while_saving),
        cmocka_unit_test(test_checkpoint__weights_are_found_with_and_without_prefix),
        cmocka_unit_test(test_checkpoint__weights_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(test_checkpoint__weights_are_gathered_from_shards),
        cmocka_unit_test(test_checkpoint__writes_the_example_of_its_page),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
