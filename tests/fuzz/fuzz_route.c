/* Neighbours that know the tokens and say what they like: a relay and an ordinary node. The table may
 * believe them or not, but it stays within its bounds and never trips over its own invariants. */
#include "fuzz/fuzz.h"

#include "fabric/route.h"

static struct uuid id_of(uint8_t n)
{
    struct uuid u = UUID_NIL;
    u.b[0] = 1;
    u.b[15] = n;
    return u;
}

static uint64_t number(const uint8_t **p, const uint8_t *end)
{
    uint64_t v = 0;
    for (int i = 0; i < 4; i++) {
        v = v << 8 | (*p < end ? *(*p)++ : 0u);
    }
    return v;
}

static void link_up(struct route_table *t, uint8_t n, uint64_t now_ms, struct route_todo *todo)
{
    struct route_event ev = {.kind = ROUTE_LINK_UP,
                             .now_ms = now_ms,
                             .neighbour = id_of(n),
                             .token = n,
                             .peer_token = n + 100u,
                             .cost = 1000,
                             .relay = n != 3};
    route_step(t, &ev, todo);
}

/* A message of neighbour n, of the type and with the entries that the bytes ask for. */
static struct blob message(uint8_t n, uint8_t type, const uint8_t **p, const uint8_t *end,
                           uint32_t serial, uint8_t *out)
{
    static struct mesh_routes routes;
    static struct mesh_requests requests;
    if (type % 3 == 0) {
        struct mesh_routes_ack ack = {
            .token = n + 100u, .peer_token = n, .number = (uint32_t)number(p, end) % 64};
        return blob_of(out, mesh_routes_ack_encode(&ack, out));
    }
    if (type % 3 == 1) {
        routes = (struct mesh_routes){
            .token = n + 100u, .peer_token = n, .number = serial, .count = 1u + type % 4u};
        for (uint32_t i = 0; i < routes.count; i++) {
            uint64_t v = number(p, end);
            routes.entry[i].dst = id_of((uint8_t)(v % 7));
            routes.entry[i].hops = (uint8_t)(v / 7 % (MESH_HOPS_MAX + 1));
            routes.entry[i].seqno = (uint32_t)(v / 119 % 5);
            routes.entry[i].metric = v % 5 == 0 ? (uint32_t)number(p, end) : (uint32_t)(v % 20000);
        }
        return blob_of(out, mesh_routes_encode(&routes, out));
    }
    requests = (struct mesh_requests){.token = n + 100u, .peer_token = n, .count = 1u + type % 4u};
    for (uint32_t i = 0; i < requests.count; i++) {
        uint64_t v = number(p, end);
        requests.entry[i].dst = id_of((uint8_t)(v % 7));
        requests.entry[i].hops = (uint8_t)(v / 7 % (MESH_HOPS_MAX + 1));
        requests.entry[i].seqno = (uint32_t)(v / 119);
        requests.entry[i].kind = v % 2 == 0 ? MESH_REQUEST_ROUTE : MESH_REQUEST_SEQNO;
    }
    return blob_of(out, mesh_requests_encode(&requests, out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct route_todo todo;
    uint8_t out[MESH_MSG_MAX];
    const uint8_t *p = data;
    const uint8_t *end = data + size;
    uint64_t now_ms = ROUTE_START_HOLD_MS + 1000;
    uint32_t serial = 0;
    struct route_config c = {.self = id_of(0), .relay = true, .now_ms = 0};
    struct route_table *t = route_new(&c);
    for (uint8_t n = 1; n <= 3; n++) {
        link_up(t, n, now_ms, &todo);
    }
    while (p + 2 <= end && serial < 2000) {
        uint8_t n = (uint8_t)(1 + *p % 3);
        uint8_t what = *p++ / 3;
        now_ms += *p++ % 64u * 20u;
        struct route_event ev = {.kind = ROUTE_MESSAGE, .now_ms = now_ms, .neighbour = id_of(n)};
        if (what < 70) {
            ev.message = message(n, what, &p, end, ++serial, out);
        } else if (what < 74) {
            ev.kind = ROUTE_LINK_DOWN;
        } else if (what < 78) {
            link_up(t, n, now_ms, &todo);
            continue;
        } else {
            ev.kind = ROUTE_LINK_COST;
            ev.cost = 1u + what * 100u;
        }
        route_step(t, &ev, &todo);
        CHECK(todo.send_count <= ROUTE_TODO_SENDS && todo.next_ms >= now_ms);
        CHECK(route_destination_count(t) <= 7 && route_neighbour_count(t) <= 3);
        for (uint8_t d = 0; d < 7;
             d++) { /* an ordinary node is the end of a path, never its middle */
            struct uuid dst = id_of(d);
            struct uuid next;
            if (route_next_hop(t, &dst, NULL, &next) == ROUTE_NONE) {
                CHECK(next.b[15] != 3 || d == 3);
            }
        }
    }
    route_free(t);
    return 0;
}
