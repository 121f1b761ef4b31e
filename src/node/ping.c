/* node.ping: the client of the synthetic services.
 *
 *     synthetic_ping -> resolve the node (on authorities also by name) -> resolve the relay -> begin
 *     begin -> next_echo -> on_echo -> ... `count` times -> start_bulk, when bytes are wanted -> finish
 *     ending early: no such node, no way, a refusal, the deadline, the node stops -> finish with that
 *
 * The answer says which way the session went at the end: direct, or relayed and over which neighbour. */
#include "node/synthetic.h"

#include "node/route_id.h"

#include "base/clock.h"
#include "base/log.h"

#define COUNT_MAX 1000
#define BYTES_MAX (1LL << 30)
#define PINGS_MAX 16
#define PAUSE_NS 100000000ULL /* is worth a line of the log */
#define ECHO_TIMEOUT_MS 5000
#define BULK_BODY 60000

struct ping {
    struct node *n;
    struct admin_call *c;
    char to_text[SELECTOR_MAX], via_text[64];
    struct uuid to, via;
    bool resolving_via, pinned;
    bool opaque;     /* asked for by a route or a selector: where that leads is not told */
    struct buf args; /* of the look-up */
    int64_t count, size, bytes;
    uint64_t deadline_ns;
    /* echo */
    struct fabric_call call;
    struct buf body;
    int64_t sent, received;
    uint64_t started_ns;
    uint64_t rtt_us[COUNT_MAX];
    /* bulk */
    struct fabric_stream *stream;
    int64_t queued, acked;
    uint64_t bulk_started_ns, last_ack_ns, gap_ns, bulk_ns;
    uv_timer_t timer;
};

static uint8_t zeros[SYNTHETIC_BODY_MAX];

/* --- the answer --- */

struct seen_way {
    const struct uuid *id;
    bool found, relayed;
    struct uuid via;
};

static void look_at(void *data, const struct fabric_session_info *info)
{
    struct seen_way *w = data;
    if (uuid_equal(&info->peer.identity.node_id, w->id)) {
        w->found = true;
        w->relayed = info->relayed;
        w->via = info->via;
    }
}

static int compare_rtt(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void put_result(struct ping *p, struct mp_writer *w, struct mp_doc *d)
{
    struct seen_way way = {.id = &p->to};
    fabric_sessions(p->n->fabric, look_at, &way);
    mp_doc_uuid(w, d, "node_id", p->opaque ? &UUID_NIL : &p->to);
    mp_doc_str(w, d, "path", !way.found ? NULL : way.relayed ? "relayed" : "direct");
    mp_doc_uuid(w, d, "via", way.relayed && !p->opaque ? &way.via : &UUID_NIL);
    mp_doc_int(w, d, "sent", p->sent);
    mp_doc_int(w, d, "received", p->received);
    if (p->received > 0) {
        qsort(p->rtt_us, (size_t)p->received, sizeof p->rtt_us[0], compare_rtt);
        mp_doc_int(w, d, "rtt_min_us", (int64_t)p->rtt_us[0]);
        mp_doc_int(w, d, "rtt_median_us", (int64_t)p->rtt_us[p->received / 2]);
        mp_doc_int(w, d, "rtt_p99_us", (int64_t)p->rtt_us[(p->received - 1) * 99 / 100]);
        mp_doc_int(w, d, "rtt_max_us", (int64_t)p->rtt_us[p->received - 1]);
    }
    if (p->bytes > 0) {
        mp_doc_int(w, d, "bytes", p->acked);
        mp_doc_int(w, d, "bytes_per_second",
                   p->bulk_ns > 0 ? (int64_t)((double)p->acked * 1e9 / (double)p->bulk_ns) : 0);
        mp_doc_int(w, d, "longest_gap_ms", (int64_t)(p->gap_ns / 1000000));
    }
}

static void on_timer_closed(uv_handle_t *h)
{
    struct ping *p = h->data;
    buf_fini(&p->body);
    buf_fini(&p->args);
    free(p);
}

/* detail: what to tell besides the error; may be NULL. */
static void finish(struct ping *p, int rc, const char *detail)
{
    struct node *n = p->n;
    struct buf out;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&out, 4096);
    mp_writer_init(&w, &out);
    mp_doc_begin(&w, &d);
    if (rc != 0) {
        mp_doc_str(&w, &d, "detail", detail != NULL ? detail : err_text(rc));
    }
    put_result(p, &w, &d);
    mp_doc_end(&w, &d);
    admin_answer(p->c, rc, buf_blob(&out));
    buf_fini(&out);
    if (p->pinned && !n->stopping) {
        (void)fabric_peer_pin(n->fabric, &p->to, &UUID_NIL);
    }
    n->pings--;
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

static const char *why(int rc)
{
    switch (-rc) {
        case ERR_UNREACHABLE:
            return "no way to it: no address of it is known here and no relay leads to it (`rap "
                   "route explain` says more; `rap mesh set --overlay on` has relays used)";
        case ERR_DENIED:
            return "an intent of the owner allows no way to it, or no test traffic with it, here "
                   "or at the "
                   "other end: `rap route explain` names it";
        case ERR_NO_SERVICE:
            return "it does not answer test traffic: `rap mesh set --synthetic on` has all nodes "
                   "do "
                   "it, `rap node mesh N --synthetic on` one";
        default:
            return err_text(rc);
    }
}

/* --- bulk --- */

static void fill(struct fabric_stream *s, void *data)
{
    struct ping *p = data;
    struct buf out;
    while (p->queued < p->bytes) {
        int64_t left = p->bytes - p->queued;
        struct synthetic m = {.kind = blob_str(SYNTHETIC_KIND),
                              .sequence = (uint64_t)p->queued,
                              .body = blob_of(zeros, left < BULK_BODY ? (size_t)left : BULK_BODY)};
        buf_init(&out, SYNTHETIC_BODY_MAX + 128);
        msg_encode(&synthetic_desc, &m, &out);
        int rc = out.err != 0 ? out.err : fabric_stream_send(s, buf_blob(&out));
        buf_fini(&out);
        if (rc != 0) {
            return; /* full: drained() goes on; closed: closed() tells */
        }
        p->queued += (int64_t)m.body.len;
    }
}

static void on_bulk_closed(struct fabric_stream *s, void *data, int rc)
{
    struct ping *p = data;
    (void)s;
    p->stream = NULL;
    finish(p, rc == 0 ? -ERR_CLOSED : rc, why(rc == 0 ? -ERR_CLOSED : rc));
}

static void on_ack(struct fabric_stream *s, void *data, struct blob frame)
{
    struct ping *p = data;
    struct synthetic_ack ack;
    uint64_t now = clock_mono_ns();
    int rc = msg_decode(&synthetic_ack_desc, MSG_LENIENT, frame, &ack);
    if (rc != 0 || ack.bytes > (uint64_t)p->queued) {
        fabric_stream_reset(s, -ERR_MALFORMED);
        p->stream = NULL;
        finish(p, -ERR_MALFORMED, NULL);
        return;
    }
    uint64_t gap = now - p->last_ack_ns;
    p->gap_ns = gap > p->gap_ns ? gap : p->gap_ns;
    if (gap >= PAUSE_NS) {
        log_debug(LOG_FABRIC, "pause of test traffic", "kind=bulk ms=%llu",
                  (unsigned long long)(gap / 1000000));
    }
    p->last_ack_ns = now;
    p->acked = (int64_t)ack.bytes;
    if (p->acked >= p->bytes) {
        p->bulk_ns = now - p->bulk_started_ns;
        fabric_stream_close(s);
        p->stream = NULL;
        finish(p, 0, NULL);
    }
}

static void on_deadline(uv_timer_t *h)
{
    struct ping *p = h->data;
    if (p->stream != NULL) {
        fabric_stream_reset(p->stream, -ERR_TIMEOUT);
        p->stream = NULL;
        finish(p, -ERR_TIMEOUT, NULL);
    }
}

static void start_bulk(struct ping *p)
{
    static const struct fabric_stream_vtab vtab = {
        .frame = on_ack, .closed = on_bulk_closed, .drained = fill};
    struct fabric_stream_to to = {.node_id = p->to,
                                  .service = SYNTHETIC_BULK,
                                  .bulk = true,
                                  .frame_max_bytes = SYNTHETIC_BODY_MAX + 128};
    uint64_t now = clock_mono_ns();
    p->bulk_started_ns = p->last_ack_ns = now;
    int rc = fabric_stream_open(p->n->fabric, &to, &vtab, p, &p->stream);
    if (rc != 0) {
        p->stream = NULL;
        finish(p, rc, why(rc));
        return;
    }
    uint64_t left_ms = p->deadline_ns > now ? (p->deadline_ns - now) / 1000000 : 1;
    (void)uv_timer_start(&p->timer, on_deadline, left_ms, 0);
    fill(p->stream, p);
}

/* --- echo --- */

static void next_echo(struct ping *p);

static void on_echo(struct fabric_call *call, int rc, struct blob body)
{
    struct ping *p = container_of(call, struct ping, call);
    if (rc == 0 && !blob_equal(body, buf_blob(&p->body))) {
        rc = -ERR_CORRUPT;
    }
    if (rc != 0 && rc != -ERR_TIMEOUT && rc != -ERR_CLOSED) {
        finish(p, rc, why(rc));
        return;
    }
    if (rc == 0) {
        uint64_t us = (clock_mono_ns() - p->started_ns) / 1000;
        p->rtt_us[p->received++] = us;
        if (us >= PAUSE_NS / 1000) {
            log_debug(LOG_FABRIC, "pause of test traffic", "kind=echo ms=%llu",
                      (unsigned long long)(us / 1000));
        }
    }
    next_echo(p);
}

static void next_echo(struct ping *p)
{
    uint64_t now = clock_mono_ns();
    if (p->sent == p->count || now >= p->deadline_ns) {
        if (p->received == 0) {
            finish(p, -ERR_TIMEOUT, "no answer");
        } else if (p->bytes > 0) {
            start_bulk(p);
        } else {
            finish(p, 0, NULL);
        }
        return;
    }
    struct synthetic m = {.kind = blob_str(SYNTHETIC_KIND),
                          .sequence = (uint64_t)p->sent,
                          .body = blob_of(zeros, (size_t)p->size)};
    uint64_t left_ms = (p->deadline_ns - now) / 1000000 + 1;
    buf_clear(&p->body);
    msg_encode(&synthetic_desc, &m, &p->body);
    p->started_ns = now;
    p->sent++;
    int rc = fabric_call_start(p->n->fabric, &p->call, &p->to, SYNTHETIC_ECHO, buf_blob(&p->body),
                               left_ms < ECHO_TIMEOUT_MS ? (uint32_t)left_ms : ECHO_TIMEOUT_MS,
                               on_echo);
    if (rc != 0) {
        finish(p, rc, why(rc));
    }
}

static void begin(struct ping *p)
{
    if (!uuid_is_nil(&p->via)) {
        int rc = fabric_peer_pin(p->n->fabric, &p->to, &p->via);
        if (rc != 0) {
            finish(p, rc,
                   rc == -ERR_CONFLICT
                       ? "that node opened the session, so only it can move it: ping from there"
                       : "that node is no relay this one has a connection to (`rap fabric "
                         "sessions`; --overlay must be on)");
            return;
        }
        p->pinned = true;
    }
    next_echo(p);
}

/* --- names --- */

static void resolve(struct ping *p);

static void on_resolved(void *data, int rc, struct blob doc)
{
    struct ping *p = data;
    char id[UUID_TEXT_MAX] = "";
    if (rc == 0) {
        mp_find_str(doc, "id", id, sizeof id);
        rc = uuid_parse(id, p->resolving_via ? &p->via : &p->to);
    }
    if (rc != 0) {
        char detail[160] = "";
        mp_find_str(doc, "detail", detail, sizeof detail);
        finish(p, rc, detail[0] != '\0' ? detail : NULL);
        return;
    }
    if (!p->resolving_via && p->via_text[0] != '\0') {
        p->resolving_via = true;
        resolve(p);
    } else {
        begin(p);
    }
}

static void resolve(struct ping *p)
{
    struct uuid id;
    const char *text = p->resolving_via ? p->via_text : p->to_text;
    size_t prefix = strlen(ROUTE_ID_PREFIX);
    bool route = strncmp(text, ROUTE_ID_PREFIX, prefix) == 0;
    if (!p->resolving_via && (route || route_is_selector(text))) {
        struct errmsg em = ERRMSG_INIT;
        p->opaque = true;
        int rc = !route ? route_choose(p->n, text, SYNTHETIC_ECHO, &p->to, &em)
                 : uuid_parse(text + prefix, &id) != 0
                     ? errmsg_set(&em, -ERR_INVALID, "not the id of a route")
                     : route_id_resolve(p->n, &id, SYNTHETIC_ECHO, &p->to, &em);
        if (rc == 0) {
            begin(p);
        } else {
            finish(p, rc, em.text);
        }
        return;
    }
    struct mp_writer w;
    struct mp_doc d;
    buf_clear(&p->args);
    mp_writer_init(&w, &p->args);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "id", text);
    mp_doc_end(&w, &d);
    if (uuid_parse(text, &id) == 0) {
        on_resolved(p, 0, buf_blob(&p->args));
    } else if (p->n->authority == NULL) {
        finish(p, -ERR_NOT_FOUND,
               "give the node's id: only authorities know names (`rap node list` there)");
    } else {
        authority_call(p->n->authority, &(struct authority_call){.method = "node.show",
                                                                 .args = buf_blob(&p->args),
                                                                 .actor_kind = p->c->actor_kind,
                                                                 .actor_id = p->c->actor_id,
                                                                 .stale = true,
                                                                 .timeout_ms = p->c->timeout_ms,
                                                                 .cb = on_resolved,
                                                                 .data = p});
    }
}

static int64_t number(struct blob args, const char *key, int64_t fallback, int64_t max)
{
    struct mp_reader r;
    struct blob v = mp_find(args, key);
    if (v.len == 0) {
        return fallback;
    }
    mp_reader_init(&r, v);
    uint64_t got = mp_get_u64(&r);
    return r.err != 0 || got > (uint64_t)max ? -1 : (int64_t)got;
}

void synthetic_ping(struct node *n, struct admin_call *c)
{
    struct ping *p = xcalloc(1, sizeof *p);
    p->n = n;
    p->c = c;
    buf_init(&p->body, SYNTHETIC_BODY_MAX + 128);
    buf_init(&p->args, 1024);
    (void)uv_timer_init(&n->loop, &p->timer);
    p->timer.data = p;
    n->pings++;
    mp_find_str(c->args, "id", p->to_text, sizeof p->to_text);
    mp_find_str(c->args, "via", p->via_text, sizeof p->via_text);
    p->count = number(c->args, "count", 1, COUNT_MAX);
    p->size = number(c->args, "size", 64, SYNTHETIC_BODY_MAX);
    p->bytes = number(c->args, "bytes", 0, BYTES_MAX);
    p->deadline_ns = clock_mono_ns() + (uint64_t)c->timeout_ms * 1000000;
    if (p->count < 1 || p->size < 0 || p->bytes < 0) {
        finish(p, -ERR_INVALID, "count is 1 to 1000, size at most 65536, bytes at most 1 GiB");
    } else if (n->cut_off.is) {
        finish(p, -ERR_DENIED, CUT_OFF_TEXT);
    } else if (n->pings > PINGS_MAX) {
        finish(p, -ERR_BUSY, "too many pings at once: wait for the others");
    } else {
        resolve(p);
    }
}
