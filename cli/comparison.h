/* Two predictions held against each other: totals and their terms, the choices that differ, and
 * which of the two wins. What the two are (plan files, answers for a cluster) only who fills it
 * knows: compare_plans.h, compare_answers.h. */
#ifndef TEMPER_CLI_COMPARISON_H
#define TEMPER_CLI_COMPARISON_H

#include "base/json.h"
#include "base/text.h"
#include "base/units.h"
#include "ir/names.h"
#include "ir/plan.h"

enum {
    COMPARED_NAME_BYTES = 48,
    COMPARED_CHOICES_MAX = 40,
    COMPARED_TERMS_MAX = 16 + 2 * PHASE_COUNT + MEMORY_TERM_COUNT,
};

typedef const char *compared_format(double value, char buffer[UNIT_TEXT_BYTES]);

/* A total, or one of the terms that follow it and add up to it. */
struct compared_term {
    char name[COMPARED_NAME_BYTES];
    bool is_total;
    bool is_more_better; /* else less is */
    bool is_judged;      /* a total of which it is told who is better, and where less is, why */
    const char *unit;
    compared_format *format;
    struct quantity a, b;
};

/* Of the whole plan. */
struct compared_choice {
    const char *name;
    char a[PLAN_PINS_BYTES], b[PLAN_PINS_BYTES];
};

/* What one of the two was made for: its weights, and what they are multiples of. */
struct compared_aim {
    double time, memory, energy; /* weights */
    bool raw;                    /* of seconds, GiB and joules */
    double time_unit_s, memory_unit_bytes, energy_unit_j;
    double gap; /* that its search left; NAN: not known */
};

/* All borrowed. */
struct compared_model {
    const char *name;
    const char *hash; /* of all but the name and the sequence */
    int64_t seq_length;
};

enum { COMPARED_NOTHING = -1 };

struct comparison {
    const char *path_a, *path_b; /* borrowed */
    struct text notes;           /* what is to be known first, a line each */
    struct text details;         /* choices that are more than a word, whole lines */
    struct compared_choice choices[COMPARED_CHOICES_MAX]; /* those that differ */
    size_t choice_count;
    struct compared_term terms[COMPARED_TERMS_MAX];
    size_t term_count;
    /* Time, energy and what follows from them are of one step; or of so many tokens, where the
     * steps of the two have not the same number of them. */
    double basis_tokens; /* 0: of a step */
    struct compared_aim aim_a, aim_b;
    bool same_model, same_aim;
    int decider; /* the total that both were made for; COMPARED_NOTHING: none, so nobody wins */
};

/* ---- filling it ---- */

/* `a_tokens`, `b_tokens`: of a step. Says so if they differ. */
void comparison_begin(struct comparison *c, const char *path_a, const char *path_b, double a_tokens,
                      double b_tokens);
/* The factor from figures of a step of so many tokens to figures of the basis. */
double comparison_scale(const struct comparison *c, double tokens);
struct quantity comparison_scaled(struct quantity quantity, double scale);
void comparison_note(struct comparison *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Says so if the models or the lengths of their sequences differ; sets same_model. */
void comparison_note_models(struct comparison *c, const struct compared_model *a,
                            const struct compared_model *b);

/* Nothing is added where the words are the same in both. Empty words stand for none. */
void comparison_add_words(struct comparison *c, const char *name, const char *a, const char *b);
void comparison_add_number(struct comparison *c, const char *name, long long a, long long b);

/* Returns the place of the total. */
int comparison_add_total(struct comparison *c, const struct compared_term *total);
/* The terms of the last total, in its unit; each of the arrays has names->count. */
void comparison_add_parts(struct comparison *c, const struct name_list *names,
                          const struct quantity *a, double a_scale, const struct quantity *b,
                          double b_scale);
/* A total of tokens a second: (tokens of a step) / (seconds of a step). */
void comparison_add_rate(struct comparison *c, const char *name, bool is_judged,
                         const struct quantity *time_a, double a_tokens,
                         const struct quantity *time_b, double b_tokens);
/* When the totals of time, memory and energy and both aims are there: what decides. Several weights
 * add a total, the objective. Says so if the aims differ. */
void comparison_decide(struct comparison *c, int time, int memory, int energy);

/* ---- asking it ---- */

bool compared_is_known(const struct compared_term *term); /* in both */
double compared_difference(const struct compared_term *term);
/* 'A', 'B', or '=' where the total is the same in both or not known in one. */
char compared_better(const struct compared_term *total);
/* One behind the terms of the total. */
size_t comparison_term_end(const struct comparison *c, size_t total);
/* The terms of a total that speak most for its better side (`is_for`) or against it, most first, at
 * most `capacity` places; those that hardly differ are left out. Returns how many there are. */
size_t comparison_reasons(const struct comparison *c, size_t total, bool is_for, size_t *places,
                          size_t capacity);
/* 'A', 'B', or '=': nobody. */
char comparison_winner(const struct comparison *c);
/* Those of the choices that differ which the term hangs on most, as "tensor parallel 2 / 4". */
void comparison_append_causes(const struct comparison *c, const char *term, struct text *out);

/* ---- telling it ---- */

/* One JSON object or text on standard output. `more` (NULL: none) writes members of its own. */
enum status comparison_print_json(const struct comparison *c,
                                  void (*more)(const void *user, struct jout *out),
                                  const void *user, struct error *err);
enum status comparison_print_text(const struct comparison *c, struct error *err);
void comparison_clear(struct comparison *c);

#endif
