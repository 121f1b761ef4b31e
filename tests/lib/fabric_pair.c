#include "lib/fabric_pair.h"

#include "base/addr.h"
#include "base/clock.h"
#include "base/rng.h"
#include "fabric/fabric_impl.h"

#include <setjmp.h>
#include <cmocka.h>

#define RUN_LIMIT_MS 30000

static void issue(struct pki_cert *spec, const struct pki_key *key, struct blob issuer_der,
                  struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    rng_bytes(spec->serial, sizeof spec->serial);
    spec->serial[0] = (uint8_t)((spec->serial[0] & 0x7f) | 0x01);
    buf_init(out, CERT_DER_MAX);
    int rc = pki_cert_issue(spec, key, issuer_der, out, &em);
    if (rc != 0) {
        fail_msg("issue: %s", em.text);
    }
}

static int64_t now_s_ms(void)
{
    return clock_wall_ms() / 1000 * 1000;
}

static void ca_init(struct fabric_ca *ca)
{
    ca->cluster_id = uuid_new();
    ca->key = pki_key_generate();
    struct pki_cert root = {.kind = PKI_ROOT,
                            .cluster_id = ca->cluster_id,
                            .not_before_ms = now_s_ms() - PKI_BACKDATE_MS,
                            .not_after_ms = now_s_ms() + PKI_ROOT_LIFE_MS};
    pki_key_public(ca->key, root.public_key);
    issue(&root, ca->key, blob_of(NULL, 0), &ca->der);
    pki_fingerprint(root.public_key, ca->fingerprint);
}

static void ca_fini(struct fabric_ca *ca)
{
    pki_key_free(ca->key);
    buf_fini(&ca->der);
}

void fabric_world_init(struct fabric_world *w)
{
    *w = (struct fabric_world){.count = 0};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    ca_init(&w->ca);
    ca_init(&w->foreign);
}

static void make_issuer(struct fabric_node *n)
{
    n->issuer_key = pki_key_generate();
    struct pki_cert c = {.kind = PKI_ISSUER,
                         .cluster_id = n->ca->cluster_id,
                         .node_id = n->id,
                         .not_before_ms = now_s_ms() - PKI_BACKDATE_MS,
                         .not_after_ms = now_s_ms() + PKI_ISSUER_LIFE_MS};
    pki_key_public(n->issuer_key, c.public_key);
    issue(&c, n->ca->key, buf_blob(&n->ca->der), &n->issuer_der);
}

void fabric_node_issue(struct fabric_node *n, const struct fabric_node *issuer, int64_t life_ms)
{
    pki_key_free(n->key);
    buf_fini(&n->leaf_der);
    n->key = pki_key_generate();
    if (issuer != n) {
        buf_fini(&n->issuer_der);
        buf_init(&n->issuer_der, CERT_DER_MAX);
        buf_add(&n->issuer_der, issuer->issuer_der.data, issuer->issuer_der.len);
    }
    int64_t now = now_s_ms();
    n->leaf = (struct pki_cert){.kind = PKI_LEAF,
                                .cluster_id = n->ca->cluster_id,
                                .node_id = n->id,
                                .authority = n->authority,
                                .not_before_ms = now - PKI_BACKDATE_MS,
                                .not_after_ms = now + life_ms};
    if (life_ms < 0) {
        n->leaf.not_before_ms = now + life_ms - PKI_BACKDATE_MS;
    }
    pki_key_public(n->key, n->leaf.public_key);
    issue(&n->leaf, issuer->issuer_key, buf_blob(&n->issuer_der), &n->leaf_der);
}

static void on_up(void *data, const struct fabric_peer *peer)
{
    struct fabric_node *n = data;
    n->ups++;
    n->last_peer = peer->identity.node_id;
}

static void on_down(void *data, const struct fabric_peer *peer, int rc)
{
    (void)peer;
    struct fabric_node *n = data;
    n->downs++;
    n->last_down_rc = rc;
}

void fabric_node_identify(struct fabric_node *n)
{
    struct blob chain[3] = {buf_blob(&n->leaf_der), buf_blob(&n->issuer_der),
                            buf_blob(&n->ca->der)};
    struct errmsg em = ERRMSG_INIT;
    if (fabric_set_identity(n->f, chain, 3, n->key, &em) != 0) {
        fail_msg("set_identity: %s", em.text);
    }
}

void fabric_node_open(struct fabric_node *n)
{
    struct errmsg em = ERRMSG_INIT;
    n->closed = false;
    if (fabric_open(&n->config, &n->f, &em) != 0) {
        fail_msg("fabric_open: %s", em.text);
    }
    fabric_local_addr(n->f, &n->addr);
    /* Opened again, it listens where it did. */
    n->config.listen = n->addr;
    if (n->key != NULL) {
        fabric_node_identify(n);
    }
}

struct fabric_node *fabric_world_node(struct fabric_world *w, const struct fabric_node_opts *o)
{
    assert_true(w->count < FABRIC_WORLD_NODES);
    struct fabric_node *n = xcalloc(1, sizeof *n);
    w->node[w->count++] = n;
    n->w = w;
    n->ca = o->foreign ? &w->foreign : &w->ca;
    n->id = uuid_new();
    n->authority = o->authority;
    n->serve_enroll = o->serve_enroll;
    buf_init(&n->issuer_der, CERT_DER_MAX);
    buf_init(&n->leaf_der, CERT_DER_MAX);
    if (o->authority) {
        make_issuer(n);
    }
    if (!o->no_identity) {
        fabric_node_issue(n, o->authority ? n : o->issuer,
                          o->leaf_life_ms != 0 ? o->leaf_life_ms : PKI_LEAF_LIFE_MS);
    }
    n->trust = pki_trust_new(&n->ca->cluster_id);
    struct errmsg em = ERRMSG_INIT;
    if (o->no_identity) {
        pki_trust_set_pin(n->trust, n->ca->fingerprint);
    } else {
        assert_int_equal(pki_trust_set_root(n->trust, buf_blob(&n->ca->der), &em), 0);
    }
    n->config = (struct fabric_config){.loop = &w->loop,
                                       .cluster_id = n->ca->cluster_id,
                                       .trust = n->trust,
                                       .keepalive_ms = o->keepalive_ms,
                                       .dead_ms = o->dead_ms,
                                       .limits = o->limits,
                                       .data = n,
                                       .session_up = on_up,
                                       .session_down = on_down};
    assert_int_equal(
        addr_parse(o->listen != NULL ? o->listen : "127.0.0.1:0", &n->config.listen, &em), 0);
    rng_bytes(n->config.reset_secret, sizeof n->config.reset_secret);
    if (!o->manual) {
        fabric_node_open(n);
    }
    return n;
}

void fabric_world_introduce(struct fabric_node *a, struct fabric_node *b)
{
    fabric_peer_set(a->f, &b->id, &b->addr, 1);
    fabric_peer_set(b->f, &a->id, &a->addr, 1);
}

static void on_closed(void *data)
{
    struct fabric_node *n = data;
    n->f = NULL;
    n->closed = true;
}

static bool is_closed(void *data)
{
    return ((struct fabric_node *)data)->closed;
}

void fabric_node_close(struct fabric_node *n, bool kill)
{
    if (kill) {
        fabric_kill(n->f);
    }
    fabric_close(n->f, on_closed, n);
    assert_false(n->closed);
    fabric_world_run(n->w, is_closed, n);
}

bool fabric_world_turn(struct fabric_world *w)
{
    return uv_run(&w->loop, UV_RUN_ONCE) != 0;
}

void fabric_world_run(struct fabric_world *w, bool (*cond)(void *data), void *data)
{
    uint64_t end = clock_mono_ns() + RUN_LIMIT_MS * NS_PER_MS;
    while (!cond(data)) {
        bool alive = fabric_world_turn(w);
        if (!alive && !cond(data)) {
            fail_msg("the loop has nothing left to do");
        }
        if (clock_mono_ns() > end) {
            fail_msg("condition not reached");
        }
    }
}

void fabric_world_spin(struct fabric_world *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        (void)uv_run(&w->loop, UV_RUN_NOWAIT);
    }
}

static bool all_closed(void *data)
{
    struct fabric_world *w = data;
    for (size_t i = 0; i < w->count; i++) {
        if (w->node[i]->f != NULL) {
            return false;
        }
    }
    return true;
}

void fabric_world_fini(struct fabric_world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->node[i]->f != NULL) {
            fabric_close(w->node[i]->f, on_closed, w->node[i]);
        }
    }
    if (!all_closed(w)) {
        fabric_world_run(w, all_closed, w);
    }
    assert_int_equal(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    for (size_t i = 0; i < w->count; i++) {
        struct fabric_node *n = w->node[i];
        pki_key_free(n->key);
        pki_key_free(n->issuer_key);
        buf_fini(&n->issuer_der);
        buf_fini(&n->leaf_der);
        pki_trust_free(n->trust);
        free(n);
    }
    ca_fini(&w->ca);
    ca_fini(&w->foreign);
}
