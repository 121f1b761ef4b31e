/* split.report: what this cluster has, for the owner of the one it was split from (SPEC SEED-02). The leader
 * answers, for it alone knows who is in contact and which snapshot each node holds. */
#include "authority/call_impl.h"
#include "authority/query_impl.h"

bool call_is_split_report(const char *method)
{
    return strcmp(method, "split.report") == 0;
}

static const struct core_member *member_of(const struct core_status *s, const struct uuid *id)
{
    raft_id rid = core_raft_id(id);
    for (size_t i = 0; i < s->members_count; i++) {
        if (s->members[i].id == rid) {
            return &s->members[i];
        }
    }
    return NULL;
}

/* Whether a comma-separated list, when there is one, has the name. */
static bool is_wanted(const char *list, const char *name)
{
    size_t len = strlen(name);
    if (list[0] == '\0') {
        return true;
    }
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == '\0')) {
            return true;
        }
    }
    return false;
}

struct report {
    struct authority *a;
    struct core_status status;
    struct fsm_position position;
    struct mp_writer *w;
};

static void put_node(struct report *r, struct db_stmt *st)
{
    struct mp_doc d;
    struct uuid id;
    CHECK(uuid_parse(db_col_text(st, "id"), &id) == 0);
    const struct core_member *m = member_of(&r->status, &id);
    uint64_t node_index = (uint64_t)db_col_int(st, "config_index");
    uint64_t needed = node_index > r->position.config_index ? node_index : r->position.config_index;
    uint64_t held = health_config_version(r->a, &id);
    /* An authority that follows has the state itself, which is more than a snapshot of it. */
    if (m != NULL && m->in_contact) {
        held = uuid_equal(&id, &r->a->cfg.node_id) ? r->status.applied_index : m->match_index;
    }
    mp_doc_begin(r->w, &d);
    mp_doc_str(r->w, &d, "name", db_col_text(st, "name"));
    mp_doc_bool(r->w, &d, "healthy", strcmp(db_col_text(st, "health_status"), "healthy") == 0);
    mp_doc_bool(r->w, &d, "votes", strcmp(db_col_text(st, "authority"), "voter") == 0);
    mp_doc_bool(r->w, &d, "snapshot_current", held >= needed);
    mp_doc_int(r->w, &d, "snapshot_version", (int64_t)held);
    mp_doc_end(r->w, &d);
}

static int put_nodes(struct report *r, const char *wanted, struct errmsg *em)
{
    uint32_t count = 0;
    int rc;
    size_t at = mp_list_begin(r->w);
    struct db_stmt *st = db_prepare(state_db(r->a),
                                    "SELECT n.id, n.name, n.health_status, n.config_index,"
                                    " coalesce(a.status, '') AS authority FROM nodes n"
                                    " JOIN cluster_memberships m ON m.node_id = n.id"
                                    " LEFT JOIN cluster_authorities a ON a.node_id = n.id"
                                    " WHERE m.membership_status = 'active' ORDER BY n.name");
    while ((rc = db_step(st)) == 1) {
        if (!is_wanted(wanted, db_col_text(st, "name"))) {
            continue;
        }
        if (count == SPLIT_NODES_MAX) {
            rc = errmsg_set(em, -ERR_TOO_LARGE,
                            "a report has at most %d nodes: name those that came, and this "
                            "cluster's authorities, with --node",
                            SPLIT_NODES_MAX);
            break;
        }
        put_node(r, st);
        count++;
    }
    db_done(st);
    mp_list_end(r->w, at, count);
    return rc;
}

static void put_roles(struct report *r)
{
    uint32_t count = 0;
    size_t at = mp_list_begin(r->w);
    for (const char *const *role = role_names; *role != NULL; role++) {
        struct mp_doc d;
        int64_t assigned;
        int64_t holders;
        query_role_holders(state_db(r->a), *role, &assigned, &holders);
        if (holders == 0) {
            continue;
        }
        mp_doc_begin(r->w, &d);
        mp_doc_str(r->w, &d, "role", *role);
        mp_doc_int(r->w, &d, "holders", holders);
        mp_doc_end(r->w, &d);
        count++;
    }
    mp_list_end(r->w, at, count);
}

/* The authority whose admin API was asked: the one that passed the call on, or this one. */
static void put_admin(struct report *r, const struct pending_call *pc, struct mp_doc *d)
{
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    const struct uuid *asked = pc->via.authenticated ? &pc->via.identity.node_id
                                                     : &r->a->cfg.node_id;
    uuid_format(asked, id);
    (void)fsm_node_name(state_db(r->a), id, name);
    mp_doc_str(r->w, d, "admin_name", name[0] == '\0' ? NULL : name);
}

static int answer(struct pending_call *pc, struct buf *out, struct errmsg *em)
{
    char wanted[4096];
    char name[NAME_MAX_BYTES + 1];
    struct mp_writer w;
    struct mp_doc d;
    struct report r = {.a = pc->a, .w = &w};
    core_status(pc->a->core, &r.status);
    fsm_position(pc->a->fsm, &r.position);
    mp_find_str(buf_blob(&pc->args), "nodes", wanted, sizeof wanted);
    (void)fsm_cluster_name(state_db(pc->a), name);
    mp_writer_init(&w, out);
    mp_doc_begin(&w, &d);
    mp_doc_uuid(&w, &d, "cluster_id", &pc->a->cfg.cluster_id);
    mp_doc_str(&w, &d, "cluster_name", name);
    mp_doc_int(&w, &d, "epoch", (int64_t)r.position.epoch);
    mp_doc_int(&w, &d, "config_version", (int64_t)r.position.config_index);
    mp_doc_int(&w, &d, "voters", r.status.voters);
    mp_doc_int(&w, &d, "voters_in_contact", r.status.seen);
    put_admin(&r, pc, &d);
    mp_doc_key(&w, &d, "nodes");
    int rc = put_nodes(&r, wanted, em);
    mp_doc_key(&w, &d, "roles");
    put_roles(&r);
    mp_doc_int(&w, &d, "_index", (int64_t)r.status.applied_index);
    mp_doc_end(&w, &d);
    return rc != 0 ? rc : out->err;
}

void call_answer_split_report(struct pending_call *pc)
{
    call_answer_made(pc, answer);
}
