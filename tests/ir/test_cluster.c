#include "support.h"

#include "ir/cluster.h"
#include <math.h>

/* ---- names ---- */

static void test_cluster__names_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < ARITHMETIC_COUNT; i++) {
        enum arithmetic arithmetic = ARITHMETIC_COUNT;
        assert_true(arithmetic_parse(arithmetic_name((enum arithmetic)i), &arithmetic));
        assert_int_equal(arithmetic, i);
    }
    assert_string_equal(arithmetic_name(ARITHMETIC_FP8), "fp8");
    assert_string_equal(operation_name(OPERATION_MEMORY), "memory");
    enum arithmetic none;
    assert_false(arithmetic_parse("int8", &none));
}

static const char *device_of(const char *name, int64_t devices)
{
    static struct cluster cluster;
    return cluster_of_device(name, devices, &cluster) ? cluster.groups[0].device.name : "none";
}

static void test_cluster__published_spellings_name_one_device(void **state)
{
    (void)state;
    static const struct {
        const char *published, *device;
    } names[] = {
        {"A100", "a100-80"},
        {"A100-80GB", "a100-80"},
        {"a100_80gb", "a100-80"},
        {"NVIDIA A100-SXM4-80GB", "a100-80"},
        {"A100 40GB", "a100-40"},
        {"a100_40gb", "a100-40"},
        {"A100-80GB-PCIe", "a100-pcie-80"},
        {"A100-PCIE-40GB", "a100-pcie-40"},
        {"H100-SXM-80GB", "h100"},
        {"h100_80gb", "h100"},
        {"NVIDIA H100 80GB HBM3", "h100"},
        {"H100-96GB-HBM2e-500W", "h100-96"},
        {"H200-141GB", "h200"},
        {"B200-SXM", "b200"},
        {"GB200 NVL72", "gb200"},
        {"Tesla V100-SXM2-16GB", "v100-16"},
        {"V100 32 GB", "v100-32"},
        {"AMD Instinct MI300X", "mi300x"},
        {"MI300", "mi300x"},
        {"A40-48G", "a40"},
        {"A40", "a40"},
        {"A40-PCIe", "a40"},
        {"A40 SXM", "none"},
        {"H100-PCIe", "none"},
        {"A100 20GB", "none"},
        {"H100 A100", "none"},
        {"RTX 4090", "none"},
        {"", "none"},
        {"---", "none"},
    };
    for (size_t i = 0; i < COUNT(names); i++)
        assert_string_equal(device_of(names[i].published, 1), names[i].device);
}

static void test_cluster__builtin_names_name_themselves(void **state)
{
    (void)state;
    assert_true(cluster_builtin_count() >= 13);
    for (size_t i = 0; i < cluster_builtin_count(); i++)
        assert_string_equal(device_of(cluster_builtin_name(i), 1), cluster_builtin_name(i));
}

/* ---- what is built in ---- */

static void test_cluster__builtins_are_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < cluster_builtin_count(); i++) {
        const char *name = cluster_builtin_name(i);
        static const int64_t counts[] = {1, 2, 4, 8, 64, 1024};
        for (size_t k = 0; k < COUNT(counts); k++) {
            struct cluster cluster;
            struct error err;
            assert_true(cluster_of_device(name, counts[k], &cluster));
            assert_int_equal(cluster_devices(&cluster), counts[k]);
            assert_ok(cluster_validate(&cluster, name, &err), &err);
            assert_ok(cluster_check_planning(&cluster, ARITHMETIC_FP16, name, &err), &err);
            const struct device_type *device = &cluster.groups[0].device;
            assert_true(device->idle_w > 0 && device->idle_w < device->peak_w);
            assert_true(strlen(device->source) > 0 && device->launch_s > 0);
            assert_true(isnan(device->price_hour) && isnan(cluster.carbon_g_kwh));
            for (size_t t = 0; t < cluster.groups[0].tier_count; t++)
                assert_true(strlen(cluster.groups[0].tiers[t].source) > 0);
        }
    }
}

/* All figures of a host or none of them: 12.5 GB/s of PCIe 4 that two devices share, an eighth of
 * 16 channels of 25.6 GB/s at the share that Adam reaches, an eighth of 2 TiB. */
static void test_cluster__hosts_are_given_or_not(void **state)
{
    (void)state;
    struct cluster cluster;
    for (size_t i = 0; i < cluster_builtin_count(); i++) {
        assert_true(cluster_of_device(cluster_builtin_name(i), 8, &cluster));
        const struct device_type *device = &cluster.groups[0].device;
        bool has_link = device->host_bytes_s > 0;
        assert_true(has_link == (device->host_memory_bytes_s > 0));
        assert_true(has_link == (device->host_memory_bytes > 0));
    }
    assert_true(cluster_of_device("a100-80", 8, &cluster));
    const struct device_type *device = &cluster.groups[0].device;
    assert_near(device->host_bytes_s, 12.5e9, 1);
    assert_near(device->host_memory_bytes_s, 0.46 * 16 * 25.6e9 / 8, 1);
    assert_true(device->host_memory_bytes == UINT64_C(2) * 1099511627776 / 8);
    assert_true(cluster_of_device("a40", 4, &cluster));
    assert_true(cluster.groups[0].device.host_bytes_s == 0.0);
}

/* Data sheets: 312 TFLOP/s and 2039 GB/s of the A100, 12 links of 25 GB/s; a DGX A100's eight
 * adapters of 200 Gb/s are 25 GB/s a device. Memory: 79.15 GiB are left of 80. */
static void test_cluster__an_a100_is_as_its_sheet_says(void **state)
{
    (void)state;
    struct cluster cluster;
    assert_true(cluster_of_device("a100-80", 64, &cluster));
    const struct node_group *group = &cluster.groups[0];
    assert_near(group->device.peak_flops[ARITHMETIC_BF16], 312e12, 1);
    assert_near(group->device.peak_flops[ARITHMETIC_FP8], 0, 0);
    assert_near(group->device.memory_bytes_s, 2039e9, 1);
    assert_near((double)group->device.memory_bytes / 1073741824.0, 79.15, 0.01);
    assert_int_equal(group->nodes, 8);
    assert_int_equal(group->node_devices, 8);
    assert_int_equal(group->tier_count, 2);
    assert_string_equal(group->tiers[0].name, "nvlink");
    assert_int_equal(group->tiers[0].devices, 8);
    assert_near(group->tiers[0].bytes_s, 300e9, 1);
    assert_int_equal(group->tiers[1].devices, 64);
    assert_near(group->tiers[1].bytes_s, 25e9, 1);
    assert_contains(group->tiers[1].source, "DGX A100");
}

static void test_cluster__counts_are_whole_nodes_or_less_than_one(void **state)
{
    (void)state;
    struct cluster cluster;
    assert_true(cluster_of_device("h100", 4, &cluster));
    assert_int_equal(cluster.groups[0].nodes, 1);
    assert_int_equal(cluster.groups[0].node_devices, 4);
    assert_int_equal(cluster.groups[0].tier_count, 1);
    assert_int_equal(cluster.groups[0].tiers[0].devices, 4);
    assert_false(cluster_of_device("h100", 12, &cluster));
    assert_false(cluster_of_device("h100", 0, &cluster));
    assert_false(cluster_of_device("h100", -8, &cluster));
    assert_false(cluster_of_device("h100", INT64_MAX - 7, &cluster));
    assert_true(cluster_of_device("a40", 12, &cluster));
    assert_int_equal(cluster.groups[0].nodes, 3);
}

/* Racks of 72 in nodes of 4; a job that does not divide by 72 takes the same part of each rack. */
static void test_cluster__gb200_domains_span_nodes(void **state)
{
    (void)state;
    static const struct {
        int64_t devices, domain;
    } cases[] = {{4, 4}, {72, 72}, {144, 72}, {256, 64}, {64, 64}, {1152, 72}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cluster cluster;
        struct error err;
        assert_true(cluster_of_device("gb200", cases[i].devices, &cluster));
        assert_int_equal(cluster.groups[0].node_devices, 4);
        assert_int_equal(cluster.groups[0].tiers[0].devices, cases[i].domain);
        assert_ok(cluster_validate(&cluster, "gb200", &err), &err);
    }
}

static void test_cluster__another_network_replaces_the_usual_one(void **state)
{
    (void)state;
    struct cluster cluster;
    assert_true(cluster_of_device("a100-80", 384, &cluster));
    assert_true(cluster_set_network(&cluster, "opa-4x100"));
    const struct link_tier *tier = &cluster.groups[0].tiers[1];
    assert_string_equal(tier->name, "omni-path");
    assert_int_equal(tier->devices, 384);
    assert_near(tier->bytes_s, 6.25e9, 1); /* 4 x 12.5 GB/s for 8 devices */
    assert_near(cluster.groups[0].tiers[0].bytes_s, 300e9, 1);
    static const char *const wrong[] = {
        "",          "opa",      "opa-",     "opa-4",    "opa-4x",      "opa-0x100", "opa-4x100 ",
        "xyz-4x100", "op-4x100", "opa-x100", "opa4x100", "opa-4x10000", "opa--4x10", "opa-4x1e2"};
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_false(cluster_set_network(&cluster, wrong[i]));
    assert_near(tier->bytes_s, 6.25e9, 1);
    assert_true(cluster_of_device("a100-80", 8, &cluster));
    assert_true(cluster_set_network(&cluster, "eth-1x100"));
    assert_string_equal(cluster.groups[0].tiers[0].name, "nvlink");
}

/* ---- loading by name ---- */

static void test_cluster__loads_by_name_and_count(void **state)
{
    (void)state;
    struct cluster cluster;
    struct error err;
    assert_ok(cluster_load(&cluster, "h100x1024", &err), &err);
    assert_string_equal(cluster.name, "h100x1024");
    assert_string_equal(cluster.groups[0].device.name, "h100");
    assert_int_equal(cluster_devices(&cluster), 1024);
    assert_near(cluster.groups[0].tiers[1].bytes_s, 50e9, 1);
    assert_ok(cluster_load(&cluster, "a100-80x16@eth-1x100", &err), &err);
    assert_string_equal(cluster.groups[0].tiers[1].name, "ethernet");
    assert_ok(cluster_load(&cluster, "mi300xx8", &err), &err);
    assert_int_equal(cluster_devices(&cluster), 8);
    assert_ok(cluster_load(&cluster, "mi300x16", &err), &err);
    assert_int_equal(cluster_devices(&cluster), 16);
}

static void test_cluster__wrong_names_say_what_would_be_right(void **state)
{
    (void)state;
    static const struct {
        const char *source, *part;
    } cases[] = {
        {"h100", "how many"},
        {"h100x", "a100-80"},
        {"h1000x8", "did you mean 'h100'"},
        {"x8", "built-in"},
        {"h100x0", "built-in"},
        {"h100x12", "whole nodes of 8"},
        {"h100x99999999999999999999", "built-in"},
        {"h100x16@fast", "ib-8x200"},
        {"h100x16@", "ib-8x200"},
        {"/nonexistent/cluster.json", "/nonexistent/cluster.json"},
        {"", "built-in"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cluster cluster;
        struct error err;
        assert_int_equal(cluster_load(&cluster, cases[i].source, &err), STATUS_INVALID);
        assert_contains(err.message, cases[i].part);
    }
}

/* ---- questions ---- */

/* Halfway between 1e9 and 1e11 in the logarithm is 1e10. */
static void test_cluster__efficiency_is_linear_in_the_logarithm(void **state)
{
    (void)state;
    struct efficiency_curve curve = {.count = 0};
    efficiency_curve_add(&curve, 1e9, 0.2);
    efficiency_curve_add(&curve, 1e11, 0.6);
    efficiency_curve_add(&curve, 1e12, 0.9);
    assert_near(efficiency_at(&curve, 1e10), 0.4, 1e-12);
    assert_near(efficiency_at(&curve, sqrt(1e23)), 0.75, 1e-12);
    assert_near(efficiency_at(&curve, 1e11), 0.6, 1e-12);
    assert_near(efficiency_at(&curve, 1e9), 0.2, 0);
    assert_near(efficiency_at(&curve, 5), 0.2, 0);
    assert_near(efficiency_at(&curve, 0), 0.2, 0);
    assert_near(efficiency_at(&curve, 1e15), 0.9, 0);
    const struct efficiency_curve flat = {.count = 1, .size = {1e9}, .share = {0.5}};
    assert_near(efficiency_at(&flat, 1), 0.5, 0);
    assert_near(efficiency_at(&flat, 1e12), 0.5, 0);
}

/* Over nine decades, in steps that meet no point: the C library's logarithm is the reference. */
static void test_cluster__efficiency_is_exact_and_never_below_its_floor(void **state)
{
    (void)state;
    static const double sizes[] = {1e-3, 0.9, 7, 8e3, 9e5}, shares[] = {0.1, 0.7, 0.3, 0.31, 1};
    struct efficiency_curve curve = {.count = 0};
    for (size_t i = 0; i < 5; i++)
        efficiency_curve_add(&curve, sizes[i], shares[i]);
    for (double size = 1.0001e-3; size < 9e5; size *= 1.0137) {
        size_t at = 0;
        while (sizes[at + 1] <= size)
            at++;
        double way = log(size / sizes[at]) / log(sizes[at + 1] / sizes[at]);
        double expected = shares[at] + way * (shares[at + 1] - shares[at]);
        assert_near(efficiency_at(&curve, size), expected, 1e-14);
        assert_true(efficiency_floor(&curve, size) <= expected);
        assert_true(efficiency_floor(&curve, size) == fmin(shares[at], shares[at + 1]));
    }
    assert_true(efficiency_floor(&curve, 1e-4) == 0.1);
    assert_true(efficiency_floor(&curve, 1e6) == 1);
}

static const char *tier_of(const struct cluster *cluster, int64_t ways, int64_t apart)
{
    return node_group_tier(&cluster->groups[0], ways, apart)->name;
}

static void test_cluster__a_group_takes_the_narrowest_tier_that_holds_it(void **state)
{
    (void)state;
    struct cluster cluster;
    assert_true(cluster_of_device("h100", 1024, &cluster));
    assert_string_equal(tier_of(&cluster, 1, 512), "nvlink"); /* one device sends nothing */
    assert_string_equal(tier_of(&cluster, 8, 1), "nvlink");
    assert_string_equal(tier_of(&cluster, 2, 4), "nvlink"); /* 0 and 4 of each node */
    assert_string_equal(tier_of(&cluster, 4, 2), "nvlink");
    assert_string_equal(tier_of(&cluster, 2, 8), "infiniband");
    assert_string_equal(tier_of(&cluster, 16, 1), "infiniband");
    assert_string_equal(tier_of(&cluster, 3, 1), "infiniband"); /* 6, 7, 8 are of two nodes */
    assert_string_equal(tier_of(&cluster, 6, 1), "infiniband");
    assert_string_equal(tier_of(&cluster, 1024, 1), "infiniband");
    assert_string_equal(tier_of(&cluster, INT64_MAX / 2, 4), "infiniband");
    cluster.groups[0].tier_count = 0;
    assert_null(node_group_tier(&cluster.groups[0], 8, 1));
}

static void test_cluster__hash_is_of_all_but_the_name(void **state)
{
    (void)state;
    struct cluster cluster, same;
    assert_true(cluster_of_device("h100", 1024, &cluster));
    uint64_t hash = cluster_hash(&cluster);
    same = cluster;
    snprintf(same.name, sizeof(same.name), "mine");
    assert_true(cluster_hash(&same) == hash);
    double *const figures[] = {
        &same.carbon_g_kwh,
        &same.groups[0].device.peak_flops[ARITHMETIC_FP8],
        &same.groups[0].device.efficiency[OPERATION_ATTENTION].share[1],
        &same.groups[0].device.efficiency[OPERATION_MATMUL].size[0],
        &same.groups[0].device.peak_w,
        &same.groups[0].device.price_hour,
        &same.groups[0].tiers[1].share,
        &same.groups[0].tiers[0].latency_s,
    };
    for (size_t i = 0; i < COUNT(figures); i++) {
        double was = *figures[i];
        *figures[i] = 0.123;
        assert_false(cluster_hash(&same) == hash);
        *figures[i] = was;
        assert_true(cluster_hash(&same) == hash);
    }
    same.groups[0].nodes++;
    assert_false(cluster_hash(&same) == hash);
    same = cluster;
    same.group_count = 2;
    same.groups[1] = same.groups[0];
    assert_false(cluster_hash(&same) == hash);
}

/* ---- the file ---- */

static enum status load_text(const char *text, struct cluster *cluster, struct error *err)
{
    const char *path = temporary_file(text);
    enum status status = cluster_load(cluster, path, err);
    if (status != STATUS_OK)
        assert_contains(err->message, path);
    unlink(path);
    return status;
}

/* Only what power and price need. */
static const char minimal[] = "{\"format\": \"temper-cluster\", \"version\": 1, \"name\": \"c\", "
                              "\"groups\": [{\"nodes\": 1, \"node_devices\": 2, \"device\": "
                              "{\"name\": \"d\"}}]}";

/* Everything; two tiers of 2 nodes of 4. */
static const char whole[] =
    "{\"format\": \"temper-cluster\", \"version\": 1, \"name\": \"c\", \"currency\": \"EUR\", "
    "\"groups\": [{\"nodes\": 2, \"node_devices\": 4, \"device\": {\"name\": \"d\", "
    "\"memory_bytes\": 1000, \"memory_bytes_s\": 2e12, \"launch_s\": 1e-6, \"idle_w\": 50, "
    "\"peak_w\": 300, \"price_hour\": 2.5, \"peak_flops\": {\"bf16\": 1e14}, "
    "\"efficiency\": {\"matmul\": [[1e9, 0.5], [1e10, 0.8]], \"attention\": [[1e9, 0.4]], "
    "\"memory\": [[1e6, 0.7]]}}, "
    "\"tiers\": [{\"name\": \"in\", \"devices\": 4, \"latency_s\": 1e-6, \"bytes_s\": 1e11, "
    "\"share\": 0.8}, {\"name\": \"out\", \"devices\": 8, \"latency_s\": 5e-6, "
    "\"bytes_s\": 1e10, \"share\": 0.9}]}]}";

static void test_cluster__page_example_loads(void **state)
{
    (void)state;
    char *text = page_example("docs/cluster.md");
    struct cluster cluster;
    struct error err;
    assert_ok(load_text(text, &cluster, &err), &err);
    free(text);
    assert_int_equal(cluster.group_count, 3);
    assert_ok(
        cluster_check_planning(&(struct cluster){.group_count = 1, .groups = {cluster.groups[0]}},
                               ARITHMETIC_BF16, "page", &err),
        &err);
    assert_string_equal(cluster.groups[1].device.name, "h100");
    assert_near(cluster.groups[1].device.price_hour, 2.2, 1e-12);
    assert_near(cluster.groups[1].tiers[1].bytes_s, 25e9, 1); /* 4 x 400 Gb/s for 8 devices */
    assert_true(cluster.groups[2].device.idle_w > 0.0);
    assert_true(cluster.carbon_g_kwh > 0.0);
    assert_int_equal(strlen(cluster.carbon_date), 10);
}

static void test_cluster__what_is_not_given_is_marked(void **state)
{
    (void)state;
    struct cluster cluster;
    struct error err;
    assert_ok(load_text(minimal, &cluster, &err), &err);
    const struct node_group *group = &cluster.groups[0];
    assert_int_equal(group->node_devices, 2);
    assert_int_equal(group->tier_count, 0);
    assert_int_equal(group->device.memory_bytes, 0);
    assert_near(group->device.peak_w, 0, 0);
    assert_true(isnan(group->device.price_hour));
    assert_true(isnan(cluster.carbon_g_kwh));
    assert_string_equal(cluster.carbon_date, "");
    assert_string_equal(cluster.currency, "");
    assert_int_equal(group->device.efficiency[OPERATION_MATMUL].count, 0);
}

static void test_cluster__planning_names_what_is_missing(void **state)
{
    (void)state;
    static const struct {
        const char *old, *by, *part;
    } cases[] = {
        {"\"memory_bytes\": 1000, ", "", "groups[0].device.memory_bytes'"},
        {"\"memory_bytes_s\": 2e12, ", "", "groups[0].device.memory_bytes_s'"},
        {"\"bf16\"", "\"fp16\"", "groups[0].device.peak_flops.bf16'"},
        {"\"matmul\": [[1e9, 0.5], [1e10, 0.8]], ", "", "groups[0].device.efficiency.matmul'"},
        {"\"attention\": [[1e9, 0.4]], ", "", "groups[0].device.efficiency.attention'"},
        {"\"memory\": [[1e6, 0.7]]", "\"memory\": null", "groups[0].device.efficiency.memory'"},
    };
    struct cluster cluster;
    struct error err;
    assert_ok(load_text(whole, &cluster, &err), &err);
    assert_ok(cluster_check_planning(&cluster, ARITHMETIC_BF16, "f", &err), &err);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = replaced(whole, cases[i].old, cases[i].by);
        assert_ok(load_text(text, &cluster, &err), &err);
        assert_int_equal(cluster_check_planning(&cluster, ARITHMETIC_BF16, "f.json", &err),
                         STATUS_INVALID);
        assert_contains(err.message, "f.json");
        assert_contains(err.message, cases[i].part);
        free(text);
    }
    assert_ok(load_text(whole, &cluster, &err), &err);
    cluster.groups[0].tier_count = 0;
    assert_int_equal(cluster_check_planning(&cluster, ARITHMETIC_BF16, "f", &err), STATUS_INVALID);
    assert_contains(err.message, "groups[0].tiers'");
    assert_ok(load_text(minimal, &cluster, &err), &err);
    assert_int_equal(cluster_check_planning(&cluster, ARITHMETIC_BF16, "f", &err), STATUS_INVALID);
}

static void assert_reads_back(const struct cluster *cluster)
{
    struct text text = {0};
    struct cluster back;
    struct error err;
    assert_ok(cluster_write_json(cluster, &text, &err), &err);
    assert_ok(load_text(text.data, &back, &err), &err);
    text_free(&text);
    assert_string_equal(back.name, cluster->name);
    assert_true(cluster_hash(&back) == cluster_hash(cluster));
}

static void test_cluster__writes_what_it_reads(void **state)
{
    (void)state;
    struct cluster cluster;
    struct error err;
    assert_ok(load_text(whole, &cluster, &err), &err);
    assert_reads_back(&cluster);
    assert_ok(load_text(minimal, &cluster, &err), &err);
    assert_reads_back(&cluster);
    assert_ok(cluster_load(&cluster, "gb200x256", &err), &err);
    assert_reads_back(&cluster);
    char *text = page_example("docs/cluster.md");
    assert_ok(load_text(text, &cluster, &err), &err);
    free(text);
    assert_reads_back(&cluster);
}

#define GROUP "{\"nodes\": 1, \"node_devices\": 2, \"device\": {\"name\": \"d\"}}"

static void expect_refused(const char *text, const char *part)
{
    struct cluster cluster;
    struct error err;
    if (load_text(text, &cluster, &err) == STATUS_OK)
        fail_msg("accepted: %s", text);
    assert_contains(err.message, part);
}

static void test_cluster__like_takes_a_builtin_device(void **state)
{
    (void)state;
    struct cluster cluster;
    struct error err;
    char *text = replaced(minimal, GROUP, "{\"like\": \"h100\", \"nodes\": 3}");
    assert_ok(load_text(text, &cluster, &err), &err);
    free(text);
    assert_int_equal(cluster_devices(&cluster), 24);
    assert_int_equal(cluster.groups[0].tiers[1].devices, 24);
    text = replaced(minimal, GROUP,
                    "{\"like\": \"h100\", \"nodes\": 1, \"node_devices\": 4, "
                    "\"device\": {\"idle_w\": 90, \"efficiency\": {\"matmul\": [[1e9, 0.5]]}}}");
    assert_ok(load_text(text, &cluster, &err), &err);
    free(text);
    assert_near(cluster.groups[0].device.idle_w, 90, 0);
    assert_near(cluster.groups[0].device.peak_w, 700, 0);
    assert_int_equal(cluster.groups[0].device.efficiency[OPERATION_MATMUL].count, 1);
    assert_int_equal(cluster.groups[0].device.efficiency[OPERATION_MEMORY].count, 5);
    assert_int_equal(cluster.groups[0].tiers[0].devices, 4);

    static const struct {
        const char *group, *part;
    } wrong[] = {
        {"{\"like\": \"h101\", \"nodes\": 1}", "groups[0].like"},
        {"{\"like\": 5, \"nodes\": 1}", "groups[0].like"},
        {"{\"like\": \"h100\"}", "groups[0].nodes"},
        {"{\"like\": \"h100\", \"nodes\": 2, \"node_devices\": 4}", "groups[0].tiers"},
        {"{\"like\": \"h100\", \"nodes\": 2, \"network\": \"fast\"}", "groups[0].network"},
        {"{\"like\": \"h100\", \"nodes\": 2, \"network\": \"ib-1x1\", \"tiers\": []}",
         "groups[0].network"},
        {"{\"nodes\": 1, \"node_devices\": 2, \"network\": \"ib-1x1\", "
         "\"device\": {\"name\": \"d\"}}",
         "groups[0].network"},
    };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        text = replaced(minimal, GROUP, wrong[i].group);
        expect_refused(text, wrong[i].part);
        free(text);
    }
}

static void test_cluster__hostile_files_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *old, *by, *part;
    } cases[] = {
        {"temper-cluster", "temper-plan", "format"},
        {"\"version\": 1", "\"version\": 2", "newer"},
        {"\"version\": 1", "\"version\": 0", "version"},
        {"\"version\": 1", "\"version\": \"1\"", "version"},
        {"\"name\": \"c\", ", "", "name"},
        {"\"version\": 1", "\"version\": 1, \"price\": 1", "price"},
        {GROUP, "3", "groups[0]"},
        {"[" GROUP "]", "[]", "groups"},
        {"[" GROUP "]", "{}", "groups"},
        {"\"nodes\": 1", "\"nodes\": 0", "groups[0].nodes"},
        {"\"nodes\": 1", "\"nodes\": -1", "groups[0].nodes"},
        {"\"nodes\": 1", "\"nodes\": 1e9", "groups[0].nodes"},
        {"\"nodes\": 1", "\"nodes\": 2000000", "groups[0].nodes"},
        {"\"nodes\": 1, ", "", "groups[0].nodes"},
        {"\"nodes\": 1", "\"nodes\": 1, \"noddes\": 1", "groups[0].noddes"},
        {"\"node_devices\": 2, ", "", "groups[0].node_devices"},
        {"\"node_devices\": 2", "\"node_devices\": 0", "groups[0].node_devices"},
        {"{\"name\": \"d\"}", "5", "groups[0].device"},
        {"{\"name\": \"d\"}", "{}", "groups[0].device.name"},
        {"\"name\": \"d\"", "\"name\": \"\"", "groups[0].device.name"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"idle_w\": 5", "groups[0].device.peak_w"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"idle_w\": -5", "groups[0].device.idle_w"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"peak_w\": 9, \"unlimited_w\": 5",
         "groups[0].device.unlimited_w"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"peak_w\": \"5\"", "groups[0].device.peak_w"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"memory_bytes\": -1",
         "groups[0].device.memory_bytes"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"price_hour\": 2", "currency"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"watts\": 2", "groups[0].device.watts"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"peak_flops\": 1e12", "groups[0].device.peak_flops"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"peak_flops\": {\"int8\": 1}",
         "groups[0].device.peak_flops.int8"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"peak_flops\": {\"fp8\": -1}",
         "groups[0].device.peak_flops.fp8"},
        {"\"name\": \"d\"", "\"name\": \"d\", \"efficiency\": {\"memory\": []}",
         "groups[0].device.efficiency.memory"},
        {"\"name\": \"c\"", "\"name\": \"c\", \"carbon_g_kwh\": 300", "carbon_date"},
        {"\"name\": \"c\"",
         "\"name\": \"c\", \"carbon_g_kwh\": -3, \"carbon_date\": \"2026-01-01\"", "carbon_g_kwh"},
        {"\"name\": \"c\"", "\"name\": \"c\", \"carbon_date\": \"2026-01-01\"", "carbon_g_kwh"},
        {"\"name\": \"c\"", "\"name\": \"c\", \"carbon_g_kwh\": 3, \"carbon_date\": \"2026-13-01\"",
         "carbon_date"},
        {"\"name\": \"c\"", "\"name\": \"c\", \"price_date\": \"last year\"", "price_date"},
        {"\"name\": \"c\"", "\"name\": \"c\", \"currency\": \"doubloons\"", "currency"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = replaced(minimal, cases[i].old, cases[i].by);
        expect_refused(text, cases[i].part);
        free(text);
    }
}

static void test_cluster__wrong_curves_and_tiers_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *old, *by, *part;
    } cases[] = {
        {"[1e9, 0.5], [1e10, 0.8]", "[1e10, 0.5], [1e9, 0.8]", "efficiency.matmul': point 1"},
        {"[1e9, 0.5], [1e10, 0.8]", "[1e9, 0.5], [1e9, 0.8]", "efficiency.matmul': point 1"},
        {"[1e9, 0.5], ", "[1e9, 0], ", "efficiency.matmul': point 0"},
        {"[1e9, 0.5], ", "[1e9, 1.5], ", "efficiency.matmul': point 0"},
        {"[1e9, 0.5], ", "[-1, 0.5], ", "efficiency.matmul': point 0"},
        {"[1e9, 0.5], ", "[1e9], ", "efficiency.matmul[0]"},
        {"[1e9, 0.5], ", "[1e9, \"0.5\"], ", "efficiency.matmul[0][1]"},
        {"[1e9, 0.5], ", "7, ", "efficiency.matmul[0]"},
        {"[[1e9, 0.4]]", "0.4", "efficiency.attention"},
        {"\"devices\": 4", "\"devices\": 3", "groups[0].tiers[1].devices"},
        {"\"devices\": 4", "\"devices\": 8", "groups[0].tiers[1].devices"},
        {"\"devices\": 4", "\"devices\": 0", "groups[0].tiers[0].devices"},
        {"\"devices\": 8", "\"devices\": 16", "groups[0].tiers"},
        {"\"devices\": 8", "\"devices\": 4", "groups[0].tiers[1].devices"},
        {"\"share\": 0.8", "\"share\": 0", "groups[0].tiers[0].share"},
        {"\"share\": 0.8", "\"share\": 1.2", "groups[0].tiers[0].share"},
        {", \"share\": 0.8", "", "groups[0].tiers[0].share"},
        {"\"bytes_s\": 1e10", "\"bytes_s\": 0", "groups[0].tiers[1].bytes_s"},
        {"\"latency_s\": 1e-6", "\"latency_s\": -1", "groups[0].tiers[0].latency_s"},
        {"\"name\": \"in\"", "\"name\": \"\"", "groups[0].tiers[0].name"},
        {"\"name\": \"in\"", "\"name\": \"in\", \"speed\": 1", "groups[0].tiers[0].speed"},
        {"[{\"name\": \"in\"", "[5, {\"name\": \"in\"", "groups[0].tiers[0]"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = replaced(whole, cases[i].old, cases[i].by);
        expect_refused(text, cases[i].part);
        free(text);
    }
}

static void test_cluster__a_torn_file_is_refused_at_every_byte(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes < sizeof(whole) - 1; bytes += 7) {
        char text[sizeof(whole)];
        struct cluster cluster;
        struct error err;
        snprintf(text, sizeof(text), "%.*s", (int)bytes, whole);
        assert_int_not_equal(load_text(text, &cluster, &err), STATUS_OK);
    }
}

static void test_cluster__too_many_of_a_kind_are_refused(void **state)
{
    (void)state;
    char text[4096] = "{\"format\": \"temper-cluster\", \"version\": 1, \"name\": \"c\", "
                      "\"groups\": [";
    for (int i = 0; i <= CLUSTER_GROUPS_MAX; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, "%s" GROUP, i > 0 ? "," : "");
    }
    strncat(text, "]}", sizeof(text) - strlen(text) - 1);
    expect_refused(text, "groups");

    char points[1024] = "\"matmul\": [";
    for (int i = 0; i <= CURVE_POINTS_MAX; i++) {
        size_t used = strlen(points);
        snprintf(points + used, sizeof(points) - used, "%s[%d, 0.5]", i > 0 ? "," : "", i + 1);
    }
    strncat(points, "]", sizeof(points) - strlen(points) - 1);
    char *many = replaced(whole, "\"matmul\": [[1e9, 0.5], [1e10, 0.8]]", points);
    expect_refused(many, "efficiency.matmul");
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cluster__names_read_back),
        cmocka_unit_test(test_cluster__published_spellings_name_one_device),
        cmocka_unit_test(test_cluster__builtin_names_name_themselves),
        cmocka_unit_test(test_cluster__builtins_are_complete),
        cmocka_unit_test(test_cluster__hosts_are_given_or_not),
        cmocka_unit_test(test_cluster__an_a100_is_as_its_sheet_says),
        cmocka_unit_test(test_cluster__counts_are_whole_nodes_or_less_than_one),
        cmocka_unit_test(test_cluster__gb200_domains_span_nodes),
        cmocka_unit_test(test_cluster__another_network_replaces_the_usual_one),
        cmocka_unit_test(test_cluster__loads_by_name_and_count),
        cmocka_unit_test(test_cluster__wrong_names_say_what_would_be_right),
        cmocka_unit_test(test_cluster__efficiency_is_linear_in_the_logarithm),
        cmocka_unit_test(test_cluster__efficiency_is_exact_and_never_below_its_floor),
        cmocka_unit_test(test_cluster__a_group_takes_the_narrowest_tier_that_holds_it),
        cmocka_unit_test(test_cluster__hash_is_of_all_but_the_name),
        cmocka_unit_test(test_cluster__page_example_loads),
        cmocka_unit_test(test_cluster__what_is_not_given_is_marked),
        cmocka_unit_test(test_cluster__planning_names_what_is_missing),
        cmocka_unit_test(test_cluster__writes_what_it_reads),
        cmocka_unit_test(test_cluster__like_takes_a_builtin_device),
        cmocka_unit_test(test_cluster__hostile_files_name_the_key),
        cmocka_unit_test(test_cluster__wrong_curves_and_tiers_name_the_key),
        cmocka_unit_test(test_cluster__a_torn_file_is_refused_at_every_byte),
        cmocka_unit_test(test_cluster__too_many_of_a_kind_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
