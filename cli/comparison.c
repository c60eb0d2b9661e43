#include "cli/comparison.h"

#include "cli/cli.h"
#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Sums of the same terms in another order differ by as much. */
static const double same_share = 1e-12;
/* Of the difference of a total: terms that differ by less are no reasons. */
static const double slight_share = 0.01;
static const double million = 1e6, gib_bytes = 1024.0 * 1024 * 1024;

/* ---- filling it ---- */

void comparison_note(struct comparison *c, const char *format, ...)
{
    char line[2 * PLAN_PINS_BYTES + ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    text_printf(&c->notes, "%s\n", line);
}

void comparison_begin(struct comparison *c, const char *path_a, const char *path_b, double a_tokens,
                      double b_tokens)
{
    *c = (struct comparison){.path_a = path_a,
                             .path_b = path_b,
                             .basis_tokens = a_tokens == b_tokens ? 0 : million,
                             .same_model = true,
                             .same_aim = true,
                             .decider = COMPARED_NOTHING};
    if (c->basis_tokens > 0)
        comparison_note(c,
                        "a step of A has %.0f tokens, one of B %.0f: time and energy below are of "
                        "a million tokens",
                        a_tokens, b_tokens);
}

void comparison_note_models(struct comparison *c, const struct compared_model *a,
                            const struct compared_model *b)
{
    c->same_model = strcmp(a->hash, b->hash) == 0;
    if (!c->same_model && strcmp(a->name, b->name) != 0)
        comparison_note(c, "the models differ: A trains %s, B %s; a token is not the same work",
                        a->name, b->name);
    else if (!c->same_model)
        comparison_note(c, "the models differ: both are named %s, their sizes are not the same",
                        a->name);
    if (a->seq_length != b->seq_length)
        comparison_note(c,
                        "sequences of %lld and %lld tokens: attention's work for a token is not "
                        "the same",
                        (long long)a->seq_length, (long long)b->seq_length);
}

double comparison_scale(const struct comparison *c, double tokens)
{
    return c->basis_tokens > 0 ? c->basis_tokens / tokens : 1;
}

struct quantity comparison_scaled(struct quantity quantity, double scale)
{
    return quantity.provenance == PROVENANCE_ABSENT ? quantity : quantity_scale(quantity, scale);
}

void comparison_add_words(struct comparison *c, const char *name, const char *a, const char *b)
{
    assert(c->choice_count < COMPARED_CHOICES_MAX);
    if (strcmp(a, b) == 0)
        return;
    struct compared_choice *choice = &c->choices[c->choice_count++];
    choice->name = name;
    (void)snprintf(choice->a, sizeof(choice->a), "%s", a);
    (void)snprintf(choice->b, sizeof(choice->b), "%s", b);
}

void comparison_add_number(struct comparison *c, const char *name, long long a, long long b)
{
    char words_a[32], words_b[32];
    (void)snprintf(words_a, sizeof(words_a), "%lld", a);
    (void)snprintf(words_b, sizeof(words_b), "%lld", b);
    comparison_add_words(c, name, words_a, words_b);
}

int comparison_add_total(struct comparison *c, const struct compared_term *total)
{
    assert(c->term_count < COMPARED_TERMS_MAX);
    c->terms[c->term_count] = *total;
    c->terms[c->term_count].is_total = true;
    return (int)c->term_count++;
}

void comparison_add_parts(struct comparison *c, const struct name_list *names,
                          const struct quantity *a, double a_scale, const struct quantity *b,
                          double b_scale)
{
    assert(c->term_count > 0 && c->term_count + names->count <= COMPARED_TERMS_MAX);
    struct compared_term term = c->terms[c->term_count - 1];
    term.is_total = term.is_judged = false;
    for (size_t i = 0; i < names->count; i++) {
        (void)snprintf(term.name, sizeof(term.name), "%s", name_of(names, i));
        term.a = comparison_scaled(a[i], a_scale);
        term.b = comparison_scaled(b[i], b_scale);
        c->terms[c->term_count++] = term;
    }
}

static const char *format_rate(double value, char buffer[UNIT_TEXT_BYTES])
{
    char count[UNIT_TEXT_BYTES];
    (void)snprintf(buffer, UNIT_TEXT_BYTES, "%s tok/s", format_count(value, count));
    return buffer;
}

static struct quantity rate(const struct quantity *time_s, double tokens)
{
    if (time_s->provenance == PROVENANCE_ABSENT || time_s->value <= 0)
        return quantity_absent();
    double value = tokens / time_s->value;
    return (struct quantity){value, value * time_s->deviation / time_s->value, time_s->provenance};
}

void comparison_add_rate(struct comparison *c, const char *name, bool is_judged,
                         const struct quantity *time_a, double a_tokens,
                         const struct quantity *time_b, double b_tokens)
{
    struct compared_term total = {.is_more_better = true,
                                  .is_judged = is_judged,
                                  .unit = "tokens/s",
                                  .format = format_rate,
                                  .a = rate(time_a, a_tokens),
                                  .b = rate(time_b, b_tokens)};
    (void)snprintf(total.name, sizeof(total.name), "%s", name);
    comparison_add_total(c, &total);
}

/* ---- what decides ---- */

static bool same_weights(const struct compared_aim *a, const struct compared_aim *b)
{
    return a->time == b->time && a->memory == b->memory && a->energy == b->energy &&
           a->raw == b->raw;
}

static int weight_count(const struct compared_aim *aim)
{
    return (aim->time > 0) + (aim->memory > 0) + (aim->energy > 0);
}

/* "time", "time + 0.5 energy in shares of the best of each alone" */
static void aim_words(const struct compared_aim *aim, char *out, size_t capacity)
{
    const struct {
        const char *name;
        double weight;
    } rows[] = {{"time", aim->time}, {"memory", aim->memory}, {"energy", aim->energy}};
    bool is_one = weight_count(aim) == 1;
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(rows) && used < capacity; i++) {
        char factor[UNIT_TEXT_BYTES] = "";
        if (!(rows[i].weight > 0))
            continue;
        if (!is_one && rows[i].weight != 1)
            (void)snprintf(factor, sizeof(factor), "%g ", rows[i].weight);
        int written = snprintf(out + used, capacity - used, "%s%s%s", used > 0 ? " + " : "", factor,
                               rows[i].name);
        used += written > 0 ? (size_t)written : 0;
    }
    if (!is_one && used < capacity)
        (void)snprintf(out + used, capacity - used, "%s",
                       aim->raw ? " in s, GiB and J" : " in shares of the best of each alone");
}

static const char *format_objective(double value, char buffer[UNIT_TEXT_BYTES])
{
    (void)snprintf(buffer, UNIT_TEXT_BYTES, "%.4f", value);
    return buffer;
}

/* What a weighted quantity adds to the objective. */
static struct quantity weighted(struct quantity quantity, double weight, double unit)
{
    if (!(weight > 0))
        return (struct quantity){.provenance = PROVENANCE_MODELLED};
    return unit > 0 ? comparison_scaled(quantity, weight / unit) : quantity_absent();
}

/* The same units for both: the better of what each search found best, which neither had to be. */
static int add_objective(struct comparison *c, int time, int memory, int energy)
{
    static const char *const texts[] = {"time's share", "memory's share", "energy's share"};
    static const struct name_list names = {texts, COUNT_OF(texts)};
    const struct compared_aim *aim = &c->aim_a, *other = &c->aim_b;
    const int totals[] = {time, memory, energy};
    const double weights[] = {aim->time, aim->memory, aim->energy};
    const double units[] = {
        aim->raw ? 1 : fmin(aim->time_unit_s, other->time_unit_s),
        aim->raw ? gib_bytes : fmin(aim->memory_unit_bytes, other->memory_unit_bytes),
        aim->raw ? 1 : fmin(aim->energy_unit_j, other->energy_unit_j),
    };
    struct quantity a[COUNT_OF(texts)], b[COUNT_OF(texts)];
    struct compared_term total = {
        .name = "objective", .is_judged = true, .unit = "1", .format = format_objective};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        a[i] = weighted(c->terms[totals[i]].a, weights[i], units[i]);
        b[i] = weighted(c->terms[totals[i]].b, weights[i], units[i]);
        total.a = i == 0 ? a[i] : quantity_add(total.a, a[i]);
        total.b = i == 0 ? b[i] : quantity_add(total.b, b[i]);
    }
    int place = comparison_add_total(c, &total);
    comparison_add_parts(c, &names, a, 1, b, 1);
    return place;
}

void comparison_decide(struct comparison *c, int time, int memory, int energy)
{
    const struct compared_aim *aim = &c->aim_a;
    c->same_aim = same_weights(aim, &c->aim_b);
    if (!c->same_aim) {
        char a[PLAN_PINS_BYTES], b[PLAN_PINS_BYTES];
        aim_words(aim, a, sizeof(a));
        aim_words(&c->aim_b, b, sizeof(b));
        comparison_note(c, "made for different aims: A minimises %s, B %s", a, b);
        return;
    }
    if (weight_count(aim) > 1 && c->basis_tokens > 0) {
        comparison_note(c, "the aims weigh figures of a step, which is not the same one: no "
                           "objective is compared");
        return;
    }
    if (weight_count(aim) > 1)
        c->decider = add_objective(c, time, memory, energy);
    else
        c->decider = aim->memory > 0 ? memory : aim->energy > 0 ? energy : time;
}

/* ---- asking it ---- */

bool compared_is_known(const struct compared_term *term)
{
    return term->a.provenance != PROVENANCE_ABSENT && term->b.provenance != PROVENANCE_ABSENT;
}

double compared_difference(const struct compared_term *term)
{
    double more = term->b.value - term->a.value;
    return fabs(more) <= same_share * fabs(term->a.value) ? 0 : more;
}

char compared_better(const struct compared_term *total)
{
    double more = compared_is_known(total) ? compared_difference(total) : 0;
    if (more == 0)
        return '=';
    return (more < 0) != total->is_more_better ? 'B' : 'A';
}

size_t comparison_term_end(const struct comparison *c, size_t total)
{
    size_t end = total + 1;
    while (end < c->term_count && !c->terms[end].is_total)
        end++;
    return end;
}

size_t comparison_reasons(const struct comparison *c, size_t total, bool is_for, size_t *places,
                          size_t capacity)
{
    double sign = (compared_difference(&c->terms[total]) < 0) == is_for ? -1 : 1;
    size_t end = comparison_term_end(c, total), count = 0;
    double before = DBL_MAX, least = slight_share * fabs(compared_difference(&c->terms[total]));
    while (count < capacity) {
        size_t best = end;
        double most = 0;
        for (size_t i = total + 1; i < end; i++) {
            const struct compared_term *term = &c->terms[i];
            double speaks = compared_is_known(term) ? sign * compared_difference(term) : 0;
            bool is_told =
                count > 0 && (speaks > before || (speaks == before && i <= places[count - 1]));
            if (speaks > most && speaks >= least && !is_told) {
                best = i;
                most = speaks;
            }
        }
        if (best == end)
            break;
        places[count++] = best;
        before = most;
    }
    return count;
}

char comparison_winner(const struct comparison *c)
{
    bool is_contest = c->same_model && c->decider != COMPARED_NOTHING;
    return is_contest ? compared_better(&c->terms[c->decider]) : '=';
}

/* ---- causes ---- */

/* Of which choices a term is made in the first place, by the equations of docs/costmodel.md,
 * docs/layout-model.md and docs/layout-memory.md. */
static const struct {
    const char *term;
    const char *choices[10]; /* the most telling first; NULL after the last */
} causes[] = {
    {"forward",
     {"arithmetic", "arithmetics to choose", "fused attention", "tensor parallel",
      "context parallel", "micro-batch"}},
    {"backward",
     {"recompute", "arithmetic", "arithmetics to choose", "fused attention", "tensor parallel",
      "context parallel", "micro-batch"}},
    {"tensor",
     {"tensor parallel", "sequence parallel", "context parallel", "expert parallel", "overlap"}},
    {"pipeline", {"pipeline", "virtual stages", "schedule", "micro-batches", "micro-batch"}},
    {"param_gather",
     {"global batch", "zero stage", "shard", "overlap", "tensor parallel", "data parallel",
      "pipeline", "expert parallel", "context parallel"}},
    {"grad_reduce",
     {"global batch", "gradients", "zero stage", "shard", "overlap", "tensor parallel",
      "data parallel", "pipeline", "expert parallel", "context parallel"}},
    {"optimizer",
     {"global batch", "offload", "zero stage", "shard", "tensor parallel", "data parallel",
      "pipeline", "expert parallel", "context parallel"}},
    {"other", {"offload"}},
    {"parameters", {"zero stage", "shard", "tensor parallel", "pipeline", "expert parallel"}},
    {"gradients", {"zero stage", "shard", "tensor parallel", "pipeline", "expert parallel"}},
    {"activations",
     {"recompute", "fused attention", "offload", "tensor parallel", "sequence parallel",
      "context parallel", "pipeline", "schedule", "micro-batch"}},
    {"scratch",
     {"recompute", "fused attention", "tensor parallel", "sequence parallel", "context parallel",
      "micro-batch"}},
};
/* On these all terms do. */
static const char *const common_causes[] = {"model", "sequence", "cluster", "framework", "host"};

static const struct compared_choice *find_choice(const struct comparison *c, const char *name)
{
    for (size_t i = 0; i < c->choice_count; i++)
        if (strcmp(c->choices[i].name, name) == 0)
            return &c->choices[i];
    return NULL;
}

/* How many are told after this one, of which `told` were before. */
static int append_cause(const struct comparison *c, const char *name, int told, struct text *out)
{
    enum { CAUSES_MOST = 3 };
    const struct compared_choice *choice = find_choice(c, name);
    if (choice == NULL || told == CAUSES_MOST)
        return told;
    text_printf(out, "%s%s %s / %s", told > 0 ? ", " : "", choice->name, choice->a, choice->b);
    return told + 1;
}

void comparison_append_causes(const struct comparison *c, const char *term, struct text *out)
{
    int told = 0;
    for (size_t i = 0; i < COUNT_OF(common_causes); i++)
        told = append_cause(c, common_causes[i], told, out);
    for (size_t i = 0; i < COUNT_OF(causes); i++) {
        if (strcmp(causes[i].term, term) != 0)
            continue;
        for (size_t k = 0; k < COUNT_OF(causes[i].choices) && causes[i].choices[k]; k++)
            told = append_cause(c, causes[i].choices[k], told, out);
    }
}

void comparison_clear(struct comparison *c)
{
    text_free(&c->notes);
    text_free(&c->details);
}
