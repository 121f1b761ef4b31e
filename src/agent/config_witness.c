#include "agent/config_witness.h"

#include "pki/history.h"

/* A majority moves the chain by one, so it cannot get past the pinned set but through it; the root may leave
 * links out. */
static bool is_fork(const struct witness_set *set, const struct set_pin *pin)
{
    return pin != NULL && set->epoch == pin->epoch && set->seq == pin->seq &&
           memcmp(set->hash, pin->hash, sizeof pin->hash) != 0;
}

static int check_pin(const struct witness_set *set, const struct set_pin *pin, struct errmsg *em)
{
    if (pin == NULL || set->epoch > pin->epoch ||
        (set->epoch == pin->epoch && set->seq >= pin->seq)) {
        return 0;
    }
    return errmsg_set(em, -ERR_BAD_SET,
                      "authority set %llu is older than %llu, which the token names",
                      (unsigned long long)set->seq, (unsigned long long)pin->seq);
}

static int advance_set(const struct snapshot_witness *w, const struct config_expect *e,
                       struct config *c, struct errmsg *em)
{
    uint8_t root_key[PKI_KEY_BYTES];
    struct mp_reader r;
    if (w->links.count > 0 && !pki_trust_root_key(e->trust, root_key)) {
        return errmsg_set(em, -ERR_BAD_SET, "no root is known to check an authority set with");
    }
    mp_reader_init(&r, w->links.raw);
    for (uint32_t i = 0; i < w->links.count; i++) {
        struct blob link = mp_get_bin(&r, SIGNED_SET_MAX);
        uint64_t before = c->set.seq;
        int rc = r.err != 0 ? errmsg_set(em, -ERR_MALFORMED, "authority sets do not decode")
                            : witness_set_advance(&c->set, &e->cluster_id, root_key, link, em);
        if (rc != 0) {
            return rc;
        }
        if (c->set.seq != before) {
            c->set_statement = witness_link_statement(link);
        }
        if (is_fork(&c->set, e->pin)) {
            return errmsg_set(em, -ERR_BAD_SET,
                              "authority set %llu is not the one that the token names",
                              (unsigned long long)c->set.seq);
        }
    }
    return check_pin(&c->set, e->pin, em);
}

static int check_position(const struct snapshot_body *b, const struct witness *w, struct errmsg *em)
{
    const struct witness_statement *s = &w->statement;
    if (s->epoch != b->epoch || s->index != b->config_version || s->audit_seq != b->audit_seq ||
        !blob_equal(s->audit_head, b->audit_head)) {
        return errmsg_set(em, -ERR_BAD_PROOF, "snapshot is not of the index that was signed");
    }
    if (b->expires_at_ms > w->signed_at_ms && /* a signature from the far future counts for now */
        b->expires_at_ms - w->signed_at_ms > SNAPSHOT_LIFE_MS) {
        return errmsg_set(em, -ERR_NOT_WITNESSED,
                          "snapshot would outlive the signatures of the authorities");
    }
    return 0;
}

static int check_items(struct blob body, const struct snapshot_witness *w, const struct config *c,
                       const struct config_expect *e, struct errmsg *em)
{
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    uint8_t config[PKI_HASH_BYTES];
    const struct blob root = c->witness.statement.root;
    if (witness_part_hash(body, WITNESS_CLUSTER_PART, value) != 0 ||
        witness_part_hash(body, WITNESS_NODE_PART, config) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "snapshot body does not decode");
    }
    witness_cluster_key(key);
    if (witness_item_check(root, key, value, w->cluster_path) != 0) {
        return errmsg_set(em, -ERR_BAD_PROOF,
                          "what the snapshot says of the cluster is not what was signed");
    }
    witness_node_key(&c->body.node_id, key);
    witness_node_value(
        &(struct node_leaf){
            .node_id = c->body.node_id,
            .fingerprint = blob_of(e->fingerprint, sizeof e->fingerprint),
            .membership_status = c->body.membership_status,
            .config = blob_of(config, sizeof config),
        },
        value);
    if (witness_item_check(root, key, value, w->node_path) != 0) {
        return errmsg_set(em, -ERR_BAD_PROOF,
                          "what the snapshot says of this node is not what was signed");
    }
    return 0;
}

/* SPEC AUD-02, S16: what was audited when we last looked is audited still. */
static int check_history(const struct snapshot_witness *w, const struct config_expect *e,
                         const struct config *c, struct errmsg *em)
{
    const struct witness_statement *s = &c->witness.statement;
    /* In a later epoch the owner has said from where the history goes on, which may be before what was
     * seen here; the authority set of that epoch is the root's word. */
    if (e->audit_seq == 0 || e->again || s->epoch > e->epoch) {
        return 0;
    }
    if (s->audit_seq < e->audit_seq) {
        return errmsg_set(em, -ERR_HISTORY, "the audit has %llu events, %llu were seen here before",
                          (unsigned long long)s->audit_seq, (unsigned long long)e->audit_seq);
    }
    if (s->audit_seq != e->audit_seq && w->history_from != e->audit_seq) {
        return errmsg_set(em, -ERR_ROLLBACK,
                          "the proof is for a node that saw %llu events, not %llu",
                          (unsigned long long)w->history_from, (unsigned long long)e->audit_seq);
    }
    if (history_check(e->audit_seq, e->history, s->audit_seq, s->history.data, w->history_proof) !=
        0) {
        return errmsg_set(em, -ERR_HISTORY,
                          "the audit does not go on from the %llu events seen here before",
                          (unsigned long long)e->audit_seq);
    }
    return 0;
}

int config_witness_check(const struct signed_snapshot *msg, const struct config_expect *e,
                         struct config *c, struct errmsg *em)
{
    struct snapshot_witness w;
    if (e->set != NULL) {
        c->set = *e->set;
    }
    if (msg->witness.len == 0) {
        return !c->set.known && e->pin == NULL
                   ? 0
                   : errmsg_set(em, -ERR_NOT_WITNESSED,
                                "no other authority has signed this snapshot");
    }
    if (msg_decode(&snapshot_witness_desc, MSG_LENIENT, msg->witness, &w) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "witness does not decode");
    }
    int rc = advance_set(&w, e, c, em);
    if (rc == 0) {
        rc = witness_verify(&c->set, &e->cluster_id, w.statement, w.signatures, &c->witness, em);
    }
    if (rc == 0) {
        rc = check_position(&c->body, &c->witness, em);
    }
    if (rc == 0) {
        rc = check_items(msg->body, &w, c, e, em);
    }
    if (rc == 0) {
        rc = check_history(&w, e, c, em);
    }
    c->witnessed = rc == 0;
    return rc;
}
