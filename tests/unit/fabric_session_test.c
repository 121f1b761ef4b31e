/* Who may connect, and what happens when a session goes (DESIGN sections 4 and 8). */
#include "lib/fabric_pair.h"

#include "base/clock.h"
#include "base/rng.h"
#include "fabric/fabric_impl.h"

#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

struct end {
    struct fabric_stream *s;
    unsigned got;
    bool closed;
    int rc;
    struct fabric_peer peer;
};

struct world {
    struct fabric_world w;
    struct fabric_node *a, *b;
    struct end accepted[16];
    size_t accepted_count;
};

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct end *e = data;
    e->got++;
    e->peer = *fabric_stream_peer(s);
    (void)frame;
}

static void on_frame_echo(struct fabric_stream *s, void *data, struct blob frame)
{
    on_frame(s, data, frame);
    (void)fabric_stream_send(s, frame);
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    struct end *e = data;
    assert_false(e->closed);
    e->closed = true;
    e->rc = rc;
}

static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};
static const struct fabric_stream_vtab echo_vtab = {.frame = on_frame_echo, .closed = on_closed};

static void accept_echo(void *data, struct fabric_stream *s)
{
    struct world *w = data;
    struct end *e = &w->accepted[w->accepted_count++ % ARRAY_SIZE(w->accepted)];
    *e = (struct end){.s = s};
    fabric_stream_accept(s, &echo_vtab, e);
}

static void serve(struct world *w, struct fabric_node *n)
{
    fabric_serve(n->f, &(struct fabric_service){.name = "echo", .data = w, .stream = accept_echo});
    fabric_serve(n->f, &(struct fabric_service){.name = "enroll",
                                                .flags = FABRIC_SVC_ENROLL,
                                                .data = w,
                                                .stream = accept_echo});
}

static struct fabric_node *add(struct world *w, struct fabric_node_opts o)
{
    struct fabric_node *n = fabric_world_node(&w->w, &o);
    if (n->f != NULL) {
        serve(w, n);
    }
    return n;
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    *state = w;
    fabric_world_init(&w->w);
    w->a = add(w, (struct fabric_node_opts){
                      .authority = true, .serve_enroll = true, .keepalive_ms = 50, .dead_ms = 400});
    w->b = add(w,
               (struct fabric_node_opts){.issuer = w->a, .keepalive_ms = 50, .dead_ms = 400});
    fabric_world_introduce(w->a, w->b);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    fabric_world_fini(&w->w);
    free(w);
    return 0;
}

static void open_to(struct end *e, struct fabric_node *from, struct fabric_node *to)
{
    *e = (struct end){.s = NULL};
    struct fabric_stream_to t = {.node_id = to->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(from->f, &t, &vtab, e, &e->s), 0);
    assert_int_equal(fabric_stream_send(e->s, blob_str("x")), 0);
}

static void enroll_at(struct end *e, struct fabric_node *from, const struct addr *to,
                      const char *service)
{
    *e = (struct end){.s = NULL};
    struct fabric_stream_to t = {.enroll_addr = *to, .service = service};
    assert_int_equal(fabric_stream_open(from->f, &t, &vtab, e, &e->s), 0);
    assert_int_equal(fabric_stream_send(e->s, blob_str("x")), 0);
}

static bool ended(void *data)
{
    struct end *e = data;
    return e->closed || e->got > 0;
}

static bool is_closed(void *data)
{
    return ((struct end *)data)->closed;
}

static int try_echo(struct fabric_node *from, struct fabric_node *to)
{
    struct end e;
    open_to(&e, from, to);
    fabric_world_run(from->w, ended, &e);
    if (!e.closed) {
        fabric_stream_close(e.s);
        return 0;
    }
    return e.rc;
}

static bool connected(void *data)
{
    struct world *w = data;
    return fabric_peer_connected(w->a->f, &w->b->id) && fabric_peer_connected(w->b->f, &w->a->id);
}

static uint64_t refused(struct fabric_node *n)
{
    struct fabric_counters c;
    fabric_counters(n->f, &c);
    return c.auth_refused;
}

/* --- who may connect --- */

static void count_session(void *data, const struct fabric_session_info *info)
{
    (void)info;
    ++*(unsigned *)data;
}

static unsigned sessions(struct fabric_node *n)
{
    unsigned count = 0;
    fabric_sessions(n->f, count_session, &count);
    return count;
}

static bool no_sessions(void *data)
{
    return sessions(data) == 0;
}

static void test_mutual_session_names_both_ends(void **state)
{
    struct world *w = *state;
    struct end e;
    open_to(&e, w->b, w->a);
    fabric_world_run(&w->w, ended, &e);
    assert_false(e.closed);
    assert_true(e.peer.authenticated);
    assert_true(e.peer.identity.authority);
    assert_memory_equal(e.peer.identity.node_id.b, w->a->id.b, 16);
    assert_memory_equal(e.peer.identity.public_key, w->a->leaf.public_key, 32);
    assert_true(addr_equal(&e.peer.address, &w->a->addr));
    struct fabric_peer *seen = &w->accepted[0].peer;
    assert_memory_equal(seen->identity.node_id.b, w->b->id.b, 16);
    assert_memory_equal(seen->identity.serial, w->b->leaf.serial, 16);
    assert_false(seen->identity.authority);
    assert_memory_equal(w->a->last_peer.b, w->b->id.b, 16);
    assert_int_equal(w->a->ups, 1);
    assert_int_equal(w->b->ups, 1);
    fabric_stream_close(e.s);
}

static void test_node_of_another_cluster_is_refused(void **state)
{
    struct world *w = *state;
    struct fabric_node *x = add(w, (struct fabric_node_opts){.authority = true, .foreign = true});
    fabric_world_introduce(w->a, x);
    assert_int_not_equal(try_echo(x, w->a), 0);
    assert_int_not_equal(try_echo(w->a, x), 0);
    assert_int_equal(w->accepted_count, 0);
    assert_true(refused(w->a) >= 1);
    assert_int_equal(w->a->ups, 0);
    assert_int_equal(x->ups, 0);
}

/* It trusts our root, we not its: only our judgement counts for us. */
static void test_stranger_that_trusts_us_is_refused_by_the_server(void **state)
{
    struct world *w = *state;
    struct fabric_node *x = add(w, (struct fabric_node_opts){.authority = true, .foreign = true});
    struct errmsg em;
    pki_trust_free(x->trust);
    x->trust = pki_trust_new(&w->w.ca.cluster_id);
    assert_int_equal(pki_trust_set_root(x->trust, buf_blob(&w->w.ca.der), &em), 0);
    x->f->cfg.trust = x->trust;
    fabric_peer_set(x->f, &w->a->id, &w->a->addr, 1);
    int rc = try_echo(x, w->a);
    assert_true(rc == -ERR_WRONG_CLUSTER || rc == -ERR_BAD_CERT || rc == -ERR_BAD_SIGNATURE);
    assert_int_equal(refused(w->a), 1);
    assert_int_equal(refused(x), 0);
    assert_int_equal(x->ups, 0);
}

static void test_expired_certificate_is_refused(void **state)
{
    struct world *w = *state;
    struct fabric_node *x =
        add(w, (struct fabric_node_opts){.issuer = w->a, .leaf_life_ms = -3600 * 1000});
    fabric_world_introduce(w->a, x);
    assert_int_equal(try_echo(x, w->a), -ERR_CERT_EXPIRED);
    assert_int_equal(try_echo(w->a, x), -ERR_CERT_EXPIRED);
}

static void test_banned_key_is_refused(void **state)
{
    struct world *w = *state;
    pki_trust_ban(w->a->trust, w->b->leaf.fingerprint);
    assert_int_equal(try_echo(w->b, w->a), -ERR_REVOKED);
    assert_int_equal(try_echo(w->a, w->b), -ERR_REVOKED);
}

static void test_dialling_another_node_than_meant_is_refused(void **state)
{
    struct world *w = *state;
    struct uuid nobody = uuid_new();
    fabric_peer_set(w->b->f, &nobody, &w->a->addr, 1);
    struct fabric_node ghost = {.id = nobody};
    assert_int_equal(try_echo(w->b, &ghost), -ERR_WRONG_NODE);
    assert_int_equal(w->accepted_count, 0);
}

static void test_node_that_claims_our_own_id_is_refused(void **state)
{
    struct world *w = *state;
    struct fabric_node *x = add(w, (struct fabric_node_opts){.issuer = w->a});
    x->id = w->b->id;
    fabric_node_issue(x, w->a, PKI_LEAF_LIFE_MS);
    fabric_node_identify(x);
    /* It must not believe it dials itself. */
    x->f->node_id = uuid_new();
    fabric_peer_set(x->f, &w->b->id, &w->b->addr, 1);
    assert_int_not_equal(try_echo(x, w->b), 0);
}

static bool is_up(void *data)
{
    return ((struct fabric_node *)data)->ups > 0;
}

/* --- enrolment --- */

static void test_pinned_host_enrolls_without_a_certificate(void **state)
{
    struct world *w = *state;
    struct fabric_node *j = add(w, (struct fabric_node_opts){.no_identity = true});
    struct end e;
    enroll_at(&e, j, &w->a->addr, "enroll");
    fabric_world_run(&w->w, ended, &e);
    assert_false(e.closed);
    assert_true(e.peer.identity.authority);
    assert_memory_equal(e.peer.identity.node_id.b, w->a->id.b, 16);
    assert_false(w->accepted[0].peer.authenticated);
    assert_int_equal(w->a->ups, 0);
    fabric_stream_close(e.s);
    fabric_world_run(&w->w, is_closed, &w->accepted[0]);
    fabric_world_run(&w->w, no_sessions, w->a);
    fabric_world_run(&w->w, no_sessions, j);
}

static void test_enrolling_host_reaches_no_other_service(void **state)
{
    struct world *w = *state;
    struct fabric_node *j = add(w, (struct fabric_node_opts){.no_identity = true});
    struct end e;
    enroll_at(&e, j, &w->a->addr, "echo");
    fabric_world_run(&w->w, ended, &e);
    assert_true(e.closed);
    assert_int_equal(e.rc, -ERR_NO_SERVICE);
    assert_int_equal(w->accepted_count, 0);
}

static void test_host_without_identity_cannot_dial_a_node(void **state)
{
    struct world *w = *state;
    struct fabric_node *j = add(w, (struct fabric_node_opts){.no_identity = true});
    fabric_peer_set(j->f, &w->a->id, &w->a->addr, 1);
    struct end e;
    struct fabric_stream_to t = {.node_id = w->a->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(j->f, &t, &vtab, &e, &e.s), -ERR_UNREACHABLE);
}

static void test_enroll_server_must_be_an_authority(void **state)
{
    struct world *w = *state;
    struct fabric_node *fake =
        add(w, (struct fabric_node_opts){.issuer = w->a, .serve_enroll = true});
    struct fabric_node *j = add(w, (struct fabric_node_opts){.no_identity = true});
    struct end e;
    enroll_at(&e, j, &fake->addr, "enroll");
    fabric_world_run(&w->w, ended, &e);
    assert_true(e.closed);
    assert_int_equal(e.rc, -ERR_NOT_AUTHORITY);
    assert_int_equal(w->accepted_count, 0);
}

static void test_enroll_server_of_another_root_is_refused_by_pin(void **state)
{
    struct world *w = *state;
    struct fabric_node *x = add(
        w, (struct fabric_node_opts){.authority = true, .foreign = true, .serve_enroll = true});
    struct fabric_node *j = add(w, (struct fabric_node_opts){.no_identity = true});
    struct end e;
    enroll_at(&e, j, &x->addr, "enroll");
    fabric_world_run(&w->w, ended, &e);
    assert_true(e.closed);
    assert_int_equal(w->accepted_count, 0);
    assert_int_equal(refused(j), 1);
}

static void test_enroll_is_refused_where_it_is_not_served(void **state)
{
    struct world *w = *state;
    struct fabric_node *j = add(w, (struct fabric_node_opts){.no_identity = true});
    struct end e;
    enroll_at(&e, j, &w->b->addr, "enroll");
    fabric_world_run(&w->w, ended, &e);
    assert_true(e.closed);
    assert_int_equal(e.rc, -ERR_UNSUPPORTED);
}

/* A raw client: what our own code would never send. */
static int raw_client(struct world *w, enum session_kind claim, bool with_certificate)
{
    struct fabric_node *x = add(w, (struct fabric_node_opts){.issuer = w->a});
    struct tls_gen *mine = x->f->gen;
    if (!with_certificate) {
        x->f->gen = x->f->anon;
    }
    fabric_peer_set(x->f, &w->a->id, &w->a->addr, 1);
    struct end e;
    *(&e) = (struct end){.s = NULL};
    struct fabric_stream_to t = {
        .node_id = w->a->id, .service = "echo", .bulk = claim == KIND_BULK};
    assert_int_equal(fabric_stream_open(x->f, &t, &vtab, &e, &e.s), 0);
    x->f->gen = mine;
    assert_int_equal(fabric_stream_send(e.s, blob_str("x")), 0);
    fabric_world_run(&w->w, ended, &e);
    if (!e.closed) {
        fabric_stream_close(e.s);
    }
    return e.closed ? e.rc : 0;
}

static void test_client_without_certificate_is_refused(void **state)
{
    struct world *w = *state;
    assert_int_equal(raw_client(w, KIND_CONTROL, true), 0);
    assert_int_equal(raw_client(w, KIND_CONTROL, false), -ERR_BAD_CERT);
    assert_int_equal(raw_client(w, KIND_BULK, false), -ERR_BAD_CERT);
    assert_int_equal(w->accepted_count, 1);
}

static bool handshake_failed(void *data)
{
    struct fabric_counters c;
    fabric_counters(((struct fabric_node *)data)->f, &c);
    return c.handshakes_failed > 0 && c.half_open == 0;
}

/* GnuTLS alone would accept a client that offers no ALPN at all (reference quic.md, section 1). */
static void test_wrong_or_missing_alpn_is_refused(void **state)
{
    struct world *w = *state;
    for (unsigned count = 0; count < 2; count++) {
        struct fabric_node *s = add(w, (struct fabric_node_opts){.issuer = w->a});
        struct fabric_node *x = add(w, (struct fabric_node_opts){.issuer = w->a});
        struct session *ss = session_dial(x->f, KIND_ENROLL, &s->addr, NULL, 10000);
        gnutls_datum_t h3 = {.data = (unsigned char *)(uintptr_t)"h3", .size = 2};
        assert_int_equal(gnutls_alpn_set_protocols(ss->tls, &h3, count, 0), 0);
        fabric_world_run(&w->w, handshake_failed, s);
        fabric_world_run(&w->w, handshake_failed, x);
        assert_int_equal(s->ups, 0);
    }
}

static void test_identity_that_comes_later_dials_what_was_kept(void **state)
{
    struct world *w = *state;
    struct fabric_node *x = add(w, (struct fabric_node_opts){.no_identity = true});
    fabric_peer_set(x->f, &w->a->id, &w->a->addr, 1);
    fabric_peer_keep(x->f, &w->a->id, true);
    fabric_world_spin(&w->w, 5);
    assert_int_equal(x->ups, 0);
    fabric_node_issue(x, w->a, PKI_LEAF_LIFE_MS);
    fabric_node_identify(x);
    fabric_world_run(&w->w, is_up, x);
}

static void test_wildcard_and_ipv6_sockets_connect(void **state)
{
    struct world *w = *state;
    static const char *const listens[] = {"0.0.0.0:0", "[::]:0", "[::1]:0"};
    static const char *const hosts[] = {"127.0.0.1:%u", "127.0.0.1:%u", "[::1]:%u"};
    for (size_t i = 0; i < ARRAY_SIZE(listens); i++) {
        struct fabric_node *s =
            add(w, (struct fabric_node_opts){.issuer = w->a, .listen = listens[i]});
        struct fabric_node *c = add(
            w, (struct fabric_node_opts){.issuer = w->a, .listen = i == 0 ? "127.0.0.1:0" : "[::]:0"});
        char text[ADDR_TEXT_MAX];
        addr_format(&s->addr, text);
        unsigned port = (unsigned)strtoul(strrchr(text, ':') + 1, NULL, 10);
        (void)snprintf(text, sizeof text, hosts[i], port);
        struct addr to;
        struct errmsg em;
        assert_int_equal(addr_parse(text, &to, &em), 0);
        fabric_peer_set(c->f, &s->id, &to, 1);
        assert_int_equal(try_echo(c, s), 0);
        assert_int_equal(try_echo(s, c), 0);
    }
}

/* --- sessions that go --- */

static bool b_lost_a(void *data)
{
    return ((struct world *)data)->b->downs > 0;
}

static void keep_each_other(struct world *w)
{
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, connected, w);
}

static void test_dead_peer_is_noticed_and_reconnected_when_it_is_back(void **state)
{
    struct world *w = *state;
    keep_each_other(w);
    assert_int_equal(w->b->ups, 1);
    fabric_node_close(w->a, true);
    fabric_world_run(&w->w, b_lost_a, w);
    assert_int_equal(w->b->last_down_rc, -ERR_TIMEOUT);
    assert_false(fabric_peer_connected(w->b->f, &w->a->id));
    fabric_node_open(w->a);
    serve(w, w->a);
    fabric_world_run(&w->w, connected, w);
    assert_int_equal(w->b->ups, 2);
    assert_int_equal(try_echo(w->b, w->a), 0);
}

static void test_stopping_peer_is_noticed_at_once(void **state)
{
    struct world *w = *state;
    keep_each_other(w);
    fabric_node_close(w->a, false);
    fabric_world_run(&w->w, b_lost_a, w);
    assert_int_equal(w->b->last_down_rc, -ERR_CLOSED);
}

/* RFC 9000 section 10.3: the restarted peer's first answer ends the old session; no time-out. */
static void test_restarted_peer_resets_the_old_session(void **state)
{
    struct world *w = *state;
    w->b->f->cfg.dead_ms = 60000;
    keep_each_other(w);
    struct end e;
    open_to(&e, w->b, w->a);
    fabric_world_run(&w->w, ended, &e);
    fabric_node_close(w->a, true);
    fabric_node_open(w->a);
    serve(w, w->a);
    assert_int_equal(fabric_stream_send(e.s, blob_str("x")), 0);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_CLOSED);
    struct fabric_counters c;
    fabric_counters(w->a->f, &c);
    assert_true(c.resets_sent >= 1);
    fabric_world_run(&w->w, connected, w);
}

static void test_new_connection_of_a_restarted_dialler_replaces_the_old(void **state)
{
    struct world *w = *state;
    w->a->f->cfg.dead_ms = 60000;
    keep_each_other(w);
    struct end e;
    open_to(&e, w->a, w->b);
    fabric_world_run(&w->w, ended, &e);
    fabric_node_close(w->b, true);
    fabric_node_open(w->b);
    serve(w, w->b);
    fabric_world_introduce(w->a, w->b);
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_CLOSED);
    fabric_world_run(&w->w, connected, w);
    assert_int_equal(w->a->downs, 0);
    assert_int_equal(try_echo(w->a, w->b), 0);
}

static bool one_session_each(void *data)
{
    struct world *w = data;
    return sessions(w->a) == 1 && sessions(w->b) == 1;
}

static void test_simultaneous_dials_converge_to_one_session_without_a_gap(void **state)
{
    struct world *w = *state;
    fabric_peer_keep(w->a->f, &w->b->id, true);
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, connected, w);
    assert_int_equal(try_echo(w->a, w->b), 0);
    assert_int_equal(try_echo(w->b, w->a), 0);
    fabric_world_run(&w->w, one_session_each, w);
    assert_int_equal(w->a->downs, 0);
    assert_int_equal(w->b->downs, 0);
    assert_int_equal(w->a->ups, 1);
    assert_int_equal(w->b->ups, 1);
    assert_int_equal(try_echo(w->a, w->b), 0);
    assert_int_equal(try_echo(w->b, w->a), 0);
    struct fabric_counters c;
    fabric_counters(w->a->f, &c);
    assert_int_equal(c.sessions_opened, 2);
}

static void test_ban_cuts_the_session_on_recheck(void **state)
{
    struct world *w = *state;
    struct end e;
    open_to(&e, w->b, w->a);
    fabric_world_run(&w->w, ended, &e);
    assert_int_equal(fabric_recheck(w->a->f), 0);
    pki_trust_ban(w->a->trust, w->b->leaf.fingerprint);
    assert_int_equal(fabric_recheck(w->a->f), 1);
    assert_false(w->accepted[0].closed);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_REVOKED);
    assert_true(w->accepted[0].closed);
    assert_int_equal(w->accepted[0].rc, -ERR_REVOKED);
    assert_false(fabric_peer_connected(w->a->f, &w->b->id));
}

static void test_ban_of_the_issuer_cuts_the_session(void **state)
{
    struct world *w = *state;
    struct end e;
    open_to(&e, w->b, w->a);
    fabric_world_run(&w->w, ended, &e);
    uint8_t key[32];
    uint8_t fp[32];
    pki_key_public(w->a->issuer_key, key);
    pki_fingerprint(key, fp);
    pki_trust_ban(w->a->trust, fp);
    assert_int_equal(fabric_recheck(w->a->f), 1);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_REVOKED);
}

static void test_session_ends_when_the_certificate_expires(void **state)
{
    struct world *w = *state;
    struct fabric_node *x = add(w, (struct fabric_node_opts){.issuer = w->a, .leaf_life_ms = 2000});
    fabric_world_introduce(w->a, x);
    struct end e;
    open_to(&e, x, w->a);
    fabric_world_run(&w->w, ended, &e);
    assert_false(e.closed);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_CERT_EXPIRED);
}

static void test_identity_swap_keeps_sessions_and_shows_the_new_one_to_the_next(void **state)
{
    struct world *w = *state;
    struct end e;
    open_to(&e, w->b, w->a);
    fabric_world_run(&w->w, ended, &e);
    fabric_node_issue(w->b, w->a, PKI_LEAF_LIFE_MS);
    fabric_node_identify(w->b);
    e.got = 0;
    assert_int_equal(fabric_stream_send(e.s, blob_str("y")), 0);
    fabric_world_run(&w->w, ended, &e);
    assert_false(e.closed);
    assert_memory_not_equal(w->accepted[0].peer.identity.serial, w->b->leaf.serial, 16);
    fabric_peer_forget(w->b->f, &w->a->id);
    fabric_world_run(&w->w, is_closed, &e);
    fabric_peer_set(w->b->f, &w->a->id, &w->a->addr, 1);
    w->accepted_count = 0;
    assert_int_equal(try_echo(w->b, w->a), 0);
    assert_memory_equal(w->accepted[0].peer.identity.serial, w->b->leaf.serial, 16);
}

static bool two_half_open(void *data)
{
    struct fabric_counters c;
    fabric_counters(((struct fabric_node *)data)->f, &c);
    return c.half_open == 2;
}

static void test_half_open_load_brings_retry_and_honest_peers_still_connect(void **state)
{
    struct world *w = *state;
    struct fabric_node *s = add(
        w, (struct fabric_node_opts){
               .issuer = w->a, .serve_enroll = true, .limits.retry_above = 2});
    fabric_world_introduce(w->b, s);
    /* Dials whose client never goes on. */
    struct fabric_node *x = add(w, (struct fabric_node_opts){.issuer = w->a});
    for (int i = 0; i < 4; i++) {
        assert_non_null(session_dial(x->f, KIND_ENROLL, &s->addr, NULL, 10000));
    }
    fabric_world_spin(&w->w, 1);
    fabric_kill(x->f);
    struct fabric_counters c;
    fabric_world_run(&w->w, two_half_open, s);
    assert_int_equal(try_echo(w->b, s), 0);
    fabric_counters(s->f, &c);
    assert_int_equal(c.half_open, 2);
    assert_true(c.retries_sent >= 1);
    assert_int_equal(c.sessions, 1);
}

static void test_second_address_is_tried_when_the_first_is_dead(void **state)
{
    struct world *w = *state;
    struct addr addrs[2];
    struct errmsg em;
    assert_int_equal(addr_parse("127.0.0.1:9", &addrs[0], &em), 0);
    addrs[1] = w->a->addr;
    fabric_peer_set(w->b->f, &w->a->id, addrs, 2);
    assert_int_equal(try_echo(w->b, w->a), 0);
}

static void test_forgotten_peer_ends_streams_and_is_unknown(void **state)
{
    struct world *w = *state;
    struct end e;
    open_to(&e, w->b, w->a);
    fabric_world_run(&w->w, ended, &e);
    fabric_peer_forget(w->b->f, &w->a->id);
    assert_false(e.closed);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_CLOSED);
    struct fabric_stream_to t = {.node_id = w->a->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(w->b->f, &t, &vtab, &e, &e.s), -ERR_UNREACHABLE);
}

static void test_session_without_traffic_stays_up(void **state)
{
    struct world *w = *state;
    keep_each_other(w);
    uint64_t end = clock_mono_ns() + 1500 * NS_PER_MS;
    while (clock_mono_ns() < end) {
        (void)fabric_world_turn(&w->w);
    }
    assert_int_equal(w->b->downs, 0);
    assert_int_equal(w->a->downs, 0);
    assert_true(connected(w));
}

/* A stopped process (SIGSTOP, a paused machine) must not take its own silence for the peer's. */
static void test_own_pause_is_not_taken_for_the_death_of_the_peer(void **state)
{
    struct world *w = *state;
    keep_each_other(w);
    (void)usleep(900 * 1000);
    for (int i = 0; i < 20; i++) {
        (void)fabric_world_turn(&w->w);
    }
    assert_int_equal(w->b->downs, 0);
    assert_int_equal(w->a->downs, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_mutual_session_names_both_ends),
        T(test_node_of_another_cluster_is_refused),
        T(test_stranger_that_trusts_us_is_refused_by_the_server),
        T(test_expired_certificate_is_refused),
        T(test_banned_key_is_refused),
        T(test_dialling_another_node_than_meant_is_refused),
        T(test_node_that_claims_our_own_id_is_refused),
        T(test_pinned_host_enrolls_without_a_certificate),
        T(test_enrolling_host_reaches_no_other_service),
        T(test_host_without_identity_cannot_dial_a_node),
        T(test_enroll_server_must_be_an_authority),
        T(test_enroll_server_of_another_root_is_refused_by_pin),
        T(test_enroll_is_refused_where_it_is_not_served),
        T(test_client_without_certificate_is_refused),
        T(test_wrong_or_missing_alpn_is_refused),
        T(test_identity_that_comes_later_dials_what_was_kept),
        T(test_wildcard_and_ipv6_sockets_connect),
        T(test_dead_peer_is_noticed_and_reconnected_when_it_is_back),
        T(test_stopping_peer_is_noticed_at_once),
        T(test_restarted_peer_resets_the_old_session),
        T(test_new_connection_of_a_restarted_dialler_replaces_the_old),
        T(test_simultaneous_dials_converge_to_one_session_without_a_gap),
        T(test_ban_cuts_the_session_on_recheck),
        T(test_ban_of_the_issuer_cuts_the_session),
        T(test_session_ends_when_the_certificate_expires),
        T(test_identity_swap_keeps_sessions_and_shows_the_new_one_to_the_next),
        T(test_half_open_load_brings_retry_and_honest_peers_still_connect),
        T(test_second_address_is_tried_when_the_first_is_dead),
        T(test_forgotten_peer_ends_streams_and_is_unknown),
        T(test_session_without_traffic_stays_up),
        T(test_own_pause_is_not_taken_for_the_death_of_the_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
