/* Opening, closing, and the turn.
 *
 * Closing: fabric_close tells the peers and closes the handles; the last handle's callback ends
 * what is pending with -ERR_CANCELED, frees everything and calls the user's cb. */
#include "fabric/fabric_impl.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SWEEP_MS 1000
#define LATE_NS (300 * NS_PER_MS)
#define SUSPECT_MARGIN_NS (200 * NS_PER_MS)
#define SOURCES_MAX 16384

void fabric_tick(struct fabric *f)
{
    f->now_ns = clock_mono_ns();
}

void fabric_note_pause(struct fabric *f, uint64_t slept_ns)
{
    log_debug(LOG_FABRIC, "ran late", "ms=%llu", (unsigned long long)(slept_ns / NS_PER_MS));
    f->woke_ns = f->now_ns;
    f->grace_until_ns = f->now_ns + f->cfg.keepalive_ms * 2 * NS_PER_MS;
    f->pauses[f->pause_count++ % OWN_PAUSES] = (struct own_pause){.woke_ns = f->now_ns,
                                                                  .slept_ns = slept_ns};
}

uint64_t fabric_slept_since(const struct fabric *f, uint64_t from_ns)
{
    uint64_t slept_ns = 0;
    for (size_t i = 0; i < OWN_PAUSES; i++) {
        const struct own_pause *p = &f->pauses[i];
        if (p->woke_ns > from_ns) {
            uint64_t since_ns = p->woke_ns - from_ns;
            slept_ns += p->slept_ns < since_ns ? p->slept_ns : since_ns;
        }
    }
    return slept_ns;
}

/* --- events --- */

void event_init(struct event *e, void (*run)(struct event *e))
{
    list_init(&e->link);
    e->run = run;
    e->of_guest = false;
}

void event_post(struct fabric *f, struct event *e)
{
    if (list_empty(&e->link)) {
        list_add(e->of_guest ? &f->guest_events : &f->events, &e->link);
    }
}

void event_cancel(struct event *e)
{
    list_del(&e->link);
}

static void run_first(struct link *events)
{
    struct event *e = container_of(events->next, struct event, link);
    list_del(&e->link);
    e->run(e);
}

/* Those posted so far; what they post waits for the next turn. */
static void run_events(struct link *posted)
{
    struct link now;
    list_init(&now);
    list_splice(&now, posted);
    while (!list_empty(&now)) {
        run_first(&now);
    }
}

/* At least one, or a busy node would let nobody join. */
static void run_guest_events(struct fabric *f)
{
    uint64_t end_ns = f->now_ns + STRANGERS_NS;
    while (!f->closing && !list_empty(&f->guest_events) && f->now_ns < end_ns) {
        run_first(&f->guest_events);
        fabric_tick(f);
    }
}

/* --- timers: a binary heap --- */

static void heap_put(struct timer_heap *h, size_t pos, struct timer *t)
{
    h->item[pos - 1] = t;
    t->pos = pos;
}

static void heap_up(struct timer_heap *h, struct timer *t)
{
    size_t pos = t->pos;
    while (pos > 1 && h->item[pos / 2 - 1]->at_ns > t->at_ns) {
        heap_put(h, pos, h->item[pos / 2 - 1]);
        pos /= 2;
    }
    heap_put(h, pos, t);
}

static void heap_down(struct timer_heap *h, struct timer *t)
{
    size_t pos = t->pos;
    for (;;) {
        size_t child = pos * 2;
        if (child > h->count) {
            break;
        }
        if (child < h->count && h->item[child]->at_ns < h->item[child - 1]->at_ns) {
            child++;
        }
        if (h->item[child - 1]->at_ns >= t->at_ns) {
            break;
        }
        heap_put(h, pos, h->item[child - 1]);
        pos = child;
    }
    heap_put(h, pos, t);
}

void timer_set(struct fabric *f, struct timer *t, uint64_t at_ns)
{
    struct timer_heap *h = &f->timers;
    t->at_ns = at_ns;
    if (t->pos == 0) {
        if (h->count == h->cap) {
            h->cap = h->cap == 0 ? 64 : h->cap * 2;
            h->item = xrealloc(h->item, h->cap * sizeof(struct timer *));
        }
        h->count++;
        heap_put(h, h->count, t);
    }
    heap_up(h, t);
    heap_down(h, t);
}

void timer_stop(struct fabric *f, struct timer *t)
{
    struct timer_heap *h = &f->timers;
    if (t->pos == 0) {
        return;
    }
    struct timer *last = h->item[h->count - 1];
    size_t pos = t->pos;
    h->count--;
    t->pos = 0;
    if (last != t) {
        heap_put(h, pos, last);
        heap_up(h, last);
        heap_down(h, last);
    }
}

static void run_timers(struct fabric *f)
{
    /* Each of those armed now at most once: one that re-arms itself for the past gets its turn. */
    for (size_t n = f->timers.count; n > 0 && f->timers.count > 0; n--) {
        struct timer *t = f->timers.item[0];
        if (t->at_ns > f->now_ns) {
            break;
        }
        timer_stop(f, t);
        t->run(t);
    }
}

/* --- the turn --- */

enum pass { PASS_RELAYED, PASS_CONTROL, PASS_BULK };

static enum pass pass_of(const struct session *ss)
{
    return ss->path.relayed ? PASS_RELAYED : ss->kind == KIND_BULK ? PASS_BULK : PASS_CONTROL;
}

static void write_pass(struct link *dirty, enum pass pass)
{
    struct link later;
    list_init(&later);
    while (!list_empty(dirty)) {
        struct session *ss = container_of(dirty->next, struct session, dirty_link);
        list_del(&ss->dirty_link);
        if (pass_of(ss) != pass) {
            list_add(&later, &ss->dirty_link);
        } else if (!session_write(ss)) {
            session_dirty(ss);
            break;
        }
    }
    list_splice(dirty, &later);
}

static void write_dirty(struct fabric *f)
{
    struct link dirty;
    list_init(&dirty);
    list_splice(&dirty, &f->dirty);
    /* First those whose packets make others' queues longer. */
    write_pass(&dirty, PASS_RELAYED);
    list_splice(&dirty, &f->dirty);
    write_pass(&dirty, PASS_CONTROL);
    endpoint_flush(f);
    if (!list_empty(&dirty)) {
        write_pass(&dirty, PASS_BULK);
        endpoint_flush(f);
    }
    list_splice(&f->dirty, &dirty);
}

static void reap(struct fabric *f)
{
    while (!list_empty(&f->dead)) {
        session_free(container_of(f->dead.next, struct session, link));
    }
}

static void nothing_idle(uv_idle_t *h)
{
    (void)h;
}

static void nothing_timer(uv_timer_t *h)
{
    (void)h;
}

static void on_poll(uv_poll_t *h, int status, int events);

static void arm(struct fabric *f)
{
    bool work = !list_empty(&f->events) || !list_empty(&f->guest_events) ||
                endpoint_has_waiting(&f->ep) || (!list_empty(&f->dirty) && !f->ep.blocked);
    if (work) {
        (void)uv_idle_start(&f->idle, nothing_idle);
    } else {
        (void)uv_idle_stop(&f->idle);
    }
    int events = UV_READABLE | (f->ep.blocked ? UV_WRITABLE : 0);
    if (events != f->ep.polled) { /* or it would cost a system call a turn */
        f->ep.polled = events;
        (void)uv_poll_start(&f->ep.poll, events, on_poll);
    }
    uint64_t at = f->timers.count > 0 ? f->timers.item[0]->at_ns : UINT64_MAX;
    /* The same moment may come to matter more: data queued behind the pacing of a packet already
     * sent must not wait for the millisecond that was good enough for an empty queue. */
    bool precise = at != UINT64_MAX && f->timers.item[0]->precise;
    if (at == f->armed_ns && precise == f->armed_precise &&
        uv_is_active((uv_handle_t *)&f->timer)) {
        return;
    }
    f->armed_ns = at;
    f->armed_precise = precise;
    if (at == UINT64_MAX) {
        (void)uv_timer_stop(&f->timer);
        return;
    }
    uint64_t wait_ns = at > f->now_ns ? at - f->now_ns : 0;
    if (precise && wait_ns > 0 && wait_ns < 2 * NS_PER_MS) {
        struct itimerspec its = {.it_value.tv_nsec = (long)wait_ns};
        (void)timerfd_settime(f->fine_fd, 0, &its, NULL);
    }
    uv_update_time(f->loop);
    (void)uv_timer_start(&f->timer, nothing_timer, (wait_ns + NS_PER_MS - 1) / NS_PER_MS, 0);
}

static void turn(struct fabric *f)
{
    fabric_tick(f);
    if (f->armed_ns != UINT64_MAX && f->now_ns > f->armed_ns + LATE_NS) {
        fabric_note_pause(f, f->now_ns - f->armed_ns);
    }
    run_timers(f);
    run_events(&f->events);
    if (f->closing) {
        return;
    }
    fabric_tick(f);
    write_dirty(f);
    /* Hosts that showed no certificate, or none yet, come last: what they are told waits for the next turn,
     * which is near. */
    run_guest_events(f);
    if (f->closing) {
        return;
    }
    endpoint_serve_waiting(f);
    reap(f);
    arm(f);
}

static void on_prepare(uv_prepare_t *h)
{
    struct fabric *f = h->data;
    if (!f->closing) {
        turn(f);
    }
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct fabric *f = h->data;
    if (f->closing) {
        return;
    }
    if (status < 0 || (events & UV_WRITABLE) != 0) {
        fabric_tick(f);
        endpoint_flush(f);
    }
    if (status < 0 || (events & UV_READABLE) != 0) {
        endpoint_read(f);
    }
}

static void on_fine(uv_poll_t *h, int status, int events)
{
    (void)status;
    (void)events;
    uint64_t count;
    ssize_t n = read(((struct fabric *)h->data)->fine_fd, &count, sizeof count);
    (void)n; /* what is due, the turn finds out */
}

static void on_sweep(struct timer *t)
{
    struct fabric *f = container_of(t, struct fabric, sweep);
    int64_t wall_ms = clock_wall_ms();
    for (struct link *l = f->sessions.next, *next; l != &f->sessions; l = next) {
        next = l->next;
        session_sweep(container_of(l, struct session, link), wall_ms);
        path_sweep(container_of(l, struct session, link));
    }
    peer_sweep(f);
    timer_set(f, t, f->now_ns + SWEEP_MS * NS_PER_MS);
}

static void on_datagrams(struct event *e)
{
    struct fabric *f = container_of(e, struct fabric, datagram_event);
    while (!list_empty(&f->datagrams)) {
        struct datagram *d = container_of(f->datagrams.next, struct datagram, link);
        list_del(&d->link);
        f->datagram_count--;
        if (!f->closing) {
            f->datagram_cb(f->datagram_data, &d->from, blob_of(d->data, d->len));
        }
        free(d);
    }
}

void fabric_note_refusal(struct fabric *f, const struct fabric_peer *peer, int rc,
                         struct blob service)
{
    if (f->cfg.refused == NULL || f->refusal_count == ARRAY_SIZE(f->refusals)) {
        return;
    }
    struct fabric_refusal *r = &f->refusals[f->refusal_count++];
    *r = (struct fabric_refusal){.peer = *peer, .rc = rc};
    CHECK(service.len < sizeof r->service);
    memcpy(r->service, service.data, service.len);
    event_post(f, &f->refusal_event);
}

static void on_refusals(struct event *e)
{
    struct fabric *f = container_of(e, struct fabric, refusal_event);
    for (size_t i = 0; i < f->refusal_count && !f->closing; i++) {
        f->cfg.refused(f->cfg.data, &f->refusals[i]);
    }
    f->refusal_count = 0;
}

/* --- open, close --- */

static uint32_t or_default(uint32_t v, uint32_t fallback)
{
    return v != 0 ? v : fallback;
}

static void fill_defaults(struct fabric_config *c)
{
    struct fabric_limits *l = &c->limits;
    c->keepalive_ms = or_default(c->keepalive_ms, 1000);
    c->dead_ms = or_default(c->dead_ms, 4000);
    l->sessions_max = or_default(l->sessions_max, 20000);
    l->half_open_max = or_default(l->half_open_max, 1024);
    l->retry_above = or_default(l->retry_above, 64);
    l->streams_per_session = or_default(l->streams_per_session, 256);
    l->handshakes_per_turn = or_default(l->handshakes_per_turn, 1);
    l->enroll_sessions_max = or_default(l->enroll_sessions_max, 2048);
    l->enroll_per_second = or_default(l->enroll_per_second, 64);
    if (l->queue_bytes_max == 0) {
        l->queue_bytes_max = 8u << 20;
    }
    l->stream_window_max = or_default(l->stream_window_max, 2u << 20);
    if (l->udp_payload_max == 0 || l->udp_payload_max > TX_PACKET_MAX) {
        l->udp_payload_max = 8952;
    } else if (l->udp_payload_max < NGTCP2_MAX_UDP_PAYLOAD_SIZE) {
        l->udp_payload_max = NGTCP2_MAX_UDP_PAYLOAD_SIZE;
    }
}

static void open_sources(struct fabric *f)
{
    struct source_limit_config c = {
        .per_second = f->cfg.limits.enroll_per_second,
        .sessions_max = (f->cfg.limits.enroll_sessions_max + 1) / 2,
        .half_open_max = (f->cfg.limits.half_open_max + 7) / 8,
        .sources_max = SOURCES_MAX,
    };
    rng_bytes(&c.key, sizeof c.key);
    f->sources = source_limit_new(&c);
}

static void free_fabric(struct fabric *f)
{
    relay_fini(f);
    tls_fini(f);
    endpoint_forget_waiting(f);
    endpoint_fini(f);
    source_limit_free(f->sources);
    if (f->fine_fd >= 0) {
        (void)close(f->fine_fd);
    }
    free(f->timers.item);
    pki_wipe(f->cfg.reset_secret, sizeof f->cfg.reset_secret);
    free(f);
}

int fabric_open(const struct fabric_config *config, struct fabric **ret, struct errmsg *em)
{
    CHECK(config->loop != NULL && config->trust != NULL);
    struct fabric *f = xcalloc(1, sizeof *f);
    f->cfg = *config;
    fill_defaults(&f->cfg);
    f->loop = config->loop;
    f->armed_ns = UINT64_MAX;
    f->suspect_margin_ns = SUSPECT_MARGIN_NS;
    f->fine_fd = -1;
    list_init(&f->events);
    list_init(&f->guest_events);
    list_init(&f->sessions);
    list_init(&f->dirty);
    list_init(&f->dead);
    list_init(&f->streams);
    list_init(&f->datagrams);
    list_init(&f->ep.begun.head);
    list_init(&f->ep.backlog.head);
    event_init(&f->datagram_event, on_datagrams);
    event_init(&f->refusal_event, on_refusals);
    open_sources(f);
    fabric_tick(f);
    relay_init(f);
    proof_init(f);
    int rc = endpoint_open(f, em);
    if (rc == 0) {
        rc = tls_init(f, em);
    }
    if (rc == 0) {
        f->fine_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (f->fine_fd < 0) {
            rc = errmsg_set(em, -ERR_IO, "timerfd: %s", strerror(errno));
        }
    }
    if (rc != 0) {
        free_fabric(f);
        return rc;
    }
    /* Both are fresh descriptors that can be polled: nothing else makes these fail. */
    CHECK(uv_poll_init(f->loop, &f->ep.poll, f->ep.fd) == 0);
    CHECK(uv_poll_init(f->loop, &f->fine, f->fine_fd) == 0);
    (void)uv_prepare_init(f->loop, &f->prepare);
    (void)uv_idle_init(f->loop, &f->idle);
    (void)uv_timer_init(f->loop, &f->timer);
    f->open_handles = 5;
    f->ep.poll.data = f->fine.data = f->prepare.data = f->idle.data = f->timer.data = f;
    (void)uv_prepare_start(&f->prepare, on_prepare);
    f->ep.polled = UV_READABLE;
    (void)uv_poll_start(&f->ep.poll, UV_READABLE, on_poll);
    (void)uv_poll_start(&f->fine, UV_READABLE, on_fine);
    f->sweep.run = on_sweep;
    timer_set(f, &f->sweep, f->now_ns + SWEEP_MS * NS_PER_MS);
    *ret = f;
    return 0;
}

static void finish_close(struct fabric *f)
{
    /* Users may call us from what they are told here; with `closing` set that leads nowhere, but
     * it may post events. */
    for (struct link *l = f->streams.next; l != &f->streams; l = l->next) {
        struct fabric_stream *s = container_of(l, struct fabric_stream, all_link);
        s->ss = NULL;
        s->qs_gone = true;
        stream_end(s, -ERR_CANCELED);
        event_post(f, &s->event);
    }
    while (!list_empty(&f->events) || !list_empty(&f->guest_events)) {
        run_events(&f->events);
        run_events(&f->guest_events);
    }
    CHECK(list_empty(&f->streams));
    list_splice(&f->dead, &f->sessions);
    reap(f);
    peer_clear_all(f);
    void (*cb)(void *data) = f->close_cb;
    void *data = f->close_data;
    if (cb != NULL) {
        cb(data);
    }
    free_fabric(f);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct fabric *f = h->data;
    if (--f->open_handles == 0) {
        finish_close(f);
    }
}

void fabric_close(struct fabric *f, void (*cb)(void *data), void *data)
{
    CHECK(!f->closing);
    f->closing = true;
    f->close_cb = cb;
    f->close_data = data;
    for (struct link *l = f->sessions.next, *next; l != &f->sessions; l = next) {
        next = l->next;
        session_close(container_of(l, struct session, link), FABRIC_CLOSE_SHUTDOWN, -ERR_CANCELED);
    }
    endpoint_flush(f);
    uv_close((uv_handle_t *)&f->ep.poll, on_handle_closed);
    uv_close((uv_handle_t *)&f->fine, on_handle_closed);
    uv_close((uv_handle_t *)&f->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&f->idle, on_handle_closed);
    uv_close((uv_handle_t *)&f->timer, on_handle_closed);
}

void fabric_kill(struct fabric *f)
{
    f->mute = true;
}

/* --- the rest of the interface --- */

int fabric_set_identity(struct fabric *f, const struct blob *chain, size_t count,
                        const struct pki_key *key, struct errmsg *em)
{
    int rc = tls_set_identity(f, chain, count, key, em);
    if (rc == 0) {
        peer_kick_all(f);
    }
    return rc;
}

/* What is trusted by now says of a session that is up: 0, it stays; or why it ends. */
static int standing_of(const struct session *ss)
{
    const struct fabric_config *cfg = &ss->f->cfg;
    const struct pki_identity *who = &ss->who.identity;
    struct errmsg em = ERRMSG_INIT;
    if (!ss->who.authenticated) {
        return 0;
    }
    if (pki_trust_is_banned(cfg->trust, who->fingerprint) ||
        pki_trust_is_banned(cfg->trust, who->issuer_fingerprint)) {
        return -ERR_REVOKED;
    }
    /* A new handshake decides what it still is when it is no authority any more, or was disabled or
     * enabled. One under a root that was retired has a certificate under the new one by now, or it
     * has none. */
    if ((who->authority && pki_trust_is_retired(cfg->trust, who->issuer_fingerprint)) ||
        ss->suspended != pki_trust_is_suspended(cfg->trust, who->fingerprint) ||
        !pki_trust_has_root(cfg->trust, who->root_fingerprint)) {
        return -ERR_CLOSED;
    }
    bool admitted = ss->kind == KIND_ENROLL || cfg->admit == NULL ||
                    cfg->admit(cfg->data, who, &em) >= 0;
    return admitted ? 0 : -ERR_NOT_WITNESSED;
}

size_t fabric_recheck(struct fabric *f)
{
    size_t revoked = 0;
    for (struct link *l = f->sessions.next, *next; l != &f->sessions; l = next) {
        next = l->next;
        struct session *ss = container_of(l, struct session, link);
        int rc = ss->state == SESSION_UP ? standing_of(ss) : 0;
        if (rc == -ERR_REVOKED) {
            session_close(ss, FABRIC_CLOSE_REVOKED, rc);
            revoked++;
        } else if (rc != 0) {
            session_close(ss, FABRIC_CLOSE_SHUTDOWN, rc);
        }
    }
    return revoked;
}

uint32_t fabric_enroll_wait_ms(const struct fabric *f, const struct addr *from)
{
    return source_limit_wait_ms(f->sources, from, fabric_now_ms(f));
}

void fabric_enroll_failed(struct fabric *f, const struct addr *from)
{
    source_limit_charge(f->sources, from, SOURCE_FAILURE_COST, fabric_now_ms(f));
}

void fabric_local_addr(const struct fabric *f, struct addr *ret)
{
    *ret = f->ep.local;
}

void fabric_serve(struct fabric *f, const struct fabric_service *svc)
{
    CHECK(f->service_count < ARRAY_SIZE(f->services));
    CHECK(strlen(svc->name) <= 32 && (svc->request == NULL) != (svc->stream == NULL));
    f->services[f->service_count++] = *svc;
    f->enroll_served = f->enroll_served || (svc->flags & FABRIC_SVC_ENROLL) != 0;
}

const struct fabric_service *fabric_service_find(const struct fabric *f, struct blob name)
{
    for (size_t i = 0; i < f->service_count; i++) {
        if (blob_equal(blob_str(f->services[i].name), name)) {
            return &f->services[i];
        }
    }
    return NULL;
}

void fabric_on_datagram(struct fabric *f, fabric_datagram_cb cb, void *data)
{
    f->datagram_cb = cb;
    f->datagram_data = data;
}

void fabric_counters(const struct fabric *f, struct fabric_counters *ret)
{
    *ret = f->counters;
    ret->half_open = f->half_open;
}

void fabric_sessions(const struct fabric *f,
                     void (*fn)(void *data, const struct fabric_session_info *info), void *data)
{
    for (struct link *l = f->sessions.next; l != &f->sessions; l = l->next) {
        struct session *ss = container_of(l, struct session, link);
        if (ss->state != SESSION_UP || ss->unproven) {
            continue;
        }
        ngtcp2_conn_info ci;
        ngtcp2_conn_get_conn_info(ss->conn, &ci);
        struct fabric_session_info info = {.peer = ss->who,
                                           .dialled = ss->dialled,
                                           .bulk = ss->kind == KIND_BULK,
                                           .relayed = ss->path.relayed,
                                           .via = ss->path.via,
                                           .rtt_us = (uint32_t)(ci.smoothed_rtt / 1000),
                                           .bytes_in = ss->bytes_in,
                                           .bytes_out = ss->bytes_out,
                                           .packets_lost = session_lost(ss),
                                           .up_since_ms = ss->up_wall_ms};
        fn(data, &info);
    }
}
