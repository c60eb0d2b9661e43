#include "group.h"

#include <stdlib.h>
#include <string.h>

/* What a rank reads of rank `from`: with the collective left out only its own data, else zero. */
struct exchange {
    struct group *group;
    int index;
    bool left_out;
};

static struct exchange begin(struct group_seat *seat, const void *data)
{
    struct group *group = seat->group;
    group->published[seat->index] = data;
    pthread_barrier_wait(&group->barrier);
    return (struct exchange){group, seat->index, seat->calls++ == group->left_out};
}

/* Nobody may touch its data before all have read them. */
static void end(const struct exchange *exchange)
{
    pthread_barrier_wait(&exchange->group->barrier);
}

static bool has(const struct exchange *exchange, int from)
{
    return !exchange->left_out || from == exchange->index;
}

/* In the order of the ranks, so that all have the same bits. */
static void combine(const struct exchange *exchange, size_t first, size_t count, bool maximum,
                    float *out)
{
    bool is_first = true;
    for (int from = 0; from < exchange->group->ways; from++) {
        if (!has(exchange, from))
            continue;
        const float *in = (const float *)exchange->group->published[from] + first;
        for (size_t i = 0; i < count; i++) {
            if (is_first || (maximum && in[i] > out[i]))
                out[i] = in[i];
            else if (!maximum)
                out[i] += in[i];
        }
        is_first = false;
    }
}

static enum status all_reduce(struct group_seat *seat, float *data, size_t count, bool maximum,
                              struct error *err)
{
    float *out = malloc(count * sizeof(float));
    if (out == NULL)
        return error_memory(err, count * sizeof(float), "an all-reduce");
    struct exchange exchange = begin(seat, data);
    combine(&exchange, 0, count, maximum, out);
    end(&exchange);
    memcpy(data, out, count * sizeof(float));
    free(out);
    return STATUS_OK;
}

static enum status all_reduce_sum(void *user, float *data, size_t count, struct error *err)
{
    return all_reduce(user, data, count, false, err);
}

static enum status all_reduce_max(void *user, float *data, size_t count, struct error *err)
{
    return all_reduce(user, data, count, true, err);
}

static enum status all_gather(void *user, const void *in, void *out, size_t bytes,
                              struct error *err)
{
    (void)err;
    struct exchange exchange = begin(user, in);
    for (int from = 0; from < exchange.group->ways; from++) {
        char *piece = (char *)out + (size_t)from * bytes;
        if (has(&exchange, from))
            memcpy(piece, exchange.group->published[from], bytes);
        else
            memset(piece, 0, bytes);
    }
    end(&exchange);
    return STATUS_OK;
}

static enum status reduce_scatter(void *user, const float *in, float *out, size_t count,
                                  struct error *err)
{
    (void)err;
    struct exchange exchange = begin(user, in);
    combine(&exchange, (size_t)exchange.index * count, count, false, out);
    end(&exchange);
    return STATUS_OK;
}

void group_open(struct group *group, int ways, int left_out)
{
    *group = (struct group){.ways = ways, .left_out = left_out};
    pthread_barrier_init(&group->barrier, NULL, (unsigned)ways);
    for (int i = 0; i < ways; i++) {
        group->seats[i] = (struct group_seat){
            .group = group,
            .index = i,
            .functions = {&group->seats[i], all_reduce_sum, all_reduce_max, all_gather,
                          reduce_scatter},
        };
    }
}

void group_close(struct group *group)
{
    pthread_barrier_destroy(&group->barrier);
}
