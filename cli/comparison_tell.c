/* A comparison as text and as JSON. */
#include "cli/cli.h"
#include "cli/comparison.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REASONS_MAX = 3 };

static const struct compared_term *decider(const struct comparison *c)
{
    return c->decider == COMPARED_NOTHING ? NULL : &c->terms[c->decider];
}

/* ---- text: choices ---- */

static const char *words_or_none(const char *words)
{
    return words[0] != '\0' ? words : "none";
}

static void append_choices(const struct comparison *c, struct text *out)
{
    int width = 24;
    if (c->choice_count == 0) {
        text_append(out, "\nno choice differs\n");
        return;
    }
    for (size_t i = 0; i < c->choice_count; i++)
        width = (int)fmax(width, (double)strlen(c->choices[i].a));
    text_printf(out, "\nchoices that differ\n  %-22s %-*s %s\n", "", width, "A", "B");
    for (size_t i = 0; i < c->choice_count; i++) {
        const struct compared_choice *choice = &c->choices[i];
        text_printf(out, "  %-22s %-*s %s\n", choice->name, width, words_or_none(choice->a),
                    words_or_none(choice->b));
    }
}

/* ---- text: terms ---- */

static const char *cell(const struct compared_term *term, const struct quantity *quantity,
                        char buffer[UNIT_TEXT_BYTES])
{
    return quantity->provenance == PROVENANCE_ABSENT ? "absent"
                                                     : term->format(quantity->value, buffer);
}

/* "+1.2 ms" */
static const char *signed_text(const struct compared_term *term, double value,
                               char out[UNIT_TEXT_BYTES + 1])
{
    char figure[UNIT_TEXT_BYTES];
    (void)snprintf(out, UNIT_TEXT_BYTES + 1, "%s%s", value > 0 ? "+" : "",
                   term->format(value, figure));
    return out;
}

static void append_share(double more, double of, struct text *out)
{
    const double multiple_above = 10; /* of which "+1234.5 %" says less than "x 13.3" */
    double share = more / fabs(of);
    if (share >= multiple_above)
        text_printf(out, "  %3s %6.3g", "x", 1 + share);
    else
        text_printf(out, "  %+8.2f %%", 100 * share);
}

static void append_term(const struct compared_term *term, struct text *out)
{
    char a[UNIT_TEXT_BYTES], b[UNIT_TEXT_BYTES], change[UNIT_TEXT_BYTES + 1];
    bool is_known = compared_is_known(term);
    double more = is_known ? compared_difference(term) : 0;
    if (!term->is_total && is_known && term->a.value == 0 && term->b.value == 0)
        return; /* neither has any of it */
    text_printf(out, "  %s%-*s %14s %14s", term->is_total ? "" : "  ", term->is_total ? 26 : 24,
                term->name, cell(term, &term->a, a), cell(term, &term->b, b));
    if (is_known)
        text_printf(out, " %15s", more == 0 ? "same" : signed_text(term, more, change));
    if (is_known && more != 0 && term->a.value != 0)
        append_share(more, term->a.value, out);
    text_append(out, "\n");
}

static void append_terms(const struct comparison *c, struct text *out)
{
    text_printf(out, "\n  %-26s %14s %14s %15s  %10s\n",
                c->basis_tokens > 0 ? "predicted, 1 M tokens" : "predicted, one step", "A", "B",
                "B - A", "of A");
    for (size_t i = 0; i < c->term_count; i++)
        append_term(&c->terms[i], out);
}

/* ---- text: why ---- */

/* Of the larger of the two, by which the smaller is less; else of the smaller. */
static double percent_between(const struct compared_term *total, bool is_less)
{
    double a = fabs(total->a.value), b = fabs(total->b.value);
    double base = is_less ? fmax(a, b) : fmin(a, b);
    return base > 0 ? 100 * fabs(compared_difference(total)) / base : INFINITY;
}

/* The terms that speak for the better side, or against it, each with what it hangs on. */
static void append_reasons(const struct comparison *c, size_t total, char better, bool is_for,
                           struct text *out)
{
    size_t places[REASONS_MAX];
    size_t count = comparison_reasons(c, total, is_for, places, REASONS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct compared_term *term = &c->terms[places[i]];
        char change[UNIT_TEXT_BYTES + 1];
        struct text cause = {0};
        double more = compared_difference(term);
        comparison_append_causes(c, term->name, &cause);
        text_printf(out, "  %-7s %-16s %12s",
                    i > 0    ? ""
                    : is_for ? "gained"
                             : "paid",
                    term->name, signed_text(term, better == 'A' ? -more : more, change));
        if (cause.data != NULL)
            text_printf(out, "   (%s)", cause.data);
        text_append(out, "\n");
        out->failed = out->failed || cause.failed;
        text_free(&cause);
    }
}

static void append_reasons_of(const struct comparison *c, size_t total, struct text *out)
{
    const struct compared_term *term = &c->terms[total];
    char better = compared_better(term), change[UNIT_TEXT_BYTES];
    if (better == '=') {
        text_printf(out, "%s: the same\n", term->name);
        return;
    }
    text_printf(out, "%s: %c takes %s less (%.2f %% of %c's)\n", term->name, better,
                term->format(fabs(compared_difference(term)), change), percent_between(term, true),
                better == 'A' ? 'B' : 'A');
    append_reasons(c, total, better, true, out);
    append_reasons(c, total, better, false, out);
}

/* Is it one of the totals that are told beside the one that decides? */
static bool is_beside(const struct comparison *c, size_t total)
{
    const struct compared_term *term = &c->terms[total];
    return term->is_judged && (int)total != c->decider && compared_is_known(term);
}

/* ", 1.10 % less time" for the totals in which `side` is the better; of the other, which pays with
 * them, ", 1.11 % more time". */
static size_t append_better(const struct comparison *c, char side, const char *before, bool pays,
                            struct text *out)
{
    size_t count = 0;
    for (size_t i = 0; i < c->term_count; i++) {
        const struct compared_term *term = &c->terms[i];
        if (!is_beside(c, i) || compared_better(term) != side)
            continue;
        bool is_less = term->is_more_better == pays;
        text_printf(out, "%s%.2f %% %s %s", count == 0 ? before : ", ",
                    percent_between(term, is_less), is_less ? "less" : "more", term->name);
        count++;
    }
    return count;
}

/* What a search left open may turn the order round; so may what the predictions do not know. */
static void append_doubts(const struct comparison *c, char winner, struct text *out)
{
    const struct compared_term *term = decider(c);
    const struct compared_aim *loser = winner == 'A' ? &c->aim_b : &c->aim_a;
    double won = winner == 'A' ? term->a.value : term->b.value;
    double lost = winner == 'A' ? term->b.value : term->a.value;
    double deviation = fmax(term->a.deviation, term->b.deviation);
    char known[UNIT_TEXT_BYTES];
    if (isfinite(loser->gap) && lost * (1 - loser->gap) < won)
        text_printf(out, "%c's search left a gap of %.2g %%: what it did not find may be better\n",
                    winner == 'A' ? 'B' : 'A', 100 * loser->gap);
    if (fabs(compared_difference(term)) < deviation)
        text_printf(
            out,
            "the predictions' own deviation, %s, is more than what is between them: measure "
            "both where it matters\n",
            term->format(deviation, known));
}

static void append_winner(const struct comparison *c, struct text *out)
{
    const struct compared_term *term = decider(c);
    char winner = comparison_winner(c), loser = winner == 'A' ? 'B' : 'A';
    size_t reason;
    text_printf(out, "\n%c wins: %.2f %% less %s, which both minimise", winner,
                percent_between(term, true), term->name);
    if (comparison_reasons(c, (size_t)c->decider, true, &reason, 1) > 0)
        text_printf(out, "; %s decides", c->terms[reason].name);
    text_append(out, ".");
    if (append_better(c, loser, " It pays with ", true, out) > 0)
        text_append(out, ".");
    if (append_better(c, winner, " It also has ", false, out) > 0)
        text_append(out, ".");
    text_append(out, "\n");
    append_doubts(c, winner, out);
}

/* Who is better in what, where nobody wins. */
static void append_sides(const struct comparison *c, const char *why, struct text *out)
{
    text_printf(out, "\nno winner: %s", why);
    size_t better = append_better(c, 'A', ". A has ", false, out);
    better += append_better(c, 'B', better > 0 ? "; B has " : ". B has ", false, out);
    text_append(out, better > 0 ? ".\n" : ", and neither is better in anything else.\n");
}

static void append_verdict(const struct comparison *c, struct text *out)
{
    const struct compared_term *term = decider(c);
    char why[COMPARED_NAME_BYTES + 64];
    if (comparison_winner(c) != '=') {
        append_winner(c, out);
    } else if (!c->same_model) {
        append_sides(c, "the models are not the same", out);
    } else if (term == NULL) {
        append_sides(c, "the aims are not the same", out);
    } else {
        (void)snprintf(why, sizeof(why), "%s, which both minimise, is %s", term->name,
                       compared_is_known(term) ? "the same" : "not known of both");
        append_sides(c, why, out);
    }
}

static void append_all(const struct comparison *c, struct text *out)
{
    text_printf(out, "A: %s\nB: %s\n", c->path_a, c->path_b);
    if (c->notes.data != NULL)
        text_append(out, c->notes.data);
    append_choices(c, out);
    if (c->details.data != NULL)
        text_append(out, c->details.data);
    append_terms(c, out);
    text_append(out, "\nwhy (in brackets: choices of A / B that a term hangs on)\n");
    for (size_t i = 0; i < c->term_count; i++)
        if (c->terms[i].is_judged && !c->terms[i].is_more_better && compared_is_known(&c->terms[i]))
            append_reasons_of(c, i, out);
    append_verdict(c, out);
}

enum status comparison_print_text(const struct comparison *c, struct error *err)
{
    struct text out = {.failed = c->notes.failed || c->details.failed};
    append_all(c, &out);
    enum status status = text_check(&out, err);
    if (status == STATUS_OK)
        fputs(out.data, stdout);
    text_free(&out);
    return status;
}

/* ---- JSON ---- */

/* "a", "b" or NULL */
static const char *side_key(char side)
{
    return side == 'A' ? "a" : side == 'B' ? "b" : NULL;
}

static void deviation_json(const char *key, const struct quantity *quantity, struct jout *out)
{
    jout_real(out, key, quantity->provenance == PROVENANCE_ABSENT ? NAN : quantity->deviation);
}

static void terms_json(const struct comparison *c, struct jout *out)
{
    const char *total = "";
    jout_begin_array(out, "terms");
    for (size_t i = 0; i < c->term_count; i++) {
        const struct compared_term *term = &c->terms[i];
        size_t reason;
        if (term->is_total)
            total = term->name;
        jout_begin_object(out, NULL);
        jout_string(out, "total", total);
        jout_string(out, "term", term->is_total ? NULL : term->name);
        jout_string(out, "unit", term->unit);
        write_quantity("a", &term->a, out);
        write_quantity("b", &term->b, out);
        deviation_json("a_deviation", &term->a, out);
        deviation_json("b_deviation", &term->b, out);
        jout_real(out, "difference", compared_is_known(term) ? compared_difference(term) : NAN);
        if (term->is_total) {
            char better = compared_better(term);
            bool has_reason = better != '=' && comparison_reasons(c, i, true, &reason, 1) > 0;
            jout_string(out, "better", side_key(better));
            jout_string(out, "decides", has_reason ? c->terms[reason].name : NULL);
        }
        jout_end(out);
    }
    jout_end(out);
}

static void notes_json(const struct comparison *c, struct jout *out)
{
    const char *at = c->notes.data != NULL ? c->notes.data : "";
    jout_begin_array(out, "notes");
    for (const char *end = strchr(at, '\n'); end != NULL; at = end + 1, end = strchr(at, '\n')) {
        struct text line = {0};
        text_append_bytes(&line, at, (size_t)(end - at));
        jout_string(out, NULL, line.data);
        text_free(&line);
    }
    jout_end(out);
}

enum status comparison_print_json(const struct comparison *c,
                                  void (*more)(const void *user, struct jout *out),
                                  const void *user, struct error *err)
{
    struct jout *out = jout_new();
    jout_string(out, "a", c->path_a);
    jout_string(out, "b", c->path_b);
    notes_json(c, out);
    jout_bool(out, "same_model", c->same_model);
    jout_bool(out, "same_aim", c->same_aim);
    jout_string(out, "winner", side_key(comparison_winner(c)));
    jout_string(out, "winner_by", decider(c) != NULL ? decider(c)->name : NULL);
    jout_real(out, "a_gap", c->aim_a.gap);
    jout_real(out, "b_gap", c->aim_b.gap);
    jout_real(out, "basis_tokens", c->basis_tokens > 0 ? c->basis_tokens : NAN);
    terms_json(c, out);
    jout_begin_array(out, "choices");
    for (size_t i = 0; i < c->choice_count; i++) {
        jout_begin_object(out, NULL);
        jout_string(out, "choice", c->choices[i].name);
        jout_string(out, "a", c->choices[i].a);
        jout_string(out, "b", c->choices[i].b);
        jout_end(out);
    }
    jout_end(out);
    if (more != NULL)
        more(user, out);
    return console_json(out, err);
}
