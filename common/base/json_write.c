/* The builder keeps the document as text from the start rather than as a tree: traces have hundreds
 * of thousands of values, and each is written once and never looked at again. */
#include "base/json.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JOUT_DEPTH_MAX = 64, REAL_BYTES = 40 };

struct jout {
    struct text text;
    struct error failure; /* the first; STATUS_OK while there is none */
    size_t depth;         /* open objects and arrays; the root is the first */
    char closers[JOUT_DEPTH_MAX];
    bool has_members[JOUT_DEPTH_MAX];
};

struct jout *jout_new(void)
{
    struct jout *out = calloc(1, sizeof(*out));
    if (!out)
        return NULL;
    out->closers[0] = '}';
    out->depth = 1;
    text_append(&out->text, "{");
    return out;
}

/* Bytes of the UTF-8 character that starts here, 0 if what is here is not one (a lone or missing
 * continuation byte, an overlong form, a surrogate, more than U+10FFFF). Stops at a NUL. */
static size_t utf8_length(const unsigned char *c)
{
    if (c[0] < 0x80)
        return 1;
    size_t length = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
    if (c[0] < 0xc2 || c[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xf0 && c[1] < 0x90);
    bool outside = (c[0] == 0xed && c[1] > 0x9f) || (c[0] == 0xf4 && c[1] > 0x8f);
    return overlong || outside ? 0 : length;
}

/* Text that is not UTF-8 (a file name, say) gets the replacement character for each wrong byte: a
 * report is worth more than a refusal. */
static void append_quoted(struct text *text, const char *string)
{
    text_append(text, "\"");
    while (*string != '\0') {
        const unsigned char *c = (const unsigned char *)string;
        size_t bytes = utf8_length(c);
        if (bytes == 0)
            text_append(text, "\xef\xbf\xbd");
        else if (*c == '"' || *c == '\\')
            text_printf(text, "\\%c", *c);
        else if (*c == '\n')
            text_append(text, "\\n");
        else if (*c == '\t')
            text_append(text, "\\t");
        else if (*c < 0x20 || *c == 0x7f)
            text_printf(text, "\\u%04x", (unsigned)*c);
        else
            text_append_bytes(text, string, bytes);
        string += bytes > 0 ? bytes : 1;
    }
    text_append(text, "\"");
}

static void jout_fail(struct jout *out, const char *what, const char *key)
{
    if (out->failure.status == STATUS_OK)
        (void)error_set(&out->failure, STATUS_INVALID, "building JSON: %s%s%s%s", what,
                        key ? " at key '" : "", key ? key : "", key ? "'" : "");
}

/* Comma and key of the next value; false when nothing may be written any more. */
static bool begin_value(struct jout *out, const char *key)
{
    if (!out || out->failure.status != STATUS_OK)
        return false;
    size_t top = out->depth - 1;
    if ((key != NULL) != (out->closers[top] == '}')) {
        jout_fail(out, key ? "an array's element has a key" : "an object's member has no key", key);
        return false;
    }
    if (out->has_members[top])
        text_append(&out->text, ",");
    out->has_members[top] = true;
    if (key) {
        append_quoted(&out->text, key);
        text_append(&out->text, ":");
    }
    return true;
}

static void begin_container(struct jout *out, const char *key, const char *opener, char closer)
{
    if (!begin_value(out, key))
        return;
    if (out->depth == JOUT_DEPTH_MAX) {
        jout_fail(out, "objects and arrays are nested too deep", key);
        return;
    }
    text_append(&out->text, opener);
    out->closers[out->depth] = closer;
    out->has_members[out->depth] = false;
    out->depth++;
}

void jout_begin_object(struct jout *out, const char *key)
{
    begin_container(out, key, "{", '}');
}

void jout_begin_array(struct jout *out, const char *key)
{
    begin_container(out, key, "[", ']');
}

void jout_end(struct jout *out)
{
    if (!out || out->failure.status != STATUS_OK)
        return;
    if (out->depth == 1) {
        jout_fail(out, "more objects and arrays were ended than begun", NULL);
        return;
    }
    out->depth--;
    text_append_bytes(&out->text, &out->closers[out->depth], 1);
}

void jout_int(struct jout *out, const char *key, int64_t value)
{
    if (begin_value(out, key))
        text_printf(&out->text, "%" PRId64, value);
}

/* The shortest of 15 to 17 digits that reads back as the same double, and always a point or an
 * exponent, so that it reads back as a real. */
static void append_real(struct text *text, double value)
{
    char digits[REAL_BYTES];
    for (int precision = 15; precision <= 17; precision++) {
        (void)snprintf(digits, sizeof(digits), "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_append(text, digits);
    if (!strpbrk(digits, ".e"))
        text_append(text, ".0");
}

void jout_real(struct jout *out, const char *key, double value)
{
    if (!begin_value(out, key))
        return;
    if (isfinite(value))
        append_real(&out->text, value);
    else
        text_append(&out->text, "null");
}

void jout_bool(struct jout *out, const char *key, bool value)
{
    if (begin_value(out, key))
        text_append(&out->text, value ? "true" : "false");
}

void jout_string(struct jout *out, const char *key, const char *value)
{
    if (!begin_value(out, key))
        return;
    if (value)
        append_quoted(&out->text, value);
    else
        text_append(&out->text, "null");
}

void jout_null(struct jout *out, const char *key)
{
    if (begin_value(out, key))
        text_append(&out->text, "null");
}

/* Bytes of the string literal (quotes included) that starts at `json`. */
static size_t literal_length(const char *json)
{
    size_t length = 1;
    while (json[length] != '"')
        length += json[length] == '\\' ? 2 : 1;
    return length + 1;
}

static void append_line_start(struct text *text, int indent, size_t depth)
{
    if (indent > 0)
        text_printf(text, "\n%*s", indent * (int)depth, "");
}

/* Lay valid JSON out anew: one line for indent 0, else one value a line. */
static void append_laid_out(struct text *text, const char *json, int indent)
{
    size_t depth = 0;
    for (const char *c = json; *c != '\0';) {
        size_t bytes = 1;
        if (*c == '"') {
            bytes = literal_length(c);
            text_append_bytes(text, c, bytes);
        } else if (*c == '{' || *c == '[') {
            text_append_bytes(text, c, 1);
            bytes += strspn(c + 1, " \t\r\n");
            depth++;
            if (c[bytes] != '}' && c[bytes] != ']')
                append_line_start(text, indent, depth);
            else
                text_append_bytes(text, c + bytes, 1), bytes++, depth--;
        } else if (*c == '}' || *c == ']') {
            depth--;
            append_line_start(text, indent, depth);
            text_append_bytes(text, c, 1);
        } else if (*c == ',') {
            text_append(text, ",");
            append_line_start(text, indent, depth);
        } else if (*c == ':') {
            text_append(text, indent > 0 ? ": " : ":");
        } else if (!strchr(" \t\r\n", *c)) {
            bytes = strcspn(c, " \t\r\n,:{}[]\"");
            text_append_bytes(text, c, bytes);
        }
        c += bytes;
    }
}

void jout_raw(struct jout *out, const char *key, const char *json_text)
{
    if (!begin_value(out, key))
        return;
    json_error_t fault;
    json_t *value = json_loads(json_text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &fault);
    if (value)
        append_laid_out(&out->text, json_text, 0);
    else
        jout_fail(out, fault.text, key);
    json_decref(value);
}

enum status jout_finish(struct jout *out, int indent, struct text *text, struct error *err)
{
    if (!out)
        return error_memory(err, sizeof(*out), "a JSON builder");
    if (out->depth != 1)
        jout_fail(out, "an object or array was not ended", NULL);
    text_append(&out->text, "}");
    enum status status = out->failure.status;
    if (status != STATUS_OK) {
        *err = out->failure;
    } else {
        status = text_check(&out->text, err);
        if (status == STATUS_OK) {
            append_laid_out(text, out->text.data, indent);
            status = text_check(text, err);
        }
    }
    text_free(&out->text);
    free(out);
    return status;
}
