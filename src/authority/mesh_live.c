#include "authority/mesh_live.h"

#include "authority/call_impl.h"
#include "authority/fsm_impl.h"

/* --- taking a report --- */

static void copy_text(struct blob from, char *to, size_t size)
{
    (void)snprintf(to, size, "%.*s", (int)from.len, from.len == 0 ? "" : (const char *)from.data);
}

static uint32_t small(uint64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static int by_link(const void *a, const void *b)
{
    const struct live_link *x = a;
    const struct live_link *y = b;
    return memcmp(x->to.b, y->to.b, sizeof x->to.b);
}

static int by_route(const void *a, const void *b)
{
    const struct live_route *x = a;
    const struct live_route *y = b;
    return memcmp(x->to.b, y->to.b, sizeof x->to.b);
}

static void take_links(const struct mp_list *list, struct mesh_report *ret)
{
    struct mp_reader r;
    mp_reader_init(&r, list->raw);
    for (uint32_t i = 0; i < list->count && ret->links < LINKS_MAX; i++) {
        struct link_sample s;
        struct blob one = mp_get_bin(&r, SAMPLE_BYTES_MAX);
        if (r.err != 0) {
            break;
        }
        if (msg_decode(&link_sample_desc, MSG_LENIENT, one, &s) == 0) {
            struct live_link *l = &ret->link[ret->links++];
            *l = (struct live_link){.to = s.peer_id,
                                    .relay = s.relay,
                                    .rtt_us = small(s.rtt_us),
                                    .jitter_us = small(s.jitter_us),
                                    .loss_permille = small(s.loss_permille),
                                    .cost_us = small(s.cost_us),
                                    .refused_routes = small(s.refused_routes)};
            copy_text(s.state, l->status, sizeof l->status);
        }
    }
    qsort(ret->link, ret->links, sizeof ret->link[0], by_link);
}

static void take_routes(const struct mp_list *list, struct mesh_report *ret)
{
    struct mp_reader r;
    mp_reader_init(&r, list->raw);
    for (uint32_t i = 0; i < list->count && ret->routes < ROUTE_SAMPLES_MAX; i++) {
        struct route_sample s;
        struct blob one = mp_get_bin(&r, SAMPLE_BYTES_MAX);
        if (r.err != 0) {
            break;
        }
        if (msg_decode(&route_sample_desc, MSG_LENIENT, one, &s) == 0) {
            struct live_route *l = &ret->route[ret->routes++];
            *l = (struct live_route){.to = s.destination_id,
                                     .next_hop = s.next_hop_id,
                                     .intent = s.intent_id,
                                     .metric_us = small(s.metric_us),
                                     .hops = small(s.hops)};
            copy_text(s.state, l->status, sizeof l->status);
        }
    }
    qsort(ret->route, ret->routes, sizeof ret->route[0], by_route);
}

static bool same(const struct mesh_report *a, const struct mesh_report *b)
{
    bool so = a->links == b->links && a->routes == b->routes;
    for (uint32_t i = 0; so && i < a->links; i++) {
        so = uuid_equal(&a->link[i].to, &b->link[i].to) &&
             strcmp(a->link[i].status, b->link[i].status) == 0;
    }
    for (uint32_t i = 0; so && i < a->routes; i++) {
        const struct live_route *x = &a->route[i];
        const struct live_route *y = &b->route[i];
        so = uuid_equal(&x->to, &y->to) && uuid_equal(&x->next_hop, &y->next_hop) &&
             uuid_equal(&x->intent, &y->intent) && strcmp(x->status, y->status) == 0;
    }
    return so;
}

bool mesh_report_take(const struct heartbeat *hb, struct mesh_report *ret)
{
    struct mesh_report before = *ret;
    ret->links = ret->routes = 0;
    take_links(&hb->links, ret);
    take_routes(&hb->routes, ret);
    return !same(&before, ret);
}

/* --- showing it --- */

static void put_link(const struct live_link *l, struct mp_writer *w, struct mp_doc *d)
{
    mp_doc_bool(w, d, "relay", l->relay);
    mp_doc_int(w, d, "rtt_us", l->rtt_us);
    mp_doc_int(w, d, "jitter_us", l->jitter_us);
    mp_doc_int(w, d, "loss_permille", l->loss_permille);
    mp_doc_int(w, d, "cost_us", l->cost_us);
    mp_doc_int(w, d, "refused_routes", l->refused_routes);
}

void mesh_node_links(const struct authority *a, const struct uuid *node_id, struct mp_writer *w,
                     struct mp_doc *doc)
{
    const struct live_node *n = NULL;
    HASH_FIND(hh, a->live, node_id, sizeof *node_id, n);
    uint32_t count = n == NULL || n->mesh == NULL ? 0 : n->mesh->links;
    mp_doc_key(w, doc, "links");
    mp_put_array(w, count);
    for (uint32_t i = 0; i < count; i++) {
        struct mp_doc d;
        mp_doc_begin(w, &d);
        mp_doc_uuid(w, &d, "peer_id", &n->mesh->link[i].to);
        mp_doc_str(w, &d, "state", n->mesh->link[i].status);
        put_link(&n->mesh->link[i], w, &d);
        mp_doc_end(w, &d);
    }
}

static void put_name(struct authority *a, struct mp_writer *w, struct mp_doc *d, const char *key,
                     const struct uuid *id)
{
    char text[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    uuid_format(id, text);
    (void)fsm_node_name(state_db(a), text, name);
    mp_doc_str(w, d, key, name[0] == '\0' ? NULL : name);
}

/* One row of a list. */
struct mesh_row {
    const struct live_node *node;
    const struct live_link *link; /* or */
    const struct live_route *route;
    const struct uuid *to;
};

static void put_row(struct authority *a, const struct mesh_row *row, struct mp_writer *w)
{
    struct mp_doc d;
    mp_doc_begin(w, &d);
    mp_doc_uuid(w, &d, "from_node_id", &row->node->node_id);
    put_name(a, w, &d, "from_node_name", &row->node->node_id);
    mp_doc_uuid(w, &d, "to_node_id", row->to);
    put_name(a, w, &d, "to_node_name", row->to);
    if (row->link != NULL) {
        mp_doc_str(w, &d, "status", row->link->status);
        put_link(row->link, w, &d);
    } else {
        const struct live_route *r = row->route;
        CHECK(r != NULL);
        bool usable = strcmp(r->status, "usable") == 0;
        mp_doc_str(w, &d, "status", r->status);
        mp_doc_str(w, &d, "path_kind",
                   !usable                            ? NULL
                   : uuid_equal(&r->next_hop, &r->to) ? "direct"
                                                      : "relayed");
        mp_doc_uuid(w, &d, "next_hop_id", &r->next_hop);
        put_name(a, w, &d, "next_hop_name", &r->next_hop);
        mp_doc_int(w, &d, "metric_us", r->metric_us);
        mp_doc_int(w, &d, "hops", r->hops);
        mp_doc_uuid(w, &d, "intent_id", &r->intent);
    }
    mp_doc_time(w, &d, "reported_at", row->node->mesh_ms);
    mp_doc_end(w, &d);
}

static int by_node(const void *a, const void *b)
{
    const struct live_node *const *x = a;
    const struct live_node *const *y = b;
    return memcmp((*x)->node_id.b, (*y)->node_id.b, sizeof(*x)->node_id.b);
}

/* Where a page begins: after this pair. */
struct mesh_cursor {
    struct uuid from, to;
};

static int cursor_arg(struct blob args, struct mesh_cursor *ret, struct errmsg *em)
{
    char text[2 * UUID_TEXT_MAX];
    mp_find_str(args, "cursor", text, sizeof text);
    *ret = (struct mesh_cursor){.from = UUID_NIL};
    if (text[0] == '\0') {
        return 0;
    }
    char *dot = strchr(text, '.');
    if (dot != NULL) {
        *dot = '\0';
    }
    return dot != NULL && uuid_parse(text, &ret->from) == 0 && uuid_parse(dot + 1, &ret->to) == 0
               ? 0
               : errmsg_set(em, -ERR_INVALID, "the cursor is not one that a list returned");
}

struct mesh_page {
    struct authority *a;
    struct mp_writer *w;
    bool routes;
    const struct uuid *about; /* NULL: everybody */
    struct mesh_cursor after, last;
    uint32_t limit, count;
    bool more;
};

static void put_node(struct mesh_page *p, const struct live_node *n)
{
    uint32_t count = p->routes ? n->mesh->routes : n->mesh->links;
    int order = memcmp(n->node_id.b, p->after.from.b, sizeof n->node_id.b);
    for (uint32_t i = 0; order >= 0 && i < count; i++) {
        struct mesh_row row = {.node = n};
        if (p->routes) {
            row.route = &n->mesh->route[i];
            row.to = &row.route->to;
        } else {
            row.link = &n->mesh->link[i];
            row.to = &row.link->to;
        }
        bool seen = order == 0 && memcmp(row.to->b, p->after.to.b, sizeof row.to->b) <= 0;
        if (seen || (p->about != NULL && !uuid_equal(p->about, row.to) &&
                     !uuid_equal(p->about, &n->node_id))) {
            continue;
        }
        if (p->count == p->limit) {
            p->more = true;
            return;
        }
        put_row(p->a, &row, p->w);
        p->last = (struct mesh_cursor){.from = n->node_id, .to = *row.to};
        p->count++;
    }
}

static void put_items(struct mesh_page *p)
{
    size_t count = 0;
    const struct live_node **all = xcalloc(HASH_COUNT(p->a->live) + 1, sizeof(void *));
    for (const struct live_node *n = p->a->live; n != NULL; n = n->hh.next) {
        if (n->mesh != NULL) {
            all[count++] = n;
        }
    }
    qsort(all, count, sizeof(void *), by_node);
    size_t at = mp_list_begin(p->w);
    for (size_t i = 0; i < count && !p->more; i++) {
        put_node(p, all[i]);
    }
    mp_list_end(p->w, at, p->count);
    free((void *)all);
}

/* What the log has of it, for whoever asks an authority that does not lead and takes what it knows. */
static void put_stored(struct mesh_page *p)
{
    char from[UUID_TEXT_MAX];
    char to[UUID_TEXT_MAX];
    char about[UUID_TEXT_MAX] = "";
    size_t at = mp_list_begin(p->w);
    if (fsm_level(p->a->fsm) < LEVEL_MESH_LOG) {
        mp_list_end(p->w, at, 0);
        return;
    }
    struct db_stmt *st = db_prepare(
        state_db(p->a),
        p->routes ? FSM_SQL_MESH_ROUTE " WHERE (r.from_node_id, r.to_node_id) > (?1, ?2) AND"
                                       " (?3 = '' OR r.from_node_id = ?3 OR r.to_node_id = ?3)"
                                       " ORDER BY r.from_node_id, r.to_node_id LIMIT ?4"
                  : FSM_SQL_MESH_LINK " WHERE (l.from_node_id, l.to_node_id) > (?1, ?2) AND"
                                      " (?3 = '' OR l.from_node_id = ?3 OR l.to_node_id = ?3)"
                                      " ORDER BY l.from_node_id, l.to_node_id LIMIT ?4");
    uuid_format(&p->after.from, from);
    uuid_format(&p->after.to, to);
    if (p->about != NULL) {
        uuid_format(p->about, about);
    }
    db_bind_text(st, from);
    db_bind_text(st, to);
    db_bind_text(st, about);
    db_bind_int(st, (int64_t)p->limit + 1);
    while (db_step(st) == 1) {
        if (p->count == p->limit) {
            p->more = true;
            break;
        }
        fsm_doc_row(st, p->w);
        CHECK(uuid_parse(db_col_text(st, "from_node_id"), &p->last.from) == 0 &&
              uuid_parse(db_col_text(st, "to_node_id"), &p->last.to) == 0);
        p->count++;
    }
    db_done(st);
    mp_list_end(p->w, at, p->count);
}

bool call_is_mesh(const char *method)
{
    return strcmp(method, "mesh.links") == 0 || strcmp(method, "mesh.routes") == 0;
}

static int answer(struct pending_call *pc, struct buf *out, struct errmsg *em)
{
    struct mp_writer w;
    struct mp_doc d;
    struct core_status s;
    struct uuid about;
    char node[128];
    struct blob args = buf_blob(&pc->args);
    int64_t limit = mp_find_int(args, "limit");
    struct mesh_page p = {.a = pc->a, .w = &w, .routes = strcmp(pc->method, "mesh.routes") == 0};
    if (limit < 0 || limit > PAGE_MAX) {
        return errmsg_set(em, -ERR_TOO_LARGE, "limit is between 1 and %d", PAGE_MAX);
    }
    p.limit = limit == 0 ? PAGE_DEFAULT : (uint32_t)limit;
    int rc = cursor_arg(args, &p.after, em);
    mp_find_str(args, "node", node, sizeof node);
    if (rc == 0 && node[0] != '\0') {
        rc = op_resolve(pc->a, "nodes", node, &about, em);
        p.about = &about;
    }
    if (rc != 0) {
        return rc;
    }
    core_status_brief(pc->a->core, &s);
    bool live = s.role == CORE_LEADER;
    mp_writer_init(&w, out);
    mp_doc_begin(&w, &d);
    mp_doc_key(&w, &d, "items");
    if (live) {
        put_items(&p);
    } else {
        put_stored(&p);
    }
    mp_doc_bool(&w, &d, "live", live);
    char cursor[2 * UUID_TEXT_MAX];
    uuid_format(&p.last.from, cursor);
    size_t len = strlen(cursor);
    cursor[len] = '.';
    uuid_format(&p.last.to, cursor + len + 1);
    mp_doc_str(&w, &d, "next_cursor", p.more ? cursor : NULL);
    mp_doc_int(&w, &d, "_index", (int64_t)s.applied_index);
    mp_doc_int(&w, &d, "_last_contact_ms", pc->stale ? (int64_t)s.leader_contact_ms : 0);
    mp_doc_end(&w, &d);
    return out->err;
}

void call_answer_mesh(struct pending_call *pc)
{
    call_answer_made(pc, answer);
}
