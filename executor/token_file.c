#include "executor/token_file.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* llm.c's header: 256 int32, of which three are used. */
enum bin_field { BIN_MAGIC, BIN_VERSION, BIN_TOKENS, BIN_FIELDS = 256 };
enum { BIN_HEADER_BYTES = BIN_FIELDS * 4 };

static const struct {
    int32_t magic, version;
    int64_t token_bytes;
} bin_formats[] = {
    {.magic = 20240520, .version = 1, .token_bytes = 2}, /* GPT-2's tokens */
    {.magic = 20240801, .version = 7, .token_bytes = 4}, /* Llama 3's tokens */
};

/* STATUS_CORRUPT when the file ends before `bytes` bytes are read. */
static enum status read_at(const struct token_file *file, int64_t offset, unsigned char *data,
                           size_t bytes, struct error *err)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(file->fd, data + done, bytes - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, STATUS_IO, "cannot read '%s': %s", file->path, strerror(errno));
        if (got == 0)
            return error_set(err, STATUS_CORRUPT,
                             "%s: ends at byte %lld, byte %lld is wanted: it became shorter since "
                             "it was opened",
                             file->path, (long long)(offset + (int64_t)done),
                             (long long)(offset + (int64_t)bytes));
        done += (size_t)got;
    }
    return STATUS_OK;
}

static uint32_t little_endian(const unsigned char *data, int64_t bytes)
{
    uint32_t value = 0;
    for (int64_t i = 0; i < bytes; i++)
        value |= (uint32_t)data[i] << (8 * i);
    return value;
}

static int32_t header_field(const unsigned char header[BIN_HEADER_BYTES], enum bin_field field)
{
    return (int32_t)little_endian(header + 4 * (size_t)field, 4);
}

static enum status check_bin_header(struct token_file *file, int64_t file_bytes, struct error *err)
{
    unsigned char header[BIN_HEADER_BYTES];
    if (file_bytes < BIN_HEADER_BYTES)
        return error_set(err, STATUS_CORRUPT,
                         "%s: has %lld bytes, the header of a .bin file alone has %d (a text file "
                         "must not end in .bin)",
                         file->path, (long long)file_bytes, BIN_HEADER_BYTES);
    TRY(read_at(file, 0, header, sizeof(header), err));
    int32_t magic = header_field(header, BIN_MAGIC), version = header_field(header, BIN_VERSION);
    int32_t tokens = header_field(header, BIN_TOKENS);
    size_t format = 0, formats = sizeof(bin_formats) / sizeof(bin_formats[0]);
    while (format < formats && bin_formats[format].magic != magic)
        format++;
    if (format == formats)
        return error_set(err, STATUS_INVALID,
                         "%s: starts with magic %d, an llm.c .bin file with 20240520 (16-bit "
                         "tokens) or 20240801 (32-bit tokens); a text file must not end in .bin",
                         file->path, magic);
    if (bin_formats[format].version != version)
        return error_set(err, STATUS_UNSUPPORTED, "%s: magic %d with version %d, expected %d",
                         file->path, magic, version, bin_formats[format].version);
    int64_t described_bytes = BIN_HEADER_BYTES + tokens * bin_formats[format].token_bytes;
    if (tokens < 0 || described_bytes != file_bytes)
        return error_set(err, STATUS_CORRUPT,
                         "%s: has %lld bytes, its header tells of %d tokens of %lld bytes, which "
                         "make %lld: the file is torn",
                         file->path, (long long)file_bytes, tokens,
                         (long long)bin_formats[format].token_bytes, (long long)described_bytes);
    file->header_bytes = BIN_HEADER_BYTES;
    file->token_bytes = bin_formats[format].token_bytes;
    file->tokens = tokens;
    return STATUS_OK;
}

static bool is_bin(const char *path)
{
    size_t bytes = strlen(path);
    return bytes >= 4 && strcmp(path + bytes - 4, ".bin") == 0;
}

static enum status check_contents(struct token_file *file, struct error *err)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return error_set(err, STATUS_IO, "cannot read '%s': %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(err, STATUS_INVALID,
                         "%s: training data must be a regular file, not a folder, pipe or device",
                         file->path);
    if (is_bin(file->path))
        return check_bin_header(file, info.st_size, err);
    file->header_bytes = 0;
    file->token_bytes = 1;
    file->tokens = info.st_size;
    return STATUS_OK;
}

enum status token_file_open(struct token_file *out, const char *path, struct error *err)
{
    /* Not blocking: opening a pipe would wait for its writer before it could be refused. */
    struct token_file file = {.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), .path = path};
    if (file.fd < 0)
        return error_set(err, STATUS_IO, "cannot open the training data '%s': %s", path,
                         strerror(errno));
    enum status status = check_contents(&file, err);
    if (status != STATUS_OK) {
        (void)close(file.fd);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

void token_file_close(struct token_file *file)
{
    (void)close(file->fd);
    file->fd = -1;
}

enum status token_file_read(const struct token_file *file, int64_t first, int64_t count,
                            int64_t vocab, unsigned char *scratch, int32_t *tokens,
                            struct error *err)
{
    assert(first >= 0 && count >= 0 && first <= file->tokens - count);
    int64_t offset = file->header_bytes + first * file->token_bytes;
    TRY(read_at(file, offset, scratch, (size_t)(count * file->token_bytes), err));
    for (int64_t i = 0; i < count; i++) {
        uint32_t token = little_endian(scratch + i * file->token_bytes, file->token_bytes);
        if (token >= vocab)
            return error_set(err, STATUS_INVALID,
                             "%s: token %lld (at byte %lld) is %u, the model's vocabulary has only "
                             "%lld entries: train a model with a vocabulary above %u or tokenise "
                             "the data for this one",
                             file->path, (long long)(first + i),
                             (long long)(offset + i * file->token_bytes), token, (long long)vocab,
                             token);
        tokens[i] = (int32_t)token;
    }
    return STATUS_OK;
}
