/* The tree and the history that a majority signs (decision 0008), kept beside the rows they are made
 * of: after each entry the items of the nodes whose rows it changed are made anew. Everything here is
 * a function of the rows, so it is built again from them after a restore. Nothing is kept while there
 * is no authority set: such a cluster has no witness. */
#include "authority/fsm_impl.h"

#include "authority/fsm_cut.h"

/* Rows of these tables are what one node's part is cut from. */
static const struct {
    const char *table;
    const char *node_column;
} node_tables[] = {
    {"nodes", "id"},
    {"cluster_memberships", "node_id"},
    {"node_role_assignments", "node_id"},
};

void fsm_witness_reset(struct fsm *f)
{
    merkle_unref(f->tree);
    f->tree = NULL;
    history_fini(&f->history);
    history_init(&f->history);
    buf_fini(&f->audit_new);
    buf_init(&f->audit_new, SIZE_MAX);
    f->set = (struct witness_set){.known = false};
    f->witness_count = 0;
    f->witness_next = 0;
}

/* --- items --- */

static void part_hash(const struct snapshot_body *body, enum witness_part part,
                      uint8_t ret[PKI_HASH_BYTES])
{
    struct buf bytes;
    buf_init(&bytes, 4 * SNAPSHOT_MAX_BYTES);
    msg_encode(&snapshot_body_desc, body, &bytes);
    CHECK(bytes.err == 0 && witness_part_hash(buf_blob(&bytes), part, ret) == 0);
    buf_fini(&bytes);
}

static struct merkle *put_cluster(struct fsm *f, struct merkle *t)
{
    struct cut c;
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    cut_init(&c);
    CHECK(cut_cluster(f->db, f->vars.level, &c) == 0);
    part_hash(&c.body, WITNESS_CLUSTER_PART, value);
    witness_cluster_key(key);
    cut_fini(&c);
    return merkle_put(t, key, value);
}

/* ret_index: the node's config_index, 0 when there is no such node. */
static struct merkle *put_node(struct fsm *f, struct merkle *t, const struct uuid *id,
                               uint64_t *ret_index)
{
    struct cut c;
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    uint8_t config[PKI_HASH_BYTES];
    cut_init(&c);
    witness_node_key(id, key);
    int rc = cut_node(f->db, f->vars.level, id, &c);
    CHECK(rc == 0 || rc == -ERR_NOT_FOUND);
    *ret_index = c.config_index;
    if (rc != 0 || strcmp(c.membership, "revoked") == 0) {
        t = merkle_drop(t, key);
    } else {
        part_hash(&c.body, WITNESS_NODE_PART, config);
        witness_node_value(&(struct node_leaf){.node_id = *id,
                                               .fingerprint = blob_of(c.fingerprint, 32),
                                               .membership_status = c.body.membership_status,
                                               .config = blob_of(config, sizeof config)},
                           value);
        t = merkle_put(t, key, value);
    }
    cut_fini(&c);
    return t;
}

static struct merkle *build(struct fsm *f)
{
    struct merkle *t = put_cluster(f, NULL);
    struct db_stmt *st = db_prepare(f->db, "SELECT id FROM nodes ORDER BY id");
    while (db_step(st) == 1) {
        struct uuid id;
        uint64_t index;
        CHECK(uuid_parse(db_col_text(st, "id"), &id) == 0);
        t = put_node(f, t, &id, &index);
    }
    db_done(st);
    return t;
}

void fsm_witness_rebuilt(struct fsm *f, uint8_t ret_root[PKI_HASH_BYTES])
{
    struct merkle *t = build(f);
    merkle_root(t, ret_root);
    merkle_unref(t);
}

/* --- the record of an index --- */

/* The audit as of the end of entry `index`. */
static void audit_at(struct fsm *f, uint64_t index, struct fsm_witness *ret)
{
    struct db_stmt *st = db_prepare(f->db, "SELECT seq, hash FROM cluster_audit_events"
                                           " WHERE authority_index <= ? ORDER BY seq DESC LIMIT 1");
    db_bind_int(st, (int64_t)index);
    if (db_step(st) == 1) {
        ret->audit_seq = (uint64_t)db_col_int(st, "seq");
        CHECK(hex_decode(db_col_text(st, "hash"), ret->audit_head, sizeof ret->audit_head) == 0);
    }
    db_done(st);
    history_root(&f->history, ret->audit_seq, ret->history);
}

static void record(struct fsm *f, uint64_t index)
{
    struct fsm_witness *w = &f->witnesses[f->witness_next];
    *w = (struct fsm_witness){.epoch = f->vars.epoch, .index = index, .set_seq = f->set.seq};
    merkle_root(f->tree, w->root);
    audit_at(f, index, w);
    f->witness_next = (f->witness_next + 1) % FSM_WITNESS_RING;
    f->witness_count += f->witness_count < FSM_WITNESS_RING;
}

/* --- following the rows --- */

static void load_set(struct fsm *f)
{
    f->set = (struct witness_set){.known = false};
    if (!fsm_track_has(f, "authority_sets")) {
        return; /* the state's level is below LEVEL_WITNESS */
    }
    struct db_stmt *st = db_prepare(f->db, "SELECT statement FROM authority_sets ORDER BY seq DESC"
                                           " LIMIT 1");
    if (db_step(st) == 1) {
        CHECK(witness_set_read(db_col_blob(st, "statement"), &f->set, NULL) == 0);
    }
    db_done(st);
}

static void load_history(struct fsm *f)
{
    struct db_stmt *st = db_prepare(f->db, "SELECT hash FROM cluster_audit_events ORDER BY seq");
    while (db_step(st) == 1) {
        uint8_t hash[PKI_HASH_BYTES];
        CHECK(hex_decode(db_col_text(st, "hash"), hash, sizeof hash) == 0);
        history_add(&f->history, hash);
    }
    db_done(st);
}

static uint64_t last_change(struct fsm *f)
{
    int64_t nodes = 0;
    (void)fsm_one_int(db_prepare(f->db, "SELECT coalesce(max(config_index), 0) FROM nodes"),
                      &nodes);
    return (uint64_t)nodes > f->vars.config_index ? (uint64_t)nodes : f->vars.config_index;
}

void fsm_witness_load(struct fsm *f)
{
    fsm_witness_reset(f);
    load_set(f);
    if (f->set.known) {
        f->tree = build(f);
        load_history(f);
        record(f, last_change(f));
    }
}

void fsm_witness_audit(struct fsm *f, uint64_t seq, const uint8_t hash[PKI_HASH_BYTES])
{
    if (!f->set.known) {
        return;
    }
    /* Rows of a refused command or of a first attempt were taken back: their places are used again. */
    CHECK(seq > f->history.size);
    size_t at = (size_t)(seq - f->history.size - 1) * PKI_HASH_BYTES;
    CHECK(at <= f->audit_new.len);
    f->audit_new.len = at;
    buf_add(&f->audit_new, hash, PKI_HASH_BYTES);
}

static void follow_audit(struct fsm *f)
{
    for (size_t at = 0; f->history.size < f->vars.audit_seq; at += PKI_HASH_BYTES) {
        CHECK(at < f->audit_new.len);
        history_add(&f->history, f->audit_new.data + at);
    }
    buf_clear(&f->audit_new);
}

static int node_column(const struct fsm *f, struct blob table)
{
    for (size_t i = 0; i < ARRAY_SIZE(node_tables); i++) {
        if (!blob_equal(table, blob_str(node_tables[i].table))) {
            continue;
        }
        const struct fsm_table *t = fsm_track_table(f, table);
        for (int k = 0; k < t->columns_count; k++) {
            if (strcmp(t->columns[k], node_tables[i].node_column) == 0) {
                return k;
            }
        }
    }
    return -1;
}

struct follow {
    struct fsm *f;
    uint64_t index;
    struct uuid last; /* done already: several rows of one node come together */
    bool changed;     /* somebody's configuration did at this index */
    bool new_set;
};

static void follow_row(struct follow *w, struct blob table, struct blob row)
{
    if (blob_equal(table, blob_str("authority_sets"))) {
        w->new_set = true;
        return;
    }
    int column = w->f->set.known ? node_column(w->f, table) : -1;
    if (column < 0) {
        return;
    }
    struct mp_reader r;
    struct uuid id;
    char text[UUID_TEXT_MAX];
    mp_reader_init(&r, row);
    (void)mp_get_array(&r, UINT32_MAX);
    for (int i = 0; i < column; i++) {
        (void)mp_skip(&r);
    }
    struct blob b = mp_get_str(&r, UUID_TEXT_MAX - 1);
    (void)snprintf(text, sizeof text, "%.*s", (int)b.len, (const char *)b.data);
    if (uuid_parse(text, &id) != 0 || uuid_equal(&id, &w->last)) {
        return;
    }
    uint64_t at;
    w->f->tree = put_node(w->f, w->f->tree, &id, &at);
    w->changed = w->changed || at == w->index;
    w->last = id;
}

void fsm_witness_follow(struct fsm *f, uint64_t index)
{
    if (f->vars.level < LEVEL_WITNESS) {
        return;
    }
    struct follow w = {.f = f, .index = index};
    struct blob changes = buf_blob(&f->changes);
    struct fsm_change c;
    while (fsm_change_next(&changes, &c)) {
        follow_row(&w, c.table, c.row);
    }
    if (w.new_set && !f->set.known) {
        fsm_witness_load(f);
        return;
    }
    if (!f->set.known) {
        return;
    }
    follow_audit(f);
    if (w.new_set) {
        load_set(f);
    }
    if (f->vars.config_index == index) {
        f->tree = put_cluster(f, f->tree);
        w.changed = true;
    }
    if (w.changed) {
        record(f, index);
    }
}

/* --- what others ask --- */

bool fsm_witness_at(const struct fsm *f, uint64_t index, struct fsm_witness *ret)
{
    for (size_t i = 0; i < f->witness_count; i++) {
        if (f->witnesses[i].index == index) {
            *ret = f->witnesses[i];
            return true;
        }
    }
    return false;
}

bool fsm_witness_last(const struct fsm *f, struct fsm_witness *ret)
{
    if (f->witness_count > 0) {
        *ret = f->witnesses[(f->witness_next + FSM_WITNESS_RING - 1) % FSM_WITNESS_RING];
    }
    return f->witness_count > 0;
}

size_t fsm_voters(struct db *db, struct witness_member ret[AUTHORITIES_MAX])
{
    size_t count = 0;
    struct db_stmt *st = db_prepare(db, "SELECT a.node_id, i.public_key FROM cluster_authorities a"
                                        " JOIN node_identities i ON i.node_id = a.node_id"
                                        " AND i.identity_status = 'active'"
                                        " WHERE a.status = 'voter' ORDER BY a.node_id");
    while (count < AUTHORITIES_MAX && db_step(st) == 1) {
        struct blob key = db_col_blob(st, "public_key");
        struct witness_member *m = &ret[count];
        if (key.len == PKI_KEY_BYTES && uuid_parse(db_col_text(st, "node_id"), &m->node_id) == 0) {
            memcpy(m->public_key, key.data, PKI_KEY_BYTES);
            count++;
        }
    }
    db_done(st);
    return count;
}

const struct witness_set *fsm_authority_set(const struct fsm *f)
{
    return &f->set;
}

struct merkle *fsm_tree(const struct fsm *f)
{
    return f->tree;
}

const struct history *fsm_history(const struct fsm *f)
{
    return &f->history;
}

void fsm_witness_statement(const struct fsm *f, const struct fsm_witness *w, struct buf *out)
{
    struct witness_statement msg = {
        .version = WITNESS_VERSION,
        .epoch = w->epoch,
        .index = w->index,
        .root = blob_of(w->root, sizeof w->root),
        .audit_seq = w->audit_seq,
        .audit_head = blob_of(w->audit_head, sizeof w->audit_head),
        .history = blob_of(w->history, sizeof w->history),
        .set_seq = w->set_seq,
    };
    CHECK(uuid_parse(f->vars.cluster_id, &msg.cluster_id) == 0);
    msg_encode(&witness_statement_desc, &msg, out);
}

/* --- the commands --- */

static int held_set(struct fsm_ctx *x, struct witness_set *ret)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT statement FROM authority_sets ORDER BY seq DESC"
                                           " LIMIT 1");
    *ret = (struct witness_set){.known = false};
    int rc = db_step(st);
    if (rc == 1) {
        rc = witness_set_read(db_col_blob(st, "statement"), ret, NULL) == 0 ? 0 : -ERR_CORRUPT;
    }
    db_done(st);
    return rc;
}

/* Whoever signed it: a member is a present authority, with the key that the state has for it. */
static int members_are_authorities(struct fsm_ctx *x, const struct witness_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        char id[UUID_TEXT_MAX];
        char fingerprint[HEX32];
        struct db_stmt *st = db_prepare(
            x->db, "SELECT 1 FROM cluster_authorities a JOIN nodes n ON n.id = a.node_id"
                   " WHERE a.node_id = ? AND a.status <> 'removed' AND n.fingerprint = ?");
        db_bind_text(st, fsm_id(&set->members[i].node_id, id));
        db_bind_text(st, fsm_hex(blob_of(set->members[i].fingerprint, 32), fingerprint));
        int rc = fsm_exists(st);
        if (rc == 0) {
            return fsm_refuse(x, -ERR_NOT_AUTHORITY,
                              "the authority set names %s with a key that is no authority's", id);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int insert_set(struct fsm_ctx *x, const struct witness_set *set, struct blob link)
{
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO authority_sets (seq, cluster_id, epoch, members, statement,"
               " signed, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)");
    db_bind_int(st, (int64_t)set->seq);
    db_bind_text(st, x->cluster_id);
    db_bind_int(st, (int64_t)set->epoch);
    db_bind_int(st, (int64_t)set->count);
    db_bind_blob(st, witness_link_statement(link));
    db_bind_blob(st, link);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

int fsm_take_link(struct fsm_ctx *x, struct blob link, struct witness_set *ret)
{
    struct witness_set held;
    uint8_t key[PKI_KEY_BYTES];
    struct uuid cluster;
    struct errmsg em = ERRMSG_INIT;
    CHECK(uuid_parse(x->cluster_id, &cluster) == 0);
    int rc = held_set(x, &held);
    if (rc == 0) {
        rc = fsm_root_key(x, key);
    }
    if (rc != 0) {
        return rc;
    }
    struct witness_set next = held;
    rc = witness_set_advance(&next, &cluster, key, link, &em);
    if (rc != 0) {
        return fsm_refuse(x, rc, "%s", em.text);
    }
    if (next.seq == held.seq) {
        return fsm_refuse(x, -ERR_DECIDED, "authority set %llu is in force already",
                          (unsigned long long)held.seq);
    }
    if (next.epoch != x->v->epoch) {
        return fsm_refuse(x, -ERR_BAD_SET, "the authority set is of epoch %llu, this is epoch %llu",
                          (unsigned long long)next.epoch, (unsigned long long)x->v->epoch);
    }
    rc = members_are_authorities(x, &next);
    if (rc == 0) {
        rc = insert_set(x, &next, link);
    }
    if (rc != 0) {
        return rc;
    }
    *ret = next;
    x->config_changed = true;
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "seq", (int64_t)next.seq);
    fsm_json_int(&j, "epoch", (int64_t)next.epoch);
    fsm_json_int(&j, "members", (int64_t)next.count);
    const struct fsm_audit a = {
        .event = "authority_set_changed", .subject_type = "cluster", .subject_id = x->cluster_id};
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_authority_set_recovered(struct fsm_ctx *x, struct blob signed_recovery)
{
    struct witness_set next;
    return witness_link_statement(signed_recovery).len == 0
               ? 0
               : fsm_take_link(x, signed_recovery, &next);
}

int fsm_authority_set_next(struct fsm_ctx *x, const struct authority_set_next *b)
{
    struct witness_set next;
    int rc = fsm_take_link(x, b->signed_set, &next);
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "seq", (int64_t)next.seq);
    mp_doc_int(&x->doc, &d, "members", (int64_t)next.count);
    mp_doc_end(&x->doc, &d);
    return 0;
}

int fsm_forgery_reported(struct fsm_ctx *x, const struct forgery_reported *b)
{
    struct fsm_node n;
    char offender[UUID_TEXT_MAX];
    char fingerprint[HEX32];
    char evidence[HEX32];
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc == 0) {
        rc = fsm_node_is_actor(x, &n);
    }
    if (rc != 0) {
        return rc;
    }
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "kind", b->kind);
    fsm_json_str(&j, "error", b->error);
    fsm_json_str(&j, "detail", b->detail);
    fsm_json_text(&j, "reported_by", n.id);
    fsm_json_text(&j, "reported_by_name", n.name);
    fsm_json_text(&j, "offender_fingerprint", fsm_hex(b->offender_fingerprint, fingerprint));
    fsm_json_text(&j, "evidence_sha256", fsm_hex(b->evidence, evidence));
    fsm_json_int(&j, "seen_at", b->seen_at_ms);
    const struct fsm_audit a = {
        .event = "forgery_reported",
        .subject_type = "node",
        .subject_id = uuid_is_nil(&b->offender_id) ? NULL : fsm_id(&b->offender_id, offender),
    };
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "audit_seq", (int64_t)x->v->audit_seq);
    mp_doc_end(&x->doc, &d);
    return rc;
}
