/* What an option table looks like to a reader: --help as text and the man page as roff. */
#include "base/options.h"
#include <stdbool.h>
#include <string.h>

enum { HELP_COLUMNS = 100, DOC_COLUMN_MAX = 36, INDENT_COLUMNS = 2 };

/* ---- Text ---- */

/* Columns on a terminal: the bytes that do not continue a UTF-8 character. */
static size_t columns_of(const char *string, size_t bytes)
{
    size_t columns = 0;
    for (size_t i = 0; i < bytes; i++)
        columns += ((unsigned char)string[i] & 0xc0) != 0x80 ? 1 : 0;
    return columns;
}

static void append_blanks(struct text *out, size_t columns)
{
    text_printf(out, "%*s", (int)columns, "");
}

/* Where the next word goes. */
struct wrap {
    struct text *out;
    size_t margin_columns; /* of every line but the first */
    size_t column;
};

/* Words of one line of text, broken where they would pass HELP_COLUMNS. */
static void wrap_words(struct wrap *wrap, const char *words, size_t bytes)
{
    const char *end = words + bytes;
    while (words < end) {
        size_t blanks = strspn(words, " ");
        words += blanks;
        size_t word_bytes = words < end ? strcspn(words, " \n") : 0;
        if (word_bytes == 0)
            return;
        size_t word_columns = columns_of(words, word_bytes);
        bool at_margin = wrap->column <= wrap->margin_columns;
        if (!at_margin && wrap->column + 1 + word_columns > HELP_COLUMNS) {
            text_append(wrap->out, "\n");
            append_blanks(wrap->out, wrap->margin_columns);
            wrap->column = wrap->margin_columns;
        } else if (!at_margin) {
            text_append(wrap->out, " ");
            wrap->column++;
        }
        text_append_bytes(wrap->out, words, word_bytes);
        wrap->column += word_columns;
        words += word_bytes;
    }
}

/* Paragraphs: every line of `string` is wrapped on its own, and keeps its indentation. */
static void append_paragraphs(struct text *out, const char *string, size_t indent_columns)
{
    while (*string != '\0') {
        size_t bytes = strcspn(string, "\n"), blanks = strspn(string, " ");
        if (bytes > blanks) {
            struct wrap wrap = {.out = out, .margin_columns = indent_columns + blanks};
            append_blanks(out, wrap.margin_columns);
            wrap.column = wrap.margin_columns;
            wrap_words(&wrap, string, bytes);
        }
        text_append(out, "\n");
        string += bytes + (string[bytes] == '\n' ? 1 : 0);
    }
}

/* "  -o, --output FILE"; returns its columns. */
static size_t append_option_head(struct text *out, const struct option_spec *spec)
{
    size_t start = out->bytes;
    if (spec->letter != 0)
        text_printf(out, "  -%c, --%s", spec->letter, spec->name);
    else
        text_printf(out, "      --%s", spec->name);
    if (spec->metavar)
        text_printf(out, " %s", spec->metavar);
    return out->failed ? 0 : columns_of(out->data + start, out->bytes - start);
}

/* Two columns after the longest head, heads that are too long aside: their doc starts below. */
static size_t doc_column(const struct command_spec *command)
{
    size_t widest = 0;
    struct text head = {0};
    for (size_t g = 0; g < command->group_count; g++)
        for (size_t i = 0; i < command->groups[g].count; i++) {
            size_t columns = append_option_head(&head, &command->groups[g].rows[i]);
            if (columns + 2 <= DOC_COLUMN_MAX && columns > widest)
                widest = columns;
        }
    text_free(&head);
    return widest + 2;
}

/* The doc and, after it, the default. */
static void append_doc(struct text *doc, const struct option_spec *spec)
{
    text_append(doc, spec->doc);
    if (!spec->fallback || spec->type == OPTION_FLAG)
        return;
    bool is_newline = strcmp(spec->fallback, "\n") == 0;
    const char *shown = spec->fallback[0] != '\0' ? spec->fallback : "none";
    text_printf(doc, " (default: %s)", is_newline ? "a new line" : shown);
}

static void append_option(struct text *out, const struct option_spec *spec, size_t column)
{
    size_t head_columns = append_option_head(out, spec);
    if (head_columns + 2 > column) {
        text_append(out, "\n");
        head_columns = 0;
    }
    append_blanks(out, column - head_columns);
    struct text doc = {0};
    append_doc(&doc, spec);
    struct wrap wrap = {.out = out, .margin_columns = column, .column = column};
    if (doc.failed)
        out->failed = true;
    else
        wrap_words(&wrap, doc.data, doc.bytes);
    text_free(&doc);
    text_append(out, "\n");
}

void options_help(const struct command_spec *command, struct text *out)
{
    text_printf(out, "usage: temper %s %s\n\n", command->name, command->synopsis);
    append_paragraphs(out, command->summary, 0);
    if (command->description) {
        text_append(out, "\n");
        append_paragraphs(out, command->description, 0);
    }
    size_t column = doc_column(command);
    for (size_t g = 0; g < command->group_count; g++) {
        const struct option_table *group = &command->groups[g];
        text_printf(out, "\n%s:\n", group->heading);
        for (size_t i = 0; i < group->count; i++)
            append_option(out, &group->rows[i], column);
    }
    if (command->example) {
        text_append(out, "\nExample:\n");
        append_paragraphs(out, command->example, INDENT_COLUMNS);
    }
}

/* ---- Roff ---- */

/* How a character must be written so that it prints as itself (groff_char(7)); NULL: as it is. */
static const char *roff_escape(char c)
{
    switch (c) {
    case '\\':
        return "\\(rs";
    case '-':
        return "\\-";
    case '\'':
        return "\\(aq";
    case '`':
        return "\\(ga";
    case '^':
        return "\\(ha";
    case '~':
        return "\\(ti";
    default:
        return NULL;
    }
}

/* Text that roff prints as it is: no escapes and no requests. Lines of `string` stay lines. */
static void append_roff(struct text *out, const char *string)
{
    bool line_starts = true;
    for (const char *c = string; *c != '\0'; c++) {
        const char *escape = roff_escape(*c);
        if (line_starts && *c == '.')
            text_append(out, "\\&");
        if (escape)
            text_append(out, escape);
        else
            text_append_bytes(out, c, 1);
        line_starts = *c == '\n';
    }
}

/* Blank lines become paragraphs; other lines break where they break in --help. */
static void append_roff_paragraphs(struct text *out, const char *string)
{
    bool paragraph_starts = true;
    while (*string != '\0') {
        size_t bytes = strcspn(string, "\n"), blanks = strspn(string, " ");
        bool is_blank = bytes <= blanks;
        if (!is_blank) {
            struct text line = {0};
            text_append_bytes(&line, string + blanks, bytes - blanks);
            text_append(out, paragraph_starts ? ".PP\n" : ".br\n");
            append_roff(out, line.failed ? "" : line.data);
            text_append(out, "\n");
            out->failed = out->failed || line.failed;
            text_free(&line);
        }
        paragraph_starts = is_blank;
        string += bytes + (string[bytes] == '\n' ? 1 : 0);
    }
}

static void append_roff_option(struct text *out, const struct option_spec *spec)
{
    text_append(out, ".TP\n");
    if (spec->letter != 0)
        text_printf(out, "\\fB\\-%c\\fR, ", spec->letter);
    text_append(out, "\\fB\\-\\-");
    append_roff(out, spec->name);
    text_append(out, "\\fR");
    if (spec->metavar) {
        text_append(out, " \\fI");
        append_roff(out, spec->metavar);
        text_append(out, "\\fR");
    }
    struct text doc = {0};
    append_doc(&doc, spec);
    text_append(out, "\n");
    append_roff(out, doc.failed ? "" : doc.data);
    text_append(out, "\n");
    out->failed = out->failed || doc.failed;
    text_free(&doc);
}

static void append_roff_title(struct text *out, const struct command_spec *command,
                              const char *version)
{
    text_append(out, ".TH \"TEMPER\\-");
    for (const char *c = command->name; *c != '\0'; c++) {
        char upper = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        text_append_bytes(out, &upper, 1);
    }
    text_printf(out, "\" 1 \"\" \"temper %s\" \"temper manual\"\n", version);
}

void options_man_page(const struct command_spec *command, const char *version, struct text *out)
{
    append_roff_title(out, command, version);
    text_printf(out, ".SH NAME\ntemper\\-%s \\- ", command->name);
    append_roff(out, command->summary);
    text_printf(out, "\n.SH SYNOPSIS\n.B temper %s\n", command->name);
    append_roff(out, command->synopsis);
    text_append(out, "\n.SH DESCRIPTION\n");
    append_roff_paragraphs(out, command->description ? command->description : command->summary);
    text_append(out, ".SH OPTIONS\n");
    for (size_t g = 0; g < command->group_count; g++) {
        text_append(out, ".SS ");
        append_roff(out, command->groups[g].heading);
        text_append(out, "\n");
        for (size_t i = 0; i < command->groups[g].count; i++)
            append_roff_option(out, &command->groups[g].rows[i]);
    }
    if (command->example) {
        text_append(out, ".SH EXAMPLES\n.EX\n");
        append_roff(out, command->example);
        text_append(out, "\n.EE\n");
    }
    text_append(out, ".SH EXIT STATUS\n"
                     ".TP\n0\nDone.\n"
                     ".TP\n1\nThe work failed; the message on standard error says why.\n"
                     ".TP\n2\nThe command line is wrong.\n"
                     ".TP\n3\nNo plan satisfies the constraints.\n"
                     ".SH SEE ALSO\n.BR temper (1)\n");
}
