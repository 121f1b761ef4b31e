/* Nodes that reach each other through relays: echo worlds (fabric_echo.h) with a table of routes for
 * each node, and cuts between them. */
#ifndef RAP_TESTS_FABRIC_RELAYS_H
#define RAP_TESTS_FABRIC_RELAYS_H

#include "fabric/fabric_impl.h"
#include "lib/fabric_echo.h"

#define RELAY_WORLD_NODES 6
#define RELAY_ROUTES 8

struct relay_node {
    struct relay_world *rw;
    struct fabric_node *n;
    bool relays;                     /* has the role, says everybody's configuration */
    bool lost_role;                  /* its own says otherwise */
    const struct relay_node *denied; /* it wants no session with this one */
    const char *denied_service;      /* nor this with anybody; NULL: all may be */
    struct { /* in order of preference; a neighbour that is down is skipped */
        struct relay_node *to, *via;
    } route[RELAY_ROUTES];
    size_t routes;
    struct relay_node *cut[RELAY_WORLD_NODES]; /* hears nothing from them directly */
    size_t cuts;
};

struct relay_world {
    struct echo_world e;
    struct relay_node node[RELAY_WORLD_NODES];
    size_t count;
};

struct relay_world *relay_world_new(void);
void relay_world_free(struct relay_world *w);
/* The first is the authority. keepalive 50 ms unless the options say otherwise. */
struct relay_node *relay_world_add(struct relay_world *w, bool relays);
void relay_world_route(struct relay_node *from, struct relay_node *to, struct relay_node *via);
/* Both keep a connection to each other. */
void relay_world_link(struct relay_node *a, struct relay_node *b);
/* Nothing goes from a to b any more; undone by relay_world_mend. */
void relay_world_cut(struct relay_node *a, struct relay_node *b);
void relay_world_mend(struct relay_world *w);
/* Runs until each of the nodes linked has its neighbours. */
void relay_world_settle(struct relay_world *w);
/* From now on a connection is suspect after ten seconds of silence instead of 300 ms. */
void relay_world_be_patient(struct relay_world *w);
uint64_t relay_drops(const struct relay_node *n, enum fabric_drop why);

/* a - r - b, and b's address known to nobody. */
struct relay_line {
    struct relay_world *w;
    struct relay_node *a, *r, *b;
};
void relay_line_init(struct relay_line *l);
int relay_line_setup(void **state);
int relay_line_teardown(void **state);

/* The sessions one node has to another: how many, and one of them. */
struct relay_found {
    const struct uuid *id;
    struct fabric_session_info info;
    unsigned count;
};

struct relay_found relay_session_to(struct relay_node *n, struct relay_node *peer);
struct fabric_overlay_counters relay_counters(struct relay_node *n);

struct talk { /* one frame after another, each echoed before the next goes */
    struct relay_line *l;
    struct fabric_stream *s;
    unsigned sent, got;
    bool closed;
    int rc;
    bool relayed;
};

void talk_open(struct talk *t, struct relay_node *from, struct relay_node *to);
/* Until a's session to b goes that way. */
void talk_run_until_on(struct talk *t, bool relayed);
/* Until twenty more frames have come back. */
void talk_run_for_more(struct talk *t);

#endif
