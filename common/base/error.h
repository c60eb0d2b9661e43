/* Status codes and the one error record that every fallible function fills.
 *
 * A function that can fail returns `enum status` and, when it is not STATUS_OK, has filled the
 * caller's `struct error` once, at the deepest place that could name the cause. The message says
 * what was wrong, where (file, line or key) and what would be right. Outputs are set on success
 * only. `err` may never be NULL. Nothing below cli/ prints or exits. */
#ifndef TEMPER_BASE_ERROR_H
#define TEMPER_BASE_ERROR_H

#include <stdbool.h>

enum status {
    STATUS_OK = 0,
    STATUS_USAGE,       /* the command line is wrong: exit code 2 */
    STATUS_INVALID,     /* an input (file, key, value) is wrong */
    STATUS_IO,          /* the system refused a read, write, sync or rename */
    STATUS_MEMORY,      /* an allocation failed */
    STATUS_UNSUPPORTED, /* well-formed, but not something temper can do */
    STATUS_CORRUPT,     /* a file contradicts itself: torn, truncated, wrong checksum */
    STATUS_INFEASIBLE,  /* no plan satisfies the constraints: exit code 3 */
    STATUS_FAILED,      /* the work itself failed: a rank died, the loss became NaN */
    STATUS_INTERRUPTED, /* a signal asked to stop; what was good has been kept */
};

enum { ERROR_MESSAGE_BYTES = 1024 };

struct error {
    enum status status;
    bool is_agreed; /* every rank of the job has this very error (executor/agree.h) */
    char message[ERROR_MESSAGE_BYTES];
};

/* Fill `err`, as one that nobody else knows of, and return `status`, so that `return
 * error_set(...)` reads as one act. */
enum status error_set(struct error *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the message that is there: for a caller that knows the file or key.
 * Returns err->status. */
enum status error_prefix(struct error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "out of memory allocating N bytes for WHAT". */
enum status error_memory(struct error *err, unsigned long long bytes, const char *what);

/* Return early when a call failed; for functions that hold nothing to be released. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (call);                                                          \
        if (try_status_ != STATUS_OK)                                                              \
            return try_status_;                                                                    \
    } while (0)

#endif
