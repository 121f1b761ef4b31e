/* What a peer sends to show that a majority signed. The first byte chooses what the rest is read as. */
#include "fuzz/fuzz.h"

#include "agent/leaf_proof.h"
#include "lib/pki_fixture.h"
#include "pki/history.h"
#include "pki/witness.h"

static struct witness_set set; /* of one member, so that nothing but its signature is missing */
static uint8_t root_key[PKI_KEY_BYTES];
static struct uuid cluster_id;

static void setup(void)
{
    if (set.known) {
        return;
    }
    struct pki_key *key = pki_key_generate();
    struct witness_member m = {.node_id = test_uuid(2)};
    struct buf statement;
    cluster_id = test_uuid(1);
    pki_key_public(key, m.public_key);
    pki_key_public(key, root_key);
    buf_init(&statement, AUTHORITY_SET_MAX);
    witness_set_build(&set, &cluster_id, 1, &m, 1, &statement);
    CHECK(witness_set_read(buf_blob(&statement), &set, NULL) == 0);
    buf_fini(&statement);
    pki_key_free(key);
}

static bool same_set(const struct witness_set *a, const struct witness_set *b)
{
    bool same = a->known == b->known && uuid_equal(&a->cluster_id, &b->cluster_id) &&
                a->epoch == b->epoch && a->seq == b->seq && a->count == b->count &&
                memcmp(a->hash, b->hash, sizeof a->hash) == 0;
    for (size_t i = 0; same && i < a->count; i++) {
        const struct witness_member *m = &a->members[i];
        const struct witness_member *n = &b->members[i];
        same = uuid_equal(&m->node_id, &n->node_id) &&
               memcmp(m->public_key, n->public_key, sizeof m->public_key) == 0 &&
               memcmp(m->fingerprint, n->fingerprint, sizeof m->fingerprint) == 0;
    }
    return same;
}

/* Keys are new in each run: nothing that is signed can verify. */
static void advance(struct blob in)
{
    struct errmsg em = ERRMSG_INIT;
    struct witness_set none = {.known = false};
    struct witness_set held = set;
    int rc = witness_set_advance(&held, &cluster_id, root_key, in, &em);
    CHECK(same_set(&held, &set));
    CHECK((rc == 0) == (em.text[0] == '\0'));
    CHECK(witness_set_advance(&none, &cluster_id, root_key, in, NULL) != 0 && !none.known);
}

static void read_set(struct blob in)
{
    struct witness_set got;
    if (witness_set_read(in, &got, NULL) == 0) {
        CHECK(got.known && got.count > 0 && got.count <= AUTHORITIES_MAX);
        for (size_t i = 1; i < got.count; i++) {
            CHECK(memcmp(got.members[i - 1].node_id.b, got.members[i].node_id.b, 16) < 0);
        }
    }
}

static void verify(struct blob in)
{
    struct snapshot_witness msg;
    struct witness got;
    if (msg_decode(&snapshot_witness_desc, MSG_LENIENT, in, &msg) == 0) {
        CHECK(witness_verify(&set, &cluster_id, msg.statement, msg.signatures, &got, NULL) != 0);
        uint8_t hash[PKI_HASH_BYTES] = {0};
        CHECK(witness_item_check(blob_of(hash, sizeof hash), hash, hash, msg.node_path) != 0);
    }
}

/* What an ordinary peer shows of its key: the set's own link leads there, its signatures do not verify. */
static void prove(struct blob in)
{
    struct leaf_expect e = {.cluster_id = cluster_id,
                            .node_id = test_uuid(3),
                            .set = &set,
                            .root_key = root_key,
                            .now_ms = TEST_NOW_MS};
    struct mp_list links = {.count = 0};
    struct buf raw;
    struct errmsg em = ERRMSG_INIT;
    e.links = leaf_proof_links_of(in);
    CHECK(leaf_proof_check(in, &e, &em) != 0 && em.text[0] != '\0');
    buf_init(&raw, 1u << 16);
    (void)leaf_proof_links(in, &links, &raw);
    CHECK(links.count <= LEAF_PROOF_LINKS_MAX);
    buf_fini(&raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t hash[PKI_HASH_BYTES] = {0};
    setup();
    if (size == 0) {
        return 0;
    }
    struct blob in = blob_of(data + 1, size - 1);
    if (data[0] == 255) {
        prove(in);
        return 0;
    }
    switch (data[0] % 5) {
        case 0:
            advance(in);
            break;
        case 1:
            read_set(in);
            break;
        case 2:
            verify(in);
            break;
        case 3:
            (void)witness_part_hash(
                in, data[0] / 5 % 2 == 0 ? WITNESS_CLUSTER_PART : WITNESS_NODE_PART, hash);
            break;
        default:
            if (in.len >= 2) {
                uint64_t from = in.data[0];
                uint64_t to = from + in.data[1];
                struct blob proof = blob_of(in.data + 2, in.len - 2);
                CHECK(history_check(from, hash, to, hash, proof) != 0 ||
                      (from == to && from != 0 && proof.len == 0));
                (void)merkle_path_root(hash, hash, proof, hash);
            }
            break;
    }
    return 0;
}
