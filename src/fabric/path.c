/* Which way a session goes.
 *
 *     direct   real addresses, the socket
 *     relayed  virtual addresses, the overlay: the node ids
 *
 * The library knows both as network paths. Moving a live session is client migration (RFC 9000
 * section 9), so only the dialler moves it:
 *
 *     relayed --path_sweep, path_want_direct: the direct way answers a challenge--> direct (shortcut)
 *     direct  --path_tick: it is suspect, and a neighbour relays--> relayed  (retreat)
 *     relayed --path_tick: it is suspect--> relayed                          (a new generation)
 *
 * A shortcut is taken only after the new way has been validated; a retreat is immediate, for there
 * is nothing to lose. The last one changes nothing the library could see but the generation of our
 * virtual address; it is worth a migration all the same: whoever relays finds another way by itself,
 * here or further on, but the library, whose packets were lost meanwhile, has backed off to
 * seconds. A migration discards what was learned of the old way (round trip, window, packet size),
 * and its challenge brings the acknowledgement that ends the back-off. */
#include "fabric/fabric_impl.h"

#include "base/log.h"

/* More than 20 bits: the kernel gives no such flow label. Compared by us only; to the library a
 * virtual address is an address like any other. */
#define VIRTUAL_MARK 0x72617021u
#define ACTIVE_KEEPALIVE_MS 250
/* A try takes one of seven spare connection ids, and new ones come only over a way that works: so the first
 * tries are near, the others further apart each time, and changes of routes have some of the first. */
#define RETREAT_AGAIN_NS (300 * NS_PER_MS)
#define RETREATS_NEAR 4
#define RETREAT_MAX_SHIFT 3
#define WAITED_MIN_NS (100 * NS_PER_MS)
#define CARRIED_FOR_NS (10000 * NS_PER_MS)
#define ACTIVE_FOR_NS (3000 * NS_PER_MS)
#define SHORTCUT_FIRST_NS (1000 * NS_PER_MS)
#define SHORTCUT_MAX_NS (60000 * NS_PER_MS)
#define SHORTCUT_NEIGHBOUR_NS (2000 * NS_PER_MS) /* without it there is no link, and nobody else's way */
#define STABLE_NS (60000 * NS_PER_MS)

void path_virtual(const struct uuid *id, uint8_t generation, struct addr *ret)
{
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(generation), .sin6_flowinfo = VIRTUAL_MARK};
    memcpy(in6.sin6_addr.s6_addr, id->b, sizeof id->b);
    *ret = (struct addr){.len = sizeof in6};
    memcpy(&ret->ss, &in6, sizeof in6);
}

static struct sockaddr_in6 virtual_of(const void *sockaddr)
{
    struct sockaddr_in6 in6;
    memcpy(&in6, sockaddr, sizeof in6);
    return in6;
}

bool path_is_virtual(const void *sockaddr)
{
    sa_family_t family;
    memcpy(&family, sockaddr, sizeof family);
    return family == AF_INET6 && virtual_of(sockaddr).sin6_flowinfo == VIRTUAL_MARK;
}

void path_virtual_id(const void *sockaddr, struct uuid *ret)
{
    struct sockaddr_in6 in6 = virtual_of(sockaddr);
    memcpy(ret->b, in6.sin6_addr.s6_addr, sizeof ret->b);
}

uint8_t path_virtual_generation(const void *sockaddr)
{
    return (uint8_t)ntohs(virtual_of(sockaddr).sin6_port);
}

static void fill(struct session *ss, const struct addr *remote, uint8_t generation,
                 ngtcp2_path_storage *ps)
{
    struct addr local = ss->f->ep.local;
    if (path_is_virtual(&remote->ss)) {
        path_virtual(&ss->f->node_id, generation, &local);
    }
    ngtcp2_path_storage_init(ps, (const ngtcp2_sockaddr *)&local.ss, local.len,
                             (const ngtcp2_sockaddr *)&remote->ss, remote->len, NULL);
}

void path_fill(struct session *ss, const struct addr *remote, ngtcp2_path_storage *ps)
{
    fill(ss, remote, ss->path.generation, ps);
}

static void run_direct_works(struct event *e);

void path_init(struct session *ss, const struct addr *remote)
{
    struct path_state *p = &ss->path;
    list_init(&p->parked);
    event_init(&ss->direct_event, run_direct_works);
    p->keepalive_ms = ss->f->cfg.keepalive_ms;
    p->since_ns = p->progress_ns = ss->f->now_ns;
    p->relayed = path_is_virtual(&remote->ss);
    if (p->relayed) {
        path_virtual_id(&remote->ss, &p->remote);
        p->shortcut_at_ns = ss->f->now_ns + SHORTCUT_FIRST_NS;
    }
}

void path_log(const struct session *ss, const char *phrase)
{
    if (!log_enabled(LOG_DEBUG)) {
        return;
    }
    const struct path_state *p = &ss->path;
    ngtcp2_conn_info ci;
    char id[UUID_TEXT_MAX];
    char via[UUID_TEXT_MAX];
    ngtcp2_conn_get_conn_info(ss->conn, &ci);
    uuid_format(&ss->who.identity.node_id, id);
    uuid_format(&p->via, via);
    log_debug(LOG_FABRIC, phrase,
              "peer=%s kind=%s dialled=%d relayed=%d via=%s generation=%u heard_ms=%llu "
              "progress_ms=%llu pto_ms=%llu rtt_us=%llu in_flight=%llu",
              id, ss->kind == KIND_BULK ? "bulk" : "control", (int)ss->dialled, (int)p->relayed,
              via, p->generation,
              (unsigned long long)((ss->f->now_ns - ss->last_rx_ns) / NS_PER_MS),
              (unsigned long long)((ss->f->now_ns - p->progress_ns) / NS_PER_MS),
              (unsigned long long)(ngtcp2_conn_get_pto(ss->conn) / NS_PER_MS),
              (unsigned long long)(ci.smoothed_rtt / 1000), (unsigned long long)ci.bytes_in_flight);
}

static void schedule_shortcut(struct session *ss)
{
    struct path_state *p = &ss->path;
    unsigned n = p->shortcut_failures > 6 ? 6 : p->shortcut_failures;
    uint64_t wait_ns = SHORTCUT_FIRST_NS << n;
    bool neighbour = ss->peer != NULL && (ss->peer->keep & KEEP_OVERLAY) != 0;
    uint64_t max_ns = neighbour ? SHORTCUT_NEIGHBOUR_NS : SHORTCUT_MAX_NS;
    p->shortcut_at_ns = ss->f->now_ns + (wait_ns > max_ns ? max_ns : wait_ns);
}

static bool judges_paths(const struct session *ss)
{
    return ss->f->relay.on && ss->state == SESSION_UP && ss->kind != KIND_ENROLL;
}

/* Ten thousand idle subscriptions must not cost an authority forty thousand packets a second; what is in use
 * must be missed soon when it dies, from its first packet on. */
static void choose_keepalive(struct session *ss)
{
    const struct fabric *f = ss->f;
    struct path_state *p = &ss->path;
    bool busy = (p->carried_ns != 0 && f->now_ns - p->carried_ns < CARRIED_FOR_NS) ||
                (p->active_ns != 0 && f->now_ns - p->active_ns < ACTIVE_FOR_NS);
    uint32_t keepalive_ms = f->cfg.keepalive_ms;
    if (busy && keepalive_ms > ACTIVE_KEEPALIVE_MS) {
        keepalive_ms = ACTIVE_KEEPALIVE_MS;
    }
    if (keepalive_ms != p->keepalive_ms) {
        p->keepalive_ms = keepalive_ms;
        p->since_ns = f->now_ns;
        ngtcp2_conn_set_keep_alive_timeout(ss->conn, keepalive_ms * NS_PER_MS);
        session_dirty(ss);
    }
}

void path_settle(struct session *ss)
{
    struct path_state *p = &ss->path;
    const ngtcp2_path *now = ngtcp2_conn_get_path(ss->conn);
    bool relayed = path_is_virtual(now->remote.addr);
    if (relayed != p->relayed) {
        struct fabric_overlay_counters *c = &ss->f->relay.counters;
        *(relayed ? &c->moved_to_relay : &c->moved_to_direct) += 1;
        p->relayed = relayed;
        p->since_ns = ss->f->now_ns;
        p->via = UUID_NIL;
        list_del(&p->parked);
        if (relayed) {
            path_virtual_id(now->remote.addr, &p->remote);
            schedule_shortcut(ss);
        } else {
            path_direct_works(ss);
        }
        /* The old way's acknowledgements say nothing about the new one. */
        p->progress_ns = ss->f->now_ns;
    }
    /* Over relays too, though the routes should move first: when the news of that are lost, silence is all there
     * is to go by. */
    if (p->keepalive_ms > ACTIVE_KEEPALIVE_MS && judges_paths(ss)) {
        choose_keepalive(ss);
    }
    ngtcp2_conn_info ci;
    ngtcp2_conn_get_conn_info(ss->conn, &ci);
    if (ci.bytes_in_flight == 0 || !p->waiting) {
        p->progress_ns = ss->f->now_ns;
    }
    p->waiting = ci.bytes_in_flight > 0;
}

/* When silence since `from_ns` becomes too long. */
static uint64_t too_long(const struct session *ss, uint64_t from_ns)
{
    const struct path_state *p = &ss->path;
    ngtcp2_conn_info ci;
    ngtcp2_conn_get_conn_info(ss->conn, &ci);
    from_ns = from_ns > p->since_ns ? from_ns : p->since_ns;
    /* While we did not run ourselves, answers were lying in the socket; what was silence before that, and is
     * after it, stays silence. */
    return from_ns + fabric_slept_since(ss->f, from_ns) + 2 * p->keepalive_ms * NS_PER_MS +
           ss->f->suspect_margin_ns + 3 * ci.smoothed_rtt;
}

static uint64_t suspect_at(const struct session *ss)
{
    uint64_t progress_ns = ss->path.progress_ns;
    return too_long(ss, ss->last_rx_ns < progress_ns ? ss->last_rx_ns : progress_ns);
}

bool path_is_suspect(const struct session *ss)
{
    return ss->f->now_ns >= suspect_at(ss);
}

bool path_is_stalled(const struct session *ss)
{
    return ss->f->now_ns >= too_long(ss, ss->path.progress_ns);
}

static bool may_move(const struct session *ss)
{
    return ss->f->relay.on && ss->state == SESSION_UP && ss->dialled && ss->peer != NULL &&
           ss->kind != KIND_ENROLL;
}

/* When a session that waits for an acknowledgement follows the routes, which have moved. */
static uint64_t follow_at(const struct session *ss)
{
    const struct path_state *p = &ss->path;
    uint64_t from_ns = p->progress_ns > p->since_ns ? p->progress_ns : p->since_ns;
    uint64_t patience_ns = 2 * ngtcp2_conn_get_pto(ss->conn);
    patience_ns = patience_ns > WAITED_MIN_NS ? patience_ns : WAITED_MIN_NS;
    uint64_t at_ns = from_ns + fabric_slept_since(ss->f, from_ns) + patience_ns;
    uint64_t again_ns = p->tried_ns > p->progress_ns ? p->tried_ns + WAITED_MIN_NS : 0;
    return at_ns > again_ns ? at_ns : again_ns;
}

uint64_t path_deadline(const struct session *ss)
{
    if (!may_move(ss)) {
        return UINT64_MAX;
    }
    uint64_t at = suspect_at(ss);
    at = at > ss->path.retreat_at_ns ? at : ss->path.retreat_at_ns;
    uint64_t follow_ns = ss->path.routes_ns != 0 ? follow_at(ss) : UINT64_MAX;
    return at < follow_ns ? at : follow_ns;
}

static enum overlay_class class_of(const struct session *ss)
{
    return ss->kind == KIND_BULK ? OVERLAY_BULK : OVERLAY_CONTROL;
}

uint64_t path_retreat_pause_ns(unsigned tries)
{
    unsigned shift = tries > RETREATS_NEAR ? tries - RETREATS_NEAR : 0;
    return RETREAT_AGAIN_NS << (shift < RETREAT_MAX_SHIFT ? shift : RETREAT_MAX_SHIFT);
}

static bool move_to_relay(struct session *ss)
{
    struct path_state *p = &ss->path;
    struct addr remote;
    ngtcp2_path_storage ps;
    path_virtual(&ss->peer->id, 0, &remote);
    uint8_t generation = (uint8_t)(p->generation + 1);
    fill(ss, &remote, generation, &ps);
    if (ngtcp2_conn_initiate_immediate_migration(ss->conn, &ps.path, ss->f->now_ns) != 0) {
        return false; /* no spare connection id, or not confirmed: later */
    }
    p->generation = generation;
    p->tries = p->progress_ns > p->tried_ns ? 1 : p->tries + 1;
    p->tried_ns = ss->f->now_ns;
    p->retreat_at_ns = ss->f->now_ns + path_retreat_pause_ns(p->tries);
    if (!p->relayed) {
        path_settle(ss);
    } /* else nothing is better yet: it stays suspect */
    session_dirty(ss);
    return true;
}

bool path_leave_direct(struct session *ss)
{
    return may_move(ss) && !ss->path.relayed && move_to_relay(ss);
}

/* Since the routes moved nothing was acknowledged: now the session has waited long enough. */
static void follow_routes(struct session *ss)
{
    struct path_state *p = &ss->path;
    struct uuid hop;
    bool tried = p->tried_ns > p->progress_ns; /* and not answered so far */
    if (p->progress_ns > p->routes_ns || (tried && p->tries >= RETREATS_NEAR)) {
        p->routes_ns = 0;
    } else if (ss->f->now_ns >= follow_at(ss)) {
        p->routes_ns = 0;
        bool moved = relay_way_to(ss->peer, class_of(ss), &hop) == 0 && move_to_relay(ss);
        path_log(ss, moved ? "session migrates with the routes" : "session cannot migrate");
    }
}

void path_tick(struct session *ss)
{
    struct fabric *f = ss->f;
    struct path_state *p = &ss->path;
    struct uuid hop;
    if (p->routes_ns != 0 && may_move(ss)) {
        follow_routes(ss);
    }
    if (!may_move(ss) || f->now_ns < p->retreat_at_ns || !path_is_suspect(ss)) {
        return;
    }
    p->retreat_at_ns = f->now_ns + RETREAT_AGAIN_NS;
    if (relay_way_to(ss->peer, class_of(ss), &hop) != 0) {
        path_log(ss, "session is suspect and has no other way");
        return;
    }
    bool was_direct = !p->relayed;
    bool moved = move_to_relay(ss);
    path_log(ss,
             moved ? "session is suspect and migrates" : "session is suspect and cannot migrate");
    if (moved && was_direct) {
        /* A way that has just failed is not tried again at once; one that fails often, rarely. */
        p->shortcut_failures++;
        schedule_shortcut(ss);
    }
}

void path_routes_moved(struct session *ss)
{
    if (may_move(ss) && ss->path.relayed && ss->path.waiting) {
        ss->path.routes_ns = ss->f->now_ns;
        follow_routes(ss);
        session_arm(ss);
    }
}

static void try_shortcut(struct session *ss)
{
    struct path_state *p = &ss->path;
    struct peer *peer = ss->peer;
    struct addr remote;
    ngtcp2_path_storage ps;
    schedule_shortcut(ss);
    if (peer->addr_count == 0 || !peer_may_direct(peer) ||
        endpoint_map(ss->f, &peer->addrs[peer->addr_next++ % peer->addr_count], &remote) != 0) {
        return;
    }
    p->shortcut_failures++; /* until it succeeds */
    fill(ss, &remote, 0, &ps);
    if (ngtcp2_conn_initiate_migration(ss->conn, &ps.path, ss->f->now_ns) == 0) {
        session_dirty(ss);
    }
}

/* Relayed packets for a neighbour go over its control and its data connection, so the link is whole only when
 * both are direct: none of them waits for its next sweep. */
static void run_direct_works(struct event *e)
{
    struct session *ss = container_of(e, struct session, direct_event);
    for (size_t i = 0; ss->peer != NULL && i < 4; i++) {
        struct session *other = ss->peer->up[i / 2][i % 2];
        if (other != NULL && other != ss && other->path.relayed) {
            other->path.shortcut_at_ns = ss->f->now_ns;
            path_want_direct(other);
        }
    }
}

void path_direct_works(struct session *ss)
{
    if (ss->state == SESSION_UP && ss->peer != NULL) {
        event_post(ss->f, &ss->direct_event);
    }
}

void path_want_direct(struct session *ss)
{
    if (may_move(ss) && ss->path.relayed && uuid_is_nil(&ss->peer->pin)) {
        fabric_tick(ss->f);
        try_shortcut(ss);
    }
}

void path_came(struct session *ss, const struct relay_arrival *now)
{
    struct path_state *p = &ss->path;
    /* What the dialler sent before it changed its way may come after what it sent then. */
    bool late = now->class == p->came.class && now->sequence < p->came.sequence;
    if (late && !uuid_equal(&p->came.by, &p->shunned)) {
        return;
    }
    if (!uuid_equal(&p->came.by, &now->by)) {
        p->shunned = UUID_NIL;
        if (!ss->dialled) {
            p->since_ns =
                ss->f->now_ns; /* nothing went this way yet that could have been acknowledged */
        }
    }
    p->came = *now;
}

void path_validated(struct session *ss, const ngtcp2_path *path, bool ok)
{
    path_log(ss, ok ? "path is valid" : "path is not valid");
    if (ss->dialled && ok && !path_is_virtual(path->remote.addr)) {
        ss->path.since_ns = ss->f->now_ns;
        ss->src = (struct source){0};
    }
}

void path_sweep(struct session *ss)
{
    struct fabric *f = ss->f;
    struct path_state *p = &ss->path;
    if (!judges_paths(ss)) {
        return;
    }
    if (relay_pending(ss)) {
        session_dirty(ss); /* its packet size may have become known by time alone */
    }
    choose_keepalive(ss);
    if (!p->relayed && f->now_ns - p->since_ns > STABLE_NS) {
        p->shortcut_failures = 0;
    }
    if (ss->peer != NULL && !peer_may_talk(ss->peer)) {
        f->counters.sessions_denied += !ss->dialled;
        session_close(ss, FABRIC_CLOSE_POLICY, -ERR_DENIED);
    } else if (may_move(ss) && peer_is_forbidden(ss->peer)) {
        session_close(ss, FABRIC_CLOSE_SHUTDOWN, -ERR_DENIED);
    } else if (may_move(ss) && (!uuid_is_nil(&ss->peer->pin) || !peer_may_direct(ss->peer))) {
        (void)path_leave_direct(ss);
    } else if (may_move(ss) && p->relayed && f->now_ns >= p->shortcut_at_ns) {
        try_shortcut(ss);
    }
}
