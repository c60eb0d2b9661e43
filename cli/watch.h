/* Which rank hangs, judged from the ranks' signs of life. */
#ifndef TEMPER_CLI_WATCH_H
#define TEMPER_CLI_WATCH_H

#include "base/error.h"
#include "cli/pulse_sign.h"

enum { WATCH_TEXT_BYTES = 512 };

/* What a rank was judged to be when last looked at. */
enum verdict { RANK_FINE, RANK_SILENT, RANK_STUCK, RANK_WAITING };

/* What is known of one rank; times are of the watching process (base/clock.h). */
struct watched_rank {
    bool is_known; /* it has been heard of */
    double heard_s;
    double moved_s; /* when its count last grew */
    struct pulse_sign sign;
    enum verdict verdict;
};

struct watch {
    struct watched_rank *ranks; /* [count], owned */
    int count;
    double timeout_s; /* 0: nothing is judged */
    bool is_begun;    /* some rank has been heard of, first at: */
    double begun_s;
    double looked_s; /* when last judged */
};

enum status watch_open(struct watch *watch, int ranks, double timeout_s, struct error *err);
void watch_close(struct watch *watch);
/* A sign of a rank that there is none of is ignored. */
void watch_hear(struct watch *watch, const struct pulse_sign *sign, double now_s);
/* To be called every second or oftener, when all signs that have come are heard. True: ranks hang,
 * and `why` names them. */
bool watch_judge(struct watch *watch, double now_s, char why[WATCH_TEXT_BYTES]);
/* The step that this rank was last heard of at; 0: starting, or never heard of. */
int64_t watch_step(const struct watch *watch, int rank);

#endif
