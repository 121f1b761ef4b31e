/* Nodes that echo: service "echo" for nodes, "enroll" for hosts without a certificate. */
#ifndef RAP_TESTS_FABRIC_ECHO_H
#define RAP_TESTS_FABRIC_ECHO_H

#include "lib/fabric_pair.h"

struct echo_end {
    struct fabric_stream *s;
    unsigned got;
    bool closed;
    int rc;
    struct fabric_peer peer;
};

struct echo_world {
    struct fabric_world w;
    struct fabric_node *a, *b;
    struct echo_end accepted[16]; /* the first so many; of later ones nobody asks */
    size_t accepted_count;
};

extern const struct fabric_stream_vtab echo_client_vtab; /* data: a struct echo_end */

/* Two introduced nodes, a an authority, with a fast keep-alive. */
int echo_setup(void **state);
int echo_teardown(void **state);
void echo_serve(struct echo_world *w, struct fabric_node *n);
struct fabric_node *echo_add(struct echo_world *w, struct fabric_node_opts o);
/* Opens a stream and sends one frame. */
void echo_open(struct echo_end *e, struct fabric_node *from, struct fabric_node *to);
/* Opens, waits for the echo, closes; the rc of the stream. */
int echo_try(struct fabric_node *from, struct fabric_node *to);

/* Conditions for fabric_world_run, and what they are on. */
bool echo_ended(void *end); /* closed or echoed */
bool echo_closed(void *end);
bool echo_connected(void *world);
bool echo_no_sessions(void *node);
unsigned echo_sessions(struct fabric_node *n);

#endif
