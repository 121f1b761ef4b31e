#include "agent/config_witness.h"

#include "pki/statement.h"

/* The one field that says how to read the others. */
#define CONFIG_SCHEMA_FIELDS(X, T) X(T, 1, U64, schema, 0, MSG_REQUIRED)
MSG_DECLARE(config_schema, CONFIG_SCHEMA_FIELDS)
MSG_DEFINE(config_schema, CONFIG_SCHEMA_FIELDS)

/* --- lists --- */

void config_iter_init(struct config_iter *it, struct mp_list list)
{
    mp_reader_init(&it->r, list.raw);
    it->left = list.count;
}

static int next_bin(struct config_iter *it, struct blob *ret)
{
    if (it->left == 0) {
        return 0;
    }
    it->left--;
    *ret = mp_get_bin(&it->r, SNAPSHOT_MAX_BYTES);
    return it->r.err != 0 ? it->r.err : 1;
}

static int next_msg(struct config_iter *it, const struct msg_desc *d, void *msg)
{
    struct blob item;
    int rc = next_bin(it, &item);
    if (rc == 1) {
        int err = msg_decode(d, MSG_LENIENT, item, msg);
        rc = err != 0 ? err : 1;
    }
    return rc;
}

int config_next_authority(struct config_iter *it, struct snapshot_authority *ret)
{
    return next_msg(it, &snapshot_authority_desc, ret);
}

int config_next_role(struct config_iter *it, struct snapshot_role *ret)
{
    return next_msg(it, &snapshot_role_desc, ret);
}

int config_next_peer(struct config_iter *it, struct snapshot_peer *ret)
{
    return next_msg(it, &snapshot_peer_desc, ret);
}

int config_next_relay(struct config_iter *it, struct snapshot_relay *ret)
{
    return next_msg(it, &snapshot_relay_desc, ret);
}

int config_next_intent(struct config_iter *it, struct snapshot_intent *ret)
{
    return next_msg(it, &snapshot_intent_desc, ret);
}

int config_next_qos(struct config_iter *it, struct snapshot_qos *ret)
{
    return next_msg(it, &snapshot_qos_desc, ret);
}

int config_next_pool(struct config_iter *it, struct snapshot_pool *ret)
{
    return next_msg(it, &snapshot_pool_desc, ret);
}

int config_next_resource(struct config_iter *it, struct snapshot_resource *ret)
{
    return next_msg(it, &snapshot_resource_desc, ret);
}

int config_next_fingerprint(struct config_iter *it, const uint8_t **ret)
{
    struct blob item;
    int rc = next_bin(it, &item);
    if (rc == 1 && item.len != PKI_HASH_BYTES) {
        return -ERR_MALFORMED;
    }
    if (rc == 1) {
        *ret = item.data;
    }
    return rc;
}

static int own_mesh(const struct snapshot_body *b, struct snapshot_mesh *ret)
{
    *ret = (struct snapshot_mesh){.kind = {0}};
    return b->mesh.len == 0 ? 0 : msg_decode(&snapshot_mesh_desc, MSG_LENIENT, b->mesh, ret);
}

/* Of ids, which msg_decode has counted only. */
static int check_ids(struct mp_list list)
{
    struct mp_reader r;
    mp_reader_init(&r, list.raw);
    for (uint32_t i = 0; i < list.count; i++) {
        (void)mp_get_uuid(&r);
    }
    return mp_reader_finish(&r);
}

static int check_intents(struct mp_list list)
{
    struct config_iter it;
    struct snapshot_intent m;
    int rc;
    config_iter_init(&it, list);
    while ((rc = config_next_intent(&it, &m)) == 1) {
        rc = check_ids(m.destinations);
        if (rc != 0) {
            return rc;
        }
    }
    return rc;
}

static int check_pools(struct mp_list list)
{
    struct config_iter it;
    struct snapshot_pool m;
    int rc;
    config_iter_init(&it, list);
    while ((rc = config_next_pool(&it, &m)) == 1) {
        rc = check_ids(m.members);
        if (rc != 0) {
            return rc;
        }
    }
    return rc;
}

static int check_mesh(const struct snapshot_body *b)
{
    struct config_iter it;
    struct snapshot_mesh mesh;
    struct snapshot_qos qos;
    struct snapshot_resource resource;
    int rc = own_mesh(b, &mesh);
    rc = rc != 0 ? rc : check_intents(b->intents);
    rc = rc != 0 ? rc : check_intents(b->all_intents);
    rc = rc != 0 ? rc : check_pools(b->pools);
    rc = rc != 0 ? rc : check_pools(b->all_pools);
    config_iter_init(&it, b->qos);
    while (rc == 0 && (rc = config_next_qos(&it, &qos)) == 1) {
        rc = 0;
    }
    config_iter_init(&it, b->resources);
    while (rc == 0 && (rc = config_next_resource(&it, &resource)) == 1) {
        rc = 0;
    }
    return rc;
}

static int check_lists(const struct snapshot_body *b)
{
    struct config_iter it;
    struct snapshot_authority authority;
    struct snapshot_role role;
    struct snapshot_peer peer;
    struct snapshot_relay relay;
    const uint8_t *fingerprint;
    int rc = check_mesh(b);
    if (rc == 0) {
        config_iter_init(&it, b->authorities);
        while ((rc = config_next_authority(&it, &authority)) == 1) {
        }
    }
    if (rc == 0) {
        config_iter_init(&it, b->roles);
        while ((rc = config_next_role(&it, &role)) == 1) {
        }
    }
    if (rc == 0) {
        config_iter_init(&it, b->peers);
        while ((rc = config_next_peer(&it, &peer)) == 1) {
        }
    }
    if (rc == 0) {
        config_iter_init(&it, b->relays);
        while ((rc = config_next_relay(&it, &relay)) == 1) {
        }
    }
    if (rc == 0) {
        config_iter_init(&it, b->revocations);
        while ((rc = config_next_fingerprint(&it, &fingerprint)) == 1) {
        }
    }
    if (rc == 0) {
        config_iter_init(&it, b->retired_issuers);
        while ((rc = config_next_fingerprint(&it, &fingerprint)) == 1) {
        }
    }
    if (rc == 0) {
        config_iter_init(&it, b->disabled_keys);
        while ((rc = config_next_fingerprint(&it, &fingerprint)) == 1) {
        }
    }
    return rc;
}

static bool find_authority(const struct snapshot_body *b, const struct uuid *id,
                           struct snapshot_authority *ret)
{
    struct config_iter it;
    config_iter_init(&it, b->authorities);
    while (config_next_authority(&it, ret) == 1) {
        if (uuid_equal(&ret->node_id, id)) {
            return true;
        }
    }
    return false;
}

static bool has_role(const struct snapshot_body *b, struct blob name)
{
    struct config_iter it;
    struct snapshot_role role;
    config_iter_init(&it, b->roles);
    while (config_next_role(&it, &role) == 1) {
        if (blob_equal(role.role, name)) {
            return true;
        }
    }
    return false;
}

static bool lists_fingerprint(struct mp_list list, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    struct config_iter it;
    const uint8_t *listed;
    config_iter_init(&it, list);
    while (config_next_fingerprint(&it, &listed) == 1) {
        if (memcmp(listed, fingerprint, PKI_HASH_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

/* --- checks, in the order in which they run --- */

static int decode_body(struct blob bytes, struct snapshot_body *ret, struct errmsg *em)
{
    struct config_schema schema;
    int rc = msg_decode(&config_schema_desc, MSG_LENIENT, bytes, &schema);
    if (rc == 0 && schema.schema != SNAPSHOT_SCHEMA) {
        return errmsg_set(em, -ERR_SCHEMA, "snapshot has schema %llu, this binary knows %d",
                          (unsigned long long)schema.schema, SNAPSHOT_SCHEMA);
    }
    if (rc == 0) {
        rc = msg_decode(&snapshot_body_desc, MSG_LENIENT, bytes, ret);
    }
    if (rc == 0) {
        rc = check_lists(ret);
    }
    /* The store keeps both numbers as signed 64-bit integers. */
    if (rc == 0 && (ret->epoch > INT64_MAX || ret->config_version > INT64_MAX ||
                    ret->issued_at_ms < 0 || ret->expires_at_ms <= ret->issued_at_ms)) {
        rc = -ERR_MALFORMED;
    }
    return rc == 0 ? 0 : errmsg_set(em, -ERR_MALFORMED, "snapshot body does not decode");
}

static int check_signer(const struct snapshot_body *body, const struct pki_identity *signer,
                        struct errmsg *em)
{
    struct snapshot_authority listed;
    if (!signer->authority) {
        return errmsg_set(em, -ERR_NOT_AUTHORITY, "snapshot is signed by an ordinary node");
    }
    if (!find_authority(body, &signer->node_id, &listed) ||
        memcmp(listed.issuer_fingerprint.data, signer->issuer_fingerprint, PKI_HASH_BYTES) != 0) {
        return errmsg_set(em, -ERR_NOT_AUTHORITY,
                          "snapshot is signed by an authority that it does not list");
    }
    if (lists_fingerprint(body->revocations, signer->fingerprint) ||
        lists_fingerprint(body->revocations, signer->issuer_fingerprint) ||
        lists_fingerprint(body->retired_issuers, signer->issuer_fingerprint)) {
        return errmsg_set(em, -ERR_REVOKED, "snapshot revokes its own signer");
    }
    return 0;
}

static int check_signature(struct blob encoded, struct blob body_bytes,
                           const struct snapshot_body *body, const struct config_expect *e,
                           struct pki_identity *ret_signer, struct errmsg *em)
{
    struct snapshot_signature s;
    if (msg_decode(&snapshot_signature_desc, MSG_LENIENT, encoded, &s) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "snapshot signature does not decode");
    }
    struct pki_identity signer;
    const struct blob chain[] = {s.leaf, s.issuer};
    int64_t at_ms = e->now_ms;
    if (e->allow_expired && body->issued_at_ms < at_ms) {
        at_ms = body->issued_at_ms;
    }
    int rc = pki_chain_verify(e->trust, chain, ARRAY_SIZE(chain), at_ms, &signer, em);
    if (rc == -ERR_BAD_SIGNATURE) {
        rc = -ERR_BAD_CERT; /* of the chain, not of the snapshot */
    }
    if (rc != 0) {
        return errmsg_wrap(em, rc, "snapshot signer");
    }
    rc = pki_verify(signer.public_key, SNAPSHOT_SIGN_DOMAIN, body_bytes, s.signature);
    if (rc != 0) {
        return errmsg_set(em, rc, "snapshot signature does not verify");
    }
    rc = check_signer(body, &signer, em);
    if (rc == 0) {
        *ret_signer = signer;
    }
    return rc;
}

static int check_signatures(const struct signed_snapshot *msg, const struct snapshot_body *body,
                            const struct config_expect *e, struct pki_identity *ret_signer,
                            struct errmsg *em)
{
    struct config_iter it;
    struct blob item;
    struct errmsg first_why = ERRMSG_INIT;
    int first = 0;
    int more;
    config_iter_init(&it, msg->signatures);
    while ((more = next_bin(&it, &item)) == 1) {
        struct errmsg why = ERRMSG_INIT;
        int rc = check_signature(item, msg->body, body, e, ret_signer, &why);
        if (rc == 0) {
            return 0;
        }
        if (first == 0) {
            first = rc;
            first_why = why;
        }
    }
    if (first != 0) {
        return errmsg_set(em, first, "%s", first_why.text);
    }
    return more < 0 ? errmsg_set(em, -ERR_MALFORMED, "snapshot signatures do not decode")
                    : errmsg_set(em, -ERR_BAD_SIGNATURE, "snapshot is not signed");
}

/* DESIGN section 6: refreshed at half life. Nothing but the times may differ. */
static bool is_refresh(const struct snapshot_body *body, const struct config *held)
{
    if (held == NULL || body->issued_at_ms <= held->body.issued_at_ms) {
        return false;
    }
    struct snapshot_body same = *body;
    same.issued_at_ms = held->body.issued_at_ms;
    same.expires_at_ms = held->body.expires_at_ms;
    return msg_equal(&snapshot_body_desc, &same, &held->body);
}

static int check_version(const struct snapshot_body *body, const struct config_expect *e,
                         struct errmsg *em)
{
    bool equal = body->epoch == e->epoch && body->config_version == e->version;
    bool newer = body->epoch > e->epoch ||
                 (body->epoch == e->epoch && body->config_version > e->version);
    if (newer || (equal && (e->again || is_refresh(body, e->held)))) {
        return 0;
    }
    return errmsg_set(em, -ERR_ROLLBACK,
                      "snapshot (%llu, %llu) is not newer than the one held (%llu, %llu)",
                      (unsigned long long)body->epoch, (unsigned long long)body->config_version,
                      (unsigned long long)e->epoch, (unsigned long long)e->version);
}

/* A number alone is worth nothing: an authority in a thief's hands could write a high one, and every
 * node would refuse the real authority from then on. */
static int check_epoch(const struct snapshot_body *body, const struct config_expect *e,
                       struct errmsg *em)
{
    uint8_t root[PKI_KEY_BYTES];
    struct recovery_statement s;
    if (body->epoch <= EPOCH_FIRST || body->epoch <= pki_trust_epoch(e->trust)) {
        return 0;
    }
    if (body->recovery.len == 0 || !pki_trust_root_key(e->trust, root)) {
        return errmsg_set(em, -ERR_BAD_SIGNATURE,
                          "snapshot of epoch %llu without the owner's statement",
                          (unsigned long long)body->epoch);
    }
    int rc = statement_verify(body->recovery, root, &e->cluster_id, &s, em);
    if (rc == 0 && s.epoch != body->epoch) {
        rc = errmsg_set(em, -ERR_BAD_SIGNATURE, "snapshot and statement are of different epochs");
    }
    return rc;
}

static int check_scopes(const struct snapshot_body *body, struct errmsg *em)
{
    struct mp_reader r;
    bool node = false;
    mp_reader_init(&r, body->scopes.raw);
    for (uint32_t i = 0; i < body->scopes.count; i++) {
        struct snapshot_authority self;
        struct blob scope = mp_get_str(&r, ROLE_MAX_BYTES);
        bool is_node = blob_equal(scope, blob_str("node"));
        bool is_authority = blob_equal(scope, blob_str("authority")) &&
                            find_authority(body, &body->node_id, &self);
        if (r.err != 0 || (!is_node && !is_authority && !has_role(body, scope))) {
            return errmsg_set(em, -ERR_SCOPE,
                              "snapshot has a scope that this node has no claim to");
        }
        node = node || is_node;
    }
    return node ? 0 : errmsg_set(em, -ERR_SCOPE, "snapshot is not of scope \"node\"");
}

static int check_body(const struct snapshot_body *body, const struct config_expect *e,
                      struct errmsg *em)
{
    if (!uuid_equal(&body->cluster_id, &e->cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "snapshot belongs to another cluster");
    }
    if (!uuid_equal(&body->node_id, &e->node_id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "snapshot belongs to another node");
    }
    int rc = check_version(body, e, em);
    if (rc == 0) {
        rc = check_epoch(body, e, em);
    }
    if (rc == 0 && !e->allow_expired && e->now_ms >= body->expires_at_ms) {
        rc = errmsg_set(em, -ERR_EXPIRED, "snapshot has expired");
    }
    return rc != 0 ? rc : check_scopes(body, em);
}

int config_verify(struct blob signed_snapshot, const struct config_expect *expect,
                  struct config **ret, struct errmsg *em)
{
    if (signed_snapshot.len > CONFIG_SIGNED_MAX) {
        return errmsg_set(em, -ERR_TOO_LARGE, "snapshot is larger than %d bytes",
                          (int)CONFIG_SIGNED_MAX);
    }
    struct config *c = xcalloc(1, sizeof *c);
    buf_init(&c->bytes, CONFIG_SIGNED_MAX);
    buf_add(&c->bytes, signed_snapshot.data, signed_snapshot.len);

    struct signed_snapshot msg;
    int rc = msg_decode(&signed_snapshot_desc, MSG_LENIENT, buf_blob(&c->bytes), &msg);
    if (rc != 0) {
        rc = errmsg_set(em, -ERR_MALFORMED, "signed snapshot does not decode");
        goto out;
    }
    rc = decode_body(msg.body, &c->body, em);
    if (rc == 0) {
        rc = check_signatures(&msg, &c->body, expect, &c->signer, em);
    }
    if (rc == 0) {
        rc = config_witness_check(&msg, expect, c, em);
    }
    if (rc == 0) {
        rc = check_body(&c->body, expect, em);
    }
    if (rc == 0) {
        *ret = c;
        c = NULL;
    }
out:
    config_free(c);
    return rc;
}

struct blob config_trust(struct blob signed_snapshot)
{
    struct signed_snapshot msg;
    if (signed_snapshot.len > CONFIG_SIGNED_MAX ||
        msg_decode(&signed_snapshot_desc, MSG_LENIENT, signed_snapshot, &msg) != 0) {
        return blob_of(NULL, 0);
    }
    return msg.trust;
}

void config_free(struct config *c)
{
    if (c != NULL) {
        buf_fini(&c->bytes);
        free(c);
    }
}

bool config_has_role(const struct config *c, const char *role)
{
    return has_role(&c->body, blob_str(role));
}

bool config_revokes(const struct config *c, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    return lists_fingerprint(c->body.revocations, fingerprint);
}

bool config_retires(const struct config *c, const uint8_t issuer_fingerprint[PKI_HASH_BYTES])
{
    return lists_fingerprint(c->body.retired_issuers, issuer_fingerprint);
}

static bool switched(struct blob own, bool cluster)
{
    return blob_equal(own, blob_str("on")) || (cluster && !blob_equal(own, blob_str("off")));
}

void config_mesh(const struct config *c, struct config_mesh *ret)
{
    CHECK(own_mesh(&c->body, &ret->own) == 0); /* checked when it was decoded */
    ret->overlay = switched(ret->own.overlay, c->body.overlay);
    ret->synthetic = switched(ret->own.synthetic, c->body.synthetic);
    ret->cut_off_after_ms = c->body.cut_off_after_ms;
}

bool config_is_disabled(const struct config *c)
{
    return blob_equal(c->body.membership_status, blob_str("disabled"));
}

bool config_lists_authority(const struct config *c, const struct uuid *node_id)
{
    struct snapshot_authority listed;
    return find_authority(&c->body, node_id, &listed);
}
