/* The sections of the page, one file each; not for use outside page*.c. */
#ifndef TEMPER_TRACES_PAGE_PARTS_H
#define TEMPER_TRACES_PAGE_PARTS_H

#include "base/error.h"
#include "base/text.h"
#include "traces/compare.h"
#include "traces/figures.h"

struct page {
    const struct run_record *record;
    const struct run_comparison *comparison;
    struct text *out;
};

extern const char *const page_style[]; /* CSS in pieces, the last NULL */

/* How a phase looks: its words, and the CSS class that gives its colour. */
struct phase_look {
    const char *label, *class;
};
extern const struct phase_look phase_looks[PHASE_COUNT];

void page_plan(const struct page *page);
void page_phases(const struct page *page);
void page_communication(const struct page *page);
void page_layers(const struct page *page);
void page_roofline(const struct page *page);
enum status page_timeline(const struct page *page, struct error *err);
enum status page_memory(const struct page *page, struct error *err);
enum status page_training(const struct page *page, struct error *err);

/* The kept step whose time is nearest the median. False when no events were kept. */
struct shown_step {
    int64_t step;
    int64_t begin_ns, end_ns; /* over all ranks */
    size_t event_count;
};
bool page_shown_step(const struct page *page, struct shown_step *out);

/* ---- pieces that several sections use ---- */

/* <section> with heading and one line of explanation (ours, not escaped). */
void page_section(const struct page *page, const char *id, const char *title, const char *lead);
void page_section_end(const struct page *page);
/* One entry of a legend: swatch of `class`, words (escaped). */
void page_key(const struct page *page, const char *class, const char *words);
/* "measured", "modelled", ... as a small tag. */
void page_tag(const struct page *page, enum provenance provenance);
/* Table cells: predicted, measured, error coloured by size. */
void page_comparison_cells(const struct page *page, enum figure_kind kind,
                           const struct comparison *comparison);
/* Larger than any value of a list that starts at `largest`: for the end of an axis. */
double page_largest(double largest, struct quantity quantity);

#endif
