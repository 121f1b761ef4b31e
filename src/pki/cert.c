/* Certificates (RFC 5280 profile of our own). There is one way to write each kind, so reading is:
 * take out what varies, write the certificate anew from it, compare. What differs in a single bit
 * from what we would have written is refused, and nobody has to list the ways. */
#include "pki/der.h"
#include "pki/pki_internal.h"

#include "base/rng.h"

#include <time.h>

#define VALIDITY_END_MS 253402300799000LL /* 9999-12-31T23:59:59Z */
#define UTC_TIME_END_MS 2524608000000LL   /* 2050-01-01: GeneralizedTime from here (4.1.2.5) */
#define URI_MAX 128

static const uint8_t oid_organization[] = {0x55, 0x04, 0x0a};
static const uint8_t oid_common_name[] = {0x55, 0x04, 0x03};
static const uint8_t oid_basic_constraints[] = {0x55, 0x1d, 0x13};
static const uint8_t oid_key_usage[] = {0x55, 0x1d, 0x0f};
static const uint8_t oid_ext_key_usage[] = {0x55, 0x1d, 0x25};
static const uint8_t oid_subject_key_id[] = {0x55, 0x1d, 0x0e};
static const uint8_t oid_authority_key_id[] = {0x55, 0x1d, 0x23};
static const uint8_t oid_subject_alt_name[] = {0x55, 0x1d, 0x11};
/* serverAuth and clientAuth, each as an OBJECT IDENTIFIER in one SEQUENCE. */
static const uint8_t eku_value[] = {0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05,
                                    0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06,
                                    0x01, 0x05, 0x05, 0x07, 0x03, 0x02};
static const uint8_t ku_cert_sign[] = {0x03, 0x02, 0x02, 0x04};
static const uint8_t ku_digital_signature[] = {0x03, 0x02, 0x07, 0x80};
/* cA TRUE with pathLenConstraint 1 and 0; the empty sequence of an end entity. */
static const uint8_t bc_root[] = {0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x01};
static const uint8_t bc_issuer[] = {0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00};
static const uint8_t bc_leaf[] = {0x30, 0x00};

#define ARRAY_BLOB(a) blob_of(a, sizeof(a))

/* --- writing --- */

static const char *kind_word(enum pki_cert_kind kind)
{
    switch (kind) {
        case PKI_ROOT:
            return "root";
        case PKI_ISSUER:
            return "authority";
        case PKI_LEAF:
            return "node";
    }
    CHECK(false);
    return "";
}

static void put_attribute(struct buf *out, struct blob oid, const char *value)
{
    size_t set = der_begin(out, DER_SET);
    size_t seq = der_begin(out, DER_SEQUENCE);
    der_put(out, DER_OID, oid);
    der_put(out, DER_UTF8, blob_str(value));
    der_end(out, seq);
    der_end(out, set);
}

/* O = cluster id, CN = "root", "authority <id>" or "node <id>". */
static void put_name(struct buf *out, enum pki_cert_kind kind, const struct uuid *cluster_id,
                     const struct uuid *node_id)
{
    char cluster[UUID_TEXT_MAX];
    char node[UUID_TEXT_MAX];
    char common[64];
    uuid_format(cluster_id, cluster);
    uuid_format(node_id, node);
    (void)snprintf(common, sizeof common, kind == PKI_ROOT ? "%s" : "%s %s", kind_word(kind), node);
    size_t seq = der_begin(out, DER_SEQUENCE);
    put_attribute(out, ARRAY_BLOB(oid_organization), cluster);
    put_attribute(out, ARRAY_BLOB(oid_common_name), common);
    der_end(out, seq);
}

static void put_time(struct buf *out, int64_t ms)
{
    time_t secs = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];
    CHECK(gmtime_r(&secs, &tm) != NULL);
    bool utc = ms < UTC_TIME_END_MS;
    size_t n = strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
    /* UTCTime has the year's last two digits. */
    size_t skip = utc ? 2 : 0;
    der_put(out, utc ? DER_UTC_TIME : DER_GENERALIZED_TIME, blob_of(text + skip, n - skip));
}

static void put_extension(struct buf *out, struct blob oid, bool critical, struct blob value)
{
    static const uint8_t yes[] = {0xff};
    size_t seq = der_begin(out, DER_SEQUENCE);
    der_put(out, DER_OID, oid);
    if (critical) {
        der_put(out, DER_BOOLEAN, ARRAY_BLOB(yes));
    }
    der_put(out, DER_OCTET_STRING, value);
    der_end(out, seq);
}

static void put_uri(struct buf *out, const struct pki_cert *c, enum pki_cert_kind kind)
{
    char cluster[UUID_TEXT_MAX];
    char node[UUID_TEXT_MAX];
    char uri[URI_MAX];
    uuid_format(&c->cluster_id, cluster);
    uuid_format(&c->node_id, node);
    (void)snprintf(uri, sizeof uri, kind == PKI_ROOT ? "rap://%s/%s" : "rap://%s/%s/%s", cluster,
                   kind_word(kind), node);
    der_put(out, DER_CONTEXT(6), blob_str(uri));
}

static void put_alt_names(struct buf *out, const struct pki_cert *c)
{
    struct buf names;
    buf_init(&names, CERT_DER_MAX);
    size_t seq = der_begin(&names, DER_SEQUENCE);
    put_uri(&names, c, c->kind);
    if (c->kind == PKI_LEAF && c->authority) {
        put_uri(&names, c, PKI_ISSUER);
    }
    der_end(&names, seq);
    CHECK(names.err == 0);
    put_extension(out, ARRAY_BLOB(oid_subject_alt_name), false, buf_blob(&names));
    buf_fini(&names);
}

static void put_key_ids(struct buf *out, const struct pki_cert_wire *c)
{
    uint8_t id[PKI_KEY_ID_BYTES];
    uint8_t subject[2 + PKI_KEY_ID_BYTES] = {DER_OCTET_STRING, PKI_KEY_ID_BYTES};
    pki_key_id(c->cert.public_key, id);
    memcpy(subject + 2, id, sizeof id);
    put_extension(out, ARRAY_BLOB(oid_subject_key_id), false, ARRAY_BLOB(subject));
    if (c->cert.kind != PKI_ROOT) {
        uint8_t issuer[4 + PKI_KEY_ID_BYTES] = {DER_SEQUENCE, 2 + PKI_KEY_ID_BYTES, DER_CONTEXT(0),
                                                PKI_KEY_ID_BYTES};
        memcpy(issuer + 4, c->issuer_key_id, PKI_KEY_ID_BYTES);
        put_extension(out, ARRAY_BLOB(oid_authority_key_id), false, ARRAY_BLOB(issuer));
    }
}

static void put_extensions(struct buf *out, const struct pki_cert_wire *c)
{
    bool leaf = c->cert.kind == PKI_LEAF;
    struct blob usage = leaf ? ARRAY_BLOB(ku_digital_signature) : ARRAY_BLOB(ku_cert_sign);
    struct blob constraints = leaf                         ? ARRAY_BLOB(bc_leaf)
                              : c->cert.kind == PKI_ISSUER ? ARRAY_BLOB(bc_issuer)
                                                           : ARRAY_BLOB(bc_root);
    size_t explicit = der_begin(out, DER_CONTEXT_CONSTRUCTED(3));
    size_t seq = der_begin(out, DER_SEQUENCE);
    put_extension(out, ARRAY_BLOB(oid_basic_constraints), true, constraints);
    put_extension(out, ARRAY_BLOB(oid_key_usage), true, usage);
    if (leaf) {
        put_extension(out, ARRAY_BLOB(oid_ext_key_usage), false, ARRAY_BLOB(eku_value));
    }
    put_key_ids(out, c);
    put_alt_names(out, &c->cert);
    der_end(out, seq);
    der_end(out, explicit);
}

static void put_serial(struct buf *out, const uint8_t serial[PKI_SERIAL_BYTES])
{
    size_t skip = 0; /* an INTEGER has no leading zeros but the one that keeps it positive */
    while (skip < PKI_SERIAL_BYTES - 1 && serial[skip] == 0 && serial[skip + 1] < 0x80) {
        skip++;
    }
    der_put(out, DER_INTEGER, blob_of(serial + skip, PKI_SERIAL_BYTES - skip));
}

void pki_cert_write_tbs(const struct pki_cert_wire *c, struct buf *out)
{
    static const uint8_t version_3[] = {0xa0, 0x03, 0x02, 0x01, 0x02};
    uint8_t spki[PKI_SPKI_BYTES];
    const struct uuid nil = UUID_NIL;
    bool by_root = c->cert.kind != PKI_LEAF;
    size_t seq = der_begin(out, DER_SEQUENCE);
    der_put_raw(out, ARRAY_BLOB(version_3));
    put_serial(out, c->cert.serial);
    der_put_raw(out, pki_ed25519_alg());
    put_name(out, by_root ? PKI_ROOT : PKI_ISSUER, &c->cert.cluster_id,
             by_root ? &nil : &c->issuer_id);
    size_t validity = der_begin(out, DER_SEQUENCE);
    put_time(out, c->cert.not_before_ms);
    put_time(out, c->cert.not_after_ms);
    der_end(out, validity);
    put_name(out, c->cert.kind, &c->cert.cluster_id, &c->cert.node_id);
    pki_spki(c->cert.public_key, spki);
    der_put_raw(out, ARRAY_BLOB(spki));
    put_extensions(out, c);
    der_end(out, seq);
}

void pki_cert_write(struct blob tbs, const uint8_t signature[PKI_SIG_BYTES], struct buf *out)
{
    uint8_t bits[1 + PKI_SIG_BYTES] = {0};
    memcpy(bits + 1, signature, PKI_SIG_BYTES);
    size_t seq = der_begin(out, DER_SEQUENCE);
    der_put_raw(out, tbs);
    der_put_raw(out, pki_ed25519_alg());
    der_put(out, DER_BIT_STRING, ARRAY_BLOB(bits));
    der_end(out, seq);
}

/* --- the rules that the shape does not show --- */

static const char *broken_rule(const struct pki_cert_wire *c)
{
    const struct pki_cert *s = &c->cert;
    static const uint8_t zero[PKI_SERIAL_BYTES];
    if (uuid_is_nil(&s->cluster_id) || uuid_is_nil(&s->node_id) != (s->kind == PKI_ROOT)) {
        return "a name has no id";
    }
    if ((s->serial[0] & 0x80) != 0 || memcmp(s->serial, zero, sizeof zero) == 0) {
        return "serial is not a positive number";
    }
    if (s->not_before_ms < 0 || s->not_after_ms > VALIDITY_END_MS ||
        s->not_before_ms >= s->not_after_ms) {
        return "validity is empty or out of range";
    }
    if (!pki_public_key_is_sound(s->public_key)) {
        return "weak public key";
    }
    if (s->kind == PKI_LEAF && s->authority && !uuid_equal(&s->node_id, &c->issuer_id)) {
        return "an authority name under another authority's CA";
    }
    uint8_t own[PKI_KEY_ID_BYTES];
    pki_key_id(s->public_key, own);
    if (s->kind != PKI_ROOT && memcmp(own, c->issuer_key_id, sizeof own) == 0) {
        return "the issuer's own key";
    }
    return NULL;
}

/* --- reading --- */

static bool read_uuid(struct blob text, struct uuid *ret)
{
    char copy[UUID_TEXT_MAX];
    if (text.len != UUID_TEXT_MAX - 1) {
        return false;
    }
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    return uuid_parse(copy, ret) == 0;
}

/* One attribute of a Name, whatever its type: writing it anew settles that. */
static struct blob read_attribute(struct der_reader *name)
{
    struct der_reader set = der_enter(name, DER_SET);
    struct der_reader seq = der_enter(&set, DER_SEQUENCE);
    (void)der_take(&seq, DER_OID);
    return der_take(&seq, DER_UTF8);
}

static bool read_name(struct blob der, enum pki_cert_kind *ret_kind, struct uuid *ret_cluster_id,
                      struct uuid *ret_node_id)
{
    struct der_reader outer;
    der_reader_init(&outer, der);
    struct der_reader name = der_enter(&outer, DER_SEQUENCE);
    struct blob organization = read_attribute(&name);
    struct blob common = read_attribute(&name);
    if (!read_uuid(organization, ret_cluster_id)) {
        return false;
    }
    if (blob_equal(common, blob_str(kind_word(PKI_ROOT)))) {
        *ret_kind = PKI_ROOT;
        *ret_node_id = UUID_NIL;
        return true;
    }
    static const enum pki_cert_kind with_id[] = {PKI_ISSUER, PKI_LEAF};
    for (size_t i = 0; i < ARRAY_SIZE(with_id); i++) {
        size_t n = strlen(kind_word(with_id[i]));
        if (common.len == n + UUID_TEXT_MAX && memcmp(common.data, kind_word(with_id[i]), n) == 0) {
            *ret_kind = with_id[i];
            return read_uuid(blob_of(common.data + n + 1, common.len - n - 1), ret_node_id);
        }
    }
    return false;
}

static bool read_time(struct der_reader *r, int64_t *ret_ms)
{
    bool utc = der_peek(r) == DER_UTC_TIME;
    struct blob text = der_take(r, utc ? DER_UTC_TIME : DER_GENERALIZED_TIME);
    int n[7]; /* pairs of digits: century, year, month, day, hour, minute, second */
    size_t first = utc ? 1 : 0;
    if (text.len != 2 * (ARRAY_SIZE(n) - first) + 1) {
        return false;
    }
    for (size_t i = first; i < ARRAY_SIZE(n); i++) {
        int tens = text.data[2 * (i - first)] - '0';
        int ones = text.data[2 * (i - first) + 1] - '0';
        if (tens < 0 || tens > 9 || ones < 0 || ones > 9) {
            return false;
        }
        n[i] = 10 * tens + ones;
    }
    if (utc) {
        n[0] = n[1] < 50 ? 20 : 19;
    }
    struct tm tm = {.tm_year = 100 * n[0] + n[1] - 1900,
                    .tm_mon = n[2] - 1,
                    .tm_mday = n[3],
                    .tm_hour = n[4],
                    .tm_min = n[5],
                    .tm_sec = n[6]};
    *ret_ms = (int64_t)timegm(&tm) * 1000;
    return *ret_ms >= 0 && *ret_ms <= VALIDITY_END_MS;
}

static bool read_serial(struct blob number, uint8_t ret[PKI_SERIAL_BYTES])
{
    if (number.len < 1 || number.len > PKI_SERIAL_BYTES || (number.data[0] & 0x80) != 0) {
        return false;
    }
    memset(ret, 0, PKI_SERIAL_BYTES);
    memcpy(ret + PKI_SERIAL_BYTES - number.len, number.data, number.len);
    return true;
}

/* Only the two extensions that say something not known from elsewhere. */
static void read_extensions(struct der_reader *tbs, struct pki_cert_wire *c)
{
    struct der_reader explicit = der_enter(tbs, DER_CONTEXT_CONSTRUCTED(3));
    struct der_reader list = der_enter(&explicit, DER_SEQUENCE);
    while (!der_at_end(&list)) {
        struct der_reader ext = der_enter(&list, DER_SEQUENCE);
        struct blob oid = der_take(&ext, DER_OID);
        if (der_peek(&ext) == DER_BOOLEAN) {
            (void)der_take(&ext, DER_BOOLEAN);
        }
        struct der_reader value = der_enter(&ext, DER_OCTET_STRING);
        struct der_reader seq = der_enter(&value, DER_SEQUENCE);
        if (blob_equal(oid, ARRAY_BLOB(oid_authority_key_id))) {
            struct blob id = der_take(&seq, DER_CONTEXT(0));
            if (id.len == PKI_KEY_ID_BYTES) {
                memcpy(c->issuer_key_id, id.data, id.len);
            }
        } else if (blob_equal(oid, ARRAY_BLOB(oid_subject_alt_name))) {
            (void)der_take(&seq, DER_CONTEXT(6));
            c->cert.authority = c->cert.kind == PKI_LEAF && !seq.bad && !der_at_end(&seq);
        }
    }
}

/* NULL, or what is wrong. */
static const char *read_tbs(struct blob der, struct pki_cert_wire *c)
{
    struct der_reader outer;
    der_reader_init(&outer, der);
    struct der_reader tbs = der_enter(&outer, DER_SEQUENCE);
    (void)der_take(&tbs, DER_CONTEXT_CONSTRUCTED(0));
    if (!read_serial(der_take(&tbs, DER_INTEGER), c->cert.serial)) {
        return "not a version 3 certificate with a serial of 1 to 16 bytes";
    }
    if (!blob_equal(der_take_any(&tbs), pki_ed25519_alg())) {
        return "not signed with Ed25519";
    }
    struct blob issuer = der_take_any(&tbs);
    struct der_reader validity = der_enter(&tbs, DER_SEQUENCE);
    if (!read_time(&validity, &c->cert.not_before_ms) ||
        !read_time(&validity, &c->cert.not_after_ms)) {
        return "validity cannot be read";
    }
    enum pki_cert_kind issuer_kind;
    struct uuid issuer_cluster_id;
    if (!read_name(der_take_any(&tbs), &c->cert.kind, &c->cert.cluster_id, &c->cert.node_id)) {
        return "subject is not a name of ours";
    }
    if (!read_name(issuer, &issuer_kind, &issuer_cluster_id, &c->issuer_id)) {
        return "issuer is not a name of ours";
    }
    if (!pki_spki_read(der_take_any(&tbs), c->cert.public_key)) {
        return "not an Ed25519 key";
    }
    read_extensions(&tbs, c);
    return tbs.bad ? "structure is broken" : NULL;
}

int pki_cert_read(struct blob der, struct pki_cert_wire *ret, struct errmsg *em)
{
    struct pki_cert_wire c = {.cert = {.kind = PKI_LEAF}};
    if (der.len > CERT_DER_MAX) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate is over %d bytes", CERT_DER_MAX);
    }
    struct der_reader input;
    der_reader_init(&input, der);
    struct der_reader outer = der_enter(&input, DER_SEQUENCE);
    if (outer.bad || !der_at_end(&input)) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate is not one DER value");
    }
    c.tbs = der_take_any(&outer);
    struct blob alg = der_take_any(&outer);
    struct blob bits = der_take(&outer, DER_BIT_STRING);
    if (outer.bad || !der_at_end(&outer)) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate is not three DER values");
    }
    if (!blob_equal(alg, pki_ed25519_alg()) || bits.len != 1 + PKI_SIG_BYTES || bits.data[0] != 0) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate is not signed with Ed25519");
    }
    c.signature = blob_of(bits.data + 1, PKI_SIG_BYTES);
    const char *why = read_tbs(c.tbs, &c);
    if (why == NULL) {
        why = broken_rule(&c);
    }
    if (why == NULL) {
        struct buf again;
        buf_init(&again, CERT_DER_MAX);
        pki_cert_write_tbs(&c, &again);
        if (again.err != 0 || !blob_equal(buf_blob(&again), c.tbs)) {
            why = "contents are not what this kind of certificate has";
        }
        buf_fini(&again);
    }
    if (why != NULL) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate: %s", why);
    }
    pki_fingerprint(c.cert.public_key, c.cert.fingerprint);
    *ret = c;
    return 0;
}

int pki_cert_parse(struct blob der, struct pki_cert *ret, struct errmsg *em)
{
    struct pki_cert_wire c;
    int rc = pki_cert_read(der, &c, em);
    if (rc == 0) {
        *ret = c.cert;
    }
    return rc;
}

/* --- issuing --- */

/* Fills in what the issuer gives. */
static int bind_issuer(struct pki_cert_wire *c, const uint8_t issuer_key[PKI_KEY_BYTES],
                       struct blob issuer_der, struct errmsg *em)
{
    if (c->cert.kind == PKI_ROOT) {
        return memcmp(issuer_key, c->cert.public_key, PKI_KEY_BYTES) == 0
                   ? 0
                   : errmsg_set(em, -ERR_INVALID, "a root signs itself");
    }
    struct pki_cert_wire issuer = {.issuer_id = UUID_NIL};
    int rc = pki_cert_read(issuer_der, &issuer, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "issuer");
    }
    enum pki_cert_kind above = c->cert.kind == PKI_LEAF ? PKI_ISSUER : PKI_ROOT;
    if (issuer.cert.kind != above) {
        return errmsg_set(em, -ERR_INVALID, "the issuer of a %s certificate is not a %s",
                          kind_word(c->cert.kind), kind_word(above));
    }
    if (!uuid_equal(&issuer.cert.cluster_id, &c->cert.cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "issuer is of another cluster");
    }
    if (memcmp(issuer_key, issuer.cert.public_key, PKI_KEY_BYTES) != 0) {
        return errmsg_set(em, -ERR_INVALID, "the key is not the issuer's");
    }
    c->issuer_id = issuer.cert.node_id;
    pki_key_id(issuer_key, c->issuer_key_id);
    return 0;
}

void pki_serial_new(uint8_t ret_serial[PKI_SERIAL_BYTES])
{
    rng_bytes(ret_serial, PKI_SERIAL_BYTES);
    ret_serial[0] = (uint8_t)((ret_serial[0] & 0x3f) | 0x40);
}

int pki_cert_issue(struct pki_cert *spec, const struct pki_key *issuer_key, struct blob issuer_der,
                   struct buf *out_der, struct errmsg *em)
{
    struct pki_cert_wire c = {.cert = *spec};
    uint8_t issuer_public[PKI_KEY_BYTES];
    uint8_t signature[PKI_SIG_BYTES];
    if (c.cert.kind != PKI_LEAF) {
        c.cert.authority = false;
    }
    c.cert.not_before_ms -= c.cert.not_before_ms % 1000;
    c.cert.not_after_ms -= c.cert.not_after_ms % 1000;
    pki_key_public(issuer_key, issuer_public);
    int rc = bind_issuer(&c, issuer_public, issuer_der, em);
    if (rc != 0) {
        return rc;
    }
    const char *why = broken_rule(&c);
    if (why != NULL) {
        return errmsg_set(em, -ERR_INVALID, "cannot issue: %s", why);
    }
    pki_fingerprint(c.cert.public_key, c.cert.fingerprint);
    struct buf tbs;
    buf_init(&tbs, CERT_DER_MAX);
    pki_cert_write_tbs(&c, &tbs);
    CHECK(tbs.err == 0);
    pki_sign_raw(issuer_key, buf_blob(&tbs), signature);
    pki_cert_write(buf_blob(&tbs), signature, out_der);
    buf_fini(&tbs);
    if (out_der->err != 0) {
        return errmsg_set(em, out_der->err, "no room for the certificate");
    }
    *spec = c.cert;
    return 0;
}
