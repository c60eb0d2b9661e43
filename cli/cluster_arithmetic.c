#include "cli/cluster_arithmetic.h"

#include <assert.h>
#include <string.h>

static bool has(const struct arithmetic_list *list, enum arithmetic arithmetic)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i] == arithmetic)
            return true;
    return false;
}

enum status cluster_arithmetic_parse(const char *text, struct arithmetic_list *out,
                                     struct error *err)
{
    out->count = 0;
    for (const char *at = text;; at++) {
        enum { NAME_BYTES = 8 };
        char name[NAME_BYTES] = "";
        enum arithmetic arithmetic;
        size_t bytes = strcspn(at, ",");
        if (bytes < NAME_BYTES)
            memcpy(name, at, bytes);
        if (!arithmetic_parse(name, &arithmetic))
            return error_set(err, STATUS_USAGE,
                             "--arithmetic %s: expected fp32, tf32, bf16, fp16 or fp8, or several "
                             "of them to choose from, separated by commas",
                             text);
        if (has(out, arithmetic))
            return error_set(err, STATUS_USAGE, "--arithmetic %s: %s stands there twice", text,
                             name);
        out->items[out->count++] = arithmetic;
        at += bytes;
        if (*at == '\0')
            return STATUS_OK;
    }
}

/* ---- layouts ---- */

static bool is_as_fast(const struct cluster *cluster, enum arithmetic a, enum arithmetic b)
{
    for (size_t i = 0; i < cluster->group_count; i++) {
        const double *peaks = cluster->groups[i].device.peak_flops;
        if (peaks[a] != peaks[b])
            return false;
    }
    return true;
}

/* A pin that no layout of it can keep; NULL: it can keep all. */
static const struct block_pin *unadmitted(const struct layout_pins *pins,
                                          enum arithmetic arithmetic)
{
    const struct layout layout = {.arithmetic = arithmetic};
    for (size_t i = 0; i < pins->block_count; i++) {
        int pinned = pins->blocks[i].arithmetic;
        if (pinned >= 0 && !layout_admits_arithmetic(&layout, (enum arithmetic)pinned))
            return &pins->blocks[i];
    }
    return NULL;
}

/* Is a layout of it as good as one of another name whose blocks may be in it, or are as quick? */
static bool is_needless(const struct arithmetic_list *names, size_t index,
                        const struct layouts_request *request)
{
    enum arithmetic own = names->items[index];
    for (size_t i = 0; i < names->count; i++) {
        enum arithmetic other = names->items[i];
        const struct layout layout = {.arithmetic = other};
        bool admits = own != other && layout_admits_arithmetic(&layout, own);
        if (unadmitted(&request->pins, other))
            continue;
        bool are_16_bit = (own == ARITHMETIC_BF16 && other == ARITHMETIC_FP16) ||
                          (own == ARITHMETIC_FP16 && other == ARITHMETIC_BF16);
        bool is_alike = is_as_fast(request->cluster, own, other);
        if (admits && (own == ARITHMETIC_FP8 || cluster_is_slower_in(request->cluster, own, other)))
            return true;
        if (i < index && is_alike && admits)
            return true;
        if (i < index && is_alike && are_16_bit && request->framework != FRAMEWORK_DEEPSPEED)
            return true;
    }
    return false;
}

static enum status check_pins(const struct arithmetic_list *names, const struct layout_pins *pins,
                              struct error *err)
{
    for (size_t i = 0; i < pins->block_count; i++) {
        const struct block_pin *pin = &pins->blocks[i];
        if (pin->arithmetic >= 0 && !has(names, (enum arithmetic)pin->arithmetic))
            return error_set(err, STATUS_USAGE,
                             "--pin arithmetic:%lld-%lld=%s: name it with --arithmetic, too",
                             (long long)pin->first, (long long)pin->last,
                             arithmetic_name((enum arithmetic)pin->arithmetic));
    }
    return STATUS_OK;
}

enum status cluster_arithmetic_take(const struct arithmetic_list *names,
                                    struct layouts_request *out, struct error *err)
{
    const struct block_pin *pin = NULL;
    size_t count = 0;

    TRY(check_pins(names, &out->pins, err));
    out->others.count = 0;
    for (size_t i = 0; i < names->count; i++) {
        const struct block_pin *fails = unadmitted(&out->pins, names->items[i]);
        pin = fails ? fails : pin;
        if (fails || is_needless(names, i, out))
            continue;
        if (count++ == 0)
            out->arithmetic = names->items[i];
        else
            out->others.items[out->others.count++] = names->items[i];
    }
    assert(count > 0 || pin != NULL); /* there are names, and one that no pin refuses is kept */
    if (count == 0)
        return error_set(err, STATUS_USAGE,
                         "--pin arithmetic:%lld-%lld=%s: no layout has that beside the others that "
                         "are pinned: fp32 goes with tf32, and bf16 or fp16 with fp8",
                         (long long)pin->first, (long long)pin->last,
                         arithmetic_name((enum arithmetic)pin->arithmetic));
    return STATUS_OK;
}
