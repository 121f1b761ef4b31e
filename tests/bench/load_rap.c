/* Gated commands over the fabric: a client with an authority's name asks the leader's "op" service for
 * token.create. Its key is that of an enrolled node that does not run; the CA above it is made here with the
 * owner's root key. Each answer is a committed, applied and
 * audited command. With NODES, instead: a token, then that many nodes, each a join.submit and a
 * join.approve with a key of its own; the time is how long it may take.
 * usage: load_rap OWNER_DIR NODE_KEY NODE_ID LEADER_ID LEADER_ADDR CLIENTS SECONDS [NODES] */
#include "load.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/log.h"
#include "fabric/fabric.h"
#include "wire/cmd.h"
#include "wire/node_msg.h"

enum step { MAKE_TOKEN, SUBMIT, APPROVE };
struct client {
    struct bench *bench;
    struct fabric_call call;
    uint64_t began_ns;
    enum step step;
    char fingerprint[2 * PKI_HASH_BYTES + 1];
};

struct bench {
    uv_loop_t loop;
    uv_timer_t end;
    struct fabric *fabric;
    struct load load;
    struct uuid leader;
    struct client *clients;
    unsigned busy;
    unsigned long nodes_wanted, nodes_begun, nodes_made; /* 0: tokens only */
    uint8_t token_hash[PKI_HASH_BYTES];
    uint64_t run; /* part of the nodes' names */
};

static void begin(struct client *c);
static void next_node(struct client *c, struct blob answer);

static void answered(struct fabric_call *call, int rc, struct blob body)
{
    struct client *c = container_of(call, struct client, call);
    load_note(&c->bench->load, c->began_ns, rc == 0);
    if (rc != 0 && c->bench->load.failed == 1) {
        char detail[256] = "";
        mp_find_str(body, "detail", detail, sizeof detail);
        fprintf(stderr, "load_rap: first failure: %s %s\n", err_slug(rc), detail);
    }
    c->bench->busy--;
    if (c->bench->nodes_wanted > 0) {
        if (rc == 0) {
            next_node(c, body);
        }
        return;
    }
    if (!load_over(&c->bench->load) && c->bench->load.failed < 1000) {
        begin(c);
    }
}

static void ask(struct client *c, const char *method, const char *actor_kind, const char *actor_id,
                struct blob args)
{
    struct buf body;
    struct op_request op = {
        .method = blob_str(method),
        .request_id = uuid_new(),
        .actor_kind = blob_str(actor_kind),
        .actor_id = blob_str(actor_id),
        .args = args,
    };
    buf_init(&body, CMD_BODY_MAX + 4096);
    msg_encode(&op_request_desc, &op, &body);
    c->began_ns = clock_mono_ns();
    int rc = fabric_call_start(c->bench->fabric, &c->call, &c->bench->leader, "op", buf_blob(&body),
                               30000, answered);
    CHECK(rc == 0);
    c->bench->busy++;
    buf_fini(&body);
}

static void make_token(struct client *c, const uint8_t hash[PKI_HASH_BYTES], int64_t uses)
{
    char hex[65];
    struct buf args;
    struct mp_writer w;
    struct mp_doc d;
    hex_encode(hash, PKI_HASH_BYTES, hex);
    buf_init(&args, 1024);
    mp_writer_init(&w, &args);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "ttl_ms", 3600000);
    mp_doc_int(&w, &d, "uses", uses);
    mp_doc_str(&w, &d, "secret_hash", hex);
    mp_doc_end(&w, &d);
    ask(c, "token.create", ACTOR_ADMIN, "uid:0", buf_blob(&args));
    buf_fini(&args);
}

static void begin(struct client *c)
{
    uint8_t hash[PKI_HASH_BYTES];
    rng_bytes(hash, sizeof hash);
    make_token(c, hash, 1);
}

/* --- nodes --- */

static void submit(struct client *c)
{
    struct bench *b = c->bench;
    uint8_t key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
    char name[NAME_MAX_BYTES + 1];
    struct buf args;
    if (b->nodes_begun == b->nodes_wanted) {
        return;
    }
    (void)snprintf(name, sizeof name, "n%llu-%lu", (unsigned long long)b->run, b->nodes_begun++);
    struct pki_key *pair = pki_key_generate();
    pki_key_public(pair, key);
    pki_key_free(pair);
    pki_fingerprint(key, fingerprint);
    hex_encode(fingerprint, sizeof fingerprint, c->fingerprint);
    const struct join_submit body = {
        .join_id = uuid_new(),
        .token_hash = blob_of(b->token_hash, sizeof b->token_hash),
        .node_name = blob_str(name),
        .public_key = blob_of(key, sizeof key),
        .fingerprint = blob_of(fingerprint, sizeof fingerprint),
        .facts = blob_str("{\"os\":\"debian\",\"cpus\":4}"),
        .source_address = blob_str("192.0.2.7:40000"),
        .address = blob_str("192.0.2.7:7400"),
        .expires_at_ms = 1,
    };
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&join_submit_desc, &body, &args);
    c->step = SUBMIT;
    ask(c, "join.submit", ACTOR_NODE, c->fingerprint, buf_blob(&args));
    buf_fini(&args);
}

static void approve(struct client *c, struct blob answer)
{
    char id[UUID_TEXT_MAX];
    struct buf args;
    struct mp_writer w;
    struct mp_doc d;
    mp_find_str(answer, "id", id, sizeof id);
    buf_init(&args, 1024);
    mp_writer_init(&w, &args);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "id", id);
    mp_doc_str(&w, &d, "fingerprint", c->fingerprint);
    mp_doc_end(&w, &d);
    c->step = APPROVE;
    ask(c, "request.approve", ACTOR_ADMIN, "uid:0", buf_blob(&args));
    buf_fini(&args);
}

static void next_node(struct client *c, struct blob answer)
{
    struct bench *b = c->bench;
    switch (c->step) {
        case MAKE_TOKEN:
            for (unsigned i = 0; i < b->load.clients; i++) {
                submit(&b->clients[i]);
            }
            return;
        case SUBMIT:
            approve(c, answer);
            return;
        case APPROVE:
            b->nodes_made++;
            if (!load_over(&b->load)) {
                submit(c);
            }
            return;
    }
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

static int open_fabric(struct bench *b, const char *owner_dir, const char *node_key,
                       const struct uuid *node_id, const char *address)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf pem, root, issuer, leaf;
    size_t count;
    struct pki_cert root_info;
    struct pki_key *root_key = NULL;
    struct pki_key *issuer_key = pki_key_generate();
    struct pki_key *leaf_key = NULL;
    char *key_path = path_join(owner_dir, "root.key");
    char *crt_path = path_join(owner_dir, "root.crt");
    buf_init(&pem, 8192);
    buf_init(&root, CERT_DER_MAX);
    buf_init(&issuer, CERT_DER_MAX);
    buf_init(&leaf, CERT_DER_MAX);
    struct fabric_config config = {.loop = &b->loop};
    struct addr leader;
    int rc = pki_key_load(key_path, NULL, &root_key, &em);
    rc = rc != 0 ? rc : pki_key_load(node_key, NULL, &leaf_key, &em);
    rc = rc != 0 ? rc : file_read(crt_path, &pem, &em);
    rc = rc != 0 ? rc : pki_pem_read(buf_blob(&pem), &root, 1, &count, &em);
    rc = rc != 0 ? rc : pki_cert_parse(buf_blob(&root), &root_info, &em);
    struct pki_cert issuer_spec = {
        .kind = PKI_ISSUER, .cluster_id = root_info.cluster_id, .node_id = *node_id};
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
    struct uuid self;
    if ((argc != 8 && argc != 9) || uuid_parse(argv[3], &self) != 0 ||
        uuid_parse(argv[4], &b.leader) != 0) {
        fprintf(stderr, "usage: load_rap OWNER_DIR NODE_KEY NODE_ID LEADER_ID LEADER_ADDR CLIENTS "
                        "SECONDS [NODES]\n");
        return 2;
    }
    log_set_level(LOG_ERROR);
    CHECK(uv_loop_init(&b.loop) == 0);
    if (open_fabric(&b, argv[1], argv[2], &self, argv[5]) != 0) {
        return 1;
    }
    unsigned clients = (unsigned)strtoul(argv[6], NULL, 10);
    b.clients = xcalloc(clients, sizeof *b.clients);
    load_init(&b.load, clients, 1.0, strtod(argv[7], NULL));
    b.nodes_wanted = argc == 9 ? strtoul(argv[8], NULL, 10) : 0;
    b.run = clock_mono_ns();
    rng_bytes(b.token_hash, sizeof b.token_hash);
    for (unsigned i = 0; i < clients; i++) {
        b.clients[i].bench = &b;
        if (b.nodes_wanted == 0) {
            begin(&b.clients[i]);
        }
    }
    if (b.nodes_wanted > 0) {
        make_token(&b.clients[0], b.token_hash, (int64_t)b.nodes_wanted);
    }
    b.end.data = &b;
    CHECK(uv_timer_init(&b.loop, &b.end) == 0);
    CHECK(uv_timer_start(&b.end, on_end, 100, 100) == 0);
    (void)uv_run(&b.loop, UV_RUN_DEFAULT);
    load_print(&b.load, "rap");
    bool ok = b.nodes_wanted > 0 ? b.nodes_made == b.nodes_wanted : b.load.done > 0;
    load_fini(&b.load);
    free(b.clients);
    return ok ? 0 : 1;
}
