#include "lib/fsm_fixture.h"

#include "base/text.h"
#include "pki/pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define RING 8

void fsm_entry_begin(struct fsm_entry *e, uint64_t term)
{
    *e = (struct fsm_entry){.term = term};
    buf_init(&e->commands, ENTRY_MAX_BYTES);
    buf_init(&e->bytes, ENTRY_MAX_BYTES);
}

void fsm_entry_add(struct fsm_entry *e, struct cmd c, const void *body)
{
    struct buf one;
    struct mp_writer w;
    buf_init(&one, ENTRY_MAX_BYTES);
    cmd_encode(&c, body, &one);
    assert_int_equal(one.err, 0);
    mp_writer_init(&w, &e->commands);
    mp_put_bin(&w, buf_blob(&one));
    buf_fini(&one);
    e->count++;
}

struct blob fsm_entry_end(struct fsm_entry *e)
{
    const struct cmd_entry entry = {
        .version = CMD_VERSION,
        .term = e->term,
        .commands = {.raw = buf_blob(&e->commands), .count = e->count},
    };
    buf_clear(&e->bytes);
    msg_encode(&cmd_entry_desc, &entry, &e->bytes);
    assert_int_equal(e->bytes.err, 0);
    return buf_blob(&e->bytes);
}

void fsm_entry_fini(struct fsm_entry *e)
{
    buf_fini(&e->commands);
    buf_fini(&e->bytes);
}

struct uuid fsm_fake_id(uint32_t kind, uint32_t n)
{
    uint8_t random[10] = {0};
    for (int i = 0; i < 4; i++) {
        random[2 + i] = (uint8_t)(kind >> (24 - 8 * i));
        random[6 + i] = (uint8_t)(n >> (24 - 8 * i));
    }
    return uuid_make(FSM_T0 + n, random);
}

void fsm_fake(uint32_t n, struct fsm_fake *ret)
{
    struct prng p;
    prng_seed(&p, 0x6b657900000000ULL + n);
    ret->id = fsm_fake_id(1, n);
    prng_bytes(&p, ret->public_key, sizeof ret->public_key);
    pki_fingerprint(ret->public_key, ret->fingerprint);
    hex_encode(ret->fingerprint, 32, ret->fingerprint_hex);
    uuid_format(&ret->id, ret->id_text);
}

struct blob fsm_fake_issuer(uint32_t n, char out[32])
{
    int len = snprintf(out, 32, "make-believe CA %u", n);
    return blob_of(out, (size_t)len);
}

void fsm_fake_issuer_fingerprint(uint32_t n, uint8_t ret[32])
{
    char text[32];
    pki_sha256(fsm_fake_issuer(n, text), ret);
}

void fsm_fake_token(uint32_t n, uint8_t ret[32])
{
    char text[32];
    int len = snprintf(text, sizeof text, "token %u", n);
    pki_sha256(blob_of(text, (size_t)len), ret);
}

struct blob fsm_fake_cert(const struct fsm_fake_cert *c)
{
    static uint8_t ring[RING][CMD_CERT_MAX];
    static size_t next;
    struct fsm_fake key;
    char issuer[32];
    char der[64];
    uint8_t serial[16] = {1};
    fsm_fake(c->key, &key);
    int der_len = snprintf(der, sizeof der, "make-believe leaf %u of key %u", c->serial, c->key);
    for (int i = 0; i < 4; i++) {
        serial[12 + i] = (uint8_t)(c->serial >> (24 - 8 * i));
    }
    const struct cmd_cert cert = {
        .der = blob_of(der, (size_t)der_len),
        .serial = blob_of(serial, sizeof serial),
        .not_before_ms = FSM_T0 - PKI_BACKDATE_MS,
        .not_after_ms = c->not_after_ms == 0 ? FSM_T0 + PKI_LEAF_LIFE_MS : c->not_after_ms,
        .public_key = blob_of(key.public_key, 32),
        .fingerprint = blob_of(key.fingerprint, 32),
        .issuer_der = fsm_fake_issuer(c->issuer, issuer),
    };
    struct buf b;
    buf_init(&b, CMD_CERT_MAX);
    msg_encode(&cmd_cert_desc, &cert, &b);
    assert_int_equal(b.err, 0);
    uint8_t *out = ring[next++ % RING];
    memcpy(out, b.data, b.len);
    size_t len = b.len;
    buf_fini(&b);
    return blob_of(out, len);
}

struct mp_list fsm_list(const char *const *words)
{
    static uint8_t ring[RING][CMD_BODY_MAX];
    static size_t next;
    struct buf b;
    struct mp_writer w;
    struct mp_list list = {.count = 0};
    buf_init(&b, CMD_BODY_MAX);
    mp_writer_init(&w, &b);
    for (; *words != NULL; words++) {
        mp_put_str(&w, *words);
        list.count++;
    }
    uint8_t *out = ring[next++ % RING];
    if (b.len > 0) {
        memcpy(out, b.data, b.len);
    }
    list.raw = blob_of(out, b.len);
    buf_fini(&b);
    return list;
}

/* --- a world --- */

void fsm_world_init_empty(struct fsm_world *w)
{
    struct errmsg em = ERRMSG_INIT;
    *w = (struct fsm_world){
        .index = 1, .term = 1, .now_ms = FSM_T0, .actor_kind = ACTOR_ADMIN, .actor_id = "uid:0"};
    buf_init(&w->doc, 1u << 20);
    if (fsm_new(&w->fsm, &em) != 0) {
        fail_msg("fsm_new: %s", em.text);
    }
}

static int init_cluster(struct fsm_world *w, const struct uuid *cluster_id, struct blob root_der,
                        const uint8_t root[32])
{
    struct fsm_fake seed;
    uint8_t issuer[32];
    fsm_fake(1, &seed);
    fsm_fake_issuer_fingerprint(1, issuer);
    const struct cluster_init body = {
        .cluster_id = *cluster_id,
        .name = blob_str("lab"),
        .root_der = root_der,
        .root_fingerprint = blob_of(root, 32),
        .node_id = seed.id,
        .node_name = blob_str("seed"),
        .address = blob_str("127.0.0.1:7401"),
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 1, .issuer = 1, .serial = 1}),
        .capabilities = FSM_LIST("can_route_mesh"),
        .issuer_fingerprint = blob_of(issuer, 32),
    };
    struct cmd c = fsm_envelope(w, CMD_CLUSTER_INIT);
    c.actor_kind = blob_str(ACTOR_OWNER);
    return fsm_do_cmd(w, c, &body);
}

int fsm_world_init_cluster(struct fsm_world *w)
{
    uint8_t root[32];
    const struct uuid id = fsm_fake_id(2, 1);
    pki_sha256(blob_str("root"), root);
    return init_cluster(w, &id, blob_str("make-believe root"), root);
}

void fsm_world_init_owned(struct fsm_world *w, const struct test_ca *ca)
{
    uint8_t root[32];
    uint8_t key[PKI_KEY_BYTES];
    pki_key_public(ca->root_key, key);
    pki_fingerprint(key, root);
    fsm_world_init_empty(w);
    assert_int_equal(init_cluster(w, &ca->cluster_id, buf_blob(&ca->root_der), root), 0);
}

void fsm_world_init(struct fsm_world *w)
{
    fsm_world_init_empty(w);
    assert_int_equal(fsm_world_init_cluster(w), 0);
}

void fsm_world_raise_to(struct fsm_world *w, unsigned level)
{
    if (fsm_level(w->fsm) < level) {
        struct cmd c = fsm_envelope(w, CMD_LEVEL_RAISE);
        c.actor_kind = blob_str(ACTOR_SYSTEM);
        assert_int_equal(fsm_do_cmd(w, c, &(struct level_raise){.level = level}), 0);
    }
}

void fsm_world_raise(struct fsm_world *w)
{
    fsm_world_raise_to(w, fsm_level_known(w->fsm));
}

void fsm_world_fini(struct fsm_world *w)
{
    fsm_free(w->fsm);
    buf_fini(&w->doc);
}

struct cmd fsm_envelope(struct fsm_world *w, uint64_t kind)
{
    return (struct cmd){
        .kind = kind,
        .request_id = fsm_fake_id(9, ++w->next_request),
        .time_ms = w->now_ms,
        .actor_kind = blob_str(w->actor_kind),
        .actor_id = blob_str(w->actor_id),
    };
}

void fsm_world_apply(struct fsm_world *w, struct fsm_entry *e, fsm_result_cb cb, void *data)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = fsm_apply(w->fsm, ++w->index, w->term, fsm_entry_end(e), cb, data, &em);
    if (rc != 0) {
        fail_msg("entry %llu: %s: %s", (unsigned long long)w->index, err_text(rc), em.text);
    }
}

static void take_result(void *data, size_t n, const struct fsm_result *result)
{
    struct fsm_world *w = data;
    assert_int_equal(n, 1);
    w->rc = result->rc;
    w->replayed = result->replayed;
    buf_clear(&w->doc);
    buf_add(&w->doc, result->doc.data, result->doc.len);
}

int fsm_do_cmd(struct fsm_world *w, struct cmd c, const void *body)
{
    struct fsm_entry e;
    fsm_entry_begin(&e, w->term);
    fsm_entry_add(&e, c, body);
    fsm_world_apply(w, &e, take_result, w);
    fsm_entry_fini(&e);
    return w->rc;
}

int fsm_do(struct fsm_world *w, uint64_t kind, const void *body)
{
    return fsm_do_cmd(w, fsm_envelope(w, kind), body);
}

static void must(struct fsm_world *w, int rc)
{
    if (rc != 0) {
        fail_msg("%s: %s", err_text(rc), fsm_doc_text(w, "detail"));
    }
}

struct uuid fsm_make_token(struct fsm_world *w, uint32_t n, uint64_t max_uses)
{
    uint8_t hash[32];
    fsm_fake_token(n, hash);
    const struct token_create body = {
        .token_id = fsm_fake_id(3, n),
        .token_hash = blob_of(hash, 32),
        .expires_at_ms = w->now_ms + FSM_HOUR,
        .max_uses = max_uses,
    };
    must(w, fsm_do(w, CMD_TOKEN_CREATE, &body));
    return body.token_id;
}

struct join_submit fsm_submit(struct fsm_world *w, uint32_t key, const char *name, uint32_t token)
{
    static struct {
        struct fsm_fake key;
        uint8_t hash[32];
    } ring[RING];
    static size_t next;
    size_t i = next++ % RING;
    fsm_fake(key, &ring[i].key);
    fsm_fake_token(token, ring[i].hash);
    return (struct join_submit){
        .join_id = fsm_fake_id(4, key),
        .token_hash = blob_of(ring[i].hash, 32),
        .node_name = blob_str(name),
        .public_key = blob_of(ring[i].key.public_key, 32),
        .fingerprint = blob_of(ring[i].key.fingerprint, 32),
        .facts = blob_str("{\"os\":\"debian\"}"),
        .capabilities = FSM_LIST("can_route_mesh", "can_accept_client_ingress"),
        .source_address = blob_str("192.0.2.7:40000"),
        .address = blob_str("192.0.2.7:7400"),
        .expires_at_ms = w->now_ms + FSM_HOUR,
    };
}

struct uuid fsm_make_request(struct fsm_world *w, uint32_t key, const char *name, uint32_t token)
{
    struct join_submit body = fsm_submit(w, key, name, token);
    must(w, fsm_do(w, CMD_JOIN_SUBMIT, &body));
    return body.join_id;
}

struct uuid fsm_make_node(struct fsm_world *w, uint32_t key, const char *name)
{
    struct fsm_fake k;
    fsm_fake(key, &k);
    (void)fsm_make_token(w, 100000 + key, 1);
    const struct join_approve body = {
        .join_id = fsm_make_request(w, key, name, 100000 + key),
        .node_id = k.id,
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){
            .key = key,
            .issuer = 1,
            .serial = 100000 + key,
            .not_after_ms = w->now_ms + PKI_LEAF_LIFE_MS,
        }),
    };
    must(w, fsm_do(w, CMD_JOIN_APPROVE, &body));
    return k.id;
}

struct uuid fsm_make_authority(struct fsm_world *w, uint32_t key, const char *name)
{
    struct uuid id = fsm_make_node(w, key, name);
    char issuer[32];
    uint8_t fingerprint[32];
    fsm_fake_issuer_fingerprint(key, fingerprint);
    const struct authority_add add = {
        .node_id = id,
        .address = blob_str("192.0.2.7:7400"),
        .issuer_der = fsm_fake_issuer(key, issuer),
        .issuer_fingerprint = blob_of(fingerprint, 32),
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){
            .key = key,
            .issuer = key,
            .serial = 200000 + key,
            .not_after_ms = w->now_ms + PKI_LEAF_LIFE_MS,
        }),
    };
    must(w, fsm_do(w, CMD_AUTHORITY_ADD, &add));
    must(w, fsm_do(w, CMD_AUTHORITY_STATUS,
                   &(struct authority_status){.node_id = id, .status = blob_str("standby")}));
    must(w, fsm_do(w, CMD_AUTHORITY_STATUS,
                   &(struct authority_status){.node_id = id, .status = blob_str("voter")}));
    return id;
}

int64_t fsm_count(struct fsm_world *w, const char *sql)
{
    struct db_stmt *st = db_prepare(fsm_db(w->fsm), sql);
    int rc = db_step(st);
    int64_t v = rc == 1 ? sqlite3_column_int64(db_stmt_handle(st), 0) : -1;
    db_done(st);
    return v;
}

const char *fsm_doc_text(struct fsm_world *w, const char *key)
{
    static char text[4200];
    mp_find_str(buf_blob(&w->doc), key, text, sizeof text);
    return text;
}

void fsm_digest_hex(const struct fsm *f, char out[65])
{
    struct fsm_position p;
    fsm_position(f, &p);
    hex_encode(p.digest, 32, out);
}
