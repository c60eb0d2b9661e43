#include "recorded.h"

#include "base/clock.h"
#include "trained.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const struct optimizer_options optimizer = {
    .learning_rate = 1e-3,
    .min_learning_rate = 1e-3,
    .beta1 = 0.9,
    .beta2 = 0.95,
    .epsilon = 1e-3,
    .clip_norm = 1,
};

static void keep(void *user, const struct event *event)
{
    struct recorded *recorded = user;
    if (recorded->count == recorded->capacity) {
        recorded->capacity = recorded->capacity == 0 ? 1024 : 2 * recorded->capacity;
        recorded->events = realloc(recorded->events, recorded->capacity * sizeof *recorded->events);
        assert_non_null(recorded->events);
    }
    recorded->events[recorded->count++] = *event;
}

void recorded_step(struct recorded *out, const struct parity_case *what, struct comm *comm)
{
    struct plan plan;
    struct trained trained;
    char data_path[64] = "";
    struct error err = {0};
    *out = (struct recorded){0};
    if (comm_rank(comm) == 0)
        write_tokens(data_path, 20000, 251);
    assert_int_equal(comm_broadcast(comm, data_path, sizeof data_path, 0, &err), STATUS_OK);
    assert_int_equal(parity_plan(&plan, what, &err), STATUS_OK);
    trained_open_plan(&trained, &plan, data_path, &optimizer, comm);
    out->layers = trained.plan.layer_count;
    trained_steps(&trained, 1, NULL);
    trainer_record(trained.trainer, (struct event_sink){.user = out, .record = keep});
    out->start_ns = clock_ns();
    trained_steps(&trained, 1, NULL);
    out->end_ns = clock_ns();
    trained_close(&trained);
    if (comm_rank(comm) == 0)
        unlink(data_path);
}

void recorded_clear(struct recorded *recorded)
{
    free(recorded->events);
    *recorded = (struct recorded){0};
}

const struct event *recorded_find(const struct recorded *recorded, enum phase phase, int32_t layer)
{
    const struct event *found = NULL;
    for (size_t i = 0; i < recorded->count; i++) {
        const struct event *event = &recorded->events[i];
        if (event->phase == phase && event->layer == layer &&
            (found == NULL || event->start_ns > found->start_ns))
            found = event;
    }
    return found;
}
