/* The owner's changes of what certificates stand on. The root keys never come here: the command line
 * signs, the leader checks the signatures and says in rows what they say, and each authority follows
 * what was committed. */
#include "authority/call_impl.h"

#include "base/log.h"
#include "base/text.h"

/* --- what the state says now --- */

int64_t authority_leaf_life_ms(struct authority *a)
{
    if (fsm_level(a->fsm) < LEVEL_MODEL) {
        return 0;
    }
    struct db_stmt *st = db_prepare(state_db(a), "SELECT leaf_life_ms FROM clusters LIMIT 1");
    int64_t ms = db_step(st) == 1 ? db_col_int(st, "leaf_life_ms") : 0;
    db_done(st);
    return ms;
}

void trust_record_now(struct authority *a, struct buf *out)
{
    if (fsm_level(a->fsm) < LEVEL_MODEL) {
        return;
    }
    struct db_stmt *st = db_prepare(
        state_db(a), "SELECT record FROM cluster_trust_records ORDER BY seq DESC LIMIT 1");
    if (db_step(st) == 1) {
        struct blob record = db_col_blob(st, "record");
        buf_add(out, record.data, record.len);
    }
    db_done(st);
}

/* A state that is being replayed goes through our older certificates once more. */
static bool is_newer(struct blob der, struct blob held)
{
    struct pki_cert a;
    struct pki_cert b;
    return !blob_equal(der, held) && pki_cert_parse(der, &a, NULL) == 0 &&
           pki_cert_parse(held, &b, NULL) == 0 && a.not_before_ms >= b.not_before_ms;
}

void trust_follow(struct authority *a)
{
    char id[UUID_TEXT_MAX];
    struct buf der;
    struct errmsg em = ERRMSG_INIT;
    struct buf record;
    buf_init(&record, TRUST_SIGNED_MAX);
    trust_record_now(a, &record);
    if (record.len > 0 && a->cfg.roots_changed != NULL) {
        /* First: it must trust a new root before we show a certificate under it. */
        a->cfg.roots_changed(a->cfg.data, buf_blob(&record));
    }
    buf_fini(&record);
    uuid_format(&a->cfg.node_id, id);
    buf_init(&der, CERT_DER_MAX);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT issuer_certificate FROM cluster_authorities"
                                    " WHERE node_id = ? AND status <> 'removed'");
    db_bind_text(st, id);
    if (db_step(st) == 1) {
        struct blob b = db_col_blob(st, "issuer_certificate");
        buf_add(&der, b.data, b.len);
    }
    db_done(st);
    if (der.len > 0 && a->cfg.issuer_changed != NULL &&
        is_newer(buf_blob(&der), buf_blob(&a->issuer_der))) {
        int rc = a->cfg.issuer_changed(a->cfg.data, buf_blob(&der), &em);
        if (rc == 0) {
            log_info(LOG_AUTHORITY, "issuing CA renewed", "%s", "");
        } else {
            log_error(LOG_AUTHORITY, "renewed issuing CA not installed",
                      "error=%s why=\"%s\" next=\"tried again with the next change\"", err_slug(rc),
                      em.text);
        }
    }
    buf_fini(&der);
}

/* --- calls --- */

static int arg_hex(const struct pending_call *pc, const char *key, size_t max, struct buf *out,
                   struct errmsg *em)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(buf_blob(&pc->args), key));
    struct blob hex = mp_peek(&r) == MP_STR ? mp_get_str(&r, 2 * max) : blob_of(NULL, 0);
    uint8_t *to = hex.len > 0 && hex.len % 2 == 0 ? buf_grow(out, hex.len / 2) : NULL;
    char *text = xmalloc(hex.len + 1);
    memcpy(text, hex.len > 0 ? hex.data : (const void *)"", hex.len);
    text[hex.len] = '\0';
    int rc = to != NULL && hex_decode(text, to, hex.len / 2) == 0
                 ? 0
                 : errmsg_set(em, -ERR_INVALID, "%s is not hex, or too long", key);
    free(text);
    return rc;
}

/* The owner's key signed this, whoever typed the command. */
static void commit(struct pending_call *pc, uint64_t kind, const void *body)
{
    (void)snprintf(pc->actor_kind, sizeof pc->actor_kind, "%s", ACTOR_OWNER);
    call_propose(pc, kind, body);
}

static int renew_issuer(struct authority *a, struct pending_call *pc, struct errmsg *em)
{
    char id[128];
    struct buf der;
    struct pki_cert info;
    uint8_t root[PKI_HASH_BYTES];
    struct authority_renew body = {.node_id = UUID_NIL};
    buf_init(&der, CERT_DER_MAX);
    mp_find_str(buf_blob(&pc->args), "id", id, sizeof id);
    int rc = op_resolve(a, "authorities", id, &body.node_id, em);
    if (rc == 0) {
        rc = arg_hex(pc, "issuer", CERT_DER_MAX, &der, em);
    }
    if (rc == 0) {
        rc = pki_issuer_verify(a->cfg.trust, buf_blob(&der), authority_now_ms(a), &info, root, em);
    }
    if (rc == 0 && !uuid_equal(&info.node_id, &body.node_id)) {
        rc = errmsg_set(em, -ERR_WRONG_NODE, "the CA certificate is for another authority");
    }
    if (rc == 0) {
        body.issuer_der = buf_blob(&der);
        body.issuer_fingerprint = blob_of(info.fingerprint, PKI_HASH_BYTES);
        body.root_id = blob_of(root, sizeof root);
        commit(pc, CMD_AUTHORITY_RENEW, &body);
    }
    buf_fini(&der);
    return rc;
}

/* --- a rotation --- */

struct rotation {
    struct buf record;
    struct buf set; /* signed_set, or empty */
    struct pki_trust_view view;
    size_t active, other; /* places in view; other: SIZE_MAX when there is one root */
    struct buf issuers;   /* encoded list */
    uint32_t issuers_count;
};

/* The CAs under the root that is active from now on: each by its own signature. */
static int read_issuers(struct authority *a, struct pending_call *pc, struct rotation *ro,
                        struct errmsg *em)
{
    struct mp_reader r;
    struct pki_trust *under = pki_trust_new(&a->cfg.cluster_id);
    int rc = pki_trust_set_root(under, ro->view.roots[ro->active].der, em);
    mp_reader_init(&r, mp_find(buf_blob(&pc->args), "issuers"));
    uint32_t n = mp_peek(&r) == MP_ARRAY ? mp_get_array(&r, AUTHORITIES_MAX) : 0;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        uint8_t der[CERT_DER_MAX];
        uint8_t root[PKI_HASH_BYTES];
        char hex[2 * CERT_DER_MAX + 1];
        struct pki_cert info;
        struct blob text = mp_get_str(&r, sizeof hex - 1);
        (void)snprintf(hex, sizeof hex, "%.*s", (int)text.len, (const char *)text.data);
        if (text.len == 0 || hex_decode(hex, der, text.len / 2) != 0) {
            rc = errmsg_set(em, -ERR_INVALID, "issuers is a list of certificates in hex");
            break;
        }
        struct blob view = blob_of(der, text.len / 2);
        rc = pki_issuer_verify(under, view, authority_now_ms(a), &info, root, em);
        if (rc == 0) {
            const struct trust_issuer item = {.node_id = info.node_id, .der = view};
            msg_list_add(&trust_issuer_desc, &item, &ro->issuers, &ro->issuers_count);
        }
    }
    pki_trust_free(under);
    return rc;
}

/* The index at which the last phase was committed; 0: none. */
static uint64_t phase_index(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a), "SELECT authority_index FROM cluster_trust_records"
                                                 " ORDER BY seq DESC LIMIT 1");
    uint64_t index = db_step(st) == 1 ? (uint64_t)db_col_int(st, "authority_index") : 0;
    db_done(st);
    return index;
}

static bool has_confirmed(struct authority *a, const struct core_status *s, const struct uuid *id,
                          uint64_t index)
{
    raft_id rid = core_raft_id(id);
    for (size_t i = 0; i < s->members_count; i++) {
        if (s->members[i].id == rid) {
            return uuid_equal(id, &a->cfg.node_id) ||
                   (s->members[i].in_contact && s->members[i].match_index >= index);
        }
    }
    return health_config_version(a, id) >= index;
}

/* Before anybody shows a certificate under the new root, everybody must trust it: a node that does not
 * could reach no authority any more, to learn of it. */
static int everybody_confirmed(struct authority *a, struct errmsg *em)
{
    struct core_status s;
    uint64_t index = phase_index(a);
    unsigned waiting = 0;
    char names[200] = "";
    core_status(a->core, &s);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT n.id, n.name FROM nodes n"
                                                 " JOIN cluster_memberships m ON m.node_id = n.id"
                                                 " WHERE m.membership_status = 'active'");
    while (db_step(st) == 1) {
        struct uuid id;
        if (uuid_parse(db_col_text(st, "id"), &id) != 0 || has_confirmed(a, &s, &id, index)) {
            continue;
        }
        size_t at = strlen(names);
        if (waiting++ < 5) {
            (void)snprintf(names + at, sizeof names - at, "%s%.32s", at == 0 ? "" : ", ",
                           db_col_text(st, "name"));
        }
    }
    db_done(st);
    return waiting == 0
               ? 0
               : errmsg_set(em, -ERR_CONFLICT,
                            "%u active nodes have not confirmed yet that they trust the new root "
                            "(%s%s): wait, or revoke or disable them; with --force they must join "
                            "again",
                            waiting, names, waiting > 5 ? ", ..." : "");
}

static bool is_active_now(struct authority *a, const uint8_t root_id[PKI_HASH_BYTES])
{
    char hex[2 * PKI_HASH_BYTES + 1];
    hex_encode(root_id, PKI_HASH_BYTES, hex);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT 1 AS same FROM cluster_trust_roots"
                                                 " WHERE root_id = ? AND status = 'active'");
    db_bind_text(st, hex);
    bool same = db_step(st) == 1;
    db_done(st);
    return same;
}

static bool is_listed(struct authority *a, const uint8_t root_id[PKI_HASH_BYTES])
{
    char hex[2 * PKI_HASH_BYTES + 1];
    hex_encode(root_id, PKI_HASH_BYTES, hex);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT 1 AS known FROM cluster_trust_roots WHERE root_id = ?");
    db_bind_text(st, hex);
    bool known = db_step(st) == 1;
    db_done(st);
    return known;
}

static int check_rotation(struct authority *a, struct pending_call *pc, struct rotation *ro,
                          bool force, struct errmsg *em)
{
    int rc = arg_hex(pc, "record", TRUST_SIGNED_MAX, &ro->record, em);
    if (rc == 0) {
        rc = pki_trust_check(a->cfg.trust, buf_blob(&ro->record), &ro->view, em);
    }
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    if (rc == 0 && ro->view.epoch != pos.epoch) {
        rc = errmsg_set(em, -ERR_CONFLICT, "the cluster has gone to another epoch: run it again");
    }
    if (rc != 0) {
        return rc;
    }
    if (mp_find(buf_blob(&pc->args), "authority_set").len > 0) {
        rc = arg_hex(pc, "authority_set", SIGNED_SET_MAX, &ro->set, em);
    }
    if (rc != 0) {
        return rc;
    }
    ro->active = ro->view.roots[0].status == TRUST_ROOT_ACTIVE ? 0 : 1;
    ro->other = ro->view.count == 2 ? 1 - ro->active : SIZE_MAX;
    rc = read_issuers(a, pc, ro, em);
    if (rc == 0 && !force && !is_active_now(a, ro->view.roots[ro->active].cert.fingerprint)) {
        rc = everybody_confirmed(a, em);
    }
    return rc;
}

static int rotate(struct authority *a, struct pending_call *pc, struct errmsg *em)
{
    struct rotation ro = {.active = 0};
    buf_init(&ro.record, TRUST_SIGNED_MAX);
    buf_init(&ro.set, SIGNED_SET_MAX);
    buf_init(&ro.issuers, CMD_BODY_MAX);
    bool force = mp_find_int(buf_blob(&pc->args), "force") != 0;
    int rc = check_rotation(a, pc, &ro, force, em);
    if (rc == 0) {
        struct trust_rotate body = {
            .seq = ro.view.seq,
            .record = buf_blob(&ro.record),
            .active_id = blob_of(ro.view.roots[ro.active].cert.fingerprint, PKI_HASH_BYTES),
            .issuers = {.raw = buf_blob(&ro.issuers), .count = ro.issuers_count},
            .force = force,
            .signed_set = buf_blob(&ro.set),
        };
        if (ro.other != SIZE_MAX) {
            body.other_id = blob_of(ro.view.roots[ro.other].cert.fingerprint, PKI_HASH_BYTES);
            body.other_status = ro.view.roots[ro.other].status;
            if (!is_listed(a, body.other_id.data)) {
                body.new_root_der = ro.view.roots[ro.other].der;
            }
        }
        commit(pc, CMD_TRUST_ROTATE, &body);
    }
    buf_fini(&ro.record);
    buf_fini(&ro.set);
    buf_fini(&ro.issuers);
    return rc;
}

/* The chain of authority sets begins, or goes on in one step, by the root's word. Whether it follows, and
 * names present authorities, the state says; that it is the root's and no majority's is asked here. */
static int anchor(struct authority *a, struct pending_call *pc, struct errmsg *em)
{
    struct buf link;
    (void)a;
    buf_init(&link, SIGNED_SET_MAX);
    int rc = arg_hex(pc, "authority_set", SIGNED_SET_MAX, &link, em);
    if (rc == 0 && !witness_link_is_of_root(buf_blob(&link))) {
        rc = errmsg_set(em, -ERR_BAD_SET, "the root has not signed this authority set");
    }
    if (rc == 0) {
        commit(pc, CMD_AUTHORITY_SET_NEXT,
               &(struct authority_set_next){.signed_set = buf_blob(&link)});
    }
    buf_fini(&link);
    return rc;
}

static const struct {
    const char *method;
    uint64_t kind;
    int (*run)(struct authority *a, struct pending_call *pc, struct errmsg *em);
} trust_ops[] = {{"authority.renew", CMD_AUTHORITY_RENEW, renew_issuer},
                 {"trust.rotate", CMD_TRUST_ROTATE, rotate},
                 {"authority.anchor", CMD_AUTHORITY_SET_NEXT, anchor}};

uint64_t trust_op_kind(const char *method)
{
    for (size_t i = 0; i < ARRAY_SIZE(trust_ops); i++) {
        if (strcmp(method, trust_ops[i].method) == 0) {
            return trust_ops[i].kind;
        }
    }
    return 0;
}

int trust_op_prepare(struct authority *a, struct pending_call *pc, struct errmsg *em)
{
    if (fsm_level(a->fsm) < LEVEL_MODEL) {
        return errmsg_set(em, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, fsm_level(a->fsm), pc->method,
                          LEVEL_MODEL);
    }
    /* The checks are of the state before the first time. */
    if (call_answer_again(pc)) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(trust_ops); i++) {
        if (strcmp(pc->method, trust_ops[i].method) == 0) {
            return trust_ops[i].run(a, pc, em);
        }
    }
    return -ERR_NOT_FOUND;
}
