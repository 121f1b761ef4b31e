#include "lib/fake_witness.h"

#define EVENTS 100

static void event_hash(uint64_t seq, uint8_t ret[PKI_HASH_BYTES])
{
    pki_sha256(blob_of(&seq, sizeof seq), ret);
}

void fake_witness_init(struct fake_witness *w, const struct fake_cluster *c,
                       const struct fake_node *const members[FAKE_MEMBERS],
                       const uint8_t fingerprint[PKI_HASH_BYTES], int64_t now_ms)
{
    struct witness_member m[FAKE_MEMBERS];
    struct buf statement;
    *w = (struct fake_witness){.cluster = c, .who = 3, .signed_at_ms = now_ms, .show_link = true};
    memcpy(w->fingerprint, fingerprint, sizeof w->fingerprint);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        w->members[i] = members[i];
        m[i].node_id = members[i]->id;
        pki_key_public(members[i]->key, m[i].public_key);
    }
    buf_init(&statement, AUTHORITY_SET_MAX);
    buf_init(&w->link, SIGNED_SET_MAX);
    witness_set_build(&w->set, &c->id, 1, m, FAKE_MEMBERS, &statement);
    CHECK(witness_set_read(buf_blob(&statement), &w->set, NULL) == 0);
    witness_set_sign_root(c->root_key, buf_blob(&statement), &w->link);
    buf_fini(&statement);
    history_init(&w->history);
    for (uint64_t i = 1; i <= EVENTS; i++) {
        uint8_t hash[PKI_HASH_BYTES];
        event_hash(i, hash);
        history_add(&w->history, hash);
    }
}

void fake_witness_fini(struct fake_witness *w)
{
    buf_fini(&w->link);
    history_fini(&w->history);
}

static struct merkle *tree_of(const struct fake_witness *w, const struct fake_snapshot *s)
{
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    uint8_t config[PKI_HASH_BYTES];
    struct buf body;
    struct merkle *t = NULL;
    buf_init(&body, SNAPSHOT_MAX_BYTES);
    fake_body(s, &body);
    CHECK(witness_part_hash(buf_blob(&body), WITNESS_CLUSTER_PART, value) == 0);
    CHECK(witness_part_hash(buf_blob(&body), WITNESS_NODE_PART, config) == 0);
    witness_cluster_key(key);
    t = merkle_put(t, key, value);
    witness_node_key(&s->node_id, key);
    witness_node_value(&(struct node_leaf){.node_id = s->node_id,
                                           .fingerprint = blob_of(w->fingerprint, 32),
                                           .membership_status = blob_str("active"),
                                           .config = blob_of(config, 32)},
                       value);
    t = merkle_put(t, key, value);
    for (uint8_t i = 0; i < 20; i++) { /* others */
        pki_sha256(blob_of(&i, 1), key);
        t = merkle_put(t, key, key);
    }
    buf_fini(&body);
    return t;
}

static void put_statement(const struct fake_witness *w, const struct fake_snapshot *s,
                          const struct merkle *t, struct buf *out)
{
    uint8_t root[PKI_HASH_BYTES];
    uint8_t history[PKI_HASH_BYTES];
    merkle_root(t, root);
    root[0] ^= w->other_root;
    history_root(&w->history, s->audit_seq, history);
    msg_encode(&witness_statement_desc,
               &(struct witness_statement){
                   .version = WITNESS_VERSION,
                   .cluster_id = w->cluster->id,
                   .epoch = w->epoch != 0 ? w->epoch : s->epoch,
                   .index = w->index != 0 ? w->index : s->version,
                   .root = blob_of(root, sizeof root),
                   .audit_seq = w->audit_seq != 0 ? w->audit_seq : s->audit_seq,
                   .audit_head = blob_of(s->audit_head, sizeof s->audit_head),
                   .history = blob_of(history, sizeof history),
                   .set_seq = w->set_seq != 0 ? w->set_seq : w->set.seq,
               },
               out);
}

static void put_witness(const struct fake_witness *w, const struct fake_snapshot *s,
                        const struct merkle *t, struct buf *out)
{
    uint8_t key[PKI_HASH_BYTES];
    struct buf statement;
    struct buf signatures;
    struct buf links;
    struct buf cluster_path;
    struct buf node_path;
    struct buf proof;
    struct snapshot_witness msg = {.history_from = w->history_from};
    struct mp_writer lw;
    buf_init(&statement, WITNESS_STATEMENT_MAX);
    buf_init(&signatures, 8192);
    buf_init(&links, SNAPSHOT_WITNESS_MAX);
    buf_init(&cluster_path, MERKLE_PATH_WIRE_MAX);
    buf_init(&node_path, MERKLE_PATH_WIRE_MAX);
    buf_init(&proof, HISTORY_PROOF_WIRE_MAX);
    put_statement(w, s, t, &statement);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        uint8_t sig[PKI_SIG_BYTES];
        if ((w->who & 1u << i) == 0) {
            continue;
        }
        witness_sign(w->members[i]->key, w->signed_at_ms, buf_blob(&statement), sig);
        msg_list_add(&witness_signature_desc,
                     &(struct witness_signature){.node_id = w->members[i]->id,
                                                 .signed_at_ms = w->signed_at_ms,
                                                 .signature = blob_of(sig, sizeof sig)},
                     &signatures, &msg.signatures.count);
    }
    mp_writer_init(&lw, &links);
    if (w->show_link) {
        mp_put_bin(&lw, buf_blob(&w->link));
        msg.links.count = 1;
    }
    witness_cluster_key(key);
    CHECK(w->no_cluster_path || merkle_path(t, key, &cluster_path) == 0);
    witness_node_key(&s->node_id, key);
    CHECK(w->no_node_path || merkle_path(t, key, &node_path) == 0);
    if (w->history_from != 0) {
        history_prove(&w->history, w->history_from, s->audit_seq, &proof);
    }
    msg.statement = buf_blob(&statement);
    msg.signatures.raw = buf_blob(&signatures);
    msg.links.raw = buf_blob(&links);
    msg.cluster_path = buf_blob(&cluster_path);
    msg.node_path = buf_blob(&node_path);
    msg.history_proof = buf_blob(&proof);
    msg_encode(&snapshot_witness_desc, &msg, out);
    CHECK(out->err == 0);
    buf_fini(&statement);
    buf_fini(&signatures);
    buf_fini(&links);
    buf_fini(&cluster_path);
    buf_fini(&node_path);
    buf_fini(&proof);
}

void fake_witness_sign(struct fake_witness *w, struct fake_snapshot *s, struct buf *out)
{
    struct buf body;
    struct buf sigs;
    struct buf witness;
    uint32_t count = 0;
    buf_init(&body, SNAPSHOT_MAX_BYTES);
    buf_init(&sigs, SNAPSHOT_MAX_BYTES);
    buf_init(&witness, SNAPSHOT_WITNESS_MAX);
    s->audit_seq = s->audit_seq == 0 ? EVENTS : s->audit_seq;
    event_hash(s->audit_seq, s->audit_head);
    struct merkle *t = tree_of(w, w->decided != NULL ? w->decided : s);
    fake_body(s, &body);
    put_witness(w, s, t, &witness);
    if (w->garbage) {
        witness.len--;
    }
    fake_signature(s->signer, SNAPSHOT_SIGN_DOMAIN, buf_blob(&body), &sigs, &count);
    const struct signed_snapshot msg = {
        .body = buf_blob(&body),
        .signatures = {.raw = buf_blob(&sigs), .count = count},
        .witness = buf_blob(&witness),
    };
    msg_encode(&signed_snapshot_desc, &msg, out);
    CHECK(out->err == 0);
    merkle_unref(t);
    buf_fini(&body);
    buf_fini(&sigs);
    buf_fini(&witness);
}
