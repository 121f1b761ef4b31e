#include "authority/fsm_peers.h"

const char *fsm_id(const struct uuid *u, char out[UUID_TEXT_MAX])
{
    uuid_format(u, out);
    return out;
}

const char *fsm_hex(struct blob b, char *out)
{
    hex_encode(b.data, b.len, out);
    return out;
}

void db_bind_opt(struct db_stmt *st, struct blob text)
{
    if (text.len == 0) {
        db_bind_null(st);
    } else {
        db_bind_textn(st, (const char *)text.data, text.len);
    }
}

int fsm_one_int(struct db_stmt *st, int64_t *ret)
{
    int rc = db_step(st);
    if (rc == 1) {
        *ret = sqlite3_column_int64(db_stmt_handle(st), 0);
    }
    db_done(st);
    return rc;
}

static int one_name(struct db_stmt *st, char out[NAME_MAX_BYTES + 1])
{
    int rc = db_step(st);
    (void)snprintf(out, NAME_MAX_BYTES + 1, "%s", rc == 1 ? db_col_text(st, "name") : "");
    db_done(st);
    return rc < 0 ? rc : 0;
}

int fsm_node_name(struct db *db, const char *node_id, char out[NAME_MAX_BYTES + 1])
{
    struct db_stmt *st = db_prepare(db, "SELECT name FROM nodes WHERE id = ?");
    db_bind_text(st, node_id);
    return one_name(st, out);
}

int fsm_cluster_name(struct db *db, char out[NAME_MAX_BYTES + 1])
{
    return one_name(db_prepare(db, "SELECT name FROM clusters LIMIT 1"), out);
}

int fsm_exists(struct db_stmt *st)
{
    int rc = db_step(st);
    db_done(st);
    return rc;
}

static bool capability_shaped(struct blob w)
{
    for (size_t i = 0; i < w.len; i++) {
        uint8_t c = w.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) {
            return false;
        }
    }
    return w.len >= 1 && w.len <= 64;
}

int fsm_words(struct fsm_ctx *x, const struct mp_list *list, enum fsm_words kind,
              char out[JSON_LIST_MAX])
{
    struct mp_reader r;
    mp_reader_init(&r, list->raw);
    size_t len = 0;
    out[len++] = '[';
    out[len] = '\0';
    for (uint32_t i = 0; i < list->count; i++) {
        struct blob w = mp_get_str(&r, ROLE_MAX_BYTES * 2);
        if (r.err != 0) {
            return fsm_refuse(x, -ERR_INVALID, "a list of %s holds something else than short text",
                              kind == FSM_ROLES ? "roles" : "capabilities");
        }
        /* Any well-formed capability is kept, known to this binary or not, so that members of
         * different versions agree; it means something only where a role asks for it. */
        if (kind == FSM_CAPABILITIES && !capability_shaped(w)) {
            return fsm_refuse(x, -ERR_INVALID, "a capability is 1 to 64 of a-z, 0-9 and _");
        }
        if (kind == FSM_ROLES && !role_is_known(w)) {
            return fsm_refuse(x, -ERR_ROLE_UNKNOWN, "there is no role \"%.*s\"",
                              (int)(w.len < 64 ? w.len : 64), (const char *)w.data);
        }
        if (fsm_words_have(out, w)) {
            continue;
        }
        CHECK(len + w.len + 5 < JSON_LIST_MAX);
        len += (size_t)snprintf(out + len, JSON_LIST_MAX - len, "%s\"%.*s\"", len > 1 ? "," : "",
                                (int)w.len, (const char *)w.data);
    }
    out[len++] = ']';
    out[len] = '\0';
    return 0;
}

bool fsm_words_have(const char *list, struct blob word)
{
    const char *p = list;
    while ((p = strchr(p, '"')) != NULL) {
        const char *end = strchr(p + 1, '"');
        if (end == NULL) {
            return false;
        }
        if (blob_equal(blob_of(p + 1, (size_t)(end - p - 1)), word)) {
            return true;
        }
        p = end + 1;
    }
    return false;
}

int fsm_node_get(struct fsm_ctx *x, const struct uuid *id, struct fsm_node *ret)
{
    char text[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(
        x->db, "SELECT n.name, n.fingerprint, n.enrollment_status, m.membership_status,"
               " a.status AS authority FROM nodes n"
               " JOIN cluster_memberships m ON m.node_id = n.id"
               " LEFT JOIN cluster_authorities a ON a.node_id = n.id WHERE n.id = ?");
    db_bind_text(st, fsm_id(id, text));
    int rc = db_step(st);
    if (rc == 1) {
        *ret = (struct fsm_node){
            .enrolled = strcmp(db_col_text(st, "enrollment_status"), "enrolled") == 0};
        (void)snprintf(ret->id, sizeof ret->id, "%s", text);
        (void)snprintf(ret->name, sizeof ret->name, "%s", db_col_text(st, "name"));
        (void)snprintf(ret->fingerprint, sizeof ret->fingerprint, "%s",
                       db_col_text(st, "fingerprint"));
        (void)snprintf(ret->membership, sizeof ret->membership, "%s",
                       db_col_text(st, "membership_status"));
        (void)snprintf(ret->authority, sizeof ret->authority, "%s", db_col_text(st, "authority"));
    }
    db_done(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "there is no node %s: see `rap node list`", text);
    }
    return rc < 0 ? rc : 0;
}

int fsm_node_get_active(struct fsm_ctx *x, const struct uuid *id, struct fsm_node *ret)
{
    struct fsm_node n = {0};
    int rc = fsm_node_get(x, id, &n);
    if (rc != 0) {
        return rc;
    }
    if (n.enrolled && strcmp(n.membership, "disabled") == 0) {
        return fsm_refuse(x, -ERR_SUSPENDED,
                          "the membership of node %s is disabled: `rap node enable %s` first",
                          n.name, n.name);
    }
    if (!n.enrolled || strcmp(n.membership, "active") != 0) {
        return fsm_refuse(x, -ERR_REVOKED, "node %s is not a member any more (%s)", n.name,
                          n.membership);
    }
    *ret = n;
    return 0;
}

int fsm_node_is_actor(struct fsm_ctx *x, const struct fsm_node *n)
{
    if (blob_equal(x->actor_kind, blob_str(ACTOR_NODE)) &&
        !blob_equal(x->actor_id, blob_str(n->id))) {
        return fsm_refuse(x, -ERR_WRONG_NODE, "a node may only speak for itself");
    }
    return 0;
}

int fsm_is_banned(struct fsm_ctx *x, const char *fingerprint)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM banned_keys WHERE fingerprint = ?");
    db_bind_text(st, fingerprint);
    return fsm_exists(st);
}

int fsm_ban(struct fsm_ctx *x, const char *fingerprint, struct blob reason, int64_t not_after_ms)
{
    struct db_stmt *st = db_prepare(x->db, "INSERT INTO banned_keys (fingerprint, reason,"
                                           " banned_at, not_after) VALUES (?, ?, ?, ?)"
                                           " ON CONFLICT (fingerprint) DO NOTHING");
    db_bind_text(st, fingerprint);
    db_bind_textn(st, (const char *)reason.data, reason.len);
    db_bind_int(st, x->now_ms);
    if (not_after_ms == 0) {
        db_bind_null(st);
    } else {
        db_bind_int(st, not_after_ms);
    }
    return db_run(st);
}

int fsm_name_free(struct fsm_ctx *x, struct blob name, const char *own_node,
                  const char *own_request)
{
    if (!text_is_name((const char *)name.data, name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    struct db_stmt *st = db_prepare(x->db, "SELECT id FROM nodes WHERE name = ?1"
                                           " AND enrollment_status = 'enrolled' AND id <> ?2");
    db_bind_textn(st, (const char *)name.data, name.len);
    db_bind_text(st, own_node == NULL ? "" : own_node);
    int rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_NAME_TAKEN, "a node named %.*s exists: choose another name",
                          (int)name.len, (const char *)name.data);
    }
    if (rc < 0) {
        return rc;
    }
    st = db_prepare(x->db, "SELECT id FROM node_join_requests WHERE node_name = ?1"
                           " AND status = 'pending' AND id <> ?2");
    db_bind_textn(st, (const char *)name.data, name.len);
    db_bind_text(st, own_request == NULL ? "" : own_request);
    rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_NAME_TAKEN,
                          "another join request for the name %.*s is waiting: see `rap request "
                          "list`",
                          (int)name.len, (const char *)name.data);
    }
    return rc;
}

static int serial_is_free(struct fsm_ctx *x, const struct cmd_cert *c)
{
    char serial[HEX16];
    struct db_stmt *st = db_prepare(x->db,
                                    "SELECT 1 FROM node_identities WHERE certificate_serial = ?");
    db_bind_text(st, fsm_hex(c->serial, serial));
    int rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_EXISTS, "certificate serial %s is in use: issue another", serial);
    }
    return rc;
}

int fsm_cert_decode(struct fsm_ctx *x, struct blob in, struct cmd_cert *ret)
{
    int rc = msg_decode(&cmd_cert_desc, MSG_STRICT, in, ret);
    if (rc != 0) {
        return rc;
    }
    if (ret->not_before_ms >= ret->not_after_ms || ret->not_after_ms <= x->now_ms) {
        return fsm_refuse(x, -ERR_BAD_CERT, "the certificate has expired or never begins");
    }
    uint8_t fingerprint[PKI_HASH_BYTES];
    pki_fingerprint(ret->public_key.data, fingerprint);
    if (!blob_equal(ret->fingerprint, blob_of(fingerprint, sizeof fingerprint))) {
        return fsm_refuse(x, -ERR_FINGERPRINT,
                          "the certificate's fingerprint is not that of its key");
    }
    return serial_is_free(x, ret);
}

int fsm_cert_issuer_known(struct fsm_ctx *x, const struct cmd_cert *c)
{
    struct db_stmt *st = db_prepare(
        x->db, x->v->level >= LEVEL_MODEL
                   ? "SELECT 1 FROM cluster_authorities WHERE status <> 'removed'"
                     " AND (issuer_certificate = ?1 OR previous_issuer = ?1)"
                   : "SELECT 1 FROM cluster_authorities"
                     " WHERE issuer_certificate = ? AND status <> 'removed'");
    db_bind_blob(st, c->issuer_der);
    int rc = fsm_exists(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_AUTHORITY,
                          "the certificate was issued by a CA that is not of a present authority");
    }
    return rc < 0 ? rc : 0;
}

/* The root above the CA that issued it; a CA that is not there yet is being added, under the active
 * root. */
static int issuer_root(struct fsm_ctx *x, const struct cmd_cert *c, char ret[HEX32])
{
    struct db_stmt *st = db_prepare(
        x->db, x->v->level >= LEVEL_MODEL
                   ? "SELECT coalesce("
                     "(SELECT root_id FROM cluster_authorities WHERE issuer_certificate = ?1),"
                     " (SELECT previous_root_id FROM cluster_authorities"
                     "   WHERE previous_issuer = ?1),"
                     " (SELECT root_id FROM cluster_trust_roots WHERE status = 'active'))"
                     " AS root_id"
                   : "SELECT root_id FROM cluster_trust_roots WHERE status = 'active'");
    if (x->v->level >= LEVEL_MODEL) {
        db_bind_blob(st, c->issuer_der);
    }
    int rc = db_step(st);
    (void)snprintf(ret, HEX32, "%s", rc == 1 ? db_col_text(st, "root_id") : "");
    db_done(st);
    return rc < 0 ? rc : 0;
}

int fsm_identity_insert(struct fsm_ctx *x, const char *node_id, const struct cmd_cert *c)
{
    char serial[HEX16];
    char fingerprint[HEX32];
    char root_id[HEX32];
    int rc = issuer_root(x, c, root_id);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_identities (cluster_id, node_id, public_key, fingerprint,"
               " certificate_serial, certificate_not_before, certificate_not_after,"
               " identity_status, issued_at, root_id, certificate, issuer_certificate)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, 'active', ?, ?, ?, ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, node_id);
    db_bind_blob(st, c->public_key);
    db_bind_text(st, fsm_hex(c->fingerprint, fingerprint));
    db_bind_text(st, fsm_hex(c->serial, serial));
    db_bind_int(st, c->not_before_ms);
    db_bind_int(st, c->not_after_ms);
    db_bind_int(st, x->now_ms);
    db_bind_text(st, root_id);
    db_bind_blob(st, c->der);
    db_bind_blob(st, c->issuer_der);
    return db_run(st);
}

int fsm_capabilities_set(struct fsm_ctx *x, const char *node_id, const struct mp_list *list,
                         bool *ret_changed)
{
    char words[JSON_LIST_MAX];
    int rc = fsm_words(x, list, FSM_CAPABILITIES, words);
    if (rc != 0) {
        return rc;
    }
    /* What is no longer reported goes; what stays keeps its times. */
    struct db_stmt *st = db_prepare(x->db, "DELETE FROM node_capabilities WHERE node_id = ?1"
                                           " AND instr(?2, '\"' || capability || '\"') = 0");
    db_bind_text(st, node_id);
    db_bind_text(st, words);
    rc = db_run(st);
    bool changed = rc == 0 && db_changes(x->db) > 0;
    struct mp_reader r;
    mp_reader_init(&r, list->raw);
    for (uint32_t i = 0; rc == 0 && i < list->count; i++) {
        struct blob w = mp_get_str(&r, SIZE_MAX);
        st = db_prepare(x->db, "INSERT INTO node_capabilities (node_id, capability, reported_at)"
                               " VALUES (?, ?, ?) ON CONFLICT DO NOTHING");
        db_bind_text(st, node_id);
        db_bind_textn(st, (const char *)w.data, w.len);
        db_bind_int(st, x->now_ms);
        rc = db_run(st);
        changed = changed || (rc == 0 && db_changes(x->db) > 0);
    }
    if (rc == 0 && changed) {
        rc = fsm_capabilities_by_policy(x, node_id);
    }
    if (rc == 0) {
        *ret_changed = changed;
    }
    return rc;
}

int fsm_role_insert(struct fsm_ctx *x, const char *id, const char *node_id, struct blob role,
                    struct blob organization, struct blob policy)
{
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_role_assignments (id, cluster_id, node_id, role,"
               " organization_id, status, assigned_by_user_id, assigned_at, policy,"
               " authority_index) VALUES (?, ?, ?, ?, ?, 'active', ?, ?, ?, ?)");
    db_bind_text(st, id);
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, node_id);
    db_bind_textn(st, (const char *)role.data, role.len);
    db_bind_opt(st, organization);
    db_bind_opt(st, x->actor_id);
    db_bind_int(st, x->now_ms);
    db_bind_opt(st, policy);
    db_bind_int(st, (int64_t)x->index);
    return db_run(st);
}

int fsm_node_last_expiry(struct fsm_ctx *x, const char *node_id, int64_t *ret)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT coalesce(max(certificate_not_after), 0)"
                                           " FROM node_identities WHERE node_id = ?");
    db_bind_text(st, node_id);
    int rc = fsm_one_int(st, ret);
    return rc < 0 ? rc : 0;
}

int fsm_node_shut_out(struct fsm_ctx *x, const struct fsm_node *n, struct blob reason)
{
    int64_t not_after = 0;
    int rc = fsm_node_last_expiry(x, n->id, &not_after);
    if (rc == 0) {
        rc = fsm_ban(x, n->fingerprint, reason, not_after);
    }
    if (rc == 0) {
        rc = fsm_peers_changed(x, n->id);
    }
    if (rc == 0 && x->v->level >= LEVEL_INTENTS) {
        rc = fsm_pool_forget_node(x, n->id);
    }
    if (rc == 0 && x->v->level >= LEVEL_RESOURCES) {
        rc = fsm_resource_forget_node(x, n->id);
    }
    if (rc == 0 && x->v->level >= LEVEL_MESH_LOG) {
        rc = fsm_mesh_forget_node(x, n->id);
    }
    static const struct {
        const char *sql;
        bool stamped;
    } ends[] = {
        {"UPDATE nodes SET enrollment_status = 'revoked', identity_state = 'revoked'"
         " WHERE id = ?1",
         false},
        {"UPDATE cluster_memberships SET membership_status = 'revoked' WHERE node_id = ?1", false},
        {"UPDATE node_identities SET identity_status = 'revoked', revoked_at = ?2"
         " WHERE node_id = ?1 AND identity_status <> 'revoked'",
         true},
        /* Two indexes would do; rows must change in one order whatever SQLite's version. */
        {"UPDATE node_role_assignments INDEXED BY node_role_assignments_by_node"
         " SET status = 'removed', removed_at = ?2 WHERE node_id = ?1 AND status <> 'removed'",
         true},
    };
    size_t count = ARRAY_SIZE(ends) - (PLANTED("roles_outlive_the_member") ? 1 : 0);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct db_stmt *st = db_prepare(x->db, ends[i].sql);
        db_bind_text(st, n->id);
        if (ends[i].stamped) {
            db_bind_int(st, x->now_ms);
        }
        rc = db_run(st);
    }
    return rc;
}

int fsm_root_key(struct fsm_ctx *x, uint8_t ret[PKI_KEY_BYTES])
{
    struct pki_cert root;
    struct errmsg em = ERRMSG_INIT;
    struct db_stmt *st = db_prepare(
        x->db, "SELECT certificate FROM cluster_trust_roots WHERE status = 'active'");
    int rc = db_step(st);
    if (rc == 1 && pki_cert_parse(db_col_blob(st, "certificate"), &root, &em) != 0) {
        rc = fsm_refuse(x, -ERR_BAD_CERT, "the root certificate is not readable: %s", em.text);
    } else if (rc == 1) {
        memcpy(ret, root.public_key, PKI_KEY_BYTES);
        rc = 0;
    } else if (rc == 0) {
        rc = fsm_refuse(x, -ERR_NOT_FOUND, "the cluster has no active root");
    }
    db_done(st);
    return rc;
}
