#include "pki/witness.h"

#include "pki/pki_internal.h"
#include "pki/statement.h"

/* --- who the authority is --- */

const struct witness_member *witness_set_find(const struct witness_set *set,
                                              const struct uuid *node_id)
{
    for (size_t i = 0; i < set->count; i++) {
        if (uuid_equal(&set->members[i].node_id, node_id)) {
            return &set->members[i];
        }
    }
    return NULL;
}

size_t witness_majority(const struct witness_set *set)
{
    return set->count / 2 + 1;
}

static bool has_key(const struct witness_set *set, const uint8_t key[PKI_KEY_BYTES])
{
    for (size_t i = 0; i < set->count; i++) {
        if (memcmp(set->members[i].public_key, key, PKI_KEY_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static bool add_member(struct witness_set *set, const struct authority_set_member *m)
{
    const struct uuid *last = set->count == 0 ? NULL : &set->members[set->count - 1].node_id;
    if (set->count == AUTHORITIES_MAX || m->public_key.len != PKI_KEY_BYTES ||
        !pki_public_key_is_sound(m->public_key.data) || has_key(set, m->public_key.data) ||
        (last != NULL && memcmp(last->b, m->node_id.b, sizeof last->b) >= 0)) {
        return false;
    }
    struct witness_member *to = &set->members[set->count++];
    to->node_id = m->node_id;
    memcpy(to->public_key, m->public_key.data, PKI_KEY_BYTES);
    pki_fingerprint(to->public_key, to->fingerprint);
    return true;
}

int witness_set_read(struct blob statement, struct witness_set *ret, struct errmsg *em)
{
    struct authority_set msg;
    int rc = msg_decode(&authority_set_desc, MSG_LENIENT, statement, &msg);
    if (rc != 0 || msg.version != WITNESS_VERSION || msg.epoch > INT64_MAX || msg.seq > INT64_MAX) {
        return errmsg_set(em, -ERR_MALFORMED, "authority set does not decode");
    }
    struct witness_set set = {
        .known = true, .cluster_id = msg.cluster_id, .epoch = msg.epoch, .seq = msg.seq};
    pki_sha256(statement, set.hash);
    struct mp_reader r;
    mp_reader_init(&r, msg.members.raw);
    for (uint32_t i = 0; i < msg.members.count; i++) {
        struct authority_set_member m;
        struct blob item = mp_get_bin(&r, AUTHORITY_SET_MAX);
        if (r.err != 0 || msg_decode(&authority_set_member_desc, MSG_LENIENT, item, &m) != 0 ||
            !add_member(&set, &m)) {
            return errmsg_set(em, -ERR_MALFORMED, "authority set has a bad member");
        }
    }
    *ret = set;
    return 0;
}

static int by_id(const void *a, const void *b)
{
    const struct witness_member *x = a;
    const struct witness_member *y = b;
    return memcmp(x->node_id.b, y->node_id.b, sizeof x->node_id.b);
}

void witness_set_build(const struct witness_set *held, const struct uuid *cluster_id,
                       uint64_t epoch, const struct witness_member *members, size_t count,
                       struct buf *out)
{
    struct witness_member sorted[AUTHORITIES_MAX];
    struct buf list;
    CHECK(count > 0 && count <= AUTHORITIES_MAX);
    memcpy(sorted, members, count * sizeof *members);
    qsort(sorted, count, sizeof *sorted, by_id);
    buf_init(&list, AUTHORITY_SET_MAX);
    struct authority_set msg = {
        .version = WITNESS_VERSION,
        .cluster_id = *cluster_id,
        .epoch = epoch,
        .seq = held->known ? held->seq + 1 : 1,
        .previous = blob_of(held->hash, held->known ? sizeof held->hash : 0),
    };
    uint32_t n = 0;
    struct mp_writer w;
    mp_writer_init(&w, &list);
    for (size_t i = 0; i < count; i++) {
        struct buf one;
        buf_init(&one, AUTHORITY_SET_MAX);
        msg_encode(&authority_set_member_desc,
                   &(struct authority_set_member){
                       .node_id = sorted[i].node_id,
                       .public_key = blob_of(sorted[i].public_key, PKI_KEY_BYTES),
                   },
                   &one);
        mp_put_bin(&w, buf_blob(&one));
        buf_fini(&one);
        n++;
    }
    msg.members = (struct mp_list){.raw = buf_blob(&list), .count = n};
    msg_encode(&authority_set_desc, &msg, out);
    buf_fini(&list);
}

void witness_set_sign_root(const struct pki_key *root_key, struct blob statement, struct buf *out)
{
    uint8_t signature[PKI_SIG_BYTES];
    struct buf one;
    struct buf list;
    struct mp_writer w;
    buf_init(&one, 256);
    buf_init(&list, 256);
    mp_writer_init(&w, &list);
    pki_sign(root_key, AUTHORITY_SET_SIGN_DOMAIN, statement, signature);
    msg_encode(&set_signature_desc,
               &(struct set_signature){.signature = blob_of(signature, sizeof signature)}, &one);
    mp_put_bin(&w, buf_blob(&one));
    msg_encode(&signed_set_desc,
               &(struct signed_set){.statement = statement,
                                    .signatures = {.raw = buf_blob(&list), .count = 1}},
               out);
    buf_fini(&one);
    buf_fini(&list);
}

/* A recovery by the owner is a link too: the root signed who goes on. */
static bool is_recovery(struct blob link, struct recovery_statement *ret)
{
    struct signed_recovery msg;
    return msg_decode(&signed_recovery_desc, MSG_LENIENT, link, &msg) == 0 &&
           recovery_statement_decode(msg.body, ret) == 0;
}

struct blob witness_link_statement(struct blob link)
{
    struct signed_set msg;
    struct recovery_statement recovery;
    if (msg_decode(&signed_set_desc, MSG_LENIENT, link, &msg) == 0) {
        return msg.statement;
    }
    return is_recovery(link, &recovery) ? recovery.authority_set : blob_of(NULL, 0);
}

bool witness_link_is_of_root(struct blob link)
{
    struct signed_set msg;
    struct recovery_statement recovery;
    struct mp_reader r;
    if (msg_decode(&signed_set_desc, MSG_LENIENT, link, &msg) != 0) {
        return is_recovery(link, &recovery);
    }
    mp_reader_init(&r, msg.signatures.raw);
    for (uint32_t i = 0; i < msg.signatures.count; i++) {
        struct set_signature s;
        struct blob item = mp_get_bin(&r, SIGNED_SET_MAX);
        if (r.err == 0 && msg_decode(&set_signature_desc, MSG_LENIENT, item, &s) == 0 &&
            uuid_is_nil(&s.node_id)) {
            return true;
        }
    }
    return false;
}

/* Who signed a link: distinct members of `set`, and whether the root did. */
static int count_signers(const struct witness_set *set, const struct uuid *cluster_id,
                         const uint8_t root_key[PKI_KEY_BYTES], struct blob link,
                         size_t *ret_members, bool *ret_root)
{
    bool counted[AUTHORITIES_MAX] = {false};
    struct signed_set msg;
    struct mp_reader r;
    *ret_members = 0;
    *ret_root = false;
    if (msg_decode(&signed_set_desc, MSG_LENIENT, link, &msg) != 0) {
        struct recovery_statement recovery;
        *ret_root = statement_verify(link, root_key, cluster_id, &recovery, NULL) == 0;
        return 0;
    }
    mp_reader_init(&r, msg.signatures.raw);
    for (uint32_t i = 0; i < msg.signatures.count; i++) {
        struct set_signature s;
        struct blob item = mp_get_bin(&r, SIGNED_SET_MAX);
        if (r.err != 0 || msg_decode(&set_signature_desc, MSG_LENIENT, item, &s) != 0) {
            return -ERR_MALFORMED;
        }
        if (uuid_is_nil(&s.node_id)) {
            *ret_root = *ret_root || pki_verify(root_key, AUTHORITY_SET_SIGN_DOMAIN, msg.statement,
                                                s.signature) == 0;
            continue;
        }
        const struct witness_member *m = witness_set_find(set, &s.node_id);
        if (m != NULL && !counted[m - set->members] &&
            pki_verify(m->public_key, AUTHORITY_SET_SIGN_DOMAIN, msg.statement, s.signature) == 0) {
            counted[m - set->members] = true;
            (*ret_members)++;
        }
    }
    return 0;
}

static bool is_newer(const struct witness_set *next, const struct witness_set *held)
{
    return next->epoch > held->epoch || (next->epoch == held->epoch && next->seq > held->seq);
}

int witness_set_advance(struct witness_set *set, const struct uuid *cluster_id,
                        const uint8_t root_key[PKI_KEY_BYTES], struct blob link, struct errmsg *em)
{
    struct authority_set msg;
    struct witness_set next;
    struct blob statement = link.len > SIGNED_SET_MAX ? blob_of(NULL, 0)
                                                      : witness_link_statement(link);
    int rc = witness_set_read(statement, &next, em);
    if (rc != 0) {
        return rc;
    }
    if (!uuid_equal(&next.cluster_id, cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "authority set of another cluster");
    }
    if (set->known && memcmp(next.hash, set->hash, sizeof next.hash) == 0) {
        return 0;
    }
    if (set->known && is_newer(set, &next)) {
        return 0; /* it was believed before, or it never will be */
    }
    size_t members;
    bool root;
    CHECK(msg_decode(&authority_set_desc, MSG_LENIENT, statement, &msg) == 0);
    if (count_signers(set, cluster_id, root_key, link, &members, &root) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "authority set has a bad signature");
    }
    if (!is_newer(&next, set)) {
        return errmsg_set(em, -ERR_BAD_SET, "another authority set %llu than the one held",
                          (unsigned long long)next.seq);
    }
    bool follows = set->known && next.seq == set->seq + 1 && next.epoch == set->epoch &&
                   blob_equal(msg.previous, blob_of(set->hash, sizeof set->hash));
    if (!root && !follows) {
        return errmsg_set(em, -ERR_BAD_SET,
                          "authority set %llu does not follow set %llu and the root did not sign "
                          "it",
                          (unsigned long long)next.seq, (unsigned long long)set->seq);
    }
    if (!root && members < witness_majority(set)) {
        return errmsg_set(em, -ERR_BAD_SET,
                          "authority set %llu is signed by %zu of the %zu members before it, not "
                          "by %zu",
                          (unsigned long long)next.seq, members, set->count, witness_majority(set));
    }
    *set = next;
    return 0;
}

/* --- statements --- */

static void signed_bytes(int64_t at_ms, struct blob statement, struct buf *out)
{
    uint8_t at[8];
    for (int i = 0; i < 8; i++) {
        at[i] = (uint8_t)((uint64_t)at_ms >> (56 - 8 * i));
    }
    buf_add(out, at, sizeof at);
    buf_add(out, statement.data, statement.len);
    CHECK(out->err == 0);
}

void witness_sign(const struct pki_key *key, int64_t at_ms, struct blob statement,
                  uint8_t ret[PKI_SIG_BYTES])
{
    struct buf bytes;
    buf_init(&bytes, 8 + statement.len);
    signed_bytes(at_ms, statement, &bytes);
    pki_sign(key, WITNESS_SIGN_DOMAIN, buf_blob(&bytes), ret);
    buf_fini(&bytes);
}

bool witness_signed_by(const uint8_t public_key[PKI_KEY_BYTES], int64_t at_ms,
                       struct blob statement, struct blob signature)
{
    struct buf bytes;
    buf_init(&bytes, 8 + statement.len);
    signed_bytes(at_ms, statement, &bytes);
    bool good = pki_verify(public_key, WITNESS_SIGN_DOMAIN, buf_blob(&bytes), signature) == 0;
    buf_fini(&bytes);
    return good;
}

static int read_statement(const struct witness_set *set, const struct uuid *cluster_id,
                          struct blob bytes, struct witness_statement *ret, struct errmsg *em)
{
    int rc = msg_decode(&witness_statement_desc, MSG_LENIENT, bytes, ret);
    if (rc != 0 || ret->version != WITNESS_VERSION || ret->epoch > INT64_MAX ||
        ret->index > INT64_MAX || ret->audit_seq > INT64_MAX) {
        return errmsg_set(em, -ERR_MALFORMED, "witness statement does not decode");
    }
    if (!uuid_equal(&ret->cluster_id, cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "witness statement of another cluster");
    }
    if (!set->known || ret->set_seq != set->seq || ret->epoch != set->epoch) {
        return errmsg_set(em, -ERR_NOT_WITNESSED,
                          "statement of authority set %llu in epoch %llu, the set held is %llu in "
                          "epoch %llu",
                          (unsigned long long)ret->set_seq, (unsigned long long)ret->epoch,
                          (unsigned long long)set->seq, (unsigned long long)set->epoch);
    }
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x > y ? -1 : x < y;
}

int witness_verify(const struct witness_set *set, const struct uuid *cluster_id,
                   struct blob statement, struct mp_list signatures, struct witness *ret,
                   struct errmsg *em)
{
    struct witness w;
    int64_t times[AUTHORITIES_MAX];
    size_t count = 0;
    bool counted[AUTHORITIES_MAX] = {false};
    int rc = read_statement(set, cluster_id, statement, &w.statement, em);
    if (rc != 0) {
        return rc;
    }
    struct mp_reader r;
    mp_reader_init(&r, signatures.raw);
    for (uint32_t i = 0; i < signatures.count; i++) {
        struct witness_signature s;
        struct blob item = mp_get_bin(&r, WITNESS_STATEMENT_MAX);
        if (r.err != 0 || msg_decode(&witness_signature_desc, MSG_LENIENT, item, &s) != 0) {
            return errmsg_set(em, -ERR_MALFORMED, "witness signature does not decode");
        }
        const struct witness_member *m = witness_set_find(set, &s.node_id);
        if (m != NULL && !counted[m - set->members] &&
            witness_signed_by(m->public_key, s.signed_at_ms, statement, s.signature)) {
            counted[m - set->members] = true;
            times[count++] = s.signed_at_ms;
        }
    }
    size_t needed = witness_majority(set);
    if (count < needed) {
        return errmsg_set(em, -ERR_NOT_WITNESSED,
                          "signed by %zu of the %zu authorities, not by %zu", count, set->count,
                          needed);
    }
    qsort(times, count, sizeof *times, newest_first);
    w.signed_at_ms = times[needed - 1];
    *ret = w;
    return 0;
}

/* --- what the tree holds --- */

/* Of snapshot_body's keys below 64; see node_msg.h. */
static const uint8_t cluster_keys[] = {9, 12, 15, 18}; /* authorities, bans, name, retired CAs */
/* Epoch, version, times, audit; and the owner's statement, which the root signed. */
static const uint8_t position_keys[] = {4, 5, 6, 7, 13, 14, 30};

static bool listed(const uint8_t *keys, size_t n, uint64_t key)
{
    for (size_t i = 0; i < n; i++) {
        if (keys[i] == key) {
            return true;
        }
    }
    return false;
}

static bool in_part(uint64_t key, enum witness_part part)
{
    if (key >= 64) {
        return key < 128 && part == WITNESS_CLUSTER_PART;
    }
    if (listed(position_keys, sizeof position_keys, key)) {
        return false;
    }
    return listed(cluster_keys, sizeof cluster_keys, key) == (part == WITNESS_CLUSTER_PART);
}

int witness_part_hash(struct blob snapshot_body, enum witness_part part,
                      uint8_t ret[PKI_HASH_BYTES])
{
    struct blob parts[64];
    size_t count = 0;
    struct mp_reader r;
    mp_reader_init(&r, snapshot_body);
    uint32_t n = mp_get_map(&r, ARRAY_SIZE(parts));
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        const uint8_t *start = r.p;
        uint64_t key = mp_get_u64(&r);
        (void)mp_skip(&r);
        if (r.err == 0 && in_part(key, part)) {
            parts[count++] = blob_of(start, (size_t)(r.p - start));
        }
    }
    if (mp_reader_finish(&r) != 0) {
        return -ERR_MALFORMED;
    }
    pki_sha256_parts(parts, count, ret);
    return 0;
}

void witness_cluster_key(uint8_t ret[PKI_HASH_BYTES])
{
    pki_sha256(blob_str("cluster"), ret);
}

void witness_node_key(const struct uuid *node_id, uint8_t ret[PKI_HASH_BYTES])
{
    const struct blob parts[] = {blob_str("node"), blob_of(node_id->b, sizeof node_id->b)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
}

void witness_node_value(const struct node_leaf *leaf, uint8_t ret[PKI_HASH_BYTES])
{
    struct buf bytes;
    buf_init(&bytes, 256);
    msg_encode(&node_leaf_desc, leaf, &bytes);
    CHECK(bytes.err == 0);
    pki_sha256(buf_blob(&bytes), ret);
    buf_fini(&bytes);
}

int witness_item_check(struct blob root, const uint8_t key[PKI_HASH_BYTES],
                       const uint8_t value[PKI_HASH_BYTES], struct blob path)
{
    uint8_t got[PKI_HASH_BYTES];
    int rc = merkle_path_root(key, value, path, got);
    return rc == 0 && blob_equal(root, blob_of(got, sizeof got)) ? 0 : -ERR_BAD_PROOF;
}
