/* Signed snapshots from anybody. The first byte of the input chooses: even, the rest is the whole
 * signed message; odd, the rest is a body, which a real authority of the test cluster signs, so that
 * what is behind the signature is reached as well. Keys are new in each run: 32 bytes of 0xaa in a body
 * stand for the fingerprint of the authority's CA. */
#include "agent/config.h"
#include "lib/fake_cluster.h"

static struct fake_cluster cluster;
static struct fake_node authority;

/* Ids of the stored corpus. */
static const struct uuid cluster_id = {.b = {0x01, 0x8f, 1}};
static const struct uuid node_id = {.b = {0x01, 0x8f, 2}};
static const struct uuid authority_id = {.b = {0x01, 0x8f, 3}};

static void setup(void)
{
    static bool done;
    if (!done) {
        fake_cluster_init_as(&cluster, &cluster_id, FAKE_NOW_MS);
        fake_node_init_as(&authority, &cluster, &authority_id, true, FAKE_NOW_MS);
        done = true;
    }
}

static void check(struct blob bytes)
{
    struct config *c = NULL;
    const struct config_expect e = {.trust = cluster.trust,
                                    .cluster_id = cluster_id,
                                    .node_id = node_id,
                                    .now_ms = FAKE_NOW_MS};
    struct errmsg em = ERRMSG_INIT;
    int rc = config_verify(bytes, &e, &c, &em);
    CHECK((rc == 0) == (c != NULL));
    CHECK((rc == 0) == (em.text[0] == '\0'));
    if (rc == 0) {
        CHECK(c->body.epoch <= INT64_MAX && c->body.config_version <= INT64_MAX);
        CHECK(c->body.expires_at_ms > FAKE_NOW_MS);
        (void)config_has_role(c, "relay-node");
        (void)config_revokes(c, authority.fingerprint);
    }
    config_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    setup();
    if (size == 0 || size > SNAPSHOT_MAX_BYTES) {
        return 0;
    }
    struct blob rest = blob_of(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        check(rest);
        return 0;
    }
    uint8_t placeholder[PKI_HASH_BYTES];
    uint8_t *body = xmalloc(rest.len + 1);
    memset(placeholder, 0xaa, sizeof placeholder);
    memcpy(body, rest.data, rest.len);
    uint8_t *at = memmem(body, rest.len, placeholder, sizeof placeholder);
    if (at != NULL) {
        memcpy(at, authority.issuer_fingerprint, PKI_HASH_BYTES);
    }
    rest.data = body;
    struct buf sigs;
    struct buf bytes;
    uint32_t count = 0;
    buf_init(&sigs, SNAPSHOT_MAX_BYTES);
    buf_init(&bytes, 2 * SNAPSHOT_MAX_BYTES);
    fake_signature(&authority, SNAPSHOT_SIGN_DOMAIN, rest, &sigs, &count);
    fake_signed(rest, buf_blob(&sigs), count, &bytes);
    check(buf_blob(&bytes));
    buf_fini(&bytes);
    buf_fini(&sigs);
    free(body);
    return 0;
}
