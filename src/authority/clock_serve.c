/* The rpc "clock": what time it is here, for anybody who asks (`rap doctor`). Stateless: a stream is answered
 * and ended in the call that brought its only frame. */
#include "authority/authority_impl.h"

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct authority *a = data;
    struct clock_request rq;
    struct buf out;
    if (msg_decode(&clock_request_desc, MSG_LENIENT, frame, &rq) != 0) {
        fabric_stream_reset(s, -ERR_MALFORMED);
        return;
    }
    const struct clock_answer answer = {.sent_at_ms = rq.sent_at_ms,
                                        .wall_ms = authority_now_ms(a)};
    buf_init(&out, 64);
    msg_encode(&clock_answer_desc, &answer, &out);
    (void)fabric_stream_send(s, buf_blob(&out));
    fabric_stream_close(s);
    buf_fini(&out);
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)data;
    (void)rc;
}

static void on_stream(void *data, struct fabric_stream *s)
{
    static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};
    fabric_stream_accept(s, &vtab, data);
}

void clock_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric, &(struct fabric_service){.name = "clock",
                                                         .flags = FABRIC_SVC_ENROLL,
                                                         .frame_max_bytes = 64,
                                                         .data = a,
                                                         .stream = on_stream});
}
