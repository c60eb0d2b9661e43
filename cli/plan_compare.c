#include "cli/plan_compare.h"

#include "base/file.h"
#include "cli/answer_file.h"
#include "cli/compare_answers.h"
#include "cli/compare_plans.h"
#include <stdlib.h>
#include <string.h>

#define WANTED                                                                                     \
    "expected a plan file (temper plan -o) or the answer of temper plan --cluster ... --json"

static const char plan_format[] = "temper-plan";

enum file_kind { FILE_PLAN, FILE_ANSWER };
static const char *const kind_words[] = {"a plan file", "the answer of temper plan --cluster"};

/* What else temper plan prints, as people may have kept it. */
static enum status refuse_unformatted(const struct jin *root, struct error *err)
{
    if (jin_has(root, "axes"))
        return error_set(
            err, STATUS_INVALID,
            "%s: this is the front of --pareto, not one layout with its terms; " WANTED,
            root->file);
    if (jin_has(root, "layouts"))
        return error_set(err, STATUS_INVALID,
                         "%s: key 'format': missing, and so are the terms: an older temper wrote "
                         "this answer; ask again with temper plan --cluster ... --json",
                         root->file);
    if (jin_has(root, "plan"))
        return error_set(err, STATUS_INVALID,
                         "%s: this is what temper plan --json printed; the plan file itself is "
                         "written with -o",
                         root->file);
    return error_set(err, STATUS_INVALID, "%s: key 'format': missing; " WANTED, root->file);
}

static enum status find_kind(const struct jin *root, enum file_kind *out, struct error *err)
{
    const char *format = NULL;
    if (!jin_is_object(root))
        return error_set(err, STATUS_INVALID, "%s: not a JSON object; " WANTED, root->file);
    if (!jin_has(root, "format"))
        return refuse_unformatted(root, err);
    TRY(jin_string(root, "format", &format, err));
    if (strcmp(format, plan_format) != 0 && strcmp(format, ANSWER_FORMAT) != 0)
        return jin_invalid(root, "format", err, "must be '%s' or '" ANSWER_FORMAT "', is '%s'",
                           plan_format, format);
    *out = strcmp(format, plan_format) == 0 ? FILE_PLAN : FILE_ANSWER;
    return STATUS_OK;
}

/* An empty file is what is left of a search that found nothing. */
static enum status open_file(const char *path, struct json_document **out, struct error *err)
{
    char *data = NULL;
    size_t bytes = 0;
    TRY(file_read(path, &data, &bytes, err));
    enum status status =
        bytes == 0 ? error_set(err, STATUS_INVALID,
                               "%s: the file is empty: temper plan prints no answer where it finds "
                               "no layout; " WANTED,
                               path)
                   : json_parse_text(out, data, bytes, path, err);
    free(data);
    return status;
}

static enum status open_both(const char *const paths[2], struct json_document *documents[2],
                             enum file_kind *kind, struct error *err)
{
    enum file_kind kinds[2];
    for (int i = 0; i < 2; i++) {
        TRY(open_file(paths[i], &documents[i], err));
        struct jin root = json_root(documents[i]);
        TRY(find_kind(&root, &kinds[i], err));
    }
    if (kinds[0] != kinds[1])
        return error_set(err, STATUS_INVALID,
                         "%s is %s, %s is %s: compare two of one kind, for their terms are not the "
                         "same figures",
                         paths[0], kind_words[kinds[0]], paths[1], kind_words[kinds[1]]);
    *kind = kinds[0];
    return STATUS_OK;
}

/* Takes the documents over. */
static enum status read_and_compare(struct json_document *documents[2], bool json,
                                    struct error *err)
{
    struct answer_file *files = calloc(2, sizeof(*files));
    enum status status =
        files == NULL ? error_memory(err, 2 * sizeof(*files), "the answers") : STATUS_OK;
    for (int i = 0; i < 2 && status == STATUS_OK; i++) {
        status = answer_file_read(&files[i], documents[i], err);
        documents[i] = NULL;
    }
    if (status == STATUS_OK)
        status = compare_answers(&files[0], &files[1], json, err);
    for (int i = 0; i < 2 && files != NULL; i++)
        answer_file_clear(&files[i]);
    free(files);
    return status;
}

enum status plan_compare(const char *path_a, const char *path_b, bool json, struct error *err)
{
    const char *const paths[2] = {path_a, path_b};
    struct json_document *documents[2] = {NULL, NULL};
    enum file_kind kind = FILE_PLAN;
    enum status status = open_both(paths, documents, &kind, err);
    if (status == STATUS_OK && kind == FILE_ANSWER)
        status = read_and_compare(documents, json, err);
    for (int i = 0; i < 2; i++)
        json_document_free(documents[i]);
    if (status == STATUS_OK && kind == FILE_PLAN)
        return compare_plans(path_a, path_b, json, err);
    return status;
}
