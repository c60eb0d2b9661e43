#include "ir/event.h"

#include "ir/names.h"

static const char *const streams[STREAM_COUNT] = {
    [STREAM_COMPUTE] = "compute",
    [STREAM_COMM] = "comm",
};
static const struct name_list stream_names = {streams, STREAM_COUNT};

const char *event_stream_name(enum event_stream stream)
{
    return name_of(&stream_names, stream);
}
