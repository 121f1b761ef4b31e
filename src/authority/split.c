#include "authority/split.h"

#include "authority/fsm.h"
#include "base/text.h"
#include "pki/statement.h"
#include "wire/node_msg.h"

#include <inttypes.h>

static void read_split(struct db_stmt *st, struct split *ret)
{
    (void)snprintf(ret->id, sizeof ret->id, "%s", db_col_text(st, "id"));
    (void)snprintf(ret->name, sizeof ret->name, "%s", db_col_text(st, "name"));
    (void)snprintf(ret->new_cluster_id, sizeof ret->new_cluster_id, "%s",
                   db_col_text(st, "new_cluster_id"));
    (void)snprintf(ret->root_pin, sizeof ret->root_pin, "%s", db_col_text(st, "root_pin"));
    (void)snprintf(ret->seed_id, sizeof ret->seed_id, "%s", db_col_text(st, "seed_node_id"));
    (void)snprintf(ret->status, sizeof ret->status, "%s", db_col_text(st, "status"));
}

#define SPLIT_COLUMNS                                                                      \
    "SELECT id, name, new_cluster_id, root_pin, seed_node_id, status FROM cluster_splits"

static int get_one(struct db_stmt *st, const char *key, struct split *ret)
{
    db_bind_text(st, key);
    int rc = db_step(st);
    if (rc == 1) {
        read_split(st, ret);
    }
    db_done(st);
    return rc;
}

int split_get(struct db *db, const struct uuid *id, struct split *ret)
{
    char text[UUID_TEXT_MAX];
    uuid_format(id, text);
    return get_one(db_prepare(db, SPLIT_COLUMNS " WHERE id = ?"), text, ret);
}

int split_of_seed(struct db *db, const char *node_id, struct split *ret)
{
    return get_one(db_prepare(db, SPLIT_COLUMNS " WHERE status = 'open' AND seed_node_id = ?"
                                                " ORDER BY id LIMIT 1"),
                   node_id, ret);
}

int split_of_node(struct db *db, const char *node_id, struct split *ret)
{
    return get_one(db_prepare(db, SPLIT_COLUMNS " WHERE status = 'open' AND id IN (SELECT split_id"
                                                " FROM cluster_split_nodes WHERE node_id = ?)"
                                                " ORDER BY id LIMIT 1"),
                   node_id, ret);
}

/* --- gaps --- */

void split_gaps_init(struct split_gaps *g)
{
    *g = (struct split_gaps){.count = 0};
    buf_init(&g->items, SPLIT_GAPS_MAX_BYTES);
}

void split_gaps_fini(struct split_gaps *g)
{
    buf_fini(&g->items);
}

static void add(struct split_gaps *g, const char *gap, const char *subject, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

static void add(struct split_gaps *g, const char *gap, const char *subject, const char *fmt, ...)
{
    char detail[320];
    struct mp_writer w;
    struct mp_doc d;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    mp_writer_init(&w, &g->items);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "gap", gap);
    mp_doc_str(&w, &d, "subject", subject);
    mp_doc_str(&w, &d, "detail", detail);
    mp_doc_end(&w, &d);
    g->count++;
    size_t at = strlen(g->brief);
    size_t need = strlen(gap) + strlen(subject) + 4;
    if (at + need < sizeof g->brief) {
        (void)snprintf(g->brief + at, sizeof g->brief - at, "%s%s%s%s", at == 0 ? "" : "; ", gap,
                       subject[0] == '\0' ? "" : " ", subject);
    }
}

/* Whether the report is of the cluster that the split is about; if not, nothing else in it matters. */
static bool is_about(const struct split *s, const struct split_report *r,
                     const uint8_t pin[PKI_HASH_BYTES], struct split_gaps *g)
{
    char text[2 * PKI_HASH_BYTES + 1];
    uint32_t before = g->count;
    hex_encode(pin, PKI_HASH_BYTES, text);
    if (strcmp(text, s->root_pin) != 0) {
        add(g, "wrong_root", "", "the report is signed by root %.16s, the split goes to root %.16s",
            text, s->root_pin);
    }
    uuid_format(&r->cluster_id, text);
    if (strcmp(text, s->new_cluster_id) != 0) {
        add(g, "wrong_cluster", "", "the report is of cluster %s, the split goes to %s", text,
            s->new_cluster_id);
    }
    return g->count == before;
}

static void check_age(const struct split_report *r, int64_t now_ms, struct split_gaps *g)
{
    int64_t age_ms = now_ms - r->time_ms;
    if (age_ms > SPLIT_REPORT_LIFE_MS) {
        add(g, "stale_report", "",
            "the report is %" PRId64 " minutes old, and counts for %d: make a new one there",
            age_ms / 60000, (int)(SPLIT_REPORT_LIFE_MS / 60000));
    } else if (age_ms < -SPLIT_REPORT_AHEAD_MS) {
        add(g, "stale_report", "",
            "the report is of %" PRId64
            " minutes from now: compare the clocks, then make a new one",
            -age_ms / 60000);
    }
}

struct nodes {
    struct split_report_node item[SPLIT_NODES_MAX];
    uint32_t count;
};

static const struct split_report_node *find(const struct nodes *nodes, const char *name)
{
    for (uint32_t i = 0; i < nodes->count; i++) {
        if (blob_equal(nodes->item[i].name, blob_str(name))) {
            return &nodes->item[i];
        }
    }
    return NULL;
}

/* One that goes and is still a member here. */
static void check_node(const struct split *s, const char *name, const char *authority,
                       const struct nodes *nodes, struct split_gaps *g)
{
    const struct split_report_node *there = find(nodes, name);
    if (authority[0] != '\0' && strcmp(authority, "removed") != 0) {
        add(g, "is_authority", name,
            "it decides here: `rap authority remove %s --force` takes it out, which is leaving too",
            name);
    }
    if (there == NULL) {
        add(g, "not_joined", name, "the report has no node of this name: let it join %s as %s",
            s->name, name);
        return;
    }
    if (!there->healthy) {
        add(g, "not_healthy", name, "it is not healthy in %s: `rap node show %s` there", s->name,
            name);
    }
    if (!there->current) {
        add(g, "no_snapshot", name, "in %s it does not hold the signed snapshot that is in force",
            s->name);
    }
}

/* The nodes that go and have not left, each with its status as an authority. Nodes that were revoked
 * meanwhile have. */
#define GOING                                                                              \
    " FROM cluster_split_nodes p JOIN nodes n ON n.id = p.node_id"                         \
    " JOIN cluster_memberships m ON m.node_id = n.id"
#define GOING_WHERE                                                                        \
    " WHERE p.split_id = ?1 AND n.enrollment_status = 'enrolled'"                           \
    " AND m.membership_status = 'active'"

int split_next_to_leave(struct db *db, const struct split *s, struct uuid *ret)
{
    struct db_stmt *st = db_prepare(db, "SELECT n.id" GOING GOING_WHERE
                                        " ORDER BY n.id = ?2, n.id LIMIT 1");
    db_bind_text(st, s->id);
    db_bind_text(st, s->seed_id);
    int rc = db_step(st);
    if (rc == 1) {
        CHECK(uuid_parse(db_col_text(st, "id"), ret) == 0);
    }
    db_done(st);
    return rc;
}

int split_put_staying(struct db *db, const char *split_id, struct mp_writer *w)
{
    uint32_t count = 0;
    int rc;
    size_t at = mp_list_begin(w);
    struct db_stmt *st = db_prepare(db, "SELECT n.name" GOING GOING_WHERE " ORDER BY n.name");
    db_bind_text(st, split_id);
    while ((rc = db_step(st)) == 1) {
        mp_put_str(w, db_col_text(st, "name"));
        count++;
    }
    db_done(st);
    mp_list_end(w, at, count);
    return rc;
}

static int check_nodes(struct db *db, const struct split *s, const struct nodes *nodes,
                       struct split_gaps *g)
{
    int rc;
    struct db_stmt *st = db_prepare(
        db, "SELECT n.name, coalesce(a.status, '') AS authority" GOING
            " LEFT JOIN cluster_authorities a ON a.node_id = n.id" GOING_WHERE " ORDER BY n.name");
    db_bind_text(st, s->id);
    while ((rc = db_step(st)) == 1) {
        check_node(s, db_col_text(st, "name"), db_col_text(st, "authority"), nodes, g);
    }
    db_done(st);
    return rc;
}

/* SPEC CLU-04: what they do here, somebody does there. */
static int check_roles(struct db *db, const struct split *s, const struct split_report *r,
                       struct split_gaps *g)
{
    int rc;
    struct db_stmt *st = db_prepare(
        db, "SELECT a.role, min(n.name) AS name" GOING
            " JOIN node_role_assignments a ON a.node_id = n.id AND a.status = 'active'" GOING_WHERE
            " GROUP BY a.role ORDER BY a.role");
    db_bind_text(st, s->id);
    while ((rc = db_step(st)) == 1) {
        const char *role = db_col_text(st, "role");
        if (split_report_holders(r, blob_str(role)) == 0) {
            add(g, "role_uncovered", role,
                "%s has it here, and no healthy node can do it in %s: `rap role assign` there, or "
                "`rap role unassign` here",
                db_col_text(st, "name"), s->name);
        }
    }
    db_done(st);
    return rc;
}

/* The new cluster decides, and can be administered, without the host it was seeded on. */
static void check_authority(const struct split *s, const struct split_report *r, const char *seed,
                            const struct nodes *nodes, struct split_gaps *g)
{
    bool other = false;
    for (uint32_t i = 0; i < nodes->count; i++) {
        const struct split_report_node *n = &nodes->item[i];
        other = other || (n->votes && n->healthy && !blob_equal(n->name, blob_str(seed)));
    }
    if (!other) {
        add(g, "no_authority", "",
            "%s has no healthy authority but its seed: `rap authority add` there", s->name);
    }
    if (r->voters_in_contact < r->voters / 2 + 1) {
        add(g, "no_quorum", "", "%d of %d authorities of %s were in contact",
            (int)r->voters_in_contact, (int)r->voters, s->name);
    }
    if (r->admin_name.len == 0 || blob_equal(r->admin_name, blob_str(seed))) {
        add(g, "no_admin_ingress", seed,
            "the seed answered for %s: make the report on another authority, which shows that the "
            "cluster can be administered there",
            s->name);
    }
}

int split_gaps_find(struct db *db, const struct split *s, struct blob signed_report, int64_t now_ms,
                    struct split_gaps *g, struct errmsg *em)
{
    struct split_report r;
    struct nodes nodes;
    uint8_t pin[PKI_HASH_BYTES];
    char seed[NAME_MAX_BYTES + 1];
    if (signed_report.len == 0) {
        add(g, "no_report", "",
            "%s has not shown that it can stand alone: `rap split report` there", s->name);
        return 0;
    }
    int rc = split_report_verify(signed_report, &r, pin, em);
    if (rc != 0 || !is_about(s, &r, pin, g)) {
        return rc;
    }
    nodes.count = split_report_nodes(&r, nodes.item);
    check_age(&r, now_ms, g);
    rc = fsm_node_name(db, s->seed_id, seed);
    if (rc == 0) {
        check_authority(s, &r, seed, &nodes, g);
        rc = check_nodes(db, s, &nodes, g);
    }
    return rc != 0 ? rc : check_roles(db, s, &r, g);
}

/* --- the start --- */

static int refusal(int *ret_rc, int rc, struct errmsg *em, const char *fmt, ...) PRINTF_LIKE(4, 5);

static int refusal(int *ret_rc, int rc, struct errmsg *em, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    *ret_rc = errmsg_set(em, rc, "%s", text);
    return 0;
}

static int node_refusal(struct db *db, const char *id, int *ret_rc, struct errmsg *em)
{
    struct split open;
    struct db_stmt *st = db_prepare(
        db, "SELECT n.name, n.enrollment_status, m.membership_status,"
            " coalesce(a.status, 'removed') AS authority FROM nodes n JOIN cluster_memberships m "
            "ON m.node_id = n.id"
            " LEFT JOIN cluster_authorities a ON a.node_id = n.id WHERE n.id = ?");
    db_bind_text(st, id);
    int rc = db_step(st);
    if (rc == 0) {
        rc = refusal(ret_rc, -ERR_NOT_FOUND, em, "there is no node %s: see `rap node list`", id);
    } else if (rc == 1) {
        const char *name = db_col_text(st, "name");
        if (strcmp(db_col_text(st, "enrollment_status"), "enrolled") != 0 ||
            strcmp(db_col_text(st, "membership_status"), "active") != 0) {
            rc = refusal(ret_rc, -ERR_CONFLICT, em, "node %s is no active member: leave it out",
                         name);
        } else if (strcmp(db_col_text(st, "authority"), "removed") != 0) {
            rc = refusal(ret_rc, -ERR_CONFLICT, em,
                         "node %s is an authority here and cannot be in both: choose another, or "
                         "`rap authority remove %s` and let it join again",
                         name, name);
        } else if ((rc = split_of_node(db, id, &open)) == 1) {
            rc = refusal(ret_rc, -ERR_CONFLICT, em, "node %s is in the open split %s already", name,
                         open.name);
        }
    }
    db_done(st);
    return rc;
}

int split_begin_refusal(struct db *db, const char *cluster_id, const struct split_terms *t,
                        int *ret_rc, struct errmsg *em)
{
    char id[UUID_TEXT_MAX];
    struct mp_reader r;
    *ret_rc = 0;
    uuid_format(&t->cluster_id, id);
    if (strcmp(id, cluster_id) != 0) {
        return refusal(ret_rc, -ERR_WRONG_CLUSTER, em, "these terms split another cluster");
    }
    uuid_format(&t->split_id, id);
    struct db_stmt *st = db_prepare(db, "SELECT id = ?1 AS same FROM cluster_splits WHERE id = ?1"
                                        " OR (status = 'open' AND name = ?2)");
    db_bind_text(st, id);
    db_bind_textn(st, (const char *)t->name.data, t->name.len);
    int rc = db_step(st);
    bool same = rc == 1 && db_col_int(st, "same") != 0;
    db_done(st);
    if (rc == 1) {
        return refusal(ret_rc, same ? -ERR_DECIDED : -ERR_EXISTS, em,
                       same ? "this split began already"
                            : "a split of this name is open: finish or cancel it first");
    }
    mp_reader_init(&r, t->nodes.raw);
    for (uint32_t i = 0; rc == 0 && *ret_rc == 0 && i < t->nodes.count; i++) {
        struct uuid node = mp_get_uuid(&r);
        uuid_format(&node, id);
        rc = node_refusal(db, id, ret_rc, em);
    }
    return rc;
}

int split_names_fit(struct db *db, const struct split_terms *t, struct errmsg *em)
{
    struct buf nodes;
    struct mp_reader r;
    uint32_t count = 0;
    int rc = 0;
    buf_init(&nodes, SPLIT_REPORT_BODY_MAX - SPLIT_REPORT_REST);
    mp_reader_init(&r, t->nodes.raw);
    for (uint32_t i = 0; rc == 0 && i < t->nodes.count; i++) {
        char id[UUID_TEXT_MAX], name[NAME_MAX_BYTES + 1];
        struct uuid node = mp_get_uuid(&r);
        uuid_format(&node, id);
        rc = fsm_node_name(db, id, name);
        const struct split_report_node row = {.name = blob_str(name),
                                              .healthy = true,
                                              .votes = true,
                                              .current = true,
                                              .held_version = UINT64_MAX};
        msg_list_add(&split_report_node_desc, &row, &nodes, &count);
    }
    if (rc == 0 && nodes.err != 0) {
        rc = errmsg_set(em, -ERR_TOO_LARGE,
                        "the names of these %u nodes are too long for one report: split in steps, "
                        "with a seed each",
                        t->nodes.count);
    }
    buf_fini(&nodes);
    return rc;
}
