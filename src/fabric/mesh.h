/* The overlay of one node, without its I/O: peers that are kept (mesh_peers.h), links to neighbours
 * (mesh_link.h) and routes over them (route.h), put together. Pure: time, random words, sessions and
 * datagrams come in as events; datagrams to send and sessions to keep go out in the todo. The node
 * drives it with the fabric, the simulation with a network that it can break.
 *
 * For whoever forwards packets: mesh_next_hop says which neighbour is next, or why there is none; it may
 * be asked at any time, between steps too, and costs a look-up. A node without a relay role says
 * MESH_WANT first and again at least every half minute while it sends: it learns only what it asks for.
 * Overlay datagrams with a first byte of MESH_SESSION are not for this module. */
#ifndef RAP_FABRIC_MESH_H
#define RAP_FABRIC_MESH_H

#include "fabric/mesh_link.h"
#include "fabric/mesh_peers.h"
#include "fabric/mesh_intents.h"
#include "fabric/route.h"

struct mesh;

struct mesh_config {
    struct uuid self;
    enum mesh_node_kind kind; /* RELAY: it may forward */
    uint32_t first_seqno;     /* see route.h */
    uint32_t leaves_max;      /* more neighbours without a relay role are refused; 0 = 256 */
    uint64_t now_us;
};

enum mesh_event_kind {
    MESH_SESSION_UP,   /* peer: a session with it is usable; again is no harm */
    MESH_SESSION_DOWN, /* peer: the last one ended */
    MESH_DATAGRAM,     /* peer, payload: whose first byte is a type of ours */
    MESH_DIRECTORY,    /* own, entries, count, policy: from the signed snapshot */
    MESH_FACTS,        /* facts, fact_count: remembered from an earlier run */
    MESH_WANT,         /* peer: somebody here wants to reach it */
    MESH_TICK,
};

struct mesh_event {
    enum mesh_event_kind kind;
    uint64_t now_us; /* monotonic; never falls */
    uint64_t random;
    struct uuid peer;
    struct blob payload;
    struct mesh_directory_entry own;
    enum mesh_node_kind own_kind;
    const struct mesh_directory_entry *entries;
    size_t count;
    const struct mesh_intents *policy; /* NULL: none; valid until the next directory */
    const struct mesh_peer_fact *facts;
    size_t fact_count;
    uint8_t own_load; /* percent, told to neighbours */
};

struct mesh_link_news { /* for the log */
    struct uuid id;
    enum mesh_link_state state;
    bool one_way; /* TRYING, DOWN: it was heard all the time */
};

struct mesh_todo {
    struct route_send *send; /* grows as needed; the caller keeps the struct from step to step */
    size_t send_count, send_cap;
    struct mesh_peers_change *change;
    size_t change_count, change_cap;
    struct mesh_link_news *news; /* links whose state is another one now */
    size_t news_count, news_cap;
    uint64_t next_us; /* tick no later */
};
void mesh_todo_fini(struct mesh_todo *todo);

struct mesh *mesh_new(const struct mesh_config *config);
void mesh_free(struct mesh *m);
void mesh_step(struct mesh *m, const struct mesh_event *ev, struct mesh_todo *todo);

/* The next hop for packets to dst. `from`: the neighbour they came from, NULL for our own. */
enum route_refusal mesh_next_hop(const struct mesh *m, const struct uuid *dst,
                                 const struct uuid *from, uint64_t now_us, struct uuid *ret_next);
/* Whether a neighbour's packets may be forwarded at all: it is a member, and the link is up. */
bool mesh_is_neighbour(const struct mesh *m, const struct uuid *id, uint64_t now_us);

/* What the owner's intents say of the way to dst over this neighbour, which is dst for the direct one. */
struct mesh_verdict mesh_judge_way(const struct mesh *m, const struct uuid *dst,
                                   const struct uuid *next);
/* The intent that keeps a service from passing between this node and another; NULL: none. */
const struct mesh_intent *mesh_denies_service(const struct mesh *m, const struct uuid *peer,
                                              struct blob service);
enum overlay_class mesh_class_to(const struct mesh *m, const struct uuid *dst);

const struct route_table *mesh_routes(const struct mesh *m);
const struct mesh_peers *mesh_peers(const struct mesh *m);

struct mesh_link_info {
    struct uuid id;
    const struct mesh_link *link;
    uint32_t cost_us, loss_permille;
    bool relay, refused;
    const struct mesh_peer *peer; /* NULL: not in the directory */
};
/* Calls fn for each neighbour with a session, in the order of ids. */
void mesh_links(const struct mesh *m, uint64_t now_us,
                void (*fn)(void *data, const struct mesh_link_info *info), void *data);

struct mesh_counters {
    uint64_t links_up, links_down, links_suspect, links_one_way, probes_in, probes_out,
        drop_unknown_peer, drop_malformed, leaves_refused;
};
void mesh_counters(const struct mesh *m, struct mesh_counters *ret);

#endif
