#include "base/json.h"
#include "base/file.h"
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_document {
    json_t *root;
    char *name;
};

enum status json_parse_text(struct json_document **out, const char *text, size_t bytes,
                            const char *name, struct error *err)
{
    struct json_document *document = calloc(1, sizeof(*document));
    if (!document)
        return error_memory(err, sizeof(*document), name);
    enum status status = STATUS_OK;
    json_error_t fault;
    document->name = strdup(name);
    document->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &fault);
    if (!document->name)
        status = error_memory(err, strlen(name) + 1, name);
    else if (!document->root && json_error_code(&fault) == json_error_out_of_memory)
        status = error_memory(err, bytes, name);
    else if (!document->root)
        status = error_set(err, STATUS_INVALID, "%s: not valid JSON: line %d, column %d: %s", name,
                           fault.line, fault.column, fault.text);
    if (status != STATUS_OK) {
        json_document_free(document);
        return status;
    }
    *out = document;
    return STATUS_OK;
}

enum status json_parse_file(struct json_document **out, const char *path, struct error *err)
{
    char *data = NULL;
    size_t bytes = 0;
    TRY(file_read(path, &data, &bytes, err));
    enum status status = json_parse_text(out, data, bytes, path, err);
    free(data);
    return status;
}

void json_document_free(struct json_document *document)
{
    if (!document)
        return;
    json_decref(document->root);
    free(document->name);
    free(document);
}

struct jin json_root(const struct json_document *document)
{
    return (struct jin){.node = document->root, .file = document->name, .path = ""};
}

/* Jansson's accessors do not change a value but some of them take it without const. */
static json_t *value_at(const struct jin *at)
{
    return (json_t *)at->node;
}

static void child_path(const struct jin *at, const char *key, char path[JIN_PATH_BYTES])
{
    static const char cut[] = "...";
    int length =
        snprintf(path, JIN_PATH_BYTES, "%s%s%s", at->path, at->path[0] != '\0' ? "." : "", key);
    if (length >= JIN_PATH_BYTES)
        memcpy(path + JIN_PATH_BYTES - sizeof(cut), cut, sizeof(cut));
}

static struct jin child_at(const struct jin *at, const char *key)
{
    struct jin child = {.node = json_object_get(value_at(at), key), .file = at->file};
    child_path(at, key, child.path);
    return child;
}

enum status jin_invalid(const struct jin *at, const char *key, struct error *err,
                        const char *format, ...)
{
    char what[ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (length < 0)
        what[0] = '\0';
    char path[JIN_PATH_BYTES];
    if (key)
        child_path(at, key, path);
    else
        memcpy(path, at->path, sizeof(path));
    if (path[0] == '\0')
        return error_set(err, STATUS_INVALID, "%s: %s", at->file, what);
    return error_set(err, STATUS_INVALID, "%s: key '%s': %s", at->file, path, what);
}

static const char *type_found(const struct jin *at)
{
    if (!at->node)
        return "nothing: the key is missing";
    switch (json_typeof(value_at(at))) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "an unknown type";
}

static enum status wrong_type(const struct jin *at, const char *expected, struct error *err)
{
    return jin_invalid(at, NULL, err, "expected %s, found %s", expected, type_found(at));
}

/* The member `key`, present or not (node NULL), of what must be an object. */
static enum status find_member(const struct jin *at, const char *key, struct jin *out,
                               struct error *err)
{
    if (!jin_is_object(at))
        return wrong_type(at, "an object", err);
    *out = child_at(at, key);
    return STATUS_OK;
}

bool jin_has(const struct jin *at, const char *key)
{
    const json_t *value = json_object_get(value_at(at), key);
    return value && !json_is_null(value);
}

bool jin_is_object(const struct jin *at)
{
    return json_is_object(value_at(at));
}

bool jin_is_array(const struct jin *at)
{
    return json_is_array(value_at(at));
}

size_t jin_length(const struct jin *at)
{
    return json_array_size(value_at(at));
}

enum status jin_as_int(const struct jin *at, int64_t *out, struct error *err)
{
    if (!json_is_integer(value_at(at)))
        return wrong_type(at, "an integer", err);
    *out = json_integer_value(value_at(at));
    return STATUS_OK;
}

enum status jin_as_real(const struct jin *at, double *out, struct error *err)
{
    if (!json_is_number(value_at(at)))
        return wrong_type(at, "a number", err);
    *out = json_number_value(value_at(at));
    return STATUS_OK;
}

static enum status jin_as_bool(const struct jin *at, bool *out, struct error *err)
{
    if (!json_is_boolean(value_at(at)))
        return wrong_type(at, "true or false", err);
    *out = json_is_true(value_at(at));
    return STATUS_OK;
}

enum status jin_as_string(const struct jin *at, const char **out, struct error *err)
{
    if (!json_is_string(value_at(at)))
        return wrong_type(at, "a string", err);
    *out = json_string_value(value_at(at));
    return STATUS_OK;
}

enum status jin_object(const struct jin *at, const char *key, struct jin *out, struct error *err)
{
    struct jin child;
    TRY(find_member(at, key, &child, err));
    if (!jin_is_object(&child))
        return wrong_type(&child, "an object", err);
    *out = child;
    return STATUS_OK;
}

enum status jin_array(const struct jin *at, const char *key, struct jin *out, struct error *err)
{
    struct jin child;
    TRY(find_member(at, key, &child, err));
    if (!jin_is_array(&child))
        return wrong_type(&child, "an array", err);
    *out = child;
    return STATUS_OK;
}

enum status jin_int(const struct jin *at, const char *key, int64_t *out, struct error *err)
{
    struct jin child;
    TRY(find_member(at, key, &child, err));
    return jin_as_int(&child, out, err);
}

enum status jin_real(const struct jin *at, const char *key, double *out, struct error *err)
{
    struct jin child;
    TRY(find_member(at, key, &child, err));
    return jin_as_real(&child, out, err);
}

enum status jin_bool(const struct jin *at, const char *key, bool *out, struct error *err)
{
    struct jin child;
    TRY(find_member(at, key, &child, err));
    return jin_as_bool(&child, out, err);
}

enum status jin_string(const struct jin *at, const char *key, const char **out, struct error *err)
{
    struct jin child;
    TRY(find_member(at, key, &child, err));
    return jin_as_string(&child, out, err);
}

enum status jin_string_copy(const struct jin *at, const char *key, char *out, size_t capacity,
                            struct error *err)
{
    const char *string = NULL;
    TRY(jin_string(at, key, &string, err));
    size_t bytes = strlen(string);
    if (bytes >= capacity)
        return jin_invalid(at, key, err, "has %zu bytes, at most %zu are allowed", bytes,
                           capacity > 0 ? capacity - 1 : 0);
    memcpy(out, string, bytes + 1);
    return STATUS_OK;
}

/* Nothing to read: the member, or the whole object it would be in, is absent or null. */
static bool is_left_out(const struct jin *at, const char *key)
{
    return !at->node || (jin_is_object(at) && !jin_has(at, key));
}

enum status jin_int_opt(const struct jin *at, const char *key, int64_t *out, struct error *err)
{
    return is_left_out(at, key) ? STATUS_OK : jin_int(at, key, out, err);
}

enum status jin_real_opt(const struct jin *at, const char *key, double *out, struct error *err)
{
    return is_left_out(at, key) ? STATUS_OK : jin_real(at, key, out, err);
}

enum status jin_bool_opt(const struct jin *at, const char *key, bool *out, struct error *err)
{
    return is_left_out(at, key) ? STATUS_OK : jin_bool(at, key, out, err);
}

enum status jin_string_opt(const struct jin *at, const char *key, const char **out,
                           struct error *err)
{
    return is_left_out(at, key) ? STATUS_OK : jin_string(at, key, out, err);
}

struct jin jin_element(const struct jin *array, size_t index)
{
    struct jin element = {.node = json_array_get(value_at(array), index), .file = array->file};
    int length = snprintf(element.path, JIN_PATH_BYTES, "%s[%zu]", array->path, index);
    if (length >= JIN_PATH_BYTES)
        memcpy(element.path, array->path, sizeof(element.path));
    return element;
}

bool jin_next_member(const struct jin *object, void **iterator, const char **key, struct jin *value)
{
    json_t *node = value_at(object);
    *iterator = *iterator ? json_object_iter_next(node, *iterator) : json_object_iter(node);
    if (!*iterator)
        return false;
    *key = json_object_iter_key(*iterator);
    struct jin member = {.node = json_object_iter_value(*iterator), .file = object->file};
    child_path(object, *key, member.path);
    *value = member;
    return true;
}
