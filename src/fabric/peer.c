/* Who is where, and the sessions to them.
 *
 * Dialling a peer tries its addresses in turn; when all have failed, what waits is told, and the
 * next round starts no earlier than a jittered, doubling delay.
 *
 * Over relays (fabric_set_overlay), beside that: a peer whose first direct attempt has had a head start,
 * or that has no address here, is dialled through the neighbour that leads to it. Whichever is up first
 * is used and the other dropped; a relayed session looks for the direct way later by itself (path.c).
 *
 * Two nodes that dial each other at once get two connections, one in each direction. Closing one at
 * once by a rule would race with restarts (the rule may pick the one whose other end has died), so
 * both stay: new streams use the older one that still answers. When both have proved alive for a
 * while, the node with the higher id closes the one it dialled, once nothing uses it. Within one
 * direction a new connection replaces the old: only a dialler that lost the old one dials again. */
#include "fabric/fabric_impl.h"

#include "base/log.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define DIAL_TIMEOUT_MIN_MS 2000
#define DIAL_TIMEOUT_MAX_MS 10000
#define STABLE_NS (3000 * NS_PER_MS)
#define HEAD_START_NS (250 * NS_PER_MS) /* RFC 8305 section 5 */
#define ROUTE_AGAIN_NS (500 * NS_PER_MS)
#define CARRIED_FOR_NS (10000 * NS_PER_MS)

static void peer_timer(struct timer *t);

/* Somebody waits for a session of this kind, whatever way it goes. */
static bool wanted_any_way(const struct peer *p, bool bulk)
{
    return (p->keep != 0 && !bulk) || !list_empty(&p->waiting[bulk]);
}

/* Or packets of others go over it, or would if another relay failed; that needs a direct one, and the
 * gap is shorter by a handshake when it is there already. */
static bool wanted(const struct peer *p, bool bulk)
{
    const struct relay *r = &p->f->relay;
    return wanted_any_way(p, bulk) ||
           (bulk && (p->carries || (p->relay != NULL && p->relay->bytes > 0) ||
                     (p->keep != 0 && r->on && r->vtab.may_relay(r->vtab.data, &p->id))));
}

struct peer *peer_find(struct fabric *f, const struct uuid *id)
{
    struct peer *p = NULL;
    HASH_FIND(hh, f->peers, id->b, sizeof id->b, p);
    return p;
}

struct peer *peer_get(struct fabric *f, const struct uuid *id)
{
    struct peer *p = peer_find(f, id);
    if (p != NULL) {
        return p;
    }
    p = xcalloc(1, sizeof *p);
    p->f = f;
    p->id = *id;
    p->timer.run = peer_timer;
    list_init(&p->waiting[0]);
    list_init(&p->waiting[1]);
    HASH_ADD(hh, f->peers, id.b, sizeof p->id.b, p);
    return p;
}

static void peer_free(struct peer *p)
{
    timer_stop(p->f, &p->timer);
    relay_peer_gone(p);
    HASH_DELETE(hh, p->f->peers, p);
    free(p);
}

void peer_release(struct peer *p)
{
    bool used = !uuid_is_nil(&p->pin) || p->keep != 0 || p->addr_count > 0 || p->waiting_count > 0;
    for (int k = 0; k < 2; k++) {
        used = used || p->up[k][0] != NULL || p->up[k][1] != NULL || p->dialling[k] != NULL ||
               p->dialling_relayed[k] != NULL;
    }
    if (!used) {
        peer_free(p);
    }
}

void peer_clear_all(struct fabric *f)
{
    struct peer *p;
    struct peer *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        peer_free(p);
    }
}

void peer_kick_all(struct fabric *f)
{
    struct peer *p;
    struct peer *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        for (int k = 0; k < 2; k++) {
            p->next_relayed_ns[k] = 0;
            if (wanted(p, k != 0)) {
                peer_want(p, k != 0);
            }
        }
    }
}

static bool answers(const struct session *ss)
{
    uint64_t quiet_ns = ss->f->now_ns - ss->last_rx_ns;
    return quiet_ns < ss->f->cfg.keepalive_ms * NS_PER_MS * 2;
}

bool peer_may_direct(const struct peer *p)
{
    const struct relay *r = &p->f->relay;
    return !r->on || r->vtab.may_direct == NULL || r->vtab.may_direct(r->vtab.data, &p->id);
}

bool peer_may_talk(const struct peer *p)
{
    const struct relay *r = &p->f->relay;
    return !r->on || r->vtab.may_talk == NULL || r->vtab.may_talk(r->vtab.data, &p->id);
}

bool peer_may_use(struct fabric *f, const struct uuid *id, struct blob service)
{
    const struct relay *r = &f->relay;
    return !r->on || r->vtab.may_use == NULL || r->vtab.may_use(r->vtab.data, id, service);
}

struct session *peer_session(struct peer *p, bool bulk)
{
    struct session *a = p->up[bulk][0];
    struct session *b = p->up[bulk][1];
    if (a != NULL && !a->path.relayed && !peer_may_direct(p)) {
        a = NULL; /* the other end opened it and chose its way; path_sweep moves what we opened */
    }
    if (a == NULL || b == NULL) {
        return a != NULL ? a : b;
    }
    struct session *older = a->up_ns <= b->up_ns ? a : b;
    struct session *newer = older == a ? b : a;
    return answers(older) || !answers(newer) ? older : newer;
}

static void bind_waiting(struct peer *p, bool bulk)
{
    struct session *ss;
    while (!list_empty(&p->waiting[bulk]) && (ss = peer_session(p, bulk)) != NULL) {
        stream_bind(container_of(p->waiting[bulk].next, struct fabric_stream, link), ss);
    }
}

static void fail_waiting(struct peer *p, bool bulk, int rc)
{
    while (!list_empty(&p->waiting[bulk])) {
        stream_end(container_of(p->waiting[bulk].next, struct fabric_stream, link), rc);
    }
}

static uint64_t jittered_ns(uint64_t ms)
{
    /* Half fixed, half random: nodes that lost the same peer do not come back as one. */
    return ms * NS_PER_MS / 2 + rng_u64() % (ms * NS_PER_MS / 2 + 1);
}

static void back_off(struct peer *p, bool bulk)
{
    unsigned n = p->failures[bulk]++;
    uint64_t ms = n >= 6 ? BACKOFF_MAX_MS : (uint64_t)BACKOFF_MIN_MS << n;
    p->next_dial_ns[bulk] = p->f->now_ns + jittered_ns(ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms);
}

static void arm(struct peer *p)
{
    uint64_t at = UINT64_MAX;
    for (int k = 0; k < 2; k++) {
        if (!p->f->has_identity || !wanted(p, k != 0) || peer_session(p, k != 0) != NULL) {
            continue;
        }
        if (p->dialling[k] == NULL && p->addr_count > 0 && uuid_is_nil(&p->pin) &&
            p->next_dial_ns[k] < at && peer_may_direct(p)) {
            at = p->next_dial_ns[k];
        }
        if (p->f->relay.on && p->dialling_relayed[k] == NULL && wanted_any_way(p, k != 0) &&
            p->next_relayed_ns[k] < at) {
            at = p->next_relayed_ns[k];
        }
    }
    if (at != UINT64_MAX) {
        timer_set(p->f, &p->timer, at);
    } else {
        timer_stop(p->f, &p->timer);
    }
}

/* One address of a round has failed. */
static void attempt_failed(struct peer *p, bool bulk, int rc)
{
    p->tried[bulk]++;
    p->addr_next = p->addr_count > 0 ? (p->addr_next + 1) % p->addr_count : 0;
    if (p->tried[bulk] < p->addr_count) {
        p->next_dial_ns[bulk] = p->f->now_ns;
        return;
    }
    p->tried[bulk] = 0;
    back_off(p, bulk);
    if (p->dialling_relayed[bulk] == NULL) {
        fail_waiting(p, bulk, rc);
    }
}

static void relayed_failed(struct peer *p, bool bulk, int rc)
{
    unsigned n = p->relayed_failures[bulk]++;
    uint64_t ms = (uint64_t)BACKOFF_MIN_MS << (n > 6 ? 6 : n);
    p->next_relayed_ns[bulk] = p->f->now_ns +
                               jittered_ns(ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms);
    if (p->dialling[bulk] == NULL) {
        fail_waiting(p, bulk, rc);
    }
}

bool peer_has_relay(struct peer *p)
{
    struct uuid hop;
    return relay_way_to(p, OVERLAY_CONTROL, &hop) == 0;
}

bool peer_is_forbidden(struct peer *p)
{
    struct uuid hop;
    return !peer_may_direct(p) && relay_way_to(p, OVERLAY_CONTROL, &hop) == -ERR_DENIED;
}

static void dial_relayed(struct peer *p, bool bulk)
{
    struct fabric *f = p->f;
    if (!f->relay.on || p->dialling_relayed[bulk] != NULL || !wanted_any_way(p, bulk) ||
        p->next_relayed_ns[bulk] > f->now_ns) {
        return;
    }
    if (!peer_has_relay(p)) {
        p->next_relayed_ns[bulk] = f->now_ns + ROUTE_AGAIN_NS;
        if (peer_is_forbidden(p)) {
            fail_waiting(p, bulk, -ERR_DENIED);
        }
        return;
    }
    struct addr to;
    path_virtual(&p->id, 0, &to);
    p->dialling_relayed[bulk] = session_dial(f, bulk ? KIND_BULK : KIND_CONTROL, &to, p,
                                             DIAL_TIMEOUT_MAX_MS / 2);
    if (p->dialling_relayed[bulk] == NULL) {
        relayed_failed(p, bulk, -ERR_UNREACHABLE);
    }
}

static void dial(struct peer *p, bool bulk)
{
    uint64_t timeout = (uint64_t)DIAL_TIMEOUT_MIN_MS
                       << (p->failures[bulk] > 3 ? 3 : p->failures[bulk]);
    timeout = timeout > DIAL_TIMEOUT_MAX_MS ? DIAL_TIMEOUT_MAX_MS : timeout;
    p->addr_next %= p->addr_count;
    if (p->failures[bulk] == 0 && p->tried[bulk] == 0 &&
        p->next_relayed_ns[bulk] < p->f->now_ns + HEAD_START_NS) {
        p->next_relayed_ns[bulk] = p->f->now_ns + HEAD_START_NS;
    }
    p->dialling[bulk] = session_dial(p->f, bulk ? KIND_BULK : KIND_CONTROL, &p->addrs[p->addr_next],
                                     p, (uint32_t)timeout);
    if (p->dialling[bulk] == NULL) {
        attempt_failed(p, bulk, -ERR_UNREACHABLE);
    }
}

void peer_want(struct peer *p, bool bulk)
{
    struct fabric *f = p->f;
    if (f->closing) {
        return;
    }
    if (peer_session(p, bulk) != NULL) {
        bind_waiting(p, bulk);
        return;
    }
    if (!f->has_identity) {
        return;
    }
    fabric_tick(f);
    if (p->dialling[bulk] == NULL && p->addr_count > 0 && uuid_is_nil(&p->pin) &&
        p->next_dial_ns[bulk] <= f->now_ns && peer_may_direct(p)) {
        dial(p, bulk);
    }
    dial_relayed(p, bulk);
    arm(p);
}

static void peer_timer(struct timer *t)
{
    struct peer *p = container_of(t, struct peer, timer);
    for (int k = 0; k < 2; k++) {
        if (wanted(p, k != 0)) {
            peer_want(p, k != 0);
        }
    }
    arm(p);
}

/* --- telling the user --- */

struct down_event {
    struct event event;
    struct fabric *f;
    struct fabric_peer who;
    int rc;
};

static void run_down(struct event *e)
{
    struct down_event *d = container_of(e, struct down_event, event);
    struct fabric *f = d->f;
    if (!f->closing && f->cfg.session_down != NULL) {
        f->cfg.session_down(f->cfg.data, &d->who, d->rc);
    }
    free(d);
}

static void post_down(struct session *ss, int rc)
{
    struct down_event *d = xcalloc(1, sizeof *d);
    d->f = ss->f;
    d->who = ss->who;
    d->rc = rc;
    event_init(&d->event, run_down);
    event_post(ss->f, &d->event);
}

static void log_session(const struct session *ss, const char *phrase, const char *why)
{
    if (log_enabled(LOG_DEBUG)) {
        char id[UUID_TEXT_MAX];
        char addr[ADDR_TEXT_MAX];
        uuid_format(&ss->who.identity.node_id, id);
        addr_format(&ss->who.address, addr);
        log_debug(LOG_FABRIC, phrase, "peer=%s addr=%s kind=%s dialled=%d why=%s", id, addr,
                  ss->kind == KIND_BULK ? "bulk" : "control", (int)ss->dialled, why);
    }
}

/* Two connections, one direct and one relayed, have been made at the same time: both ends must keep
 * the same one, and it is the direct one. Dialling, we know by the handshake whether the other end may
 * have the direct one already; accepting, by whether the old one still answers. */
static bool lost_the_race(struct peer *p, struct session *ss, struct session *old)
{
    if (!ss->path.relayed) {
        return false;
    }
    if (ss->dialled) {
        struct session *direct = p->dialling[ss->kind == KIND_BULK];
        return direct != NULL && ngtcp2_conn_get_handshake_completed(direct->conn) != 0;
    }
    return old != NULL && !old->path.relayed && answers(old);
}

static void end_race(struct peer *p, struct session *winner)
{
    bool bulk = winner->kind == KIND_BULK;
    struct session *direct = p->dialling[bulk];
    struct session *relayed = p->dialling_relayed[bulk];
    if (direct == winner || (winner->dialled && direct != NULL)) {
        p->dialling[bulk] = NULL;
    }
    if (relayed == winner || (winner->dialled && relayed != NULL)) {
        p->dialling_relayed[bulk] = NULL;
    }
    if (winner->dialled && direct != NULL && direct != winner) {
        session_close(direct, FABRIC_CLOSE_REPLACED, -ERR_CLOSED);
    }
    if (winner->dialled && relayed != NULL && relayed != winner) {
        session_close(relayed, FABRIC_CLOSE_REPLACED, -ERR_CLOSED);
    }
}

/* One connection is up, so the peer is there: the other does not wait for what is left of its back-off. */
static void dial_the_other(struct peer *p, bool bulk)
{
    if (p->failures[bulk] > 0 && peer_session(p, bulk) == NULL && wanted(p, bulk)) {
        p->failures[bulk] = p->tried[bulk] = 0;
        p->next_dial_ns[bulk] = 0;
        peer_want(p, bulk);
    }
}

void peer_session_up(struct session *ss)
{
    struct fabric *f = ss->f;
    bool bulk = ss->kind == KIND_BULK;
    if (pki_trust_is_banned(f->cfg.trust, ss->who.identity.fingerprint) ||
        pki_trust_is_banned(f->cfg.trust, ss->who.identity.issuer_fingerprint)) {
        session_close(ss, FABRIC_CLOSE_REVOKED, -ERR_REVOKED);
        return;
    }
    ss->suspended = pki_trust_is_suspended(f->cfg.trust, ss->who.identity.fingerprint);
    struct peer *p = ss->peer != NULL ? ss->peer : peer_get(f, &ss->who.identity.node_id);
    ss->peer = p;
    if (!peer_may_talk(p)) {
        f->counters.sessions_denied += !ss->dialled;
        session_close(ss, FABRIC_CLOSE_POLICY, -ERR_DENIED);
        return;
    }
    struct session *old = p->up[bulk][ss->dialled];
    if (lost_the_race(p, ss, old)) {
        session_close(ss, FABRIC_CLOSE_REPLACED, -ERR_CLOSED);
        return;
    }
    p->up[bulk][ss->dialled] = ss;
    p->tried[bulk] = 0;
    p->relayed_failures[bulk] = 0;
    end_race(p, ss);
    log_session(ss, "session up", "-");
    bool first = false;
    if (!bulk) {
        ss->reported = true;
        first = p->up_count++ == 0;
    }
    if (old != NULL) {
        session_close(old, FABRIC_CLOSE_REPLACED, -ERR_CLOSED);
    }
    if (first && f->cfg.session_up != NULL) {
        f->cfg.session_up(f->cfg.data, &ss->who);
    }
    if (ss->state == SESSION_UP && ss->peer != NULL) {
        bind_waiting(ss->peer, bulk);
    }
    if (!ss->path.relayed) {
        path_direct_works(ss);
        dial_the_other(p, !bulk);
    }
}

void peer_session_end(struct session *ss, int rc)
{
    struct peer *p = ss->peer;
    if (p == NULL) {
        return;
    }
    struct fabric *f = ss->f;
    bool bulk = ss->kind == KIND_BULK;
    bool was_up = ss->up_ns != 0;
    if (p->dialling[bulk] == ss) {
        p->dialling[bulk] = NULL;
        if (!f->closing) {
            attempt_failed(p, bulk, rc);
        }
    }
    if (p->dialling_relayed[bulk] == ss) {
        p->dialling_relayed[bulk] = NULL;
        if (!f->closing) {
            relayed_failed(p, bulk, rc);
        }
    }
    if (p->up[bulk][ss->dialled] == ss) {
        p->up[bulk][ss->dialled] = NULL;
    }
    if (was_up) {
        log_session(ss, "session down", err_slug(rc));
        if (f->now_ns - ss->up_ns > STABLE_NS) {
            p->failures[bulk] = 0;
            p->next_dial_ns[bulk] = f->now_ns + jittered_ns(BACKOFF_MIN_MS / 2);
        } else {
            back_off(p, bulk);
        }
    }
    if (ss->reported) {
        ss->reported = false;
        if (--p->up_count == 0) {
            post_down(ss, rc);
        }
    }
    if (relay_carrier(p, false) == NULL) {
        relay_peer_gone(p); /* what waited for it has no way any more */
    }
    if (!f->closing) {
        arm(p);
        peer_release(p);
    }
}

/* --- two connections where one would do --- */

void peer_sweep(struct fabric *f)
{
    struct peer *p;
    struct peer *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        struct session *carrier = relay_carrier(p, true);
        p->carries = p->carries && carrier != NULL &&
                     f->now_ns - carrier->path.carried_ns < CARRIED_FOR_NS;
        bool our_dial_loses = memcmp(f->node_id.b, p->id.b, sizeof p->id.b) > 0;
        for (int k = 0; k < 2 && our_dial_loses; k++) {
            struct session *theirs = p->up[k][0];
            struct session *ours = p->up[k][1];
            if (theirs != NULL && ours != NULL && ours->stream_count == 0 &&
                list_empty(&ours->unopened) && answers(ours) && answers(theirs) &&
                f->now_ns - ours->up_ns > STABLE_NS && f->now_ns - theirs->up_ns > STABLE_NS) {
                session_close(ours, FABRIC_CLOSE_REPLACED, -ERR_CLOSED);
            }
        }
    }
}

/* --- public --- */

void fabric_peer_set(struct fabric *f, const struct uuid *id, const struct addr *addrs, size_t n)
{
    if (f->closing || (f->has_identity && uuid_equal(id, &f->node_id))) {
        return;
    }
    struct peer *p = peer_get(f, id);
    n = n > PEER_ADDRS_MAX ? PEER_ADDRS_MAX : n;
    bool same = n == p->addr_count;
    for (size_t i = 0; same && i < n; i++) {
        same = addr_equal(&p->addrs[i], &addrs[i]);
    }
    if (same) {
        peer_release(p);
        return;
    }
    memcpy(p->addrs, addrs, n * sizeof *addrs);
    p->addr_count = n;
    p->addr_next = 0;
    for (int k = 0; k < 2; k++) {
        /* A new address deserves a new try at once. */
        p->tried[k] = 0;
        p->failures[k] = 0;
        p->next_dial_ns[k] = 0;
        if (n == 0 && p->dialling[k] == NULL && p->dialling_relayed[k] == NULL &&
            !peer_has_relay(p)) {
            fail_waiting(p, k != 0, -ERR_UNREACHABLE);
        } else if (wanted(p, k != 0)) {
            peer_want(p, k != 0);
        }
    }
    peer_release(p);
}

void fabric_peer_forget(struct fabric *f, const struct uuid *id)
{
    struct peer *p = peer_find(f, id);
    if (p == NULL || f->closing) {
        return;
    }
    p->keep = KEEP_USER; /* until the end of this function: nobody frees it */
    p->addr_count = 0;
    for (int k = 0; k < 2; k++) {
        fail_waiting(p, k != 0, -ERR_CLOSED);
        struct session *all[4] = {p->up[k][0], p->up[k][1], p->dialling[k], p->dialling_relayed[k]};
        for (int i = 0; i < 4; i++) {
            if (all[i] != NULL) {
                session_close(all[i], FABRIC_CLOSE_SHUTDOWN, -ERR_CLOSED);
            }
        }
    }
    p->keep = 0;
    timer_stop(f, &p->timer);
    peer_release(p);
}

static void set_keep(struct fabric *f, const struct uuid *id, unsigned who, bool keep)
{
    if (f->closing || (f->has_identity && uuid_equal(id, &f->node_id))) {
        return;
    }
    struct peer *p = keep ? peer_get(f, id) : peer_find(f, id);
    if (p == NULL) {
        return;
    }
    p->keep = keep ? p->keep | who : p->keep & ~who;
    if (keep) {
        peer_want(p, false);
    } else {
        arm(p);
        peer_release(p);
    }
}

void fabric_peer_keep(struct fabric *f, const struct uuid *id, bool keep)
{
    set_keep(f, id, KEEP_USER, keep);
}

void fabric_overlay_keep(struct fabric *f, const struct uuid *id, bool keep)
{
    struct peer *p = peer_find(f, id);
    if (keep && p != NULL && (p->keep & KEEP_OVERLAY) == 0) {
        p->failures[0] = 0; /* its own pauses between tries are the overlay's business */
        p->next_dial_ns[0] = 0;
        if (p->up[0][1] != NULL && relay_carrier(p, false) == NULL) {
            path_want_direct(p->up[0][1]); /* a relayed session is no link */
        }
    }
    set_keep(f, id, KEEP_OVERLAY, keep);
}

bool fabric_peer_connected(const struct fabric *f, const struct uuid *id)
{
    struct peer *p = peer_find((struct fabric *)(uintptr_t)f, id);
    return p != NULL && peer_session(p, false) != NULL;
}

int fabric_datagram_send(struct fabric *f, const struct uuid *to, struct blob payload)
{
    struct peer *p = f->closing ? NULL : peer_find(f, to);
    struct session *ss = p != NULL ? relay_carrier(p, false) : NULL;
    return ss != NULL ? session_datagram(ss, payload) : -ERR_CLOSED;
}
