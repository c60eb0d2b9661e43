/* Checkpoints between plans, on one rank and on several (test_executor_checkpoint_write_mpi_N):
 * what is saved under one plan is in files whose tensors do not tell of it, and loads under any
 * other. */
#include "support.h"

#include "held.h"

#include "base/hash.h"
#include "base/rng.h"
#include "executor/checkpoint.h"
#include "executor/safetensors.h"
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>

static struct comm *comm, *alone;
static struct device *device;

/* Every rank names the same file. */
static const char *shared(const char *name)
{
    static char path[TEST_PATH_BYTES];
    int bytes = snprintf(path, sizeof(path), "%s/%s", test_folder, name);
    assert_in_range(bytes, 1, TEST_PATH_BYTES - 1);
    return path;
}

static void meet(void)
{
    struct error err;
    assert_ok(comm_barrier(comm, &err), &err);
}

static bool is_first(void)
{
    return comm_rank(comm) == 0;
}

static struct model model_number(uint64_t number)
{
    /* 8 * 80000 elements are more than one message, and more than one piece of ZeRO's. */
    int64_t vocab = number % 8 == 0 ? 80001 : 16 + (int64_t)(number % 5);
    return held_model(number % 2 ? "gpt2" : "tinyllama-1.1b", number / 2 % 2 == 0, vocab);
}

static struct training_state state_at(int64_t step)
{
    return (struct training_state){.step = step,
                                   .next_sample = 24 * step,
                                   .global_batch = 24,
                                   .optimizer_time = step,
                                   .seed = UINT64_MAX - 41,
                                   .loss_scale = 0x1p15,
                                   .scale_good_steps = 3};
}

static char warnings[4096];

static void keep_warning(void *user, const char *message)
{
    (void)user;
    (void)snprintf(warnings + strlen(warnings), sizeof(warnings) - strlen(warnings), "%s\n",
                   message);
}

static const struct reporter reporter = {.warning = keep_warning};

static enum status save(const char *folder, const struct plan *plan, struct comm *group,
                        int64_t step, struct error *err)
{
    struct memory_layout layout;
    struct training_state state = state_at(step);
    held_open(&layout, device, plan, comm_rank(group), true);
    held_fill(&layout, step);
    enum status status = checkpoint_save(folder, &layout, group, &state, 2, err);
    held_close(&layout);
    return status;
}

static void save_step(const char *folder, const struct plan *plan, struct comm *group, int64_t step)
{
    struct error err;
    assert_ok(save(folder, plan, group, step, &err), &err);
}

/* Every array of every rank has what was saved at `step`, in every bit. */
static void assert_loads_step(const char *folder, const struct plan *plan, struct comm *group,
                              int64_t step)
{
    struct memory_layout loaded, expected;
    struct training_state state = {0}, expected_state = state_at(step);
    struct error err;
    held_open(&loaded, device, plan, comm_rank(group), true);
    held_open(&expected, device, plan, comm_rank(group), true);
    held_fill(&expected, step);
    warnings[0] = '\0';
    assert_ok(checkpoint_load(folder, &loaded, group, &state, &reporter, &err), &err);
    held_assert_same(&loaded, &expected);
    assert_memory_equal(&state, &expected_state, sizeof(state));
    held_close(&loaded);
    held_close(&expected);
}

/* ---- what is in the files ---- */

static const char *const prefixes[ARRAY_COUNT] = {"", "first_moment.", "second_moment."};

/* The files named like STEM*.safetensors, in their order; returns how many. */
static size_t list_files(const char *folder, const char *stem, char names[16][TEST_PATH_BYTES])
{
    struct dirent **entries;
    size_t count = 0;
    int found = scandir(folder, &entries, NULL, alphasort);
    assert_true(found >= 0);
    for (int i = 0; i < found; i++) {
        const char *name = entries[i]->d_name;
        if (strncmp(name, stem, strlen(stem)) == 0 && strstr(name, ".safetensors") &&
            !strstr(name, ".json")) {
            assert_in_range(count, 0, 15);
            (void)snprintf(names[count++], TEST_PATH_BYTES, "%.200s/%.200s", folder, name);
        }
        free(entries[i]);
    }
    free(entries);
    return count;
}

/* Is the tensor in this file, and with the content that the step gives it? */
static bool has_content(struct safetensors *file, const struct tensor_place *place,
                        enum tensor_array array, int64_t step)
{
    char name[TENSOR_NAME_BYTES + 16];
    struct error err;
    (void)snprintf(name, sizeof(name), "%s%s", prefixes[array], place->name);
    if (!safetensors_has(file, name))
        return false;
    int64_t shape[SAFETENSORS_RANK_MAX];
    assert_int_equal(safetensors_shape(file, name, shape), place->rank);
    assert_memory_equal(shape, place->shape, (size_t)place->rank * sizeof(*shape));
    size_t bytes = place->count * sizeof(float);
    float *data = malloc(bytes), *expected = malloc(bytes);
    assert_true(data && expected);
    for (uint64_t i = 0; i < place->count; i++)
        expected[i] = held_value(place, array, step, i);
    assert_ok(safetensors_read(file, name, data, place->count, &err), &err);
    assert_int_equal(hash_bytes(data, bytes), hash_bytes(expected, bytes));
    free(data);
    free(expected);
    return true;
}

static void assert_content(const char *folder, const char *stem, const struct model *model,
                           int first_array, int last_array, int64_t step)
{
    char names[16][TEST_PATH_BYTES];
    struct tensor_place *places;
    size_t count, found = 0, files = list_files(folder, stem, names), in_files = 0;
    struct error err;
    assert_ok(tensor_places(model, &places, &count, &err), &err);
    for (size_t f = 0; f < files; f++) {
        struct safetensors *file;
        assert_ok(safetensors_open(&file, names[f], &err), &err);
        in_files += safetensors_count(file);
        for (int array = first_array; array <= last_array; array++)
            for (size_t i = 0; i < count; i++)
                found += has_content(file, &places[i], (enum tensor_array)array, step);
        safetensors_close(file);
    }
    assert_int_equal(found, count * (size_t)(last_array - first_array + 1));
    assert_int_equal(in_files, found);
    free(places);
}

/* ---- round trips ---- */

static void test_checkpoint_write__any_plan_resumes_under_any_other(void **test)
{
    (void)test;
    enum { PAIRS = 40 };
    struct error err;
    for (uint64_t number = 0; number < PAIRS; number++) {
        struct model model = model_number(number);
        struct plan one = held_plan_of_one(&model);
        struct plan from = held_plan_random(&model, comm_size(comm), 2 * number);
        struct plan to = held_plan_random(&model, comm_size(comm), 2 * number + 1);
        char folder[TEST_PATH_BYTES], checkpoint[TEST_PATH_BYTES + 32];
        (void)snprintf(folder, sizeof(folder), "%s/pair-%d", test_folder, (int)number);
        (void)snprintf(checkpoint, sizeof(checkpoint), "%s/step-00000005", folder);
        save_step(folder, &from, comm, 5);
        if (is_first()) {
            assert_content(checkpoint, "model", &model, 0, 0, 5);
            assert_content(checkpoint, "optimizer", &model, 1, 2, 5);
        }
        assert_loads_step(folder, &to, comm, 5);
        assert_loads_step(folder, &one, alone, 5); /* on another number of ranks */
        assert_string_equal(warnings, "");
        meet();
        if (is_first()) { /* and back */
            save_step(folder, &one, alone, 6);
            assert_ok(folder_remove(checkpoint, &err), &err);
        }
        meet();
        assert_loads_step(folder, &from, comm, 6);
        meet();
        if (is_first())
            assert_ok(folder_remove(folder, &err), &err);
        plan_clear(&one);
        plan_clear(&from);
        plan_clear(&to);
    }
}

static void test_checkpoint_write__every_rank_writes_its_share(void **test)
{
    (void)test;
    struct error err;
    struct model model = held_model("gpt2", true, 16);
    struct plan plan = held_plan_of_one(&model);
    plan.ranks = plan.data_parallel = comm_size(comm);
    save_step(shared("shares"), &plan, comm, 1);
    if (is_first()) {
        char names[16][TEST_PATH_BYTES], folder[TEST_PATH_BYTES];
        uint64_t least = UINT64_MAX, most = 0, parameters = 0;
        (void)snprintf(folder, sizeof(folder), "%s", shared("shares/step-00000001"));
        size_t files = list_files(folder, "optimizer", names);
        assert_int_equal(files, comm_size(comm));
        for (size_t f = 0; f < files; f++) {
            struct safetensors *file;
            uint64_t count = 0;
            assert_ok(safetensors_open(&file, names[f], &err), &err);
            for (size_t i = 0; i < safetensors_count(file); i++) {
                int64_t shape[SAFETENSORS_RANK_MAX];
                uint64_t product = 1;
                for (int k = safetensors_shape(file, safetensors_name(file, i), shape); k > 0; k--)
                    product *= (uint64_t)shape[k - 1];
                count += product / 2 + product % 2; /* two moments of each */
            }
            safetensors_close(file);
            least = count < least ? count : least;
            most = count > most ? count : most;
        }
        for (size_t i = 0; i < model_layer_count(&model); i++)
            parameters += layer_parameter_count(&model, model_layer(&model, i).kind);
        /* Largest first: the least loaded is behind by less than the largest tensor, 8 * 24. */
        assert_true(most - least <= 192);
        assert_true(most * files >= parameters);
        assert_int_equal(file_exists(shared("shares/step-00000001/model.safetensors.index.json")),
                         files > 1);
        assert_int_equal(file_exists(shared("shares/step-00000001/model.safetensors")), files == 1);
    }
    meet();
    plan_clear(&plan);
}

/* A rank's part of the table is one run of 320,000 elements, more than a message has room for. */
static void test_checkpoint_write__a_large_part_goes_in_several_messages(void **test)
{
    (void)test;
    struct model model = held_model("tinyllama-1.1b", false, 40000 * comm_size(comm));
    struct plan plan = held_plan_of_one(&model);
    plan.ranks = plan.tensor_parallel = comm_size(comm);
    plan.layers[0].tensor_parallel = comm_size(comm);
    plan.layers[plan.layer_count - 1].tensor_parallel = comm_size(comm);
    save_step(shared("large"), &plan, comm, 1);
    if (is_first()) {
        char folder[TEST_PATH_BYTES];
        (void)snprintf(folder, sizeof(folder), "%s", shared("large/step-00000001"));
        assert_content(folder, "model", &model, 0, 0, 1);
        assert_content(folder, "optimizer", &model, 1, 2, 1);
    }
    assert_loads_step(shared("large"), &plan, comm, 1);
    meet();
    plan_clear(&plan);
}

/* The folder of a checkpoint is one that weights_load_hf reads, by the index that other programs
 * read. */
static void test_checkpoint_write__weights_are_those_of_other_programs(void **test)
{
    (void)test;
    struct error err;
    struct model model = held_model("tinyllama-1.1b", false, 17);
    struct plan from = held_plan_random(&model, comm_size(comm), 77);
    struct plan to = held_plan_random(&model, comm_size(comm), 78);
    struct memory_layout loaded, expected;
    save_step(shared("weights"), &from, comm, 1);
    held_open(&loaded, device, &to, comm_rank(comm), false);
    held_open(&expected, device, &to, comm_rank(comm), false);
    held_fill(&expected, 1);
    assert_ok(weights_load_hf(shared("weights/step-00000001"), &loaded, &err), &err);
    held_assert_same(&loaded, &expected);
    held_close(&loaded);
    held_close(&expected);
    meet();
    plan_clear(&from);
    plan_clear(&to);
}

/* ---- damage ---- */

/* Every file in turn, one byte in the middle of it. */
static void test_checkpoint_write__a_damaged_file_of_any_rank_is_named(void **test)
{
    (void)test;
    struct error err;
    struct model model = held_model("gpt2", true, 16);
    struct plan plan = held_plan_random(&model, comm_size(comm), 5);
    char folder[TEST_PATH_BYTES];
    (void)snprintf(folder, sizeof(folder), "%s", shared("damage"));
    save_step(folder, &plan, comm, 1);
    save_step(folder, &plan, comm, 2);
    struct dirent **entries;
    int count = scandir(shared("damage/step-00000002"), &entries, NULL, alphasort);
    assert_true(count >= 6);
    for (int i = 0; i < count; i++) {
        char path[2 * TEST_PATH_BYTES];
        (void)snprintf(path, sizeof(path), "%s/step-00000002/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] == '.')
            continue;
        size_t bytes;
        char *data = get_bytes(path, &bytes);
        meet();
        data[bytes / 2] ^= 4;
        if (is_first())
            put_bytes(path, data, bytes);
        meet();
        assert_loads_step(folder, &plan, comm, 1);
        if (is_first())
            assert_contains(warnings, path);
        else
            assert_string_equal(warnings, "");
        struct memory_layout layout;
        struct training_state state = {0};
        held_open(&layout, device, &plan, comm_rank(comm), true);
        assert_refused(
            checkpoint_load(shared("damage/step-00000002"), &layout, comm, &state, &reporter, &err),
            STATUS_CORRUPT, &err, path, "");
        held_close(&layout);
        meet();
        data[bytes / 2] ^= 4;
        if (is_first())
            put_bytes(path, data, bytes);
        meet();
        free(data);
    }
    assert_loads_step(folder, &plan, comm, 2);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    plan_clear(&plan);
}

/* The system refuses one rank to write: all of them learn why, and nothing is left of it. */
static void test_checkpoint_write__a_rank_that_cannot_write_stops_all(void **test)
{
    (void)test;
    struct error err;
    struct model model = held_model("tinyllama-1.1b", true, 16);
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int rank = 0; rank < comm_size(comm); rank++) {
        struct plan plan = held_plan_of_one(&model);
        plan.ranks = plan.data_parallel = comm_size(comm);
        plan.layers[1].zero_stage = 2;
        char folder[TEST_PATH_BYTES];
        (void)snprintf(folder, sizeof(folder), "%s/refused-%d", test_folder, rank);
        save_step(folder, &plan, comm, 1);
        const struct rlimit small = {200, limit.rlim_max};
        if (rank == comm_rank(comm))
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        enum status status = save(folder, &plan, comm, 2, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_refused(status, STATUS_IO, &err, "File too large",
                       "saving the checkpoint of step 2");
        assert_loads_step(folder, &plan, comm, 1);
        assert_string_equal(warnings, "");
        meet();
        DIR *entries = opendir(folder);
        size_t count = 0;
        for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries))
            count++;
        closedir(entries);
        assert_int_equal(count, 3); /* ., .. and step 1 */
        meet();
        save_step(folder, &plan, comm, 2);
        assert_loads_step(folder, &plan, comm, 2);
        plan_clear(&plan);
    }
}

static void test_checkpoint_write__what_is_no_checkpoint_is_told_to_all(void **test)
{
    (void)test;
    struct error err;
    struct model model = held_model("gpt2", true, 16), other = model;
    struct plan plan = held_plan_random(&model, comm_size(comm), 9);
    struct memory_layout layout;
    struct training_state state = {0};
    held_open(&layout, device, &plan, comm_rank(comm), true);
    assert_refused(checkpoint_load(shared("nowhere"), &layout, comm, &state, &reporter, &err),
                   STATUS_IO, &err, "nowhere", "No such file");
    meet();
    other.ffn = 13;
    struct plan other_plan = held_plan_of_one(&other);
    if (is_first())
        save_step(shared("other"), &other_plan, alone, 1);
    meet();
    assert_refused(checkpoint_load(shared("other"), &layout, comm, &state, &reporter, &err),
                   STATUS_INVALID, &err, "'ffn' is 13 in the checkpoint", "another model");
    assert_int_equal(state.step, 0);
    held_close(&layout);
    plan_clear(&plan);
    plan_clear(&other_plan);
}

/* ---- the ranks' folder ---- */

static int open_all(void **state)
{
    (void)state;
    struct error err;
    if (comm_open(&comm, &err) != STATUS_OK || comm_open_alone(&alone, &err) != STATUS_OK ||
        device_open(&device, 1, &err) != STATUS_OK)
        return -1;
    int made = is_first() ? make_test_folder(NULL) : 0;
    return made == 0 && comm_broadcast(comm, test_folder, sizeof(test_folder), 0, &err) == STATUS_OK
               ? 0
               : -1;
}

static int close_all(void **state)
{
    (void)state;
    struct error err;
    if (comm_barrier(comm, &err) != STATUS_OK)
        return -1;
    int removed = is_first() ? remove_test_folder(NULL) : 0;
    device_close(device);
    comm_close(alone);
    comm_close(comm);
    return removed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_write__any_plan_resumes_under_any_other),
        cmocka_unit_test(test_checkpoint_write__every_rank_writes_its_share),
        cmocka_unit_test(test_checkpoint_write__a_large_part_goes_in_several_messages),
        cmocka_unit_test(test_checkpoint_write__weights_are_those_of_other_programs),
        cmocka_unit_test(test_checkpoint_write__a_damaged_file_of_any_rank_is_named),
        cmocka_unit_test(test_checkpoint_write__a_rank_that_cannot_write_stops_all),
        cmocka_unit_test(test_checkpoint_write__what_is_no_checkpoint_is_told_to_all),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
