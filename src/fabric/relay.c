/* Overlay packets: sending ours, forwarding others', delivering those for us (DESIGN section 8).
 *
 *     ours:     session_write -> relay_send -> the neighbour's queue
 *     others':  datagram_cb -> relay_receive -> checks -> the neighbour's queue
 *     queue:    session_write of the neighbour's connection: relay_pending, relay_take
 *     for us:   datagram_cb -> relay_receive -> inbound -> (batch read) relay_deliver -> endpoint_receive
 *
 * What relay_receive may drop, and why, is enum fabric_drop; a sender learns nothing but the loss.
 * The control class has the neighbours' control connections, within a bound for each source
 * (relay_guard.h); everything else goes over the data connections. */
#include "fabric/fabric_impl.h"

#include "base/clock.h"

#define INBOUND_BYTES_MAX (16u << 20)
#define QUEUED_BYTES_MAX (64u << 20)
#define HALF_OPEN_MAX 256
#define HALF_OPEN_PER_SOURCE 8
#define CONTROL_MASK (1u << OVERLAY_CONTROL)
/* The library tries a size three times, for one, one and three probe time-outs. */
#define SIZE_KNOWN_PTOS 6
#define SIZE_KNOWN_MAX_NS (1500 * NS_PER_MS) /* what waits would expire */

#define SLUG_(name, slug) [FABRIC_DROP_##name] = slug,
const char *const fabric_drop_slugs[FABRIC_DROP_COUNT] = {FABRIC_DROPS(SLUG_)};
#undef SLUG_

struct inbound {
    struct link link;
    struct relay_arrival arrival;
    struct uuid from;
    uint8_t path;
    size_t len;
    uint8_t data[];
};

void relay_init(struct fabric *f)
{
    struct relay *r = &f->relay;
    list_init(&r->inbound);
    list_init(&r->parked);
    relay_policy_set(&r->policy, NULL);
    /* Above what this node used before it was started again, whatever its rate was. */
    for (size_t i = 0; i < OVERLAY_CLASSES; i++) {
        r->sequence[i] = (uint64_t)clock_wall_ms() << 20;
    }
}

static void free_inbound(struct relay *r, struct inbound *in)
{
    list_del(&in->link);
    r->inbound_bytes -= in->len;
    free(in);
}

void relay_fini(struct fabric *f)
{
    while (!list_empty(&f->relay.inbound)) {
        free_inbound(&f->relay, container_of(f->relay.inbound.next, struct inbound, link));
    }
    relay_guard_fini(&f->relay.guard);
}

void relay_drop(struct fabric *f, enum fabric_drop why)
{
    f->relay.counters.drops[why]++;
}

/* --- neighbours --- */

struct session *relay_carrier(struct peer *p, bool bulk)
{
    struct session *ss = peer_session(p, bulk);
    if (ss == NULL || !ss->path.relayed) {
        return ss;
    }
    for (int i = 0; i < 2; i++) {
        if (p->up[bulk][i] != NULL && !p->up[bulk][i]->path.relayed) {
            return p->up[bulk][i];
        }
    }
    return NULL;
}

static bool is_neighbour(struct peer *p)
{
    struct session *control = p != NULL ? relay_carrier(p, false) : NULL;
    struct session *data = p != NULL ? relay_carrier(p, true) : NULL;
    return control != NULL && !path_is_suspect(control) && (data == NULL || !path_is_suspect(data));
}

bool fabric_is_neighbour(const struct fabric *f, const struct uuid *id)
{
    return is_neighbour(peer_find((struct fabric *)(uintptr_t)f, id));
}

int relay_next_hop(struct fabric *f, const struct uuid *to, enum overlay_class class,
                   const struct uuid *avoid, struct uuid *ret)
{
    struct relay *r = &f->relay;
    struct uuid hop;
    if (!r->on) {
        return -ERR_UNREACHABLE;
    }
    int rc = r->vtab.next_hop(r->vtab.data, to, class, avoid, &hop);
    if (rc != 0) {
        return rc;
    }
    if (avoid != NULL && uuid_equal(&hop, avoid)) {
        return -ERR_CONFLICT;
    }
    /* The table may lag behind the configuration: who may no longer relay gets nothing more. */
    if (!uuid_equal(&hop, to) && !r->vtab.may_relay(r->vtab.data, &hop)) {
        return -ERR_DENIED;
    }
    *ret = hop;
    return 0;
}

static enum fabric_drop drop_for(int rc)
{
    return rc == -ERR_DENIED     ? FABRIC_DROP_POLICY
           : rc == -ERR_REVOKED  ? FABRIC_DROP_REVOKED
           : rc == -ERR_CONFLICT ? FABRIC_DROP_BACKTRACK
                                 : FABRIC_DROP_NO_ROUTE;
}

int relay_way_to(struct peer *p, enum overlay_class class, struct uuid *ret)
{
    struct fabric *f = p->f;
    if (uuid_is_nil(&p->pin)) {
        return relay_next_hop(f, &p->id, class, &p->id, ret);
    }
    if (!f->relay.on || !fabric_is_neighbour(f, &p->pin) ||
        !f->relay.vtab.may_relay(f->relay.vtab.data, &p->pin)) {
        return -ERR_UNREACHABLE;
    }
    *ret = p->pin;
    return 0;
}

int fabric_peer_pin(struct fabric *f, const struct uuid *id, const struct uuid *via)
{
    if (!f->relay.on || f->closing || uuid_equal(id, &f->node_id)) {
        return -ERR_UNREACHABLE;
    }
    struct peer *p = peer_get(f, id);
    struct uuid before = p->pin;
    struct uuid hop;
    int rc = 0;
    p->pin = *via;
    if (!uuid_is_nil(via)) {
        bool theirs = (p->up[0][0] != NULL && p->up[0][1] == NULL) ||
                      (p->up[1][0] != NULL && p->up[1][1] == NULL);
        rc = theirs || uuid_equal(id, via) ? -ERR_CONFLICT : relay_way_to(p, OVERLAY_CONTROL, &hop);
    }
    if (rc != 0) {
        p->pin = before;
    } else if (!uuid_is_nil(via)) {
        for (int k = 0; k < 2; k++) {
            if (p->up[k][1] != NULL && !p->up[k][1]->path.relayed) {
                (void)path_leave_direct(p->up[k][1]); /* else path_sweep tries again */
            }
        }
    }
    peer_release(p);
    return rc;
}

/* --- a neighbour's queue --- */

static unsigned mask_of(const struct session *ss)
{
    return ss->kind == KIND_BULK ? ~CONTROL_MASK : CONTROL_MASK;
}

/* A new connection does not know yet how large its packets may be; finding out takes some round trips.
 * What is sent meanwhile waits: dropped, it would teach the session a size smaller than there is. The
 * time that this process did not run is not counted: the answers may lie in the socket. */
static bool knows_its_size(const struct session *ss)
{
    const struct fabric *f = ss->f;
    size_t max;
    session_max_datagram(ss, &max);
    if (max >= OVERLAY_HEADER_BYTES + OVERLAY_PAYLOAD_MAX) {
        return true;
    }
    uint64_t since_ns = ss->up_ns > f->woke_ns ? ss->up_ns : f->woke_ns;
    uint64_t wait_ns = SIZE_KNOWN_PTOS * ngtcp2_conn_get_pto(ss->conn);
    wait_ns = wait_ns < SIZE_KNOWN_MAX_NS ? wait_ns : SIZE_KNOWN_MAX_NS;
    return max >= OVERLAY_HEADER_BYTES + NGTCP2_MAX_UDP_PAYLOAD_SIZE &&
           f->now_ns - since_ns > wait_ns;
}

static void count_queue(struct fabric *f, struct relay_queue *q, size_t bytes_before)
{
    struct relay *r = &f->relay;
    r->queued_bytes = r->queued_bytes - bytes_before + q->bytes;
    r->counters.drops[FABRIC_DROP_FULL] += q->dropped_full;
    r->counters.drops[FABRIC_DROP_EARLY] += q->dropped_early;
    r->counters.drops[FABRIC_DROP_EXPIRED] += q->dropped_expired;
    q->dropped_full = q->dropped_early = q->dropped_expired = 0;
}

static uint64_t source_hash(const struct uuid *id)
{
    uint64_t a;
    uint64_t b;
    memcpy(&a, id->b, 8);
    memcpy(&b, id->b + 8, 8);
    return a ^ (b * 0x9e3779b97f4a7c15u);
}

/* false: dropped, counted. */
static bool enqueue(struct fabric *f, const struct uuid *hop, enum overlay_class class,
                    const struct overlay_packet *packet)
{
    struct peer *p = peer_find(f, hop);
    if (p == NULL || relay_carrier(p, false) == NULL) {
        relay_drop(f, FABRIC_DROP_NO_ROUTE);
        return false;
    }
    struct session *carrier = relay_carrier(p, class != OVERLAY_CONTROL);
    size_t len = OVERLAY_HEADER_BYTES + packet->payload.len;
    size_t max = 0;
    if (carrier != NULL) {
        session_max_datagram(carrier, &max);
    }
    if (carrier != NULL && len > max && knows_its_size(carrier)) {
        relay_drop(f, FABRIC_DROP_TOO_LARGE);
        return false;
    }
    if (f->relay.queued_bytes + len > QUEUED_BYTES_MAX) {
        relay_drop(f, FABRIC_DROP_FULL);
        return false;
    }
    if (p->relay == NULL) {
        p->relay = xmalloc(sizeof *p->relay);
        relay_queue_init(p->relay, rng_u64(), &f->relay.policy);
    }
    struct relay_packet *rp = xmalloc(sizeof *rp + len);
    *rp = (struct relay_packet){.source = source_hash(&packet->from), .len = len};
    overlay_put_header(packet, rp->data);
    memcpy(rp->data + OVERLAY_HEADER_BYTES, packet->payload.data, packet->payload.len);
    size_t before = p->relay->bytes;
    relay_queue_push(p->relay, class, rp, f->now_ns);
    count_queue(f, p->relay, before);
    struct session *control = relay_carrier(p, false);
    control->path.carried_ns = f->now_ns;
    if (carrier != NULL) {
        carrier->path.carried_ns = f->now_ns;
        session_dirty(carrier);
    } else {
        timer_set(f, &p->timer, f->now_ns); /* peer_timer dials the data connection */
    }
    return true;
}

bool relay_pending(struct session *ss)
{
    if (ss->relay_head != NULL) {
        return true;
    }
    return ss->peer != NULL && ss->peer->relay != NULL && !ss->path.relayed &&
           ss->state == SESSION_UP && ss->kind != KIND_ENROLL &&
           relay_queue_waits(ss->peer->relay, mask_of(ss)) && knows_its_size(ss);
}

static void unpark(struct fabric *f)
{
    while (!list_empty(&f->relay.parked)) {
        struct path_state *p = container_of(f->relay.parked.next, struct path_state, parked);
        list_del(&p->parked);
        session_dirty(container_of(p, struct session, path));
    }
}

struct relay_packet *relay_take(struct session *ss)
{
    struct fabric *f = ss->f;
    if (ss->relay_head == NULL && relay_pending(ss)) {
        struct relay_queue *q = ss->peer->relay;
        size_t before = q->bytes;
        ss->relay_head = relay_queue_pop(q, mask_of(ss), f->now_ns);
        count_queue(f, q, before);
        if (!list_empty(&f->relay.parked) && relay_queue_has_room(q, OVERLAY_BULK) &&
            relay_queue_has_room(q, OVERLAY_INTERACTIVE)) {
            unpark(f);
        }
    }
    return ss->relay_head;
}

void relay_session_gone(struct session *ss)
{
    free(ss->relay_head);
    ss->relay_head = NULL;
    list_del(&ss->path.parked);
    if (ss->path.half_open) {
        ss->path.half_open = false;
        ss->f->relay.half_open--;
    }
}

void relay_peer_gone(struct peer *p)
{
    if (p->relay != NULL) {
        p->f->relay.queued_bytes -= p->relay->bytes;
        relay_queue_fini(p->relay);
        free(p->relay);
        p->relay = NULL;
    }
    relay_guard_forget(&p->f->relay.guard, &p->id);
}

/* --- ours --- */

static enum overlay_class class_of(const struct session *ss)
{
    if (ss == NULL || ss->state != SESSION_UP || ss->kind != KIND_BULK) {
        return OVERLAY_CONTROL;
    }
    const struct fabric_overlay *o = &ss->f->relay.vtab;
    return ss->peer == NULL || o->data_class == NULL ? OVERLAY_BULK
                                                     : o->data_class(o->data, &ss->peer->id);
}

/* Our own control traffic is held to the same bound as everybody's. */
static enum overlay_class queue_class(struct fabric *f, const struct overlay_packet *p,
                                      struct relay_flow *flow)
{
    return p->class == OVERLAY_CONTROL &&
                   !relay_guard_is_control(&f->relay.guard, flow, p->payload.len, f->now_ns)
               ? OVERLAY_INTERACTIVE
               : p->class;
}

static bool may_carry(struct fabric *f, const struct uuid *neighbour)
{
    return fabric_is_neighbour(f, neighbour) &&
           f->relay.vtab.may_relay(f->relay.vtab.data, neighbour);
}

/* A challenge is answered on the way it came by (RFC 9000 section 8.2.2), whatever way the session goes: that
 * one may be the dead one that the dialler wants to leave. */
static bool is_answer(struct session *ss, const struct addr *to)
{
    const ngtcp2_path *now = ngtcp2_conn_get_path(ss->conn);
    uint8_t generation = path_virtual_generation(&to->ss);
    return !ss->dialled && !uuid_is_nil(&ss->path.asked_by) &&
           generation == ss->path.asked_generation &&
           !(path_is_virtual(now->remote.addr) &&
             path_virtual_generation(now->remote.addr) == generation) &&
           may_carry(ss->f, &ss->path.asked_by);
}

static int way_out(struct fabric *f, struct session *ss, const struct uuid *to,
                   enum overlay_class class, struct uuid *ret)
{
    int rc = ss != NULL && ss->peer != NULL ? relay_way_to(ss->peer, class, ret)
                                            : relay_next_hop(f, to, class, to, ret);
    if (!f->relay.on || ss == NULL || ss->dialled || uuid_is_nil(&ss->path.came.by)) {
        return rc;
    }
    /* Accepted: only the dialler can look for another way, and the one it found is known to work in
     * one direction at least; answers follow it, unless nothing of them arrives. */
    struct path_state *p = &ss->path;
    if (uuid_equal(&p->via, &p->came.by) && rc == 0 && path_is_stalled(ss)) {
        p->shunned = p->came.by;
        p->since_ns = f->now_ns;
    }
    if (!uuid_equal(&p->came.by, &p->shunned) && may_carry(f, &p->came.by)) {
        *ret = p->came.by;
        rc = 0;
    }
    return rc;
}

void relay_send(struct fabric *f, struct session *ss, const struct addr *to, struct blob packet)
{
    struct relay *r = &f->relay;
    struct overlay_packet p = {.class = class_of(ss),
                               .hops = OVERLAY_HOPS,
                               .path = ss != NULL ? ss->path.generation : 0,
                               .from = f->node_id,
                               .payload = packet};
    path_virtual_id(&to->ss, &p.to);
    struct uuid hop;
    if (packet.len == 0 || packet.len > OVERLAY_PAYLOAD_MAX) {
        relay_drop(f, FABRIC_DROP_TOO_LARGE);
        return;
    }
    bool answer = r->on && ss != NULL && is_answer(ss, to);
    if (answer) {
        hop = ss->path.asked_by;
    }
    int rc = answer ? 0 : way_out(f, ss, &p.to, p.class, &hop);
    if (rc != 0) {
        relay_drop(f, r->on ? drop_for(rc) : FABRIC_DROP_OFF);
        return;
    }
    p.sequence = ++r->sequence[p.class];
    struct relay_flow *flow = relay_guard_pass(&r->guard, &f->node_id, &p, f->now_ns);
    CHECK(flow != NULL); /* our own sequence only rises */
    if (ss != NULL && !answer && !uuid_equal(&ss->path.via, &hop)) {
        ss->path.via = hop;
        path_log(ss, "session goes another way");
    }
    if (enqueue(f, &hop, queue_class(f, &p, flow), &p)) {
        r->counters.sent++;
    }
}

bool relay_has_room(struct session *ss)
{
    struct uuid hop;
    if (way_out(ss->f, ss, &ss->path.remote, class_of(ss), &hop) != 0) {
        return true; /* let it write, and lose: its own timers know what to do */
    }
    struct peer *p = peer_find(ss->f, &hop);
    enum overlay_class class = class_of(ss);
    class = class == OVERLAY_CONTROL ? OVERLAY_INTERACTIVE : class;
    if (p == NULL || p->relay == NULL || relay_queue_has_room(p->relay, class)) {
        return true;
    }
    list_del(&ss->path.parked);
    list_add(&ss->f->relay.parked, &ss->path.parked);
    return false;
}

/* --- others' --- */

static void forward(struct fabric *f, const struct uuid *neighbour, const struct overlay_packet *in,
                    struct relay_flow *flow)
{
    struct relay *r = &f->relay;
    struct uuid hop;
    if (!r->vtab.may_relay(r->vtab.data, &f->node_id)) {
        relay_drop(f, FABRIC_DROP_NO_ROLE);
        return;
    }
    if (in->hops <= 1) {
        relay_drop(f, FABRIC_DROP_HOP_LIMIT);
        return;
    }
    int rc = relay_next_hop(f, &in->to, in->class, neighbour, &hop);
    if (rc == 0 && uuid_equal(&hop, &in->from)) {
        rc = -ERR_CONFLICT;
    }
    if (rc != 0) {
        relay_drop(f, drop_for(rc));
        return;
    }
    struct overlay_packet out = *in;
    out.hops--;
    if (enqueue(f, &hop, queue_class(f, in, flow), &out)) {
        r->counters.forwarded++;
    }
}

static void keep_inbound(struct fabric *f, const struct uuid *neighbour,
                         const struct overlay_packet *p)
{
    struct relay *r = &f->relay;
    if (r->inbound_bytes + p->payload.len > INBOUND_BYTES_MAX) {
        relay_drop(f, FABRIC_DROP_FULL);
        return;
    }
    struct inbound *in = xmalloc(sizeof *in + p->payload.len);
    in->arrival = (struct relay_arrival){
        .by = *neighbour, .class = p->class, .sequence = p->sequence};
    in->from = p->from;
    in->path = p->path;
    in->len = p->payload.len;
    memcpy(in->data, p->payload.data, p->payload.len);
    list_init(&in->link);
    list_add(&r->inbound, &in->link);
    r->inbound_bytes += in->len;
}

void relay_receive(struct session *from, struct blob packet)
{
    struct fabric *f = from->f;
    struct relay *r = &f->relay;
    struct overlay_packet p;
    if (!r->on) {
        relay_drop(f, FABRIC_DROP_OFF);
        return;
    }
    int rc = overlay_decode(packet, &p);
    if (rc != 0) {
        relay_drop(f, rc == -ERR_UNSUPPORTED ? FABRIC_DROP_VERSION : FABRIC_DROP_MALFORMED);
        return;
    }
    const struct uuid *neighbour = &from->who.identity.node_id;
    if (from->suspended) {
        relay_drop(f, FABRIC_DROP_REVOKED);
        return;
    }
    /* A neighbour speaks for itself; for others only if it relays. What comes over a relayed session
     * is no neighbour's at all: one tunnel in another would defeat the hop limit. */
    if (!from->who.authenticated || from->path.relayed ||
        (!uuid_equal(&p.from, neighbour) && !r->vtab.may_relay(r->vtab.data, neighbour))) {
        relay_drop(f, FABRIC_DROP_SPOOFED);
        return;
    }
    if (uuid_equal(&p.from, &f->node_id)) {
        relay_drop(f, FABRIC_DROP_LOOP);
        return;
    }
    struct relay_flow *flow = relay_guard_pass(&r->guard, neighbour, &p, f->now_ns);
    if (flow == NULL) {
        relay_drop(f, FABRIC_DROP_DUPLICATE);
        return;
    }
    from->path.carried_ns = f->now_ns;
    if (uuid_equal(&p.to, &f->node_id)) {
        keep_inbound(f, neighbour, &p);
        return;
    }
    if (r->watch != NULL) {
        r->watch(r->watch_data, packet);
    }
    forward(f, neighbour, &p, flow);
}

/* --- for us --- */

bool relay_may_accept(struct fabric *f, const struct uuid *from)
{
    size_t same = 0;
    if (f->relay.half_open >= HALF_OPEN_MAX) {
        return false;
    }
    if (f->relay.half_open >= HALF_OPEN_PER_SOURCE) {
        for (struct link *l = f->sessions.next; l != &f->sessions; l = l->next) {
            const struct session *ss = container_of(l, struct session, link);
            same += ss->path.half_open && uuid_equal(&ss->path.remote, from);
        }
    }
    return same < HALF_OPEN_PER_SOURCE;
}

void relay_deliver(struct fabric *f)
{
    struct relay *r = &f->relay;
    while (!list_empty(&r->inbound)) {
        struct inbound *in = container_of(r->inbound.next, struct inbound, link);
        struct peer *p = peer_find(f, &in->arrival.by);
        struct addr from;
        struct source none = {0};
        path_virtual(&in->from, in->path, &from);
        r->bringing = in->arrival;
        r->counters.delivered++;
        if (p != NULL && relay_carrier(p, true) == NULL && p->addr_count > 0) {
            /* It brings us packets and may have no way to dial us: give it our data connection. */
            timer_set(f, &p->timer, f->now_ns);
            p->carries = true;
        }
        if (!f->closing) {
            endpoint_receive(f, &from, &none, blob_of(in->data, in->len));
        }
        free_inbound(r, in);
    }
}

/* --- public --- */

void fabric_set_overlay(struct fabric *f, const struct fabric_overlay *o)
{
    f->relay.on = o != NULL;
    f->relay.vtab = o != NULL ? *o : (struct fabric_overlay){0};
    fabric_overlay_changed(f);
}

void fabric_set_qos(struct fabric *f, const struct overlay_qos qos[OVERLAY_CLASSES])
{
    relay_policy_set(&f->relay.policy, qos);
}

void fabric_overlay_changed(struct fabric *f)
{
    fabric_tick(f);
    for (struct link *l = f->sessions.next; l != &f->sessions; l = l->next) {
        path_routes_moved(container_of(l, struct session, link));
    }
    peer_kick_all(f);
}

void fabric_overlay_counters(const struct fabric *f, struct fabric_overlay_counters *ret)
{
    *ret = f->relay.counters;
    ret->queued_bytes = f->relay.queued_bytes;
}
