/* What goes with a snapshot so that a node can check that a majority decided it (decision 0008):
 * statement and signatures, the two paths, the authority sets the node has not seen, the proof that
 * the audit only grew. */
#include "authority/authority_impl.h"

static uint64_t node_config_index(struct authority *a, const struct uuid *node_id)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT config_index FROM nodes WHERE id = ?");
    db_bind_text(st, id);
    uint64_t index = db_step(st) == 1 ? (uint64_t)db_col_int(st, "config_index") : 0;
    db_done(st);
    return index;
}

bool push_is_ready(struct authority *a, const struct uuid *node_id)
{
    const struct witness_set *set = fsm_authority_set(a->fsm);
    const struct witnessed *d = &a->witness.done;
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    return !set->known ||
           (d->have && d->what.set_seq == set->seq && pos.config_index <= d->what.index &&
            node_config_index(a, node_id) <= d->what.index);
}

/* The first link a node needs that believes set `held`: the one after it, or the last that the root
 * signed when that is newer. */
static uint64_t first_link(struct authority *a, uint64_t held)
{
    uint64_t first = held + 1;
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT seq, signed FROM authority_sets WHERE seq > ?"
                                    " ORDER BY seq DESC");
    db_bind_int(st, (int64_t)held);
    while (db_step(st) == 1) {
        if (witness_link_is_of_root(db_col_blob(st, "signed"))) {
            first = (uint64_t)db_col_int(st, "seq");
            break;
        }
    }
    db_done(st);
    return first;
}

static struct mp_list links_from(struct authority *a, uint64_t first, struct buf *out)
{
    struct mp_list list = {.count = 0};
    struct mp_writer w;
    mp_writer_init(&w, out);
    struct db_stmt *st = db_prepare(
        state_db(a), "SELECT signed FROM authority_sets WHERE seq >= ? ORDER BY seq");
    db_bind_int(st, (int64_t)first);
    while (db_step(st) == 1) {
        mp_put_bin(&w, db_col_blob(st, "signed"));
        list.count++;
    }
    db_done(st);
    list.raw = buf_blob(out);
    return list;
}

static bool is_item(const struct merkle *t, const uint8_t key[PKI_HASH_BYTES],
                    const uint8_t value[PKI_HASH_BYTES])
{
    const uint8_t *signed_value = merkle_get(t, key);
    return signed_value != NULL && memcmp(signed_value, value, PKI_HASH_BYTES) == 0;
}

bool push_is_decided(const struct authority *a, const struct snapshot_body *b,
                     const uint8_t fingerprint[PKI_HASH_BYTES], struct blob body)
{
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    uint8_t config[PKI_HASH_BYTES];
    const struct merkle *t = a->witness.done.tree;
    if (witness_part_hash(body, WITNESS_CLUSTER_PART, value) != 0 ||
        witness_part_hash(body, WITNESS_NODE_PART, config) != 0) {
        return false;
    }
    witness_cluster_key(key);
    bool cluster = is_item(t, key, value);
    witness_node_key(&b->node_id, key);
    witness_node_value(&(struct node_leaf){.node_id = b->node_id,
                                           .fingerprint = blob_of(fingerprint, PKI_HASH_BYTES),
                                           .membership_status = b->membership_status,
                                           .config = blob_of(config, sizeof config)},
                       value);
    return cluster && is_item(t, key, value);
}

int push_put_witness(struct authority *a, const struct uuid *node_id,
                     const struct snapshot_held *held, struct buf *out, struct errmsg *em)
{
    const struct witnessed *d = &a->witness.done;
    uint8_t key[PKI_HASH_BYTES];
    struct buf cluster_path;
    struct buf node_path;
    struct buf links;
    struct buf proof;
    buf_init(&cluster_path, MERKLE_PATH_WIRE_MAX);
    buf_init(&node_path, MERKLE_PATH_WIRE_MAX);
    buf_init(&links, SNAPSHOT_WITNESS_MAX);
    buf_init(&proof, HISTORY_PROOF_WIRE_MAX);
    struct snapshot_witness msg = {
        .statement = buf_blob(&d->statement),
        .signatures = {.raw = buf_blob(&d->signatures), .count = d->count},
    };
    witness_cluster_key(key);
    int rc = merkle_path(d->tree, key, &cluster_path);
    if (rc == 0) {
        witness_node_key(node_id, key);
        rc = merkle_path(d->tree, key, &node_path);
    }
    if (rc == 0) {
        const struct witness_set *set = fsm_authority_set(a->fsm);
        bool same = held->set_epoch == set->epoch && held->set_seq <= set->seq;
        msg.links = links_from(a, first_link(a, same ? held->set_seq : 0), &links);
        rc = links.err != 0 || msg.links.count > AUTHORITY_SET_LINKS_MAX
                 ? errmsg_set(em, -ERR_TOO_LARGE,
                              "%u authority sets since the one that the node holds are more than "
                              "a snapshot carries: run `rap authority anchor` with the owner's key",
                              msg.links.count)
                 : 0;
    }
    if (rc == 0 && held->audit_seq > 0 && held->audit_seq <= d->what.audit_seq) {
        history_prove(fsm_history(a->fsm), held->audit_seq, d->what.audit_seq, &proof);
        msg.history_from = held->audit_seq;
    }
    if (rc == 0) {
        msg.cluster_path = buf_blob(&cluster_path);
        msg.node_path = buf_blob(&node_path);
        msg.history_proof = buf_blob(&proof);
        msg_encode(&snapshot_witness_desc, &msg, out);
        rc = out->err;
    }
    buf_fini(&cluster_path);
    buf_fini(&node_path);
    buf_fini(&links);
    buf_fini(&proof);
    return rc;
}
