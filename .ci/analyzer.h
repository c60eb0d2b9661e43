/* Forced into every file when clang-tidy reads it: the static analyzer sees one file at a time and
 * would take an error_set() that lives elsewhere for one that may return STATUS_OK. */
#include "base/error.h"
#include "base/json.h"

#define error_set(err, status, ...)    (error_set(err, status, __VA_ARGS__), (status))
#define error_memory(err, bytes, what) (error_memory(err, bytes, what), STATUS_MEMORY)
#define error_prefix(err, ...)         (error_prefix(err, __VA_ARGS__), STATUS_FAILED)
#define jin_invalid(at, key, err, ...) (jin_invalid(at, key, err, __VA_ARGS__), STATUS_INVALID)
