/* The owner's records of which roots count (wire/trust_msg.h): made, checked, held. */
#include "pki/pki_internal.h"

#include "wire/node_msg.h"

void trust_roots_clear(struct trust_roots *r)
{
    for (size_t i = 0; i < r->count; i++) {
        buf_fini(&r->list[i].der);
    }
    *r = (struct trust_roots){.seq = 0};
}

void trust_roots_add(struct trust_roots *r, const struct pki_cert *cert, struct blob der,
                     enum trust_root_status status)
{
    CHECK(r->count < ARRAY_SIZE(r->list));
    struct trust_root_held *h = &r->list[r->count++];
    h->cert = *cert;
    h->status = status;
    buf_init(&h->der, CERT_DER_MAX);
    buf_add(&h->der, der.data, der.len);
}

const struct trust_root_held *trust_roots_find(const struct trust_roots *r,
                                               const uint8_t fingerprint[PKI_HASH_BYTES])
{
    for (size_t i = 0; i < r->count; i++) {
        if (memcmp(r->list[i].cert.fingerprint, fingerprint, PKI_HASH_BYTES) == 0) {
            return &r->list[i];
        }
    }
    return NULL;
}

const struct trust_root_held *trust_roots_above(const struct trust_roots *r,
                                                const uint8_t key_id[PKI_KEY_ID_BYTES])
{
    for (size_t i = 0; i < r->count; i++) {
        uint8_t own[PKI_KEY_ID_BYTES];
        pki_key_id(r->list[i].cert.public_key, own);
        if (memcmp(own, key_id, sizeof own) == 0) {
            return &r->list[i];
        }
    }
    return NULL;
}

static int read_roots(const struct uuid *cluster_id, const struct trust_record *record,
                      struct trust_roots *ret, struct errmsg *em)
{
    struct mp_reader r;
    size_t active = 0;
    mp_reader_init(&r, record->roots.raw);
    for (uint32_t i = 0; i < record->roots.count; i++) {
        struct trust_root item;
        struct pki_cert cert;
        if (msg_decode(&trust_root_desc, MSG_LENIENT, mp_get_bin(&r, SIZE_MAX), &item) != 0 ||
            item.status < TRUST_ROOT_ACTIVE || item.status > TRUST_ROOT_RETIRING) {
            return errmsg_set(em, -ERR_MALFORMED, "a root of the record does not decode");
        }
        int rc = pki_root_read(cluster_id, item.der, &cert, em);
        if (rc != 0) {
            return rc;
        }
        if (trust_roots_find(ret, cert.fingerprint) != NULL) {
            return errmsg_set(em, -ERR_MALFORMED, "the record lists one root twice");
        }
        active += item.status == TRUST_ROOT_ACTIVE;
        trust_roots_add(ret, &cert, item.der, (enum trust_root_status)item.status);
    }
    ret->seq = record->seq;
    ret->epoch = record->epoch;
    return active == 1 ? 0
                       : errmsg_set(em, -ERR_MALFORMED, "the record has %zu active roots", active);
}

static bool has_signed(const struct signed_trust *st, const struct pki_cert *root)
{
    struct mp_reader r;
    mp_reader_init(&r, st->signatures.raw);
    for (uint32_t i = 0; i < st->signatures.count; i++) {
        struct trust_signature s;
        if (msg_decode(&trust_signature_desc, MSG_LENIENT, mp_get_bin(&r, SIZE_MAX), &s) == 0 &&
            memcmp(s.root_fingerprint.data, root->fingerprint, PKI_HASH_BYTES) == 0 &&
            pki_verify(root->public_key, TRUST_SIGN_DOMAIN, st->record, s.signature) == 0) {
            return true;
        }
    }
    return false;
}

static int check_signatures(const struct signed_trust *st, const struct trust_roots *held,
                            const struct trust_roots *listed, struct errmsg *em)
{
    bool known = false;
    for (size_t i = 0; i < listed->count; i++) {
        if (!has_signed(st, &listed->list[i].cert)) {
            return errmsg_set(em, -ERR_BAD_SIGNATURE,
                              "a root that the record lists has not signed it");
        }
        known = known || trust_roots_find(held, listed->list[i].cert.fingerprint) != NULL;
    }
    return known ? 0
                 : errmsg_set(em, -ERR_BAD_SIGNATURE, "no root that is trusted here has signed it");
}

int trust_record_read(const struct uuid *cluster_id, const struct trust_roots *held,
                      struct blob signed_trust, struct trust_roots *ret, struct errmsg *em)
{
    struct signed_trust st;
    struct trust_record record;
    struct trust_roots listed = {.seq = 0};
    if (signed_trust.len > TRUST_SIGNED_MAX ||
        msg_decode(&signed_trust_desc, MSG_LENIENT, signed_trust, &st) != 0 ||
        msg_decode(&trust_record_desc, MSG_LENIENT, st.record, &record) != 0 ||
        record.seq > INT64_MAX || record.epoch > INT64_MAX) {
        return errmsg_set(em, -ERR_MALFORMED, "record of roots does not decode");
    }
    if (!uuid_equal(&record.cluster_id, cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "record of another cluster's roots");
    }
    if (record.seq <= held->seq) {
        return errmsg_set(em, -ERR_ROLLBACK, "record %llu of roots is not newer than %llu",
                          (unsigned long long)record.seq, (unsigned long long)held->seq);
    }
    int rc = read_roots(cluster_id, &record, &listed, em);
    if (rc == 0) {
        rc = check_signatures(&st, held, &listed, em);
    }
    if (rc != 0) {
        trust_roots_clear(&listed);
        return errmsg_wrap(em, rc, "record %llu of roots", (unsigned long long)record.seq);
    }
    *ret = listed;
    return 0;
}

void trust_record_view(const struct trust_roots *listed, struct blob signed_trust,
                       struct pki_trust_view *ret)
{
    struct signed_trust st;
    struct trust_record record;
    struct mp_reader r;
    CHECK(msg_decode(&signed_trust_desc, MSG_LENIENT, signed_trust, &st) == 0);
    CHECK(msg_decode(&trust_record_desc, MSG_LENIENT, st.record, &record) == 0);
    *ret = (struct pki_trust_view){
        .seq = listed->seq, .epoch = listed->epoch, .count = listed->count};
    mp_reader_init(&r, record.roots.raw);
    for (size_t i = 0; i < listed->count; i++) {
        struct trust_root item;
        CHECK(msg_decode(&trust_root_desc, MSG_LENIENT, mp_get_bin(&r, SIZE_MAX), &item) == 0);
        ret->roots[i].cert = listed->list[i].cert;
        ret->roots[i].der = item.der;
        ret->roots[i].status = listed->list[i].status;
    }
}

int pki_trust_record_sign(const struct trust_record *record, const struct pki_key *const *keys,
                          size_t count, struct buf *out, struct errmsg *em)
{
    struct buf bytes;
    struct buf list;
    uint32_t signatures = 0;
    buf_init(&bytes, TRUST_RECORD_MAX);
    buf_init(&list, TRUST_SIGNED_MAX);
    msg_encode(&trust_record_desc, record, &bytes);
    for (size_t i = 0; i < count && bytes.err == 0; i++) {
        uint8_t public_key[PKI_KEY_BYTES];
        uint8_t fingerprint[PKI_HASH_BYTES];
        uint8_t signature[PKI_SIG_BYTES];
        pki_key_public(keys[i], public_key);
        pki_fingerprint(public_key, fingerprint);
        pki_sign(keys[i], TRUST_SIGN_DOMAIN, buf_blob(&bytes), signature);
        const struct trust_signature s = {
            .root_fingerprint = blob_of(fingerprint, sizeof fingerprint),
            .signature = blob_of(signature, sizeof signature),
        };
        msg_list_add(&trust_signature_desc, &s, &list, &signatures);
    }
    if (bytes.err == 0 && list.err == 0) {
        const struct signed_trust st = {
            .record = buf_blob(&bytes),
            .signatures = {.raw = buf_blob(&list), .count = signatures},
        };
        msg_encode(&signed_trust_desc, &st, out);
    }
    int rc = bytes.err != 0 ? bytes.err : list.err != 0 ? list.err : out->err;
    buf_fini(&bytes);
    buf_fini(&list);
    return rc == 0 ? 0 : errmsg_set(em, rc, "the record of roots does not fit");
}
