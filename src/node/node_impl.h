/* What the files of this module share. */
#ifndef RAP_NODE_NODE_IMPL_H
#define RAP_NODE_NODE_IMPL_H

#include "admin/admin.h"
#include "agent/agent.h"
#include "authority/authority.h"
#include "authority/heal.h"
#include "node/cut_off.h"
#include "node/loop_watch.h"
#include "node/node.h"
#include "node/overlay.h"

struct synthetic_server {
    bool on;         /* off: as if the services did not exist */
    uint64_t second; /* requests are counted within it */
    uint32_t requests;
    uint32_t streams;
};

#define ROUTE_IDS_MAX 256
#define ROUTE_ID_LIFE_MS (10LL * 60 * 1000)
#define SELECTOR_MAX (16 + ORGANIZATION_MAX_BYTES + NAME_MAX_BYTES) /* resource:ORG/NAME and a NUL */
/* An open route (route_id.h). */
struct route_id {
    struct uuid id;
    int64_t expires_ms;          /* wall clock; 0: free */
    char selector[SELECTOR_MAX]; /* "": the node is fixed */
    struct uuid node;            /* where it leads now */
};

struct node {
    const struct cli_run *options;
    uv_loop_t loop;
    struct loop_watch loop_watch;
    int64_t started_ms; /* wall clock */
    struct member *member;
    struct pki_key *key;
    struct pki_trust *trust;
    struct buf chain[3];
    struct buf facts, capabilities; /* of this host, for an authority's own report */
    uint32_t capabilities_count;
    struct fabric *fabric;
    struct agent *agent;
    struct authority *authority; /* NULL on ordinary nodes */
    struct heal *heal;           /* instead of it, while its log is damaged */
    struct admin *admin;
    struct overlay *overlay; /* NULL: off */
    struct synthetic_server synthetic;
    struct cut_off cut_off;
    struct route_id routes[ROUTE_IDS_MAX];
    unsigned pings; /* under way */
    uv_signal_t sigint, sigterm;
    bool stopping;
    bool restart; /* open it all again after the stop */
};

/* What a node says about itself, without asking the group: status, config.show, config.verify,
 * fabric.sessions, metrics, route.list, route.explain, route.open, route.close. False when the method is none of
 * these. */
bool node_document(struct node *n, const char *method, struct blob args, struct mp_writer *w,
                   int *ret_rc, struct errmsg *em);
/* "metrics": the text of the exposition format. -ERR_TOO_LARGE. */
int node_metrics_doc(struct node *n, struct mp_writer *w);

#endif
