/* What the user of a stream asks about it, and sets. */
#include "fabric/fabric_impl.h"

void fabric_stream_limit(struct fabric_stream *s, size_t frame_max_bytes)
{
    s->rx.max = frame_max_bytes < s->rx.max ? frame_max_bytes : s->rx.max;
}

bool fabric_stream_is_bulk(const struct fabric_stream *s)
{
    return s->bulk;
}

const struct fabric_peer *fabric_stream_peer(const struct fabric_stream *s)
{
    return s->ss != NULL && s->ss->state == SESSION_UP ? &s->ss->who : NULL;
}

uint32_t fabric_stream_retry_ms(const struct fabric_stream *s)
{
    return s->rc == -ERR_RATE_LIMITED ? s->retry_ms : 0;
}
