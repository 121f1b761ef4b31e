/* One SELECT a kind, pages by key: what was on one page is never on the next, whatever is committed
 * in between. */
#include "authority/query.h"

#include "authority/query_impl.h"

#define PREFIX_MIN 4

int query_page_limit(const struct query_args *args, uint32_t *ret, struct errmsg *em)
{
    if (args->limit > PAGE_MAX) {
        return errmsg_set(em, -ERR_TOO_LARGE, "limit is between 1 and %d", PAGE_MAX);
    }
    *ret = args->limit == 0 ? PAGE_DEFAULT : args->limit;
    return 0;
}

int query_put_page(const struct query_page *p, struct db_stmt *st, struct mp_writer *w,
                   struct errmsg *em)
{
    struct mp_doc d;
    char cursor[96] = "";
    uint32_t count = 0;
    bool more = false;
    int rc;
    mp_doc_begin(w, &d);
    mp_doc_key(w, &d, "items");
    size_t at = mp_list_begin(w);
    while ((rc = db_step(st)) == 1) {
        if (count == p->limit) {
            more = true;
            rc = 0;
            break;
        }
        fsm_doc_row(st, w);
        count++;
        if (p->second_column == NULL) {
            (void)snprintf(cursor, sizeof cursor, "%s", db_col_text(st, p->cursor_column));
        } else {
            (void)snprintf(cursor, sizeof cursor, "%s.%s", db_col_text(st, p->cursor_column),
                           db_col_text(st, p->second_column));
        }
    }
    db_done(st);
    mp_list_end(w, at, count);
    mp_doc_str(w, &d, "next_cursor", more ? cursor : NULL);
    mp_doc_end(w, &d);
    return rc < 0 ? errmsg_set(em, rc, "query: %s", err_text(rc)) : 0;
}

static int put_one(struct db *db, const char *sql, const char *id, struct mp_writer *w)
{
    struct db_stmt *st = db_prepare(db, sql);
    db_bind_text(st, id);
    int rc = db_step(st);
    if (rc == 1) {
        fsm_doc_row(st, w);
    }
    db_done(st);
    return rc == 1 ? 0 : rc < 0 ? rc : -ERR_NOT_FOUND;
}

/* --- names, ids and prefixes --- */

/* 1 exactly one, 0 none, -ERR_AMBIGUOUS. */
static int find_one(struct db *db, const char *sql, const char *a, const char *b, char ret[64])
{
    struct db_stmt *st = db_prepare(db, sql);
    db_bind_text(st, a);
    if (b != NULL) {
        db_bind_text(st, b);
    }
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(ret, 64, "%s", db_col_text(st, "id"));
        int next = db_step(st);
        rc = next == 1 ? -ERR_AMBIGUOUS : next == 0 ? 1 : next;
    }
    db_done(st);
    return rc;
}

static bool is_id_prefix(const char *text)
{
    size_t n = strlen(text);
    if (n < PREFIX_MIN || n > 36) {
        return false;
    }
    return strspn(text, "0123456789abcdef-") == n;
}

static int resolve(struct db *db, const struct query_finder *f, const char *text, char ret[64],
                   struct errmsg *em)
{
    struct uuid u;
    int rc = 0;
    if (uuid_parse(text, &u) == 0) {
        rc = find_one(db, f->by_id, text, NULL, ret);
    }
    if (rc == 0 && f->by_name != NULL) {
        rc = find_one(db, f->by_name, text, NULL, ret);
    }
    if (rc == 0 && f->by_name2 != NULL) {
        rc = find_one(db, f->by_name2, text, NULL, ret);
    }
    if (rc == 0 && is_id_prefix(text)) {
        char end[64];
        (void)snprintf(end, sizeof end, "%sg", text); /* after every digit and dash */
        rc = find_one(db, f->by_range, text, end, ret);
    }
    if (rc == 0) {
        return errmsg_set(em, -ERR_NOT_FOUND, "there is no %s \"%.64s\": see `%s`", f->noun, text,
                          f->list);
    }
    if (rc == -ERR_AMBIGUOUS) {
        return errmsg_set(em, rc, "more than one %s matches \"%.64s\": give more of the id",
                          f->noun, text);
    }
    return rc < 0 ? rc : 0;
}

static const struct query_finder node_finder = {
    .noun = "node",
    .list = "rap node list",
    .by_id = "SELECT id FROM nodes WHERE id = ?",
    .by_name = "SELECT id FROM nodes WHERE name = ? AND enrollment_status = 'enrolled'",
    .by_name2 = "SELECT id FROM nodes WHERE name = ? LIMIT 2",
    .by_range = "SELECT id FROM nodes WHERE id >= ? AND id < ? LIMIT 2",
};
static const struct query_finder token_finder = {
    .noun = "token",
    .list = "rap token list",
    .by_id = "SELECT id FROM node_join_tokens WHERE id = ?",
    .by_range = "SELECT id FROM node_join_tokens WHERE id >= ? AND id < ? LIMIT 2",
};
static const struct query_finder request_finder = {
    .noun = "join request",
    .list = "rap request list",
    .by_id = "SELECT id FROM node_join_requests WHERE id = ?",
    .by_name = "SELECT id FROM node_join_requests WHERE node_name = ? AND status = 'pending'",
    .by_name2 = "SELECT id FROM node_join_requests WHERE node_name = ? LIMIT 2",
    .by_range = "SELECT id FROM node_join_requests WHERE id >= ? AND id < ? LIMIT 2",
};
static const struct query_finder authority_finder = {
    .noun = "authority",
    .list = "rap authority list",
    .by_id = "SELECT node_id AS id FROM cluster_authorities WHERE node_id = ?",
    .by_name = "SELECT n.id FROM nodes n JOIN cluster_authorities a ON a.node_id = n.id"
               " WHERE n.name = ? AND a.status <> 'removed'",
    .by_name2 = "SELECT n.id FROM nodes n JOIN cluster_authorities a ON a.node_id = n.id"
                " WHERE n.name = ? LIMIT 2",
    .by_range = "SELECT node_id AS id FROM cluster_authorities WHERE node_id >= ? AND node_id < ?"
                " LIMIT 2",
};

static const struct query_finder group_finder = {
    .noun = "group",
    .list = "rap group list",
    .by_id = "SELECT id FROM node_groups WHERE id = ?",
    .by_name = "SELECT id FROM node_groups WHERE name = ?",
    .by_range = "SELECT id FROM node_groups WHERE id >= ? AND id < ? LIMIT 2",
};

int query_one(struct db *db, const struct query_finder *f, const char *sql, const char *text,
              struct mp_writer *w, struct errmsg *em)
{
    char id[64];
    int rc = resolve(db, f, text, id, em);
    return rc != 0 ? rc : put_one(db, sql, id, w);
}

/* --- the kinds --- */

static int q_cluster(struct db *db, const struct query_args *args, struct mp_writer *w,
                     struct errmsg *em)
{
    (void)args;
    struct db_stmt *st = db_prepare(db, FSM_SQL_CLUSTER " LIMIT 1");
    int rc = db_step(st);
    if (rc == 1) {
        fsm_doc_row(st, w);
    }
    db_done(st);
    return rc == 1 ? 0 : errmsg_set(em, -ERR_NOT_FOUND, "there is no cluster yet");
}

struct db_stmt *query_begin_page(struct db *db, const char *sql, const struct query_args *args,
                                 uint32_t limit)
{
    struct db_stmt *st = db_prepare(db, sql);
    db_bind_text(st, args->cursor == NULL ? "" : args->cursor);
    db_bind_int(st, (int64_t)limit + 1);
    return st;
}

int query_list_or_one(struct db *db, const struct query_finder *f, const char *by_id,
                      const char *after_id, const struct query_args *args, struct mp_writer *w,
                      struct errmsg *em)
{
    struct query_page p = {.cursor_column = "id"};
    if (args->id != NULL) {
        return query_one(db, f, by_id, args->id, w, em);
    }
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0 ? rc : query_put_page(&p, query_begin_page(db, after_id, args, p.limit), w, em);
}

static int q_tokens(struct db *db, const struct query_args *args, struct mp_writer *w,
                    struct errmsg *em)
{
    if (args->id != NULL) {
        return query_one(db, &token_finder, FSM_SQL_TOKEN " WHERE t.id = ?", args->id, w, em);
    }
    struct query_page p = {.cursor_column = "id"};
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0 ? rc
                   : query_put_page(&p,
                                    query_begin_page(
                                        db, FSM_SQL_TOKEN " WHERE t.id > ?1 ORDER BY t.id LIMIT ?2",
                                        args, p.limit),
                                    w, em);
}

static int q_requests(struct db *db, const struct query_args *args, struct mp_writer *w,
                      struct errmsg *em)
{
    if (args->id != NULL) {
        return query_one(db, &request_finder, FSM_SQL_REQUEST " WHERE r.id = ?", args->id, w, em);
    }
    struct query_page p = {.cursor_column = "id"};
    int rc = query_page_limit(args, &p.limit, em);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st;
    if (args->status == NULL) {
        st = query_begin_page(db, FSM_SQL_REQUEST " WHERE r.id > ?1 ORDER BY r.id LIMIT ?2", args,
                              p.limit);
    } else {
        st = query_begin_page(
            db, FSM_SQL_REQUEST " WHERE r.id > ?1 AND r.status = ?3 ORDER BY r.id LIMIT ?2", args,
            p.limit);
        db_bind_text(st, args->status);
    }
    return query_put_page(&p, st, w, em);
}

static int q_nodes(struct db *db, const struct query_args *args, struct mp_writer *w,
                   struct errmsg *em)
{
    if (args->id != NULL) {
        return query_one(db, &node_finder, FSM_SQL_NODE " WHERE n.id = ?", args->id, w, em);
    }
    struct query_page p = {.cursor_column = "id"};
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0 ? rc
                   : query_put_page(&p,
                                    query_begin_page(
                                        db, FSM_SQL_NODE " WHERE n.id > ?1 ORDER BY n.id LIMIT ?2",
                                        args, p.limit),
                                    w, em);
}

static int q_authorities(struct db *db, const struct query_args *args, struct mp_writer *w,
                         struct errmsg *em)
{
    if (args->id != NULL) {
        return query_one(db, &authority_finder, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", args->id,
                         w, em);
    }
    struct query_page p = {.cursor_column = "node_id"};
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0
               ? rc
               : query_put_page(&p,
                                query_begin_page(db,
                                                 FSM_SQL_AUTHORITY " WHERE a.node_id > ?1"
                                                                   " AND a.status <> 'removed'"
                                                                   " ORDER BY a.node_id LIMIT ?2",
                                                 args, p.limit),
                                w, em);
}

static int q_roles(struct db *db, const struct query_args *args, struct mp_writer *w,
                   struct errmsg *em)
{
    char node_id[64];
    struct query_page p = {.cursor_column = "id"};
    int rc = query_page_limit(args, &p.limit, em);
    if (rc == 0 && args->node != NULL) {
        rc = resolve(db, &node_finder, args->node, node_id, em);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st;
    if (args->node == NULL) {
        st = query_begin_page(db,
                              FSM_SQL_ROLE " WHERE a.id > ?1 AND a.status <> 'removed'"
                                           " ORDER BY a.id LIMIT ?2",
                              args, p.limit);
    } else {
        st = query_begin_page(db,
                              FSM_SQL_ROLE " WHERE a.id > ?1 AND a.status <> 'removed'"
                                           " AND a.node_id = ?3 ORDER BY a.id LIMIT ?2",
                              args, p.limit);
        db_bind_text(st, node_id);
    }
    return query_put_page(&p, st, w, em);
}

static int parse_number(const char *text, int64_t *ret)
{
    int64_t v = 0;
    size_t n = 0;
    for (; text[n] >= '0' && text[n] <= '9' && n < 18; n++) {
        v = v * 10 + (text[n] - '0');
    }
    if (n == 0 || text[n] != '\0') {
        return -ERR_INVALID;
    }
    *ret = v;
    return 0;
}

static int bad_cursor(struct errmsg *em)
{
    return errmsg_set(em, -ERR_INVALID, "the cursor is not one that a list returned");
}

/* What people look for in an audit, as the kinds of events it is made of. */
#define CATEGORY_GLOBS 6
static const struct {
    const char *name;
    const char *globs[CATEGORY_GLOBS];
} categories[] = {
    {"membership", {"join_*", "node_renamed", "node_revoked", "node_removed", "token_*"}},
    {"roles", {"role_*"}},
    {"certificates", {"certificate_*"}},
    {"authority",
     {"authority_*", "term_started", "level_raised", "cluster_*", "partition_*", "divergence_*"}},
    {"health", {"health_*"}},
    {"security",
     {"forgery_*", "*_denied", "*_refused", "refusal_*", "node_revoked", "certificate_revoked"}},
};

static int find_category(const char *name, const char *const **ret, struct errmsg *em)
{
    for (size_t i = 0; i < ARRAY_SIZE(categories); i++) {
        if (strcmp(categories[i].name, name) == 0) {
            *ret = categories[i].globs;
            return 0;
        }
    }
    return errmsg_set(em, -ERR_INVALID,
                      "category is membership, roles, certificates, authority, health or security");
}

/* A node that was taken out of every list still has its timeline, by its whole id. */
static int timeline_of(struct db *db, const char *text, char ret[64], struct errmsg *em)
{
    struct uuid id;
    int rc = resolve(db, &node_finder, text, ret, em);
    if (rc == -ERR_NOT_FOUND && uuid_parse(text, &id) == 0) {
        uuid_format(&id, ret);
        rc = 0;
    }
    return rc;
}

#define AUDIT_KINDS                                                                       \
    " AND (?3 IS NULL OR e.event_type = ?3)"                                              \
    " AND (?4 IS NULL OR e.event_type GLOB ?4 OR e.event_type GLOB ?5"                    \
    " OR e.event_type GLOB ?6 OR e.event_type GLOB ?7 OR e.event_type GLOB ?8"            \
    " OR e.event_type GLOB ?9)"

static int q_audit(struct db *db, const struct query_args *args, struct mp_writer *w,
                   struct errmsg *em)
{
    static const char *const any[CATEGORY_GLOBS] = {NULL};
    struct query_page p = {.cursor_column = "seq"};
    const char *const *globs = any;
    const char *subject = args->subject_id;
    char node_id[64];
    int64_t after = 0;
    int rc = query_page_limit(args, &p.limit, em);
    if (rc == 0 && args->cursor != NULL && parse_number(args->cursor, &after) != 0) {
        rc = bad_cursor(em);
    }
    if (rc == 0 && args->category != NULL) {
        rc = find_category(args->category, &globs, em);
    }
    if (rc == 0 && args->node != NULL) {
        rc = timeline_of(db, args->node, node_id, em);
        subject = node_id;
    }
    if (rc != 0) {
        return rc;
    }
    /* With a subject its index is used; without, rows are walked in order. A node's timeline begins
     * with the request that it joined by. */
    struct db_stmt *st = db_prepare(
        db, subject == NULL ? FSM_SQL_AUDIT " WHERE e.seq > ?1" AUDIT_KINDS
                                            " ORDER BY e.seq LIMIT ?2"
            : args->node == NULL ? FSM_SQL_AUDIT " WHERE e.seq > ?1" AUDIT_KINDS
                                                 " AND e.subject_id = ?10 ORDER BY e.seq LIMIT ?2"
                                 : FSM_SQL_AUDIT
                " WHERE e.seq > ?1" AUDIT_KINDS
                " AND e.subject_id IN (SELECT ?10 UNION ALL SELECT id FROM node_join_requests"
                " WHERE approved_node_id = ?10) ORDER BY e.seq LIMIT ?2");
    db_bind_int(st, after);
    db_bind_int(st, (int64_t)p.limit + 1);
    db_bind_text(st, args->event_type);
    for (size_t i = 0; i < CATEGORY_GLOBS; i++) {
        db_bind_text(st, globs[i]);
    }
    if (subject != NULL) {
        db_bind_text(st, subject);
    }
    return query_put_page(&p, st, w, em);
}

static int q_memberships(struct db *db, const struct query_args *args, struct mp_writer *w,
                         struct errmsg *em)
{
    struct query_page p = {.cursor_column = "node_id"};
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0
               ? rc
               : query_put_page(&p,
                                query_begin_page(db,
                                                 FSM_SQL_MEMBERSHIP " WHERE m.node_id > ?1"
                                                                    " ORDER BY m.node_id LIMIT ?2",
                                                 args, p.limit),
                                w, em);
}

static int q_groups(struct db *db, const struct query_args *args, struct mp_writer *w,
                    struct errmsg *em)
{
    if (args->id != NULL) {
        return query_one(db, &group_finder, FSM_SQL_GROUP " WHERE g.id = ?", args->id, w, em);
    }
    struct query_page p = {.cursor_column = "id"};
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0 ? rc
                   : query_put_page(&p,
                                    query_begin_page(
                                        db, FSM_SQL_GROUP " WHERE g.id > ?1 ORDER BY g.id LIMIT ?2",
                                        args, p.limit),
                                    w, em);
}

/* Of one node, which is few: one page. */
static int q_heartbeats(struct db *db, const struct query_args *args, struct mp_writer *w,
                        struct errmsg *em)
{
    char node_id[64];
    struct query_page p = {.limit = HEARTBEATS_KEPT, .cursor_column = "received_at"};
    int rc = resolve(db, &node_finder, args->id == NULL ? "" : args->id, node_id, em);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(db, FSM_SQL_HEARTBEAT
                                    " WHERE h.node_id = ? ORDER BY h.received_at");
    db_bind_text(st, node_id);
    return query_put_page(&p, st, w, em);
}

static int q_terms(struct db *db, const struct query_args *args, struct mp_writer *w,
                   struct errmsg *em)
{
    struct query_page p = {.cursor_column = "epoch", .second_column = "term"};
    int64_t epoch = 0;
    int64_t term = 0;
    int rc = query_page_limit(args, &p.limit, em);
    if (rc == 0 && args->cursor != NULL) {
        char first[32];
        const char *dot = strchr(args->cursor, '.');
        (void)snprintf(first, sizeof first, "%.*s",
                       dot == NULL || dot - args->cursor > 20 ? 0 : (int)(dot - args->cursor),
                       args->cursor);
        if (dot == NULL || parse_number(first, &epoch) != 0 || parse_number(dot + 1, &term) != 0) {
            rc = bad_cursor(em);
        }
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(db, FSM_SQL_TERM " WHERE (t.epoch, t.term) > (?1, ?2)"
                                                     " ORDER BY t.epoch, t.term LIMIT ?3");
    db_bind_int(st, epoch);
    db_bind_int(st, term);
    db_bind_int(st, (int64_t)p.limit + 1);
    return query_put_page(&p, st, w, em);
}

static const struct query_finder partition_finder = {
    .noun = "partition",
    .list = "rap partition list",
    .by_id = "SELECT id FROM cluster_partitions WHERE id = ?",
    .by_range = "SELECT id FROM cluster_partitions WHERE id >= ? AND id < ? LIMIT 2",
};

/* With the names of who was out: ids say nothing to somebody in a hurry. */
#define PARTITIONS_NAMED                                                                        \
    "SELECT q.*, (SELECT json_group_array(coalesce(n.name, j.value)) FROM json_each(q.members) j" \
    " LEFT JOIN nodes n ON n.id = j.value) AS member_names FROM (" FSM_SQL_PARTITION ") q"

static int q_partitions(struct db *db, const struct query_args *args, struct mp_writer *w,
                        struct errmsg *em)
{
    if (args->id != NULL) {
        return query_one(db, &partition_finder, PARTITIONS_NAMED " WHERE q.id = ?", args->id, w,
                         em);
    }
    struct query_page p = {.cursor_column = "id"};
    int rc = query_page_limit(args, &p.limit, em);
    return rc != 0 ? rc
                   : query_put_page(&p,
                                    query_begin_page(db,
                                                     PARTITIONS_NAMED " WHERE q.id > ?1"
                                                                      " ORDER BY q.id LIMIT ?2",
                                                     args, p.limit),
                                    w, em);
}

static int q_reports(struct db *db, const struct query_args *args, struct mp_writer *w,
                     struct errmsg *em)
{
    struct query_page p = {.cursor_column = "node_id"};
    int rc = query_page_limit(args, &p.limit, em);
    /* One a node: the last one. */
    return rc != 0
               ? rc
               : query_put_page(
                     &p,
                     query_begin_page(db,
                                      FSM_SQL_DIVERGENCE
                                      " WHERE r.node_id > ?1 AND r.epoch = (SELECT max(epoch) FROM"
                                      " divergence_reports WHERE node_id = r.node_id)"
                                      " ORDER BY r.node_id LIMIT ?2",
                                      args, p.limit),
                     w, em);
}

static int q_divergence(struct db *db, const struct query_args *args, struct mp_writer *w,
                        struct errmsg *em)
{
    char node_id[64];
    struct query_page p = {.cursor_column = "seq"};
    int64_t after = -1;
    int rc = query_page_limit(args, &p.limit, em);
    if (rc == 0 && args->cursor != NULL && parse_number(args->cursor, &after) != 0) {
        rc = bad_cursor(em);
    }
    if (rc == 0) {
        rc = resolve(db, &authority_finder, args->id == NULL ? "" : args->id, node_id, em);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(db, FSM_SQL_DIVERGENCE_ENTRY
                                    " WHERE e.seq > ?1 AND e.node_id = ?3 AND e.epoch ="
                                    " (SELECT max(epoch) FROM divergence_entries"
                                    "   WHERE node_id = ?3) ORDER BY e.seq LIMIT ?2");
    db_bind_int(st, after);
    db_bind_int(st, (int64_t)p.limit + 1);
    db_bind_text(st, node_id);
    return query_put_page(&p, st, w, em);
}

int query_run(struct fsm *f, const char *kind, const struct query_args *args, struct mp_writer *out,
              struct errmsg *em)
{
    static const struct {
        const char *kind;
        int (*run)(struct db *, const struct query_args *, struct mp_writer *, struct errmsg *);
        unsigned
            level; /* of the tables it reads; 0: there from the first. The highest comes first. */
    } kinds[] = {
        {"cluster", q_cluster, 0},
        {"tokens", q_tokens, 0},
        {"requests", q_requests, 0},
        {"nodes", q_nodes, 0},
        {"authorities", q_authorities, 0},
        {"roles", q_roles, 0},
        {"audit", q_audit, 0},
        {"memberships", q_memberships, 0},
        {"terms", q_terms, 0},
        {"partitions", q_partitions, LEVEL_RECOVERY},
        {"reports", q_reports, LEVEL_RECOVERY},
        {"divergence", q_divergence, LEVEL_RECOVERY},
        {"trust", query_trust, LEVEL_MODEL},
        {"groups", q_groups, LEVEL_MEMBERS},
        {"heartbeats", q_heartbeats, LEVEL_MEMBERS},
        {"mesh", query_mesh, LEVEL_CUT_OFF},
        {"mesh", query_mesh_before, LEVEL_MESH},
        {"intents", query_intents, LEVEL_RESOURCES},
        {"intents", query_intents_bare, LEVEL_INTENTS},
        {"pools", query_pools, LEVEL_INTENTS},
        {"qos", query_qos, LEVEL_INTENTS},
        {"splits", query_splits, LEVEL_SPLITS},
        {"resources", query_resources, LEVEL_RESOURCES},
    };
    unsigned needed = 0;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kinds[i].kind, kind) == 0 && kinds[i].level > fsm_level(f)) {
            needed = kinds[i].level;
        } else if (strcmp(kinds[i].kind, kind) == 0) {
            int rc = kinds[i].run(fsm_db(f), args, out, em);
            return rc != 0 ? rc : out->out->err;
        }
    }
    if (needed > 0) {
        return errmsg_set(em, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, fsm_level(f), kind, needed);
    }
    return errmsg_set(em, -ERR_NOT_FOUND, "there is nothing called %.32s to list", kind);
}
