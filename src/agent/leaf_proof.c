#include "agent/leaf_proof.h"

#include "wire/node_msg.h"

/* The set that a link made; false when it does not decode. */
static bool set_of(struct blob link, struct witness_set *ret)
{
    return witness_set_read(witness_link_statement(link), ret, NULL) == 0;
}

static bool is_after(const struct witness_set *a, const struct witness_set *b)
{
    return !b->known || a->epoch > b->epoch || (a->epoch == b->epoch && a->seq > b->seq);
}

static bool is_signed_by(const struct witness_set *set, const struct leaf_proof *p,
                         const struct leaf_expect *e, struct witness *ret)
{
    return witness_verify(set, &e->cluster_id, p->statement, p->signatures, ret, NULL) == 0;
}

/* By the set we believe, by one before it, or by one that the peer leads us to. */
static int find_witness(const struct leaf_proof *p, const struct leaf_expect *e,
                        struct witness *ret, struct errmsg *em)
{
    struct mp_reader r;
    struct witness_set set;
    struct errmsg why = ERRMSG_INIT;
    int rc = witness_verify(e->set, &e->cluster_id, p->statement, p->signatures, ret, &why);
    if (rc != -ERR_NOT_WITNESSED) {
        return rc == 0 ? 0 : errmsg_set(em, rc, "%s", why.text);
    }
    mp_reader_init(&r, e->links.raw);
    for (uint32_t i = 0; i < e->links.count; i++) {
        if (set_of(mp_get_bin(&r, SIGNED_SET_MAX), &set) && !is_after(&set, e->set) &&
            is_signed_by(&set, p, e, ret)) {
            return 0;
        }
    }
    set = *e->set;
    mp_reader_init(&r, p->links.raw);
    for (uint32_t i = 0; e->root_key != NULL && i < p->links.count; i++) {
        if (witness_set_advance(&set, &e->cluster_id, e->root_key, mp_get_bin(&r, SIGNED_SET_MAX),
                                NULL) != 0) {
            break;
        }
        if (is_after(&set, e->set) && is_signed_by(&set, p, e, ret)) {
            return 0;
        }
    }
    return errmsg_set(em, rc, "%s", why.text);
}

static int check_leaf(const struct node_leaf *leaf, const struct leaf_expect *e, struct errmsg *em)
{
    if (!uuid_equal(&leaf->node_id, &e->node_id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "the proof is about another node");
    }
    if (!blob_equal(leaf->fingerprint, blob_of(e->fingerprint, PKI_HASH_BYTES))) {
        return errmsg_set(em, -ERR_FINGERPRINT,
                          "the node that its certificate names has another key");
    }
    if (!blob_equal(leaf->membership_status, blob_str("active"))) {
        return errmsg_set(em, -ERR_REVOKED, "the node is no active member");
    }
    return 0;
}

int leaf_proof_check(struct blob proof, const struct leaf_expect *e, struct errmsg *em)
{
    struct leaf_proof p;
    struct node_leaf leaf;
    struct witness w;
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    if (msg_decode(&leaf_proof_desc, MSG_LENIENT, proof, &p) != 0 ||
        msg_decode(&node_leaf_desc, MSG_LENIENT, p.leaf, &leaf) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "the proof does not decode");
    }
    int rc = find_witness(&p, e, &w, em);
    if (rc != 0) {
        return rc;
    }
    witness_node_key(&leaf.node_id, key);
    witness_node_value(&leaf, value);
    if (witness_item_check(w.statement.root, key, value, p.path) != 0) {
        return errmsg_set(em, -ERR_BAD_PROOF, "the authority has signed something else");
    }
    rc = check_leaf(&leaf, e, em);
    if (rc == 0 && e->now_ms > w.signed_at_ms && e->now_ms - w.signed_at_ms > SNAPSHOT_LIFE_MS) {
        rc = errmsg_set(em, -ERR_EXPIRED, "the proof is older than %lld h",
                        (long long)(SNAPSHOT_LIFE_MS / 3600000));
    }
    return rc;
}

/* --- ours --- */

static int read_witness(struct blob signed_snapshot, struct signed_snapshot *ret_msg,
                        struct snapshot_witness *ret)
{
    int rc = msg_decode(&signed_snapshot_desc, MSG_LENIENT, signed_snapshot, ret_msg);
    if (rc == 0 && ret_msg->witness.len == 0) {
        return -ERR_NOT_FOUND;
    }
    return rc == 0 ? msg_decode(&snapshot_witness_desc, MSG_LENIENT, ret_msg->witness, ret) : rc;
}

int leaf_proof_make(struct blob signed_snapshot, const uint8_t fingerprint[PKI_HASH_BYTES],
                    struct mp_list links, struct buf *out)
{
    struct signed_snapshot msg;
    struct snapshot_witness w;
    struct snapshot_body body;
    uint8_t config[PKI_HASH_BYTES];
    struct buf leaf;
    int rc = read_witness(signed_snapshot, &msg, &w);
    if (rc == 0) {
        rc = msg_decode(&snapshot_body_desc, MSG_LENIENT, msg.body, &body);
    }
    if (rc == 0) {
        rc = witness_part_hash(msg.body, WITNESS_NODE_PART, config);
    }
    if (rc != 0) {
        return rc;
    }
    buf_init(&leaf, NODE_LEAF_MAX);
    msg_encode(&node_leaf_desc,
               &(struct node_leaf){.node_id = body.node_id,
                                   .fingerprint = blob_of(fingerprint, PKI_HASH_BYTES),
                                   .membership_status = body.membership_status,
                                   .config = blob_of(config, sizeof config)},
               &leaf);
    if (leaf.err == 0) {
        msg_encode(&leaf_proof_desc,
                   &(struct leaf_proof){.statement = w.statement,
                                        .signatures = w.signatures,
                                        .leaf = buf_blob(&leaf),
                                        .path = w.node_path,
                                        .links = links},
                   out);
    }
    rc = leaf.err != 0 ? leaf.err : out->err;
    buf_fini(&leaf);
    return rc;
}

/* --- the sets seen last --- */

struct mp_list leaf_proof_links_of(struct blob raw)
{
    struct mp_reader r;
    struct mp_list list = {.raw = raw};
    mp_reader_init(&r, raw);
    while (r.err == 0 && r.p < r.end && list.count < LEAF_PROOF_LINKS_MAX) {
        (void)mp_get_bin(&r, SIGNED_SET_MAX);
        list.count += r.err == 0;
    }
    return r.err == 0 && r.p == r.end ? list : (struct mp_list){.count = 0};
}

struct newest {
    struct blob link[LEAF_PROOF_LINKS_MAX];
    size_t count;
    struct witness_set last;
};

static bool add_links(struct newest *n, struct mp_list list)
{
    struct mp_reader r;
    bool any = false;
    mp_reader_init(&r, list.raw);
    for (uint32_t i = 0; i < list.count; i++) {
        struct witness_set set;
        struct blob link = mp_get_bin(&r, SIGNED_SET_MAX);
        if (r.err != 0 || !set_of(link, &set) || !is_after(&set, &n->last)) {
            continue;
        }
        if (n->count == LEAF_PROOF_LINKS_MAX) {
            memmove(&n->link[0], &n->link[1], (LEAF_PROOF_LINKS_MAX - 1) * sizeof n->link[0]);
            n->count--;
        }
        n->link[n->count++] = link;
        n->last = set;
        any = true;
    }
    return any;
}

bool leaf_proof_links(struct blob signed_snapshot, struct mp_list *list, struct buf *raw)
{
    struct signed_snapshot msg;
    struct snapshot_witness w;
    struct newest n = {.count = 0};
    struct buf out;
    struct mp_writer writer;
    if (read_witness(signed_snapshot, &msg, &w) != 0) {
        return false;
    }
    (void)add_links(&n, *list);
    if (!add_links(&n, w.links)) {
        return false;
    }
    buf_init(&out, (size_t)LEAF_PROOF_LINKS_MAX * (SIGNED_SET_MAX + 8));
    mp_writer_init(&writer, &out);
    for (size_t i = 0; i < n.count; i++) {
        mp_put_bin(&writer, n.link[i]);
    }
    buf_clear(raw);
    buf_add(raw, out.data, out.len);
    buf_fini(&out);
    *list = (struct mp_list){.raw = buf_blob(raw), .count = (uint32_t)n.count};
    return raw->err == 0;
}
