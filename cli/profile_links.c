#include "cli/profile_links.h"

#include "base/units.h"
#include <stdio.h>
#include <string.h>

enum { KIND_BYTES = 32 };

/* All sizes of one collective in one shape of group. */
struct link {
    char kind[KIND_BYTES]; /* "all-reduce" */
    int ranks, threads;    /* of the placement */
    int ways, apart;       /* ranks in a group, and how far from each other */
    bool is_on_one_host;   /* every group */
    const struct measurement *smallest, *largest;
};

static double bytes_per_s(const struct link *link)
{
    return (double)link->largest->bytes / link->largest->mean;
}

static const char *tier_name(const struct link *link)
{
    return link->is_on_one_host ? "same host" : "between hosts";
}

static bool is_same_series(const struct measurement *a, const struct measurement *b)
{
    return a->metric == b->metric && a->ranks == b->ranks && a->threads == b->threads &&
           strcmp(a->subject, b->subject) == 0;
}

/* Launchers fill hosts in the order of ranks. */
static bool stays_on_host(const struct measurement_list *list, const struct link *link)
{
    int host_ranks = link->ranks;
    for (size_t i = 0; i < list->count; i++) {
        const struct measurement *row = &list->rows[i];
        if (row->metric == METRIC_HOST_RANKS && row->ranks == link->ranks &&
            row->threads == link->threads)
            host_ranks = (int)row->mean;
    }
    return host_ranks >= link->ranks || host_ranks % (link->ways * link->apart) == 0;
}

/* The series that this row begins; false: another row of it came before, or it is no link. */
static bool link_at(const struct measurement_list *list, size_t index, struct link *out)
{
    const struct measurement *first = &list->rows[index];
    struct link link = {.ranks = first->ranks, .threads = first->threads, .ways = 2};
    if (first->metric != METRIC_LINK_S ||
        (sscanf(first->subject, "%31[^/]/n%d/x%d", link.kind, &link.ways, &link.apart) != 3 &&
         sscanf(first->subject, "%31[^/]/x%d", link.kind, &link.apart) != 2))
        return false;
    for (size_t i = 0; i < index; i++)
        if (is_same_series(&list->rows[i], first))
            return false;
    link.smallest = link.largest = first;
    for (size_t i = index + 1; i < list->count; i++) {
        const struct measurement *row = &list->rows[i];
        if (!is_same_series(row, first))
            continue;
        link.smallest = row->bytes < link.smallest->bytes ? row : link.smallest;
        link.largest = row->bytes > link.largest->bytes ? row : link.largest;
    }
    link.is_on_one_host = stays_on_host(list, &link);
    *out = link;
    return true;
}

/* One line a placement. Messages show a link as it is; collectives also show their algorithm. */
static void print_tiers(const struct measurement_list *list)
{
    struct link link, before = {.ranks = 0};
    for (size_t i = 0; i < list->count; i++) {
        char rate[UNIT_TEXT_BYTES];
        if (!link_at(list, i, &link) || strcmp(link.kind, "point-to-point") != 0)
            continue;
        if (link.ranks == before.ranks && link.threads == before.threads)
            printf("; ");
        else
            printf("%slinks of %d x %d threads: ", before.ranks > 0 ? "\n" : "", link.ranks,
                   link.threads);
        printf("%d ranks, %d apart (%s): %s/s", link.ways, link.apart, tier_name(&link),
               format_bytes(bytes_per_s(&link), rate));
        before = link;
    }
    putchar('\n');
}

void print_links(const struct measurement_list *list)
{
    bool any = false;
    struct link link;
    for (size_t i = 0; i < list->count; i++) {
        char small[UNIT_TEXT_BYTES], seconds[UNIT_TEXT_BYTES];
        char large[UNIT_TEXT_BYTES], rate[UNIT_TEXT_BYTES];
        if (!link_at(list, i, &link))
            continue;
        if (!any)
            printf("\n%-21s %5s %7s %5s %5s  %-13s %20s %24s\n", "link", "ranks", "threads",
                   "group", "apart", "on", "latency", "rate");
        any = true;
        (void)snprintf(small, sizeof(small), "%s",
                       format_bytes((double)link.smallest->bytes, seconds));
        (void)snprintf(large, sizeof(large), "%s",
                       format_bytes((double)link.largest->bytes, seconds));
        printf("%-21s %5d %7d %5d %5d  %-13s %10s %9s %12s/s %9s\n", link.kind, link.ranks,
               link.threads, link.ways, link.apart, tier_name(&link),
               format_seconds(link.smallest->mean, seconds), small,
               format_bytes(bytes_per_s(&link), rate), large);
    }
    if (any)
        print_tiers(list);
}

void write_links(const struct measurement_list *list, struct jout *out)
{
    struct link link;
    jout_begin_array(out, "links");
    for (size_t i = 0; i < list->count; i++) {
        if (!link_at(list, i, &link))
            continue;
        jout_begin_object(out, NULL);
        jout_string(out, "link", link.kind);
        jout_int(out, "ranks", link.ranks);
        jout_int(out, "threads", link.threads);
        jout_int(out, "group", link.ways);
        jout_int(out, "apart", link.apart);
        jout_string(out, "on", tier_name(&link));
        jout_real(out, "latency_s", link.smallest->mean);
        jout_int(out, "latency_bytes", link.smallest->bytes);
        jout_real(out, "bytes_per_s", bytes_per_s(&link));
        jout_int(out, "rate_bytes", link.largest->bytes);
        jout_end(out);
    }
    jout_end(out);
}
