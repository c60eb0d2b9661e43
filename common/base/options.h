/* Command-line options: one table a command feeds the parser, --help and the man page.
 *
 * A table row says where its value goes (`offset` into the command's own struct) and what it is.
 * Values are accepted as `--name value`, `--name=value`, `-o value` and `-ovalue`; flags take no
 * value. A separate value may not begin with "--". An unknown option is an error that suggests the
 * nearest name. "--" ends the options. A repeated option's last value stands. */
#ifndef TEMPER_BASE_OPTIONS_H
#define TEMPER_BASE_OPTIONS_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_FLAG,   /* bool; present is true */
    OPTION_STRING, /* const char *, borrowed from argv */
    OPTION_INT,    /* int64_t */
    OPTION_REAL,   /* double */
    OPTION_BYTES,  /* uint64_t; "2GiB", "512MB", "1e9" */
};

struct option_spec {
    const char *name; /* without the dashes */
    char letter;      /* short form, or 0 */
    enum option_type type;
    size_t offset;
    const char *metavar;     /* "N", "FILE"; NULL for a flag */
    const char *fallback;    /* default, parsed like a value; NULL: leave the field as it was */
    const char *doc;         /* one sentence; the default is printed after it */
    double minimum, maximum; /* for INT and REAL when minimum < maximum */
};

struct option_table {
    const struct option_spec *rows;
    size_t count;
    const char *heading; /* of this group in --help, "Model" say */
};

/* What a command is: name, one line, usage, groups of options, an example. */
struct command_spec {
    const char *name;
    const char *summary;     /* one line */
    const char *synopsis;    /* "PLAN --data FILE [options]" */
    const char *description; /* paragraphs */
    const struct option_table *groups;
    size_t group_count;
    const char *example; /* command lines */
    size_t positional_minimum, positional_maximum;
};

enum { POSITIONALS_MAX = 32 };

struct positionals {
    const char *values[POSITIONALS_MAX];
    size_t count;
};

/* Fill `target` with defaults, then with what argv (without the command's own name) says. */
enum status options_parse(const struct command_spec *command, int argc, char **argv, void *target,
                          struct positionals *positionals, struct error *err);
/* --help as text; the same as a man page in roff (section 1, page temper-NAME). */
void options_help(const struct command_spec *command, struct text *out);
void options_man_page(const struct command_spec *command, const char *version, struct text *out);
/* The word of `words` nearest to `word` in edit distance, or NULL when none is near: "did you
 * mean". */
const char *nearest_word(const char *word, const char *const *words, size_t count);

#endif
