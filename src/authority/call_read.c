/* The reading of applied state for a call, with what only the running node knows laid over it. */
#include "authority/call_impl.h"
#include "authority/query_impl.h"

static const struct {
    const char *method;
    const char *kind; /* of query_run; NULL: audit verification */
} reads[] = {
    {"cluster", "cluster"},
    {"memberships", "memberships"},
    {"terms", "terms"},
    {"token.list", "tokens"},
    {"token.show", "tokens"},
    {"request.list", "requests"},
    {"request.show", "requests"},
    {"node.list", "nodes"},
    {"node.show", "nodes"},
    {"authority.list", "authorities"},
    {"role.list", "roles"},
    {"audit.list", "audit"},
    {"partition.list", "partitions"},
    {"partition.show", "partitions"},
    {"divergence.list", "reports"},
    {"divergence.show", "divergence"},
    {"trust.show", "trust"},
    {"group.list", "groups"},
    {"group.show", "groups"},
    {"node.heartbeats", "heartbeats"},
    {"mesh.show", "mesh"},
    {"intent.list", "intents"},
    {"intent.show", "intents"},
    {"pool.list", "pools"},
    {"pool.show", "pools"},
    {"resource.list", "resources"},
    {"resource.show", "resources"},
    {"qos.list", "qos"},
    {"split.list", "splits"},
    {"split.show", "splits"},
    {"audit.verify", NULL},
    {"backup.create", NULL},
};

static int find_read(const char *method)
{
    for (size_t i = 0; i < ARRAY_SIZE(reads); i++) {
        if (strcmp(reads[i].method, method) == 0) {
            return (int)i;
        }
    }
    return -1;
}

bool call_is_read(const char *method)
{
    return find_read(method) >= 0;
}

/* What only the running node knows, laid over a row of state. alone: not one of a list. */
static void overlay(struct authority *a, const char *kind, struct blob row, bool alone,
                    struct mp_writer *w)
{
    struct uuid id;
    char text[UUID_TEXT_MAX];
    struct mp_doc d;
    bool authority_row = strcmp(kind, "authorities") == 0;
    mp_find_str(row, authority_row ? "node_id" : "id", text, sizeof text);
    mp_doc_begin(w, &d);
    mp_doc_copy(w, &d, row);
    if (uuid_parse(text, &id) == 0 && authority_row) {
        struct core_status s;
        core_status(a->core, &s);
        raft_id rid = core_raft_id(&id);
        mp_doc_bool(w, &d, "leader", s.leader == rid);
        const struct witness_set *set = fsm_authority_set(a->fsm);
        if (set->known) {
            mp_doc_bool(w, &d, "signs", witness_set_find(set, &id) != NULL);
        }
        for (size_t i = 0; i < s.members_count; i++) {
            if (s.members[i].id == rid) {
                mp_doc_bool(w, &d, "in_contact", s.members[i].in_contact);
                mp_doc_int(w, &d, "match_index", (int64_t)s.members[i].match_index);
            }
        }
    } else if (strcmp(kind, "nodes") == 0) {
        mp_doc_time(w, &d, "last_heartbeat_at", health_last_seen(a, &id));
        if (alone) {
            mesh_node_links(a, &id, w, &d);
        }
        query_node_more(a->fsm, text, w, &d);
    } else if (strcmp(kind, "splits") == 0) {
        split_put_progress(a, row, w, &d);
    } else if (strcmp(kind, "cluster") == 0) {
        query_cluster_more(a->fsm, w, &d);
    } else if (strcmp(kind, "roles") == 0) {
        char role[ROLE_MAX_BYTES + 1];
        mp_find_str(row, "node_id", text, sizeof text);
        mp_find_str(row, "role", role, sizeof role);
        mp_doc_str(w, &d, "state", query_role_state(state_db(a), text, role));
    }
    mp_doc_end(w, &d);
}

static void overlay_page(struct authority *a, const char *kind, struct blob page,
                         struct mp_writer *w)
{
    struct mp_doc d;
    struct blob items = mp_find(page, "items");
    if (items.len == 0) {
        overlay(a, kind, page, true, w);
        return;
    }
    struct mp_reader r;
    mp_reader_init(&r, items);
    uint32_t n = mp_get_array(&r, PAGE_MAX);
    mp_doc_begin(w, &d);
    mp_doc_key(w, &d, "items");
    mp_put_array(w, n);
    for (uint32_t i = 0; i < n; i++) {
        overlay(a, kind, mp_skip(&r), false, w);
    }
    mp_doc_key(w, &d, "next_cursor");
    mp_put_raw(w, mp_find(page, "next_cursor"));
    mp_doc_end(w, &d);
}

static bool is_overlaid(const char *kind)
{
    static const char *const kinds[] = {"authorities", "nodes", "cluster", "roles", "splits"};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kind, kinds[i]) == 0) {
            return true;
        }
    }
    return false;
}

struct text_args {
    char id[128], node[128], status[32], event_type[64], subject_id[64], cursor[128];
    char category[32];
};

static const char *text_arg(struct blob args, const char *key, char *out, size_t size)
{
    mp_find_str(args, key, out, size);
    return out[0] == '\0' ? NULL : out;
}

static int run_query(struct authority *a, const char *kind, struct blob args, struct buf *out,
                     struct errmsg *em)
{
    struct text_args t;
    int64_t limit = mp_find_int(args, "limit");
    if (limit < 0 || limit > PAGE_MAX) {
        return errmsg_set(em, -ERR_TOO_LARGE, "limit is between 1 and %d", PAGE_MAX);
    }
    struct query_args q = {
        .id = text_arg(args, "id", t.id, sizeof t.id),
        .node = text_arg(args, "node", t.node, sizeof t.node),
        .status = text_arg(args, "status", t.status, sizeof t.status),
        .event_type = text_arg(args, "event_type", t.event_type, sizeof t.event_type),
        .subject_id = text_arg(args, "subject_id", t.subject_id, sizeof t.subject_id),
        .category = text_arg(args, "category", t.category, sizeof t.category),
        .cursor = text_arg(args, "cursor", t.cursor, sizeof t.cursor),
        .limit = (uint32_t)limit,
        .now_ms = authority_now_ms(a),
    };
    struct buf page;
    struct mp_writer w;
    buf_init(&page, CALL_DOC_MAX);
    mp_writer_init(&w, &page);
    int rc = query_run(a->fsm, kind, &q, &w, em);
    if (rc == 0) {
        rc = page.err;
    }
    if (rc == 0) {
        mp_writer_init(&w, out);
        if (is_overlaid(kind)) {
            overlay_page(a, kind, buf_blob(&page), &w);
        } else {
            mp_put_raw(&w, buf_blob(&page));
        }
        rc = out->err;
    }
    buf_fini(&page);
    return rc;
}

void call_answer_read(struct pending_call *pc)
{
    struct authority *a = pc->a;
    struct errmsg em = ERRMSG_INIT;
    struct buf body;
    struct buf doc;
    struct mp_writer w;
    if (strcmp(pc->method, "backup.create") == 0) {
        backup_create(pc);
        return;
    }
    buf_init(&body, CALL_DOC_MAX);
    buf_init(&doc, CALL_DOC_MAX + 256);
    int i = find_read(pc->method);
    CHECK(i >= 0);
    int rc;
    if (reads[i].kind == NULL) {
        mp_writer_init(&w, &body);
        rc = fsm_audit_verify(a->fsm, &w, &em);
    } else {
        rc = run_query(a, reads[i].kind, buf_blob(&pc->args), &body, &em);
    }
    if (rc != 0) {
        call_answer_text(pc, rc, &em);
        goto out;
    }
    struct core_status s;
    struct mp_doc d;
    core_status(a->core, &s);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_copy(&w, &d, buf_blob(&body));
    mp_doc_int(&w, &d, "_index", (int64_t)s.applied_index);
    mp_doc_int(&w, &d, "_last_contact_ms", pc->stale ? (int64_t)s.leader_contact_ms : 0);
    mp_doc_end(&w, &d);
    call_answer(pc, doc.err, buf_blob(&doc));
out:
    buf_fini(&body);
    buf_fini(&doc);
}
