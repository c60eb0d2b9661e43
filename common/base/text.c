#include "base/text.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_FIRST_BYTES = 256 };

/* Room for `extra` more bytes and the NUL. */
static bool text_reserve(struct text *text, size_t extra)
{
    if (text->failed)
        return false;
    if (extra >= SIZE_MAX / 2 - text->bytes) {
        text->failed = true;
        return false;
    }
    size_t needed = text->bytes + extra + 1;
    if (needed <= text->capacity)
        return true;
    size_t capacity = text->capacity > 0 ? text->capacity : TEXT_FIRST_BYTES;
    while (capacity < needed)
        capacity *= 2;
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void text_append_bytes(struct text *text, const void *data, size_t bytes)
{
    if (!text_reserve(text, bytes))
        return;
    if (bytes > 0)
        memcpy(text->data + text->bytes, data, bytes);
    text->bytes += bytes;
    text->data[text->bytes] = '\0';
}

void text_append(struct text *text, const char *string)
{
    text_append_bytes(text, string, strlen(string));
}

void text_printf(struct text *text, const char *format, ...)
{
    if (!text_reserve(text, 0))
        return;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = text->capacity - text->bytes;
    int length = vsnprintf(text->data + text->bytes, room, format, args);
    va_end(args);
    if (length < 0) {
        text->data[text->bytes] = '\0';
        text->failed = true;
    } else if ((size_t)length < room) {
        text->bytes += (size_t)length;
    } else {
        text->data[text->bytes] = '\0'; /* what the first attempt wrote is cut off */
        if (text_reserve(text, (size_t)length)) {
            (void)vsnprintf(text->data + text->bytes, (size_t)length + 1, format, again);
            text->bytes += (size_t)length;
        }
    }
    va_end(again);
}

static const char *html_entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void text_append_html(struct text *text, const char *string)
{
    while (*string != '\0') {
        size_t plain = strcspn(string, "&<>\"'");
        text_append_bytes(text, string, plain);
        string += plain;
        if (*string != '\0')
            text_append(text, html_entity(*string++));
    }
}

enum status text_check(const struct text *text, struct error *err)
{
    if (text->failed)
        return error_set(err, STATUS_MEMORY, "out of memory building a text of more than %zu bytes",
                         text->bytes);
    return STATUS_OK;
}

void text_free(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}
