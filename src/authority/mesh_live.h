/* What nodes report of the overlay with their heartbeats (SPEC RTE-09, SYN-04): live on the leader, never
 * an entry of the log for each sample (DESIGN D11). Part of authority_impl.h. */
#ifndef RAP_AUTHORITY_MESH_LIVE_H
#define RAP_AUTHORITY_MESH_LIVE_H

#include "wire/node_msg.h"

struct live_link {
    struct uuid to;
    char status[17]; /* trying, up, suspect */
    bool relay;
    uint32_t rtt_us, jitter_us, loss_permille, cost_us, refused_routes;
};
struct live_route {
    struct uuid to, next_hop, intent;
    char status[17]; /* usable, or the reason why not */
    uint32_t metric_us, hops;
};
/* One node's last report; both in the order of `to`. */
struct mesh_report {
    struct live_link link[LINKS_MAX];
    struct live_route route[ROUTE_SAMPLES_MAX];
    uint32_t links, routes;
};

/* Takes what decodes; a node that sends other things is shown with less. True: links or routes are other
 * ones than in the report before, or are otherwise than they were. */
bool mesh_report_take(const struct heartbeat *hb, struct mesh_report *ret);

struct authority;
struct pending_call;
/* On the leader: has what changed written into the state, MESH_CHANGES_MAX of each kind every few
 * seconds, and each link and route once in four reports at most. */
void mesh_log_tick(struct authority *a);
/* Under "links", as documents; none when the leader has no report of the node. */
void mesh_node_links(const struct authority *a, const struct uuid *node_id, struct mp_writer *w,
                     struct mp_doc *doc);
/* mesh.links and mesh.routes: of all nodes, in pages (limit, cursor), or of one (node). */
bool call_is_mesh(const char *method);
void call_answer_mesh(struct pending_call *pc);

#endif
