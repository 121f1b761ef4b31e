/* Gated commands over the fabric: a client with an authority's name, made here with the owner's root
 * key, asks the leader's "op" service for token.create. Each answer is a committed, applied and
 * audited command.
 * usage: load_rap OWNER_DIR LEADER_ID LEADER_ADDR CLIENTS SECONDS */
#include "load.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/log.h"
#include "fabric/fabric.h"
#include "wire/cmd.h"
#include "wire/node_msg.h"

struct client {
    struct bench *bench;
    struct fabric_call call;
    uint64_t began_ns;
};

struct bench {
    uv_loop_t loop;
    uv_timer_t end;
    struct fabric *fabric;
    struct load load;
    struct uuid leader;
    struct client *clients;
    unsigned busy;
    bool over;
};

static void begin(struct client *c);

static void answered(struct fabric_call *call, int rc, struct blob body)
{
    struct client *c = container_of(call, struct client, call);
    (void)body;
    load_note(&c->bench->load, c->began_ns, rc == 0);
    if (rc != 0 && c->bench->load.failed == 1) {
        fprintf(stderr, "load_rap: first failure: %s\n", err_slug(rc));
    }
    c->bench->busy--;
    if (!load_over(&c->bench->load) && c->bench->load.failed < 1000) {
        begin(c);
    }
}

static void begin(struct client *c)
{
    uint8_t secret[32];
    char hex[65];
    struct buf args;
    struct buf body;
    struct mp_writer w;
    struct mp_doc d;
    rng_bytes(secret, sizeof secret);
    hex_encode(secret, sizeof secret, hex);
    buf_init(&args, 1024);
    buf_init(&body, 4096);
    mp_writer_init(&w, &args);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "ttl_ms", 3600000);
    mp_doc_int(&w, &d, "uses", 1);
    mp_doc_str(&w, &d, "secret_hash", hex);
    mp_doc_end(&w, &d);
    struct op_request op = {
        .method = blob_str("token.create"),
        .request_id = uuid_new(),
        .actor_kind = blob_str(ACTOR_ADMIN),
        .actor_id = blob_str("bench"),
        .args = buf_blob(&args),
    };
    msg_encode(&op_request_desc, &op, &body);
    c->began_ns = clock_mono_ns();
    int rc = fabric_call_start(c->bench->fabric, &c->call, &c->bench->leader, "op", buf_blob(&body),
                               10000, answered);
    CHECK(rc == 0);
    c->bench->busy++;
    buf_fini(&args);
    buf_fini(&body);
}

static void on_end(uv_timer_t *t)
{
    struct bench *b = t->data;
    if (b->busy == 0) {
        uv_close((uv_handle_t *)t, NULL);
        fabric_close(b->fabric, NULL, NULL);
    }
}

static int issue(struct pki_cert *spec, const struct pki_key *subject, const struct pki_key *signer,
                 struct blob issuer, struct buf *out)
{
    int64_t now = clock_wall_ms();
    spec->not_before_ms = (now - PKI_BACKDATE_MS) / 1000 * 1000;
    spec->not_after_ms = (now + 3600000) / 1000 * 1000;
    pki_serial_new(spec->serial);
    pki_key_public(subject, spec->public_key);
    return pki_cert_issue(spec, signer, issuer, out, NULL);
}

static int open_fabric(struct bench *b, const char *owner_dir, const char *address)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf pem, root, issuer, leaf;
    size_t count;
    struct pki_cert root_info;
    struct pki_key *root_key = NULL;
    struct pki_key *issuer_key = pki_key_generate();
    struct pki_key *leaf_key = pki_key_generate();
    char *key_path = path_join(owner_dir, "root.key");
    char *crt_path = path_join(owner_dir, "root.crt");
    buf_init(&pem, 8192);
    buf_init(&root, CERT_DER_MAX);
    buf_init(&issuer, CERT_DER_MAX);
    buf_init(&leaf, CERT_DER_MAX);
    struct fabric_config config = {.loop = &b->loop};
    struct addr leader;
    int rc = pki_key_load(key_path, NULL, &root_key, &em);
    rc = rc != 0 ? rc : file_read(crt_path, &pem, &em);
    rc = rc != 0 ? rc : pki_pem_read(buf_blob(&pem), &root, 1, &count, &em);
    rc = rc != 0 ? rc : pki_cert_parse(buf_blob(&root), &root_info, &em);
    struct pki_cert issuer_spec = {
        .kind = PKI_ISSUER, .cluster_id = root_info.cluster_id, .node_id = uuid_new()};
    struct pki_cert leaf_spec = {.kind = PKI_LEAF,
                                 .cluster_id = root_info.cluster_id,
                                 .node_id = issuer_spec.node_id,
                                 .authority = true};
    rc = rc != 0 ? rc : issue(&issuer_spec, issuer_key, root_key, buf_blob(&root), &issuer);
    rc = rc != 0 ? rc : issue(&leaf_spec, leaf_key, issuer_key, buf_blob(&issuer), &leaf);
    if (rc == 0) {
        struct pki_trust *trust = pki_trust_new(&root_info.cluster_id);
        struct blob chain[] = {buf_blob(&leaf), buf_blob(&issuer), buf_blob(&root)};
        rc = pki_trust_set_root(trust, buf_blob(&root), &em);
        config.cluster_id = root_info.cluster_id;
        config.trust = trust;
        rc = rc != 0 ? rc : addr_parse("127.0.0.1:0", &config.listen, &em);
        rc = rc != 0 ? rc : fabric_open(&config, &b->fabric, &em);
        rc = rc != 0 ? rc : fabric_set_identity(b->fabric, chain, 3, leaf_key, &em);
        rc = rc != 0 ? rc : addr_parse(address, &leader, &em);
        if (rc == 0) {
            fabric_peer_set(b->fabric, &b->leader, &leader, 1);
        }
    }
    if (rc != 0) {
        fprintf(stderr, "load_rap: %s: %s\n", err_slug(rc), em.text);
    }
    pki_key_free(root_key);
    pki_key_free(issuer_key);
    pki_key_free(leaf_key);
    free(key_path);
    free(crt_path);
    buf_fini(&pem);
    buf_fini(&root);
    buf_fini(&issuer);
    buf_fini(&leaf);
    return rc;
}

int main(int argc, char **argv)
{
    static struct bench b;
    if (argc != 6 || uuid_parse(argv[2], &b.leader) != 0) {
        fprintf(stderr, "usage: load_rap OWNER_DIR LEADER_ID LEADER_ADDR CLIENTS SECONDS\n");
        return 2;
    }
    log_set_level(LOG_ERROR);
    CHECK(uv_loop_init(&b.loop) == 0);
    if (open_fabric(&b, argv[1], argv[3]) != 0) {
        return 1;
    }
    unsigned clients = (unsigned)strtoul(argv[4], NULL, 10);
    b.clients = xcalloc(clients, sizeof *b.clients);
    load_init(&b.load, clients, 1.0, strtod(argv[5], NULL));
    for (unsigned i = 0; i < clients; i++) {
        b.clients[i].bench = &b;
        begin(&b.clients[i]);
    }
    b.end.data = &b;
    CHECK(uv_timer_init(&b.loop, &b.end) == 0);
    CHECK(uv_timer_start(&b.end, on_end, 100, 100) == 0);
    (void)uv_run(&b.loop, UV_RUN_DEFAULT);
    load_print(&b.load, "rap");
    bool ok = b.load.done > 0;
    load_fini(&b.load);
    free(b.clients);
    return ok ? 0 : 1;
}
