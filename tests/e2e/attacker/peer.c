/* Handshakes with any chain, and calls of any service in the name of a node. */
#include "attacker.h"

#include "base/file.h"
#include "base/rng.h"
#include "lib/fabric_forge.h"
#include "wire/cmd.h"
#include "wire/witness_msg.h"

#define LIMIT_MS 20000

struct visit {
    uv_loop_t loop;
    uv_timer_t limit;
    struct fabric *fabric;
    struct fabric_call call;
    struct buf body;
    struct fabric_request *waits;
    const char *shows, *save; /* files: the proof to show, where an answer goes; NULL: none */
    bool up, over, finish;
    int rc;
};

static void end(struct visit *v, int rc)
{
    if (v->over) {
        return;
    }
    v->over = true;
    v->rc = rc;
    v->finish = true;
    CHECK(uv_timer_start(&v->limit, v->limit.timer_cb, 0, 0) == 0);
}

static void on_limit(uv_timer_t *timer)
{
    struct visit *v = timer->data;
    if (!v->over) {
        v->over = true;
        v->rc = -ERR_TIMEOUT;
    }
    uv_close((uv_handle_t *)timer, NULL);
    fabric_close(v->fabric, NULL, NULL);
}

static void on_opened(struct fabric_stream *s, void *data)
{
    (void)s;
    ((struct visit *)data)->up = true;
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    (void)frame;
    end(data, 0);
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    end(data, rc == 0 ? -ERR_CLOSED : rc);
}

static const struct fabric_stream_vtab vtab = {
    .frame = on_frame, .closed = on_closed, .opened = on_opened};

static void answered(struct fabric_call *call, int rc, struct blob body)
{
    struct visit *v = call->data;
    struct errmsg em = ERRMSG_INIT;
    if (v->save != NULL && rc == 0 && file_write_atomic(v->save, body, 0600, &em) != 0) {
        give_up("%s", em.text);
    }
    v->up = true;
    end(v, rc);
}

static void session_up(void *data, const struct fabric_peer *peer)
{
    (void)peer;
    ((struct visit *)data)->up = true;
}

/* What was saved from another node, shown as ours. */
static int show_proof(void *data, struct buf *out)
{
    struct visit *v = data;
    struct errmsg em = ERRMSG_INIT;
    return v->shows == NULL ? -ERR_NOT_FOUND : file_read(v->shows, out, &em);
}

/* Asked for our proof, we take our time, to learn something meanwhile. */
static void keep_waiting(void *data, struct fabric_request *rq, struct blob body)
{
    struct visit *v = data;
    (void)body;
    if (v->waits != NULL) {
        fabric_answer(v->waits, -ERR_NOT_FOUND, blob_of(NULL, 0));
    }
    v->waits = rq;
}

/* A fabric with an identity of the attacked cluster; what it shows can be changed afterwards. */
static void visit_open(struct visit *v, const struct forged *own, struct blob root_der,
                       const struct uuid *server, const struct args *a)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_cert leaf;
    struct addr address;
    char listen[32];
    const char *from = arg(a, "from");
    (void)snprintf(listen, sizeof listen, "%.24s:0", from != NULL ? from : "127.0.0.1");
    *v = (struct visit){.shows = arg(a, "shows"), .save = arg(a, "save")};
    CHECK(uv_loop_init(&v->loop) == 0);
    CHECK(pki_cert_parse(own->chain[0], &leaf, NULL) == 0);
    struct pki_trust *trust = pki_trust_new(&leaf.cluster_id);
    struct fabric_config fc = {.loop = &v->loop,
                               .cluster_id = leaf.cluster_id,
                               .trust = trust,
                               .data = v,
                               .own_proof = v->save == NULL ? show_proof : NULL,
                               .session_up = session_up};
    rng_bytes(fc.reset_secret, sizeof fc.reset_secret);
    int rc = pki_trust_set_root(trust, root_der, &em);
    rc = rc != 0 ? rc : addr_parse(listen, &fc.listen, &em);
    rc = rc != 0 ? rc : addr_parse(arg_must(a, "to"), &address, &em);
    rc = rc != 0 ? rc : fabric_open(&fc, &v->fabric, &em);
    rc = rc != 0 ? rc : fabric_set_identity(v->fabric, own->chain, own->count, own->key, &em);
    if (rc != 0) {
        give_up("%s", em.text);
    }
    if (v->save != NULL) {
        fabric_serve(v->fabric,
                     &(struct fabric_service){.name = "leaf", .data = v, .request = keep_waiting});
    }
    v->limit.data = v;
    CHECK(uv_timer_init(&v->loop, &v->limit) == 0);
    CHECK(uv_timer_start(&v->limit, on_limit, LIMIT_MS, 0) == 0);
    fabric_peer_set(v->fabric, server, &address, 1);
}

static void visit_run(struct visit *v)
{
    (void)uv_run(&v->loop, UV_RUN_DEFAULT);
    say_begin();
    say_text("session", v->up ? "up" : "refused");
    say_text("error", err_slug(v->rc));
    say_end();
}

static struct uuid server_id(const struct args *a)
{
    struct uuid id;
    if (uuid_parse(arg_must(a, "server"), &id) != 0) {
        give_up("server=%s", arg(a, "server"));
    }
    return id;
}

int attack_handshake(const struct args *a)
{
    struct visit v;
    struct forge g = {.server_id = server_id(a)};
    struct forged own;
    struct forged shown;
    const char *member = arg(a, "member");
    const char *kind = member == NULL ? arg_must(a, "chain") : "good";
    bool nobody = strcmp(kind, "nobody") == 0;
    forge_open(&g, arg_must(a, "owner"));
    CHECK(forge_chain(&g, "good", &own) == 0);
    if (member != NULL) {
        load_member(member, &shown);
    } else if (forge_chain(&g, nobody ? "good" : kind, &shown) != 0) {
        give_up("chain=%s: no such kind", kind);
    }
    visit_open(&v, &own, buf_blob(&g.root_der), &g.server_id, a);
    if (nobody) {
        fabric_forge_nobody(v.fabric);
    } else if (shown.count > CHAIN_MAX) {
        fabric_forge_long_chain(v.fabric, shown.chain, shown.count, shown.key);
    } else if (!fabric_forge_identity(v.fabric, shown.chain, shown.count,
                                      arg(a, "key") != NULL ? own.key : shown.key)) {
        give_up("the TLS library does not take this chain");
    }
    /* No such service: what tells a session that came up from one that did not. */
    struct fabric_stream *s;
    const char *service = arg(a, "service");
    const struct fabric_stream_to to = {.node_id = g.server_id,
                                        .service = service == NULL ? "none" : service};
    if (fabric_stream_open(v.fabric, &to, &vtab, &v, &s) != 0) {
        give_up("cannot open a stream");
    }
    visit_run(&v);
    return 0;
}

/* What the body of a call says. */
static void build_body(const struct args *a, struct buf *out)
{
    const char *kind = arg(a, "body");
    struct uuid as = uuid_new();
    if (arg(a, "as") != NULL && uuid_parse(arg(a, "as"), &as) != 0) {
        give_up("as=%s", arg(a, "as"));
    }
    if (kind == NULL) {
        buf_add(out, "\x80", 1); /* an empty map */
    } else if (strncmp(kind, "op:", 3) == 0) {
        const char *actor = arg(a, "actor");
        const char *id = arg(a, "id");
        msg_encode(&op_request_desc,
                   &(struct op_request){.method = blob_str(kind + 3),
                                        .request_id = uuid_new(),
                                        .actor_kind = blob_str(actor == NULL ? ACTOR_ADMIN : actor),
                                        .actor_id = blob_str(id == NULL ? "uid:0" : id),
                                        .args = blob_of("\x80", 1)},
                   out);
    } else if (strcmp(kind, "heartbeat") == 0) {
        msg_encode(&heartbeat_desc,
                   &(struct heartbeat){.health = blob_str("healthy"), .node_id = as}, out);
    } else if (strcmp(kind, "statement") == 0) { /* of a tree that nobody has */
        struct buf st;
        uint8_t hash[32] = {1};
        struct blob h = blob_of(hash, sizeof hash);
        buf_init(&st, WITNESS_STATEMENT_MAX);
        msg_encode(&witness_statement_desc,
                   &(struct witness_statement){.version = WITNESS_VERSION,
                                               .cluster_id = uuid_new(),
                                               .epoch = 1,
                                               .index = 2,
                                               .root = h,
                                               .audit_seq = 1,
                                               .audit_head = h,
                                               .history = h,
                                               .set_seq = 1},
                   &st);
        msg_encode(&witness_request_desc, &(struct witness_request){.statement = buf_blob(&st)},
                   out);
        buf_fini(&st);
    } else if (strcmp(kind, "renew") == 0) {
        struct buf csr;
        struct pki_key *key = pki_key_generate();
        buf_init(&csr, CSR_DER_MAX);
        CHECK(pki_csr_build(key, &csr) == 0);
        struct renew_request rq = {.request_id = uuid_new(), .csr = buf_blob(&csr)};
        if (arg(a, "as") != NULL) {
            rq.node_id = as;
        }
        msg_encode(&renew_request_desc, &rq, out);
        buf_fini(&csr);
        pki_key_free(key);
    } else if (strcmp(kind, "deep") == 0) { /* 100,000 arrays inside each other */
        memset(buf_grow(out, 100000), 0x91, 100000);
    } else if (strcmp(kind, "huge_length") == 0) {
        buf_add(out, "\x81\x01\xdb\xff\xff\xff\xff", 7); /* a text of 4 GiB */
    } else {
        give_up("body=%s: no such kind", kind);
    }
}

int attack_call(const struct args *a)
{
    struct visit v;
    struct forged own;
    struct uuid server = server_id(a);
    const char *service = arg_must(a, "service");
    struct uuid id = uuid_new();
    if (arg(a, "stolen") == NULL) {
        load_member(arg_must(a, "member"), &own);
    } else if (strcmp(arg_must(a, "id"), "new") == 0 || uuid_parse(arg(a, "id"), &id) == 0) {
        load_stolen_ca(arg(a, "stolen"), &id, &own);
    } else {
        give_up("id=%s", arg(a, "id"));
    }
    visit_open(&v, &own, own.chain[own.count - 1], &server, a);
    buf_init(&v.body, 1u << 20);
    build_body(a, &v.body);
    if (arg(a, "stream") != NULL) {
        struct fabric_stream *s;
        const struct fabric_stream_to to = {.node_id = server, .service = service};
        if (fabric_stream_open(v.fabric, &to, &vtab, &v, &s) != 0) {
            give_up("cannot open a stream");
        }
        (void)fabric_stream_send(s, buf_blob(&v.body));
    } else {
        v.call.data = &v;
        int rc = fabric_call_start(v.fabric, &v.call, &server, service, buf_blob(&v.body), 10000,
                                   answered);
        if (rc != 0) {
            give_up("cannot call: %s", err_slug(rc));
        }
    }
    visit_run(&v);
    return 0;
}

/* --- many streams of one service, or one with a long frame --- */

struct crowd {
    struct visit v;
    long n, ended;
    int last_rc;
};

static void crowd_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    (void)data;
    (void)frame;
}

static void crowd_closed(struct fabric_stream *s, void *data, int rc)
{
    struct crowd *c = data;
    (void)s;
    if (c->v.over) {
        return;
    }
    c->last_rc = rc;
    if (++c->ended >= c->n - 1) {
        end(&c->v, rc);
    }
}

int attack_streams(const struct args *a)
{
    static const struct fabric_stream_vtab crowd_vtab = {.frame = crowd_frame,
                                                         .closed = crowd_closed};
    struct crowd c = {.n = arg_number(a, "n", 100)};
    struct forged own = {.count = 0};
    struct uuid server = server_id(a);
    load_member(arg_must(a, "member"), &own);
    visit_open(&c.v, &own, own.chain[own.count - 1], &server, a);
    size_t len = (size_t)arg_number(a, "frame", 0);
    uint8_t *frame = xcalloc(1, len + 1);
    for (long i = 0; i < c.n; i++) {
        struct fabric_stream *s;
        const struct fabric_stream_to to = {.node_id = server,
                                            .service = arg_must(a, "service"),
                                            .bulk = arg(a, "bulk") != NULL,
                                            .frame_max_bytes = len + 4096};
        if (fabric_stream_open(c.v.fabric, &to, &crowd_vtab, &c, &s) != 0) {
            give_up("cannot open a stream");
        }
        if (len > 0) {
            CHECK(fabric_stream_send(s, blob_of(frame, len)) == 0);
        }
    }
    free(frame);
    (void)uv_run(&c.v.loop, UV_RUN_DEFAULT);
    say_begin();
    say_number("ended", (double)c.ended);
    say_text("error", err_slug(c.last_rc));
    say_end();
    return 0;
}
