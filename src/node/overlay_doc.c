/* What the overlay tells people: `rap route list`, `rap route explain DST`. */
#include "node/overlay_impl.h"

#include "wire/cmd_mesh.h"

struct rows {
    const struct overlay *o; /* of put_route */
    struct mp_writer *w;
    const struct route_table *routes; /* of put_link */
    const struct mesh_peers *peers;   /* likewise */
    uint32_t count;
};

static void put_path(const struct overlay *o, struct mp_writer *w, struct mp_doc *doc,
                     const struct route_path *p)
{
    struct mesh_verdict v = mesh_judge_way(o->mesh, &p->dst, &p->next);
    bool usable = p->metric != MESH_METRIC_INFINITE;
    mp_doc_uuid(w, doc, "next_hop", usable ? &p->next : &UUID_NIL);
    mp_doc_bool(w, doc, "direct", p->direct);
    mp_doc_key(w, doc, "metric_us");
    if (usable) {
        mp_put_u64(w, p->metric);
    } else {
        mp_put_nil(w);
    }
    mp_doc_int(w, doc, "hops", p->hops);
    mp_doc_int(w, doc, "seqno", p->seqno);
    mp_doc_bool(w, doc, "selected", p->selected);
    mp_doc_bool(w, doc, "feasible", p->feasible);
    mp_doc_str(w, doc, "intent", v.intent == NULL ? NULL : v.intent->name);
    mp_doc_int(w, doc, "intent_cost_us", v.cost_us);
    mp_doc_str(w, doc, "refusal", p->refusal == ROUTE_NONE ? NULL : route_refusal_text(p->refusal));
}

static void put_route(void *data, const struct route_path *p)
{
    struct rows *rows = data;
    struct mp_doc doc;
    mp_doc_begin(rows->w, &doc);
    mp_doc_uuid(rows->w, &doc, "destination", &p->dst);
    put_path(rows->o, rows->w, &doc, p);
    mp_doc_end(rows->w, &doc);
    rows->count++;
}

static const char *set_text(const struct mesh_link_info *info)
{
    if (info->peer == NULL) {
        return "attached"; /* it came to us */
    }
    switch (info->peer->set) {
        case MESH_PEER_COLD:
            return "cold";
        case MESH_PEER_WARM:
            return "warm";
        case MESH_PEER_ACTIVE:
            return "active";
    }
    return "unknown";
}

/* What it would cost as a peer, and what of (SPEC PEER-03). */
static void put_score(const struct mesh_peers *peers, const struct mesh_peer *peer,
                      struct mp_writer *w, struct mp_doc *doc)
{
    if (peer == NULL) {
        return;
    }
    struct mesh_peer_inputs in = mesh_peer_inputs(peers, peer);
    struct mp_doc inner;
    mp_doc_int(w, doc, "score_us", mesh_peer_score(peers, peer));
    mp_doc_key(w, doc, "score_inputs");
    mp_doc_begin(w, &inner);
#define PUT_(name, weight, unit) mp_doc_int(w, &inner, #name, in.name);
    MESH_PEER_WEIGHTS(PUT_)
#undef PUT_
    mp_doc_end(w, &inner);
}

static void put_link(void *data, const struct mesh_link_info *info)
{
    struct rows *rows = data;
    struct mp_writer *w = rows->w;
    struct mp_doc doc;
    mp_doc_begin(w, &doc);
    mp_doc_uuid(w, &doc, "node_id", &info->id);
    mp_doc_str(w, &doc, "state", mesh_link_state_text(info->link->state));
    mp_doc_str(w, &doc, "set", set_text(info));
    mp_doc_bool(w, &doc, "relay", info->relay);
    mp_doc_bool(w, &doc, "refused", info->refused || info->link->peer_full);
    mp_doc_bool(w, &doc, "one_way", info->link->one_way);
    mp_doc_int(w, &doc, "rtt_us", info->link->srtt_us);
    mp_doc_int(w, &doc, "jitter_us", info->link->jitter_us);
    mp_doc_int(w, &doc, "loss_permille", info->loss_permille);
    mp_doc_int(w, &doc, "out_loss_permille", info->link->out_loss_permille);
    mp_doc_int(w, &doc, "load_percent", info->link->peer_load);
    mp_doc_int(w, &doc, "cost_us", info->cost_us);
    mp_doc_int(w, &doc, "refused_routes", (int64_t)route_refused_from(rows->routes, &info->id));
    put_score(rows->peers, info->peer, w, &doc);
    mp_doc_end(w, &doc);
    rows->count++;
}

static void put_counters(struct overlay *o, struct mp_writer *w, struct mp_doc *doc)
{
    struct route_counters rc;
    struct mesh_counters mc;
    struct mp_doc inner;
    route_counters(mesh_routes(o->mesh), &rc);
    mesh_counters(o->mesh, &mc);
    mp_doc_key(w, doc, "counters");
    mp_doc_begin(w, &inner);
#define PUT_(name) mp_doc_int(w, &inner, #name, (int64_t)rc.name);
    ROUTE_COUNTERS(PUT_)
#undef PUT_
    mp_doc_int(w, &inner, "links_up", (int64_t)mc.links_up);
    mp_doc_int(w, &inner, "links_down", (int64_t)mc.links_down);
    mp_doc_int(w, &inner, "links_suspect", (int64_t)mc.links_suspect);
    mp_doc_int(w, &inner, "links_one_way", (int64_t)mc.links_one_way);
    mp_doc_int(w, &inner, "probes_in", (int64_t)mc.probes_in);
    mp_doc_int(w, &inner, "probes_out", (int64_t)mc.probes_out);
    mp_doc_int(w, &inner, "leaves_refused", (int64_t)mc.leaves_refused);
    mp_doc_int(w, &inner, "drop_unknown_peer", (int64_t)mc.drop_unknown_peer);
    mp_doc_int(w, &inner, "drop_malformed_probe", (int64_t)mc.drop_malformed);
    mp_doc_end(w, &inner);
}

static void put_links(struct overlay *o, struct mp_writer *w, struct mp_doc *doc)
{
    struct rows rows = {.w = w, .routes = mesh_routes(o->mesh), .peers = mesh_peers(o->mesh)};
    mp_doc_key(w, doc, "links");
    size_t at = mp_list_begin(w);
    mesh_links(o->mesh, overlay_now_us(), put_link, &rows);
    mp_list_end(w, at, rows.count);
}

void overlay_list_doc(struct overlay *o, struct mp_writer *w)
{
    struct rows rows = {.o = o, .w = w};
    struct mp_doc doc;
    mp_doc_begin(w, &doc);
    mp_doc_key(w, &doc, "items");
    size_t at = mp_list_begin(w);
    route_list(mesh_routes(o->mesh), put_route, &rows);
    mp_list_end(w, at, rows.count);
    mp_doc_str(w, &doc, "next_cursor", NULL);
    mp_doc_bool(w, &doc, "relay", o->relay);
    mp_doc_int(w, &doc, "active_peers", mesh_peers_active(mesh_peers(o->mesh)));
    put_links(o, w, &doc);
    put_counters(o, w, &doc);
    mp_doc_end(w, &doc);
}

/* --- explain --- */

struct search {
    const char *prefix; /* without dashes */
    struct uuid found;
    unsigned count;
};

static void consider(struct search *s, const struct uuid *id)
{
    char text[UUID_TEXT_MAX];
    uuid_format(id, text);
    if (strncmp(text, s->prefix, strlen(s->prefix)) == 0 &&
        (s->count == 0 || !uuid_equal(&s->found, id))) {
        s->found = *id;
        s->count++;
    }
}

static void consider_route(void *data, const struct route_path *p)
{
    consider(data, &p->dst);
}

/* A whole id, or the beginning of one that this node has heard of: names are known to authorities. */
static int find_destination(struct overlay *o, const char *text, struct uuid *ret,
                            struct errmsg *em)
{
    if (uuid_parse(text, ret) == 0) {
        return 0;
    }
    struct search s = {.prefix = text};
    const struct mesh_peers *p = mesh_peers(o->mesh);
    if (strlen(text) >= 4) {
        route_list(mesh_routes(o->mesh), consider_route, &s);
        for (size_t i = 0; i < p->count; i++) {
            if (route_has(mesh_routes(o->mesh), &p->peer[i].entry.id)) {
                continue;
            }
            consider(&s, &p->peer[i].entry.id);
        }
    }
    if (s.count == 0) {
        return errmsg_set(
            em, -ERR_NOT_FOUND,
            "this node has heard of no node \"%s\": give its whole id (`rap node list` "
            "on an authority shows it)",
            text);
    }
    if (s.count > 1) {
        return errmsg_set(em, -ERR_AMBIGUOUS, "%u nodes begin with \"%s\"", s.count, text);
    }
    *ret = s.found;
    return 0;
}

/* What intents keep from passing, whatever way there is. */
static void put_denied_services(const struct overlay *o, const struct uuid *dst,
                                struct mp_writer *w, struct mp_doc *doc)
{
    uint32_t count = 0;
    mp_doc_key(w, doc, "denied_services");
    size_t at = mp_list_begin(w);
    for (size_t i = 0; service_class_names[i] != NULL; i++) {
        const struct mesh_intent *deny = mesh_denies_service(o->mesh, dst,
                                                             blob_str(service_class_names[i]));
        struct mp_doc item;
        if (deny != NULL) {
            mp_doc_begin(w, &item);
            mp_doc_str(w, &item, "service_class", service_class_names[i]);
            mp_doc_str(w, &item, "intent", deny->name);
            mp_doc_end(w, &item);
            count++;
        }
    }
    mp_list_end(w, at, count);
}

int overlay_explain_doc(struct overlay *o, const char *text, struct mp_writer *w, struct errmsg *em)
{
    struct uuid dst;
    struct uuid next = UUID_NIL;
    struct mp_doc doc;
    int rc = find_destination(o, text, &dst, em);
    if (rc != 0) {
        return rc;
    }
    bool self = uuid_equal(&dst, &o->cfg.member->node_id);
    enum route_refusal why = self ? ROUTE_NONE
                                  : mesh_next_hop(o->mesh, &dst, NULL, overlay_now_us(), &next);
    mp_doc_begin(w, &doc);
    mp_doc_uuid(w, &doc, "destination", &dst);
    mp_doc_str(w, &doc, "result",
               self                      ? "self"
               : why != ROUTE_NONE       ? "refused"
               : uuid_equal(&next, &dst) ? "direct"
                                         : "relayed");
    mp_doc_str(w, &doc, "refusal", why == ROUTE_NONE ? NULL : route_refusal_text(why));
    mp_doc_uuid(w, &doc, "next_hop", &next);
    const struct mesh_intent *decided = overlay_decided(o, &dst);
    mp_doc_str(w, &doc, "decided_by", decided == NULL ? NULL : decided->name);
    mp_doc_bool(w, &doc, "direct_allowed", !mesh_judge_way(o->mesh, &dst, &dst).refused);
    mp_doc_str(w, &doc, "data_class", overlay_class_name(mesh_class_to(o->mesh, &dst)));
    put_denied_services(o, &dst, w, &doc);
    struct rows rows = {.o = o, .w = w};
    mp_doc_key(w, &doc, "paths");
    size_t at = mp_list_begin(w);
    route_paths(mesh_routes(o->mesh), &dst, put_route, &rows);
    mp_list_end(w, at, rows.count);
    put_links(o, w, &doc);
    mp_doc_end(w, &doc);
    if (!self && why != ROUTE_NONE) { /* a node that is no relay learns what it asks for */
        struct mesh_event ev = {.kind = MESH_WANT, .peer = dst};
        overlay_step(o, &ev);
    }
    return 0;
}

/* --- the heartbeat's --- */

struct samples {
    struct overlay *o;
    struct buf *raw;
    uint32_t count;
    bool relays;
};

static void add_link(void *data, const struct mesh_link_info *info)
{
    struct samples *s = data;
    if (s->count == LINKS_MAX || info->relay != s->relays) {
        return;
    }
    struct link_sample one = {
        .peer_id = info->id,
        .state = blob_str(mesh_link_state_text(info->link->state)),
        .rtt_us = info->link->srtt_us,
        .jitter_us = info->link->jitter_us,
        .loss_permille = info->loss_permille,
        .cost_us = info->cost_us,
        .relay = info->relay,
        .refused_routes = route_refused_from(mesh_routes(s->o->mesh), &info->id)};
    msg_list_add(&link_sample_desc, &one, s->raw, &s->count);
}

static void add_route(void *data, const struct route_path *p)
{
    struct samples *s = data;
    if (s->count == ROUTE_SAMPLES_MAX ||
        (s->relays && !mesh_peers_is_relay(mesh_peers(s->o->mesh), &p->dst))) {
        return;
    }
    bool usable = p->refusal == ROUTE_NONE && p->metric != MESH_METRIC_INFINITE;
    struct route_sample one = {
        .destination_id = p->dst,
        .state = blob_str(usable ? "usable" : route_refusal_text(p->refusal)),
        .next_hop_id = usable ? p->next : UUID_NIL,
        .metric_us = usable ? p->metric : 0,
        .hops = p->hops,
    };
    const struct mesh_intent *decided = overlay_decided(s->o, &p->dst);
    one.intent_id = decided == NULL ? UUID_NIL : decided->id;
    msg_list_add(&route_sample_desc, &one, s->raw, &s->count);
}

void overlay_report(struct overlay *o, struct heartbeat *hb, struct buf *links, struct buf *routes)
{
    struct samples l = {.o = o, .raw = links, .relays = true};
    struct samples r = {.o = o, .raw = routes, .relays = o->relay};
    mesh_links(o->mesh, overlay_now_us(), add_link, &l);
    l.relays = false;
    mesh_links(o->mesh, overlay_now_us(), add_link, &l);
    route_list(mesh_routes(o->mesh), add_route, &r);
    hb->links = (struct mp_list){.raw = buf_blob(links), .count = l.count};
    hb->routes = (struct mp_list){.raw = buf_blob(routes), .count = r.count};
}
