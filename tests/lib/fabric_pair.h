/* Fabrics on loopback, all on one loop, in one test cluster (or two, to be strangers).
 *
 *     struct fabric_world w;
 *     fabric_world_init(&w);
 *     struct fabric_node *a = fabric_world_node(&w, &(struct fabric_node_opts){.authority = true});
 *     struct fabric_node *b = fabric_world_node(&w, &(struct fabric_node_opts){.issuer = a});
 *     fabric_world_introduce(a, b);
 *     ...
 *     fabric_world_run(&w, condition, data);      fails the test when it does not come true
 *     fabric_world_fini(&w);                      closes what is open, proves the loop closes */
#ifndef RAP_TESTS_FABRIC_PAIR_H
#define RAP_TESTS_FABRIC_PAIR_H

#include "base/buf.h"
#include "fabric/fabric.h"

#define FABRIC_WORLD_NODES 16

struct fabric_ca { /* a cluster's root */
    struct uuid cluster_id;
    struct pki_key *key;
    struct buf der;
    uint8_t fingerprint[PKI_HASH_BYTES];
};

struct fabric_world {
    uv_loop_t loop;
    struct fabric_ca ca;
    struct fabric_ca foreign; /* another cluster */
    struct fabric_node *node[FABRIC_WORLD_NODES];
    size_t count;
};

struct fabric_node {
    struct fabric_world *w;
    struct fabric_ca *ca;
    struct uuid id;
    bool authority, serve_enroll;
    struct pki_key *key;        /* of the leaf */
    struct pki_key *issuer_key; /* authorities */
    struct buf issuer_der;      /* the CA above our leaf */
    struct buf leaf_der;
    struct pki_cert leaf;
    struct pki_trust *trust;
    struct fabric_config config;
    struct fabric *f; /* NULL: closed */
    struct addr addr;
    bool closed;
    unsigned ups, downs;
    int last_down_rc;
    struct uuid last_peer;
    void *data; /* the test's */
};

struct fabric_node_opts {
    bool authority;             /* its own issuing CA, authority name on the leaf */
    struct fabric_node *issuer; /* else: whose CA signs; must be an authority */
    bool foreign;               /* of the other cluster */
    bool no_identity;           /* nothing presented; trusts by pin */
    bool serve_enroll;          /* the test registers such a service */
    int64_t leaf_life_ms;       /* 0: 30 days; negative: expired that long ago */
    uint32_t keepalive_ms, dead_ms;
    struct fabric_limits limits;
    const char *listen; /* NULL: 127.0.0.1:0 */
    bool manual;        /* do not open yet: fabric_node_open */
};

void fabric_world_init(struct fabric_world *w);
void fabric_world_fini(struct fabric_world *w);
struct fabric_node *fabric_world_node(struct fabric_world *w, const struct fabric_node_opts *o);
void fabric_node_open(struct fabric_node *n);
/* A fresh leaf (and key) for the same node. */
void fabric_node_issue(struct fabric_node *n, const struct fabric_node *issuer, int64_t life_ms);
void fabric_node_identify(struct fabric_node *n);
/* Closes and waits for it. With `kill` nothing is sent: as if the process had died. */
void fabric_node_close(struct fabric_node *n, bool kill);
/* Both know where the other listens. */
void fabric_world_introduce(struct fabric_node *a, struct fabric_node *b);

/* One loop turn; false when nothing was left to do. Never waits longer than the loop's timers. */
bool fabric_world_turn(struct fabric_world *w);
/* Turns until cond, or fails the test when it has not come true within a generous time. */
void fabric_world_run(struct fabric_world *w, bool (*cond)(void *data), void *data);
/* n turns that do not wait. */
void fabric_world_spin(struct fabric_world *w, unsigned n);

#endif
