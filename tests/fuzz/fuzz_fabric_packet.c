/* UDP datagrams from anyone, into a node with one live session. The input is a run of datagrams,
 * each behind two bytes of length; with the length's top bit set, the datagram gets the connection
 * id of the live session, so that it reaches its decryption. */
#include "fuzz/fuzz.h"

#include "fabric/fabric_impl.h"
#include "lib/fabric_pair.h"

static struct fabric_world world;
static struct fabric_node *server, *client;

static bool connected(void *data)
{
    (void)data;
    return fabric_peer_connected(server->f, &client->id) &&
           fabric_peer_connected(client->f, &server->id);
}

static void on_stream(void *data, struct fabric_stream *s)
{
    (void)data;
    fabric_stream_reset(s, -ERR_DENIED);
}

static void start(void)
{
    fabric_world_init(&world);
    server = fabric_world_node(
        &world,
        &(struct fabric_node_opts){.authority = true, .serve_enroll = true, .dead_ms = 1000000000});
    fabric_serve(server->f, &(struct fabric_service){
                                .name = "enroll", .flags = FABRIC_SVC_ENROLL, .stream = on_stream});
    client = fabric_world_node(&world,
                               &(struct fabric_node_opts){.issuer = server, .dead_ms = 1000000000});
    fabric_world_introduce(server, client);
    fabric_peer_keep(client->f, &server->id, true);
    fabric_world_run(&world, connected, NULL);
}

static struct session *live_session(void)
{
    struct peer *p = peer_find(server->f, &client->id);
    return p != NULL ? peer_session(p, false) : NULL;
}

static void drop_strangers(void)
{
    struct fabric *f = server->f;
    for (struct link *l = f->sessions.next, *next; l != &f->sessions; l = next) {
        next = l->next;
        struct session *ss = container_of(l, struct session, link);
        if (ss->state == SESSION_HANDSHAKE) {
            session_drop(ss, -ERR_CLOSED);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (server == NULL) {
        start();
    }
    struct fabric *f = server->f;
    struct source src = {0};
    struct addr from;
    CHECK(addr_parse("127.0.0.1:9", &from, NULL) == 0);
    while (size > 2) {
        size_t len = ((size_t)(data[0] & 0x7f) << 8) | data[1];
        bool live = (data[0] & 0x80) != 0;
        data += 2;
        size -= 2;
        len = len > size ? size : len;
        if (len == 0) {
            continue;
        }
        uint8_t *copy = xmalloc(len); /* exact, so that reading past the end is seen */
        memcpy(copy, data, len);
        struct session *ss = live_session();
        if (live && ss != NULL && len >= 9 && !list_empty(&ss->cids)) {
            struct cid_entry *e = container_of(ss->cids.next, struct cid_entry, link);
            copy[0] = (uint8_t)(copy[0] & 0x7f);
            memcpy(copy + 1, e->cid, e->len < 8 ? e->len : 8);
        }
        fabric_tick(f);
        endpoint_receive(f, &from, &src, blob_of(copy, len));
        endpoint_serve_waiting(f);
        free(copy);
        data += len;
        size -= len;
    }
    fabric_world_spin(&world, 1);
    drop_strangers();
    CHECK(live_session() != NULL);
    return 0;
}
