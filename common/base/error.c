#include "base/error.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Keys and names in a message come from files: keep them from steering the reader's terminal. */
static void replace_control_bytes(char *message)
{
    for (char *c = message; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f)
            *c = '?';
    }
}

enum status error_set(struct error *err, enum status status, const char *format, ...)
{
    /* The arguments may point into err->message. */
    char message[ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (length < 0)
        message[0] = '\0';
    replace_control_bytes(message);
    err->status = status;
    err->is_agreed = false;
    memcpy(err->message, message, sizeof(message));
    return status;
}

enum status error_prefix(struct error *err, const char *format, ...)
{
    char message[ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int prefix_bytes = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (prefix_bytes < 0)
        return err->status;
    size_t used = strlen(message);
    replace_control_bytes(message);
    int rest = snprintf(message + used, sizeof(message) - used, ": %s", err->message);
    if (rest < 0)
        return err->status;
    memcpy(err->message, message, sizeof(message));
    return err->status;
}

enum status error_memory(struct error *err, unsigned long long bytes, const char *what)
{
    return error_set(err, STATUS_MEMORY, "out of memory allocating %llu bytes for %s", bytes, what);
}
