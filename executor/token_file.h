/* A file of tokens that is read piece by piece: text as bytes, or llm.c's .bin. Formats:
 * docs/data.md. */
#ifndef TEMPER_EXECUTOR_TOKEN_FILE_H
#define TEMPER_EXECUTOR_TOKEN_FILE_H

#include "base/error.h"
#include <stdint.h>

enum { TOKEN_BYTES_MAX = 4 };

struct token_file {
    int fd;
    const char *path;     /* borrowed: outlives the file */
    int64_t header_bytes; /* before the first token */
    int64_t token_bytes;  /* of one token: 1, 2 or 4, little-endian and unsigned */
    int64_t tokens;
};

/* A name that ends in .bin must be llm.c's format; anything else is text. */
enum status token_file_open(struct token_file *out, const char *path, struct error *err);
void token_file_close(struct token_file *file);

/* Tokens [first, first + count), which lie inside the file, into `tokens`. `scratch` holds
 * count * token_bytes bytes. A token >= vocab is STATUS_INVALID by file, place and both figures. */
enum status token_file_read(const struct token_file *file, int64_t first, int64_t count,
                            int64_t vocab, unsigned char *scratch, int32_t *tokens,
                            struct error *err);

#endif
