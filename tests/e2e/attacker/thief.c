/* One authority's directory is in our hands (docs/decisions/0008): certificates under its CA for whom we
 * like, and an authority of our own that tells nodes what nobody decided. */
#include "attacker.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/file.h"
#include "base/rng.h"
#include "pki/witness.h"

#define LIMIT_MS 60000

static void read_pem(const char *folder, const char *name, struct buf *out, size_t max,
                     size_t *ret_count)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf pem;
    char *path = path_join(folder, name);
    buf_init(&pem, 65536);
    if (file_read(path, &pem, &em) != 0 ||
        pki_pem_read(buf_blob(&pem), out, max, ret_count, &em) != 0) {
        give_up("%s: %s", path, em.text);
    }
    buf_fini(&pem);
    free(path);
}

void load_stolen_ca(const char *member_dir, const struct uuid *node_id, struct forged *ret)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *ca = NULL;
    struct pki_cert spec = {.kind = PKI_LEAF, .node_id = *node_id};
    struct pki_cert issuer;
    struct buf chain[3];
    size_t count;
    int64_t now = clock_wall_ms() / 1000 * 1000;
    char *path = path_join(member_dir, "issuer.key");
    for (size_t i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
        buf_init(&ret->der[i], CERT_DER_MAX);
    }
    read_pem(member_dir, "node.crt", chain, 3, &count);
    if (count != 3 || pki_key_load(path, NULL, &ca, &em) != 0 ||
        pki_cert_parse(buf_blob(&chain[1]), &issuer, &em) != 0) {
        give_up("%s: %s", path, em.text);
    }
    ret->key = pki_key_generate();
    ret->count = 3;
    spec.cluster_id = issuer.cluster_id;
    spec.not_before_ms = now - PKI_BACKDATE_MS;
    spec.not_after_ms = now + PKI_LEAF_LIFE_MS;
    pki_serial_new(spec.serial);
    pki_key_public(ret->key, spec.public_key);
    if (pki_cert_issue(&spec, ca, buf_blob(&chain[1]), &ret->der[0], &em) != 0) {
        give_up("a certificate under the stolen CA: %s", em.text);
    }
    for (size_t i = 1; i < 3; i++) {
        buf_add(&ret->der[i], chain[i].data, chain[i].len);
    }
    for (size_t i = 0; i < 3; i++) {
        ret->chain[i] = buf_blob(&ret->der[i]);
        buf_fini(&chain[i]);
    }
    pki_key_free(ca);
    free(path);
}

/* --- an authority of our own --- */

struct thief {
    uv_loop_t loop;
    uv_timer_t limit;
    struct fabric *fabric;
    struct forged own;
    struct uuid node_id, victim;
    struct buf stored; /* the stolen host's own signed snapshot, with the majority's signatures */
    struct fabric_stream *stream; /* of the victim, which waits for a snapshot */
    const char *lie;
    unsigned heartbeats;
    bool told, refused;
};

static void load_stored(const char *member_dir, struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    struct db *db;
    char *path = path_join(member_dir, "node.db");
    if (db_open(path, DB_DURABLE, &db, &em) != 0) {
        give_up("%s: %s", path, em.text);
    }
    struct db_stmt *st = db_prepare(db, "SELECT signed FROM snapshot WHERE id = 1");
    if (db_step(st) == 1) {
        struct blob b = db_col_blob(st, "signed");
        buf_add(out, b.data, b.len);
    }
    db_done(st);
    db_close(db);
    free(path);
}

/* Everything a thief can sign himself: the statement of his own tree, and the next authority set. */
static void put_own_witness(const struct thief *t, const struct snapshot_body *body, bool set,
                            struct buf *out)
{
    uint8_t root[PKI_HASH_BYTES] = {1};
    uint8_t sig[PKI_SIG_BYTES];
    struct signed_snapshot stored;
    struct snapshot_witness real;
    struct witness_statement said;
    struct buf statement;
    struct buf sigs;
    struct buf links;
    uint32_t count = 0;
    buf_init(&statement, WITNESS_STATEMENT_MAX);
    buf_init(&sigs, 4096);
    buf_init(&links, SIGNED_SET_MAX);
    if (msg_decode(&signed_snapshot_desc, MSG_LENIENT, buf_blob(&t->stored), &stored) != 0 ||
        msg_decode(&snapshot_witness_desc, MSG_LENIENT, stored.witness, &real) != 0 ||
        msg_decode(&witness_statement_desc, MSG_LENIENT, real.statement, &said) != 0) {
        give_up("the stolen host has no witnessed configuration");
    }
    said.index = body->config_version;
    said.root = blob_of(root, sizeof root);
    said.set_seq += set;
    msg_encode(&witness_statement_desc, &said, &statement);
    witness_sign(t->own.key, clock_wall_ms(), buf_blob(&statement), sig);
    msg_list_add(&witness_signature_desc,
                 &(struct witness_signature){.node_id = t->node_id,
                                             .signed_at_ms = clock_wall_ms(),
                                             .signature = blob_of(sig, sizeof sig)},
                 &sigs, &count);
    struct snapshot_witness msg = {.statement = buf_blob(&statement),
                                   .signatures = {.raw = buf_blob(&sigs), .count = count},
                                   .cluster_path = real.cluster_path,
                                   .node_path = real.node_path};
    if (set) {
        struct witness_set held = {.known = true,
                                   .epoch = said.epoch,
                                   .seq = said.set_seq - 1,
                                   .cluster_id = body->cluster_id};
        struct witness_member self = {.node_id = t->node_id};
        struct buf next;
        struct buf set_sigs;
        struct buf link;
        struct mp_writer w;
        uint32_t n = 0;
        buf_init(&next, AUTHORITY_SET_MAX);
        buf_init(&set_sigs, 1024);
        buf_init(&link, SIGNED_SET_MAX);
        pki_key_public(t->own.key, self.public_key);
        witness_set_build(&held, &body->cluster_id, said.epoch, &self, 1, &next);
        pki_sign(t->own.key, AUTHORITY_SET_SIGN_DOMAIN, buf_blob(&next), sig);
        msg_list_add(
            &set_signature_desc,
            &(struct set_signature){.node_id = t->node_id, .signature = blob_of(sig, sizeof sig)},
            &set_sigs, &n);
        msg_encode(&signed_set_desc,
                   &(struct signed_set){.statement = buf_blob(&next),
                                        .signatures = {.raw = buf_blob(&set_sigs), .count = n}},
                   &link);
        mp_writer_init(&w, &links);
        mp_put_bin(&w, buf_blob(&link));
        msg.links = (struct mp_list){.raw = buf_blob(&links), .count = 1};
        buf_fini(&next);
        buf_fini(&set_sigs);
        buf_fini(&link);
    }
    msg_encode(&snapshot_witness_desc, &msg, out);
    CHECK(out->err == 0);
    buf_fini(&statement);
    buf_fini(&sigs);
    buf_fini(&links);
}

/* A snapshot for the victim: with a role that nobody gave, signed with the stolen key. */
static void tell(const struct thief *t, const char *lie, struct buf *out)
{
    struct signed_snapshot stored;
    struct snapshot_body body;
    struct buf roles;
    struct buf bytes;
    struct buf sigs;
    struct buf witness;
    uint8_t sig[PKI_SIG_BYTES];
    uint32_t count = 0;
    bool bare = strcmp(lie, "bare") == 0;
    bool reuse = strcmp(lie, "reuse") == 0;
    bool old = strcmp(lie, "old") == 0;
    buf_init(&roles, 1024);
    buf_init(&bytes, SNAPSHOT_MAX_BYTES);
    buf_init(&sigs, 8192);
    buf_init(&witness, SNAPSHOT_WITNESS_MAX);
    if (msg_decode(&signed_snapshot_desc, MSG_LENIENT, buf_blob(&t->stored), &stored) != 0 ||
        msg_decode(&snapshot_body_desc, MSG_LENIENT, stored.body, &body) != 0) {
        give_up("the stolen host has no configuration");
    }
    body.node_id = t->victim;
    body.node_name = blob_str("n1");
    body.issued_at_ms = clock_wall_ms();
    body.expires_at_ms = body.issued_at_ms + (reuse ? SNAPSHOT_LIFE_MS / 2 : SNAPSHOT_LIFE_MS);
    body.config_version += reuse ? 0 : 1000;
    body.config_version = old ? 1 : body.config_version;
    body.roles.count = 0;
    msg_list_add(&snapshot_role_desc, &(struct snapshot_role){.role = blob_str("relay-node")},
                 &roles, &body.roles.count);
    body.roles.raw = buf_blob(&roles);
    msg_encode(&snapshot_body_desc, &body, &bytes);
    pki_sign(t->own.key, SNAPSHOT_SIGN_DOMAIN, buf_blob(&bytes), sig);
    msg_list_add(&snapshot_signature_desc,
                 &(struct snapshot_signature){.signature = blob_of(sig, sizeof sig),
                                              .leaf = t->own.chain[0],
                                              .issuer = t->own.chain[1]},
                 &sigs, &count);
    if (!bare && !reuse) {
        put_own_witness(t, &body, strcmp(lie, "set") == 0, &witness);
    }
    msg_encode(&signed_snapshot_desc,
               &(struct signed_snapshot){.body = buf_blob(&bytes),
                                         .signatures = {.raw = buf_blob(&sigs), .count = count},
                                         .witness = bare    ? blob_of(NULL, 0)
                                                    : reuse ? stored.witness
                                                            : buf_blob(&witness)},
               out);
    CHECK(out->err == 0);
    buf_fini(&roles);
    buf_fini(&bytes);
    buf_fini(&sigs);
    buf_fini(&witness);
}

static void finish(struct thief *t)
{
    if (!uv_is_closing((uv_handle_t *)&t->limit)) {
        CHECK(uv_timer_start(&t->limit, t->limit.timer_cb, 0, 0) == 0);
    }
}

static void on_limit(uv_timer_t *timer)
{
    struct thief *t = timer->data;
    uv_close((uv_handle_t *)timer, NULL);
    fabric_close(t->fabric, NULL, NULL);
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct thief *t = data;
    (void)frame;
    t->stream = s;
}

/* The node drops the stream of an authority that sent it something bad. */
static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct thief *t = data;
    (void)s;
    (void)rc;
    t->stream = NULL;
    if (t->told) {
        t->refused = true;
        finish(t);
    }
}

static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};

static void on_config(void *data, struct fabric_stream *s)
{
    fabric_stream_accept(s, &vtab, data);
}

/* First he wins its trust: the node will come to him again after a restart. */
static void on_heartbeat(void *data, struct fabric_request *rq, struct blob body)
{
    struct thief *t = data;
    struct buf out;
    (void)body;
    buf_init(&out, 2 * SNAPSHOT_MAX_BYTES);
    msg_encode(&heartbeat_ack_desc, &(struct heartbeat_ack){.interval_ms = 200}, &out);
    fabric_answer(rq, 0, buf_blob(&out));
    if (t->heartbeats++ > 0 && t->stream != NULL && !t->told) {
        buf_clear(&out);
        tell(t, t->lie, &out);
        CHECK(fabric_stream_send(t->stream, buf_blob(&out)) == 0);
        t->told = true;
    }
    buf_fini(&out);
}

int attack_serve(const struct args *a)
{
    static struct thief t;
    struct errmsg em = ERRMSG_INIT;
    struct pki_cert leaf;
    const char *dir = arg_must(a, "stolen");
    t.lie = arg_must(a, "lie");
    buf_init(&t.stored, 2 * SNAPSHOT_MAX_BYTES);
    load_member(dir, &t.own);
    load_stored(dir, &t.stored);
    CHECK(pki_cert_parse(t.own.chain[0], &leaf, NULL) == 0);
    t.node_id = leaf.node_id;
    if (uuid_parse(arg_must(a, "victim"), &t.victim) != 0) {
        give_up("victim=%s", arg(a, "victim"));
    }
    CHECK(uv_loop_init(&t.loop) == 0);
    struct pki_trust *trust = pki_trust_new(&leaf.cluster_id);
    struct fabric_config fc = {.loop = &t.loop, .cluster_id = leaf.cluster_id, .trust = trust};
    rng_bytes(fc.reset_secret, sizeof fc.reset_secret);
    int rc = pki_trust_set_root(trust, t.own.chain[2], &em);
    rc = rc != 0 ? rc : addr_parse(arg_must(a, "listen"), &fc.listen, &em);
    rc = rc != 0 ? rc : fabric_open(&fc, &t.fabric, &em);
    rc = rc != 0 ? rc : fabric_set_identity(t.fabric, t.own.chain, 3, t.own.key, &em);
    if (rc != 0) {
        give_up("%s", em.text);
    }
    fabric_serve(t.fabric,
                 &(struct fabric_service){.name = "config", .data = &t, .stream = on_config});
    fabric_serve(t.fabric, &(struct fabric_service){
                               .name = "heartbeat", .data = &t, .request = on_heartbeat});
    t.limit.data = &t;
    CHECK(uv_timer_init(&t.loop, &t.limit) == 0);
    CHECK(uv_timer_start(&t.limit, on_limit, LIMIT_MS, 0) == 0);
    (void)uv_run(&t.loop, UV_RUN_DEFAULT);
    say_begin();
    say_text("told", t.told ? t.lie : "nothing");
    say_text("end", t.refused ? "refused" : "believed");
    say_end();
    return 0;
}
