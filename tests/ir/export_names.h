/* The names of options that the targets of exports have, and checks of files against them. */
#ifndef TEMPER_TESTS_IR_EXPORT_NAMES_H
#define TEMPER_TESTS_IR_EXPORT_NAMES_H

#include "support.h"

#include "base/json.h"
#include "ir/export.h"

/* One row of tests/ir/data/export_TARGET.txt. */
struct name_row {
    char name[96];
    char values[256]; /* " a b c "; empty: any */
};

struct name_table {
    struct name_row rows[256];
    size_t count;
};

static inline void load_names(enum export_target target, struct name_table *out)
{
    char path[512];
    char *text;
    size_t bytes;
    struct error err;
    snprintf(path, sizeof(path), "%s/tests/ir/data/export_%s.txt", TEMPER_SOURCE_DIR,
             export_target_name(target));
    assert_ok(file_read(path, &text, &bytes, &err), &err);
    out->count = 0;
    for (char *rest = text, *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        if (line[0] == '#')
            continue;
        assert_true(out->count < COUNT(out->rows));
        struct name_row *row = &out->rows[out->count++];
        size_t length = strcspn(line, " ");
        snprintf(row->name, sizeof(row->name), "%.*s", (int)length, line);
        row->values[0] = '\0';
        if (line[length] == ' ')
            snprintf(row->values, sizeof(row->values), "%s ", line + length);
    }
    free(text);
    assert_true(out->count > 30);
}

/* `value` may be several words. */
static inline void assert_known(const struct name_table *names, const char *name, const char *value)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->rows[i].name, name) != 0)
            continue;
        char words[256];
        snprintf(words, sizeof(words), "%s", value);
        char *rest = words;
        for (char *word;
             names->rows[i].values[0] != '\0' && (word = strtok_r(rest, " ", &rest)) != NULL;) {
            char spaced[128];
            snprintf(spaced, sizeof(spaced), " %s ", word);
            if (strstr(names->rows[i].values, spaced) == NULL)
                fail_msg("'%s' is no value of %s:%s", word, name, names->rows[i].values);
        }
        return;
    }
    fail_msg("the target has no option '%s'", name);
}

static inline void check_arguments(const struct name_table *names, char *file)
{
    for (char *rest = file, *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        size_t length = strcspn(line, " ");
        const char *value = line[length] == ' ' ? line + length + 1 : "";
        line[length] = '\0';
        assert_known(names, line, value);
    }
}

static inline void check_overrides(const struct name_table *names, char *file)
{
    for (char *rest = file, *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        char *value = strchr(line, '=');
        assert_non_null(value);
        *value = '\0';
        assert_known(names, line + strspn(line, "+"), value + 1);
    }
}

static inline void check_toml(const struct name_table *names, char *file)
{
    char section[64] = "", name[160];
    for (char *rest = file, *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        char *equals = strstr(line, " = ");
        if (line[0] == '[') {
            snprintf(section, sizeof(section), "%.*s", (int)strcspn(line + 1, "]"), line + 1);
        } else if (equals != NULL && line[0] != '#' && line[0] != ' ') {
            char *value = equals + 3;
            size_t quoted = value[0] == '"';
            value[strlen(value) - quoted] = '\0';
            *equals = '\0';
            snprintf(name, sizeof(name), "%s.%s", section, line);
            assert_known(names, name, value + quoted);
        } else {
            /* a comment, or a row of the only list */
            assert_true(line[0] == '#' || strncmp(line, "  [\"", 4) == 0 || line[0] == ']');
        }
    }
}

static inline void check_json(const struct name_table *names, const struct jin *at,
                              const char *prefix)
{
    void *iterator = NULL;
    const char *key;
    struct jin value;
    while (jin_next_member(at, &iterator, &key, &value)) {
        char name[160];
        int bytes =
            snprintf(name, sizeof(name), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", key);
        assert_true(bytes > 0 && (size_t)bytes < sizeof(name));
        if (jin_is_object(&value))
            check_json(names, &value, name);
        else
            assert_known(names, name, "");
    }
}

static inline void check_file(enum export_target target, char *file)
{
    static struct name_table names;
    struct json_document *document;
    struct error err;
    load_names(target, &names);
    if (target == EXPORT_MEGATRON) {
        check_arguments(&names, file);
    } else if (target == EXPORT_NEMO) {
        check_overrides(&names, file);
    } else if (target == EXPORT_TORCHTITAN) {
        check_toml(&names, file);
    } else {
        assert_ok(json_parse_text(&document, file, strlen(file), "ds_config", &err), &err);
        struct jin root = json_root(document);
        check_json(&names, &root, "");
        json_document_free(document);
    }
}

#endif
