#include "wire/mesh_msg.h"

#define HEAD_BYTES 18
#define PROBE_BYTES (HEAD_BYTES + 10)
#define ACK_BYTES (HEAD_BYTES + 4)
#define ROUTES_HEAD_BYTES (HEAD_BYTES + 5)
#define ROUTE_ENTRY_BYTES 25
#define REQUESTS_HEAD_BYTES (HEAD_BYTES + 1)
#define REQUEST_ENTRY_BYTES 22

_Static_assert(ROUTES_HEAD_BYTES + MESH_ROUTES_ENTRIES_MAX * ROUTE_ENTRY_BYTES <= MESH_MSG_MAX,
               "routes fit a datagram");
_Static_assert(REQUESTS_HEAD_BYTES + MESH_REQUESTS_ENTRIES_MAX * REQUEST_ENTRY_BYTES <=
                   MESH_MSG_MAX,
               "requests fit a datagram");

static uint8_t *put(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        *p++ = (uint8_t)(v >> (8 * (bytes - 1 - i)));
    }
    return p;
}

static uint8_t *put_id(uint8_t *p, const struct uuid *id)
{
    memcpy(p, id->b, sizeof id->b);
    return p + sizeof id->b;
}

static uint8_t *put_head(uint8_t *p, enum mesh_msg_type type, uint64_t token, uint64_t peer_token)
{
    p = put(p, (uint64_t)type, 1);
    p = put(p, MESH_MSG_VERSION, 1);
    p = put(p, token, 8);
    return put(p, peer_token, 8);
}

static uint64_t get(const uint8_t **p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        v = v << 8 | *(*p)++;
    }
    return v;
}

static struct uuid get_id(const uint8_t **p)
{
    struct uuid id;
    memcpy(id.b, *p, sizeof id.b);
    *p += sizeof id.b;
    return id;
}

/* Leaves *p behind the head of a message that is at least `bytes` long. */
static int get_head(struct blob in, size_t bytes, const uint8_t **p, uint8_t *ret_type,
                    uint64_t *ret_token, uint64_t *ret_peer_token)
{
    if (in.len < 2) {
        return -ERR_MALFORMED;
    }
    *p = in.data;
    *ret_type = (uint8_t)get(p, 1);
    if (get(p, 1) != MESH_MSG_VERSION) {
        return -ERR_UNSUPPORTED;
    }
    if (in.len < bytes) {
        return -ERR_MALFORMED;
    }
    *ret_token = get(p, 8);
    *ret_peer_token = get(p, 8);
    return *ret_token == 0 ? -ERR_MALFORMED : 0;
}

size_t mesh_probe_encode(const struct mesh_probe *m, uint8_t *out)
{
    CHECK(m->type == MESH_PROBE || m->type == MESH_PROBE_ANSWER);
    uint8_t *p = put_head(out, m->type, m->token, m->peer_token);
    p = put(p, m->seq, 4);
    p = put(p, m->received, 4);
    p = put(p, m->load, 1);
    p = put(p, m->flags, 1);
    return (size_t)(p - out);
}

int mesh_probe_decode(struct blob in, struct mesh_probe *ret)
{
    const uint8_t *p;
    uint8_t type;
    struct mesh_probe m;
    int rc = get_head(in, PROBE_BYTES, &p, &type, &m.token, &m.peer_token);
    if (rc != 0) {
        return rc;
    }
    if ((type != MESH_PROBE && type != MESH_PROBE_ANSWER) || in.len != PROBE_BYTES) {
        return -ERR_MALFORMED;
    }
    m.type = type == MESH_PROBE ? MESH_PROBE : MESH_PROBE_ANSWER;
    m.seq = (uint32_t)get(&p, 4);
    m.received = (uint32_t)get(&p, 4);
    m.load = (uint8_t)get(&p, 1);
    m.flags = (uint8_t)get(&p, 1);
    if (m.load > 100 || (m.flags & ~MESH_PROBE_FLAGS_ALL) != 0) {
        return -ERR_MALFORMED;
    }
    *ret = m;
    return 0;
}

size_t mesh_routes_encode(const struct mesh_routes *m, uint8_t *out)
{
    CHECK(m->count > 0 && m->count <= MESH_ROUTES_ENTRIES_MAX);
    uint8_t *p = put_head(out, MESH_ROUTES, m->token, m->peer_token);
    p = put(p, m->number, 4);
    p = put(p, m->count, 1);
    for (uint32_t i = 0; i < m->count; i++) {
        const struct mesh_route_entry *e = &m->entry[i];
        p = put_id(p, &e->dst);
        p = put(p, e->seqno, 4);
        p = put(p, e->metric, 4);
        p = put(p, e->hops, 1);
    }
    return (size_t)(p - out);
}

int mesh_routes_decode(struct blob in, struct mesh_routes *ret)
{
    const uint8_t *p;
    uint8_t type;
    uint64_t token;
    uint64_t peer_token;
    int rc = get_head(in, ROUTES_HEAD_BYTES, &p, &type, &token, &peer_token);
    if (rc != 0) {
        return rc;
    }
    uint32_t number = (uint32_t)get(&p, 4);
    uint32_t count = (uint32_t)get(&p, 1);
    if (type != MESH_ROUTES || count == 0 || count > MESH_ROUTES_ENTRIES_MAX ||
        in.len != ROUTES_HEAD_BYTES + count * ROUTE_ENTRY_BYTES) {
        return -ERR_MALFORMED;
    }
    for (const uint8_t *q = p; q < in.data + in.len; q += ROUTE_ENTRY_BYTES) {
        struct uuid id;
        memcpy(id.b, q, sizeof id.b);
        if (uuid_is_nil(&id) || q[ROUTE_ENTRY_BYTES - 1] > MESH_HOPS_MAX) {
            return -ERR_MALFORMED;
        }
    }
    ret->token = token;
    ret->peer_token = peer_token;
    ret->number = number;
    ret->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct mesh_route_entry *e = &ret->entry[i];
        e->dst = get_id(&p);
        e->seqno = (uint32_t)get(&p, 4);
        e->metric = (uint32_t)get(&p, 4);
        e->hops = (uint8_t)get(&p, 1);
    }
    return 0;
}

size_t mesh_routes_ack_encode(const struct mesh_routes_ack *m, uint8_t *out)
{
    uint8_t *p = put_head(out, MESH_ROUTES_ACK, m->token, m->peer_token);
    p = put(p, m->number, 4);
    return (size_t)(p - out);
}

int mesh_routes_ack_decode(struct blob in, struct mesh_routes_ack *ret)
{
    const uint8_t *p;
    uint8_t type;
    struct mesh_routes_ack m;
    int rc = get_head(in, ACK_BYTES, &p, &type, &m.token, &m.peer_token);
    if (rc != 0) {
        return rc;
    }
    if (type != MESH_ROUTES_ACK || in.len != ACK_BYTES) {
        return -ERR_MALFORMED;
    }
    m.number = (uint32_t)get(&p, 4);
    *ret = m;
    return 0;
}

size_t mesh_requests_encode(const struct mesh_requests *m, uint8_t *out)
{
    CHECK(m->count > 0 && m->count <= MESH_REQUESTS_ENTRIES_MAX);
    uint8_t *p = put_head(out, MESH_REQUESTS, m->token, m->peer_token);
    p = put(p, m->count, 1);
    for (uint32_t i = 0; i < m->count; i++) {
        const struct mesh_request_entry *e = &m->entry[i];
        p = put_id(p, &e->dst);
        p = put(p, e->seqno, 4);
        p = put(p, e->hops, 1);
        p = put(p, (uint64_t)e->kind, 1);
    }
    return (size_t)(p - out);
}

int mesh_requests_decode(struct blob in, struct mesh_requests *ret)
{
    const uint8_t *p;
    uint8_t type;
    uint64_t token;
    uint64_t peer_token;
    int rc = get_head(in, REQUESTS_HEAD_BYTES, &p, &type, &token, &peer_token);
    if (rc != 0) {
        return rc;
    }
    uint32_t count = (uint32_t)get(&p, 1);
    if (type != MESH_REQUESTS || count == 0 || count > MESH_REQUESTS_ENTRIES_MAX ||
        in.len != REQUESTS_HEAD_BYTES + count * REQUEST_ENTRY_BYTES) {
        return -ERR_MALFORMED;
    }
    for (const uint8_t *q = p; q < in.data + in.len; q += REQUEST_ENTRY_BYTES) {
        struct uuid id;
        memcpy(id.b, q, sizeof id.b);
        uint8_t hops = q[REQUEST_ENTRY_BYTES - 2];
        uint8_t kind = q[REQUEST_ENTRY_BYTES - 1];
        if (uuid_is_nil(&id) || hops > MESH_HOPS_MAX ||
            (kind != MESH_REQUEST_ROUTE && kind != MESH_REQUEST_SEQNO)) {
            return -ERR_MALFORMED;
        }
    }
    ret->token = token;
    ret->peer_token = peer_token;
    ret->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct mesh_request_entry *e = &ret->entry[i];
        e->dst = get_id(&p);
        e->seqno = (uint32_t)get(&p, 4);
        e->hops = (uint8_t)get(&p, 1);
        e->kind = get(&p, 1) == MESH_REQUEST_ROUTE ? MESH_REQUEST_ROUTE : MESH_REQUEST_SEQNO;
    }
    return 0;
}
