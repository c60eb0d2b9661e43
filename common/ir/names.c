#include "ir/names.h"

#include <assert.h>
#include <string.h>

const char *name_of(const struct name_list *list, size_t value)
{
    assert(value < list->count);
    return list->names[value];
}

bool name_parse(const struct name_list *list, const char *name, unsigned *out)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->names[i], name) == 0) {
            *out = (unsigned)i;
            return true;
        }
    }
    return false;
}

void names_append(const struct name_list *list, struct text *out)
{
    for (size_t i = 0; i < list->count; i++)
        text_printf(out, "%s%s", i > 0 ? ", " : "", list->names[i]);
}
