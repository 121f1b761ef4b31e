/* Records of roots from anybody. The first byte chooses: even, the rest is the whole signed record;
 * odd, the rest is a record that the trusted root signs, so that what is behind the signature is reached.
 * The root is new in each run: it replaces the first root of a record that has one. */
#include "pki/pki.h"
#include "lib/fake_cluster.h"
#include "wire/node_msg.h"

static struct fake_cluster cluster;
static const struct uuid cluster_id = {.b = {0x01, 0x8f, 1}};

/* The record with our root in the place of its first one. */
static void with_our_root(struct blob in, struct buf *out)
{
    struct trust_record record;
    struct trust_root item;
    struct mp_reader r;
    struct buf roots;
    uint32_t count = 0;
    if (msg_decode(&trust_record_desc, MSG_STRICT, in, &record) != 0) {
        buf_add(out, in.data, in.len);
        return;
    }
    buf_init(&roots, TRUST_RECORD_MAX);
    mp_reader_init(&r, record.roots.raw);
    for (uint32_t i = 0; i < record.roots.count; i++) {
        if (msg_decode(&trust_root_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &item) == 0) {
            item.der = i == 0 ? buf_blob(&cluster.root_der) : item.der;
            msg_list_add(&trust_root_desc, &item, &roots, &count);
        }
    }
    record.roots = (struct mp_list){.raw = buf_blob(&roots), .count = count};
    msg_encode(&trust_record_desc, &record, out);
    buf_fini(&roots);
}

static void sign(struct blob record, struct buf *out)
{
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
    uint8_t signature[PKI_SIG_BYTES];
    struct buf list;
    uint32_t count = 0;
    pki_key_public(cluster.root_key, public_key);
    pki_fingerprint(public_key, fingerprint);
    pki_sign(cluster.root_key, TRUST_SIGN_DOMAIN, record, signature);
    buf_init(&list, 1024);
    msg_list_add(&trust_signature_desc,
                 &(struct trust_signature){.root_fingerprint = blob_of(fingerprint, 32),
                                           .signature = blob_of(signature, 64)},
                 &list, &count);
    msg_encode(&signed_trust_desc,
               &(struct signed_trust){.record = record,
                                      .signatures = {.raw = buf_blob(&list), .count = count}},
               out);
    buf_fini(&list);
}

static void check(struct blob bytes)
{
    struct pki_trust *t = pki_trust_new(&cluster_id);
    struct pki_trust_view view;
    struct errmsg em = ERRMSG_INIT;
    CHECK(pki_trust_set_root(t, buf_blob(&cluster.root_der), &em) == 0);
    int rc = pki_trust_check(t, bytes, &view, &em);
    CHECK(pki_trust_adopt(t, bytes, NULL) == rc);
    CHECK((rc == 0) == (em.text[0] == '\0'));
    if (rc == 0) {
        CHECK(view.count >= 1 && view.count <= TRUST_ROOTS_MAX);
        CHECK(pki_trust_seq(t) == view.seq && view.seq > 0);
        CHECK(pki_trust_has_root(t, view.roots[0].cert.fingerprint));
        CHECK(pki_trust_adopt(t, bytes, NULL) == -ERR_ROLLBACK);
    }
    pki_trust_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool done;
    if (!done) {
        fake_cluster_init_as(&cluster, &cluster_id, FAKE_NOW_MS);
        done = true;
    }
    if (size == 0 || size > TRUST_RECORD_MAX) {
        return 0;
    }
    struct blob rest = blob_of(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        check(rest);
        return 0;
    }
    struct buf record;
    struct buf bytes;
    buf_init(&record, TRUST_SIGNED_MAX);
    buf_init(&bytes, 2 * TRUST_SIGNED_MAX);
    with_our_root(rest, &record);
    if (record.err == 0) {
        sign(buf_blob(&record), &bytes);
        check(buf_blob(&bytes));
    }
    buf_fini(&record);
    buf_fini(&bytes);
    return 0;
}
