#include "base/options.h"
#include "base/units.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- The nearest word ---- */

enum { WORD_BYTES_MAX = 63 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn one word into the other
 * (optimal string alignment). Both have at most WORD_BYTES_MAX bytes. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t a_bytes = strlen(a), b_bytes = strlen(b);
    size_t rows[3][WORD_BYTES_MAX + 1];
    size_t *before = rows[0], *previous = rows[1], *current = rows[2];
    for (size_t j = 0; j <= b_bytes; j++)
        previous[j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        current[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            size_t replaced = previous[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0);
            current[j] = smaller(replaced, 1 + smaller(previous[j], current[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                current[j] = smaller(current[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = previous;
        previous = current;
        current = oldest;
    }
    return previous[b_bytes];
}

const char *nearest_word(const char *word, const char *const *words, size_t count)
{
    size_t bytes = strlen(word);
    const char *nearest = NULL;
    size_t nearest_distance = bytes / 3 + 2; /* a suggestion must be nearer than this */
    if (bytes == 0 || bytes > WORD_BYTES_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (strlen(words[i]) > WORD_BYTES_MAX)
            continue;
        bool is_beginning = bytes >= 3 && strncmp(words[i], word, bytes) == 0;
        size_t distance = is_beginning ? 1 : edit_distance(word, words[i]);
        if (distance < nearest_distance && distance < bytes) {
            nearest = words[i];
            nearest_distance = distance;
        }
    }
    return nearest;
}

/* ---- Values ---- */

static enum status out_of_range(const struct option_spec *spec, const char *value,
                                struct error *err)
{
    if (spec->maximum >= 9e18)
        return error_set(err, STATUS_USAGE,
                         "option '--%s': %s is too small; it must be at least %.12g", spec->name,
                         value, spec->minimum);
    if (spec->minimum <= -9e18)
        return error_set(err, STATUS_USAGE,
                         "option '--%s': %s is too large; it must be at most %.12g", spec->name,
                         value, spec->maximum);
    return error_set(err, STATUS_USAGE,
                     "option '--%s': %s is out of range; it must be from %.12g to %.12g",
                     spec->name, value, spec->minimum, spec->maximum);
}

static bool in_range(const struct option_spec *spec, double value)
{
    return !(spec->minimum < spec->maximum) || (value >= spec->minimum && value <= spec->maximum);
}

static enum status parse_int(const struct option_spec *spec, const char *value, int64_t *out,
                             struct error *err)
{
    size_t sign = *value == '-' || *value == '+' ? 1 : 0;
    size_t digits = strspn(value + sign, "0123456789");
    if (digits == 0 || value[sign + digits] != '\0')
        return error_set(err, STATUS_USAGE, "option '--%s': '%s' is not a whole number", spec->name,
                         value);
    errno = 0;
    long long parsed = strtoll(value, NULL, 10);
    if (errno == ERANGE)
        return error_set(err, STATUS_USAGE, "option '--%s': %s does not fit into 64 bits",
                         spec->name, value);
    if (!in_range(spec, (double)parsed))
        return out_of_range(spec, value, err);
    *out = parsed;
    return STATUS_OK;
}

static enum status parse_real(const struct option_spec *spec, const char *value, double *out,
                              struct error *err)
{
    char *end = NULL;
    double parsed = strtod(value, &end);
    /* strtod alone would also take blanks, hexadecimal, "inf" and "nan". */
    bool is_plain = *value != '\0' && value[strspn(value, "0123456789+-.eE")] == '\0';
    if (!is_plain || *end != '\0' || !isfinite(parsed))
        return error_set(err, STATUS_USAGE, "option '--%s': '%s' is not a number", spec->name,
                         value);
    if (!in_range(spec, parsed))
        return out_of_range(spec, value, err);
    *out = parsed;
    return STATUS_OK;
}

/* `value` is ignored for a flag. */
static enum status set_value(const struct option_spec *spec, const char *value, void *target,
                             struct error *err)
{
    char *field = (char *)target + spec->offset;
    switch (spec->type) {
    case OPTION_FLAG: {
        const bool present = true;
        memcpy(field, &present, sizeof(present));
        break;
    }
    case OPTION_STRING:
        memcpy(field, &value, sizeof(value));
        break;
    case OPTION_INT: {
        int64_t number = 0;
        TRY(parse_int(spec, value, &number, err));
        memcpy(field, &number, sizeof(number));
        break;
    }
    case OPTION_REAL: {
        double number = 0;
        TRY(parse_real(spec, value, &number, err));
        memcpy(field, &number, sizeof(number));
        break;
    }
    case OPTION_BYTES: {
        uint64_t bytes = 0;
        if (parse_bytes(value, &bytes, err) != STATUS_OK) {
            err->status = STATUS_USAGE;
            return error_prefix(err, "option '--%s'", spec->name);
        }
        memcpy(field, &bytes, sizeof(bytes));
        break;
    }
    }
    return STATUS_OK;
}

/* ---- Parsing ---- */

struct parser {
    const struct command_spec *command;
    int argc, next; /* the next argument to look at */
    char **argv;
    void *target;
    struct positionals positionals;
};

/* By letter when `name` is NULL. */
static const struct option_spec *find_option(const struct command_spec *command, const char *name,
                                             size_t bytes, char letter)
{
    for (size_t g = 0; g < command->group_count; g++) {
        const struct option_table *group = &command->groups[g];
        for (size_t i = 0; i < group->count; i++) {
            const struct option_spec *spec = &group->rows[i];
            if (name ? strlen(spec->name) == bytes && memcmp(spec->name, name, bytes) == 0
                     : spec->letter == letter)
                return spec;
        }
    }
    return NULL;
}

static size_t option_count(const struct command_spec *command)
{
    size_t count = 0;
    for (size_t g = 0; g < command->group_count; g++)
        count += command->groups[g].count;
    return count;
}

static enum status unknown_option(const struct command_spec *command, const char *name,
                                  size_t name_bytes, struct error *err)
{
    size_t count = 0;
    const char **names = calloc(option_count(command) + 1, sizeof(*names));
    char *word = strndup(name, name_bytes);
    for (size_t g = 0; names && g < command->group_count; g++)
        for (size_t i = 0; i < command->groups[g].count; i++)
            names[count++] = command->groups[g].rows[i].name;
    const char *nearest = word ? nearest_word(word, names, count) : NULL;
    if (nearest)
        (void)error_set(err, STATUS_USAGE, "unknown option '--%.*s'; did you mean '--%s'?",
                        (int)name_bytes, name, nearest);
    else
        (void)error_set(err, STATUS_USAGE, "unknown option '--%.*s'; 'temper %s --help' lists all",
                        (int)name_bytes, name, command->name);
    free(word);
    free(names);
    return STATUS_USAGE;
}

/* The value that follows as an argument of its own. One that looks like an option most likely means
 * that the value was forgotten. */
static enum status take_value(struct parser *parser, const struct option_spec *spec,
                              const char **value, struct error *err)
{
    const char *next = parser->next < parser->argc ? parser->argv[parser->next] : NULL;
    if (!next)
        return error_set(err, STATUS_USAGE, "option '--%s' needs a value: --%s %s", spec->name,
                         spec->name, spec->metavar ? spec->metavar : "VALUE");
    if (strncmp(next, "--", 2) == 0)
        return error_set(err, STATUS_USAGE,
                         "option '--%s' needs a value but '%s' follows; if that is the value, "
                         "write --%s=%s",
                         spec->name, next, spec->name, next);
    parser->next++;
    *value = next;
    return STATUS_OK;
}

static enum status parse_long(struct parser *parser, const char *argument, struct error *err)
{
    const char *name = argument + 2;
    size_t name_bytes = strcspn(name, "=");
    const struct option_spec *spec = find_option(parser->command, name, name_bytes, 0);
    if (!spec)
        return unknown_option(parser->command, name, name_bytes, err);
    const char *value = name[name_bytes] == '=' ? name + name_bytes + 1 : NULL;
    if (spec->type == OPTION_FLAG && value)
        return error_set(err, STATUS_USAGE, "option '--%s' takes no value; found '%s'", spec->name,
                         value);
    if (spec->type != OPTION_FLAG && !value)
        TRY(take_value(parser, spec, &value, err));
    return set_value(spec, value, parser->target, err);
}

/* "-o FILE", "-oFILE", or letters of flags together: "-qv". */
static enum status parse_letters(struct parser *parser, const char *argument, struct error *err)
{
    for (const char *letter = argument + 1; *letter != '\0'; letter++) {
        const struct option_spec *spec = find_option(parser->command, NULL, 0, *letter);
        if (!spec)
            return error_set(err, STATUS_USAGE,
                             "unknown option '-%c' in '%s'; 'temper %s --help' lists all", *letter,
                             argument, parser->command->name);
        if (spec->type == OPTION_FLAG) {
            TRY(set_value(spec, NULL, parser->target, err));
            continue;
        }
        const char *value = letter + 1;
        if (*value == '\0')
            TRY(take_value(parser, spec, &value, err));
        return set_value(spec, value, parser->target, err);
    }
    return STATUS_OK;
}

static enum status parse_positional(struct parser *parser, const char *argument, struct error *err)
{
    struct positionals *positionals = &parser->positionals;
    if (positionals->count >= parser->command->positional_maximum)
        return error_set(err, STATUS_USAGE, "unexpected argument '%s'; usage: temper %s %s",
                         argument, parser->command->name, parser->command->synopsis);
    positionals->values[positionals->count++] = argument;
    return STATUS_OK;
}

static enum status set_defaults(const struct command_spec *command, void *target, struct error *err)
{
    for (size_t g = 0; g < command->group_count; g++)
        for (size_t i = 0; i < command->groups[g].count; i++) {
            const struct option_spec *spec = &command->groups[g].rows[i];
            if (spec->fallback && spec->type != OPTION_FLAG)
                TRY(set_value(spec, spec->fallback, target, err));
        }
    return STATUS_OK;
}

enum status options_parse(const struct command_spec *command, int argc, char **argv, void *target,
                          struct positionals *positionals, struct error *err)
{
    assert(command->positional_maximum <= POSITIONALS_MAX);
    struct parser parser = {.command = command, .argc = argc, .argv = argv, .target = target};
    bool options_ended = false;
    TRY(set_defaults(command, target, err));
    while (parser.next < argc) {
        const char *argument = argv[parser.next++];
        if (options_ended || argument[0] != '-' || argument[1] == '\0')
            TRY(parse_positional(&parser, argument, err));
        else if (strcmp(argument, "--") == 0)
            options_ended = true;
        else if (argument[1] == '-')
            TRY(parse_long(&parser, argument, err));
        else
            TRY(parse_letters(&parser, argument, err));
    }
    if (parser.positionals.count < command->positional_minimum)
        return error_set(err, STATUS_USAGE, "an argument is missing; usage: temper %s %s",
                         command->name, command->synopsis);
    *positionals = parser.positionals;
    return STATUS_OK;
}
