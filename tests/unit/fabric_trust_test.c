/* Who may connect (DESIGN section 4; SPEC CHN-01: certificates and authorization of a channel). */
#include "lib/fabric_echo.h"
#include "lib/fabric_forge.h"

#include "fabric/fabric_impl.h"

#include <setjmp.h>
#include <cmocka.h>

static void enroll_at(struct echo_end *e, struct fabric_node *from, const struct addr *to,
                      const char *service)
{
    *e = (struct echo_end){.s = NULL};
    struct fabric_stream_to t = {.enroll_addr = *to, .service = service};
    assert_int_equal(fabric_stream_open(from->f, &t, &echo_client_vtab, e, &e->s), 0);
    assert_int_equal(fabric_stream_send(e->s, blob_str("x")), 0);
}

static uint64_t refused(struct fabric_node *n)
{
    struct fabric_counters c;
    fabric_counters(n->f, &c);
    return c.auth_refused;
}

/* --- who may connect --- */

static void test_mutual_session_names_both_ends(void **state)
{
    struct echo_world *w = *state;
    struct echo_end e;
    echo_open(&e, w->b, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
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
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(w,
                                     (struct fabric_node_opts){.authority = true, .foreign = true});
    fabric_world_introduce(w->a, x);
    assert_int_not_equal(echo_try(x, w->a), 0);
    assert_int_not_equal(echo_try(w->a, x), 0);
    assert_int_equal(w->accepted_count, 0);
    assert_true(refused(w->a) >= 1);
    assert_int_equal(w->a->ups, 0);
    assert_int_equal(x->ups, 0);
}

/* It trusts our root, we not its: only our judgement counts for us. */
static void test_stranger_that_trusts_us_is_refused_by_the_server(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(w,
                                     (struct fabric_node_opts){.authority = true, .foreign = true});
    struct errmsg em;
    pki_trust_free(x->trust);
    x->trust = pki_trust_new(&w->w.ca.cluster_id);
    assert_int_equal(pki_trust_set_root(x->trust, buf_blob(&w->w.ca.der), &em), 0);
    x->f->cfg.trust = x->trust;
    fabric_peer_set(x->f, &w->a->id, &w->a->addr, 1);
    int rc = echo_try(x, w->a);
    assert_true(rc == -ERR_WRONG_CLUSTER || rc == -ERR_BAD_CERT || rc == -ERR_BAD_SIGNATURE);
    assert_int_equal(refused(w->a), 1);
    assert_int_equal(refused(x), 0);
    assert_int_equal(x->ups, 0);
}

static void test_expired_certificate_is_refused(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(
        w, (struct fabric_node_opts){.issuer = w->a, .leaf_life_ms = -3600 * 1000});
    fabric_world_introduce(w->a, x);
    assert_int_equal(echo_try(x, w->a), -ERR_CERT_EXPIRED);
    assert_int_equal(echo_try(w->a, x), -ERR_CERT_EXPIRED);
}

static void test_banned_key_is_refused(void **state)
{
    struct echo_world *w = *state;
    pki_trust_ban(w->a->trust, w->b->leaf.fingerprint);
    assert_int_equal(echo_try(w->b, w->a), -ERR_REVOKED);
    assert_int_equal(echo_try(w->a, w->b), -ERR_REVOKED);
}

static void test_dialling_another_node_than_meant_is_refused(void **state)
{
    struct echo_world *w = *state;
    struct uuid nobody = uuid_new();
    fabric_peer_set(w->b->f, &nobody, &w->a->addr, 1);
    struct fabric_node ghost = {.id = nobody};
    assert_int_equal(echo_try(w->b, &ghost), -ERR_WRONG_NODE);
    assert_int_equal(w->accepted_count, 0);
}

static void test_node_that_claims_our_own_id_is_refused(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    x->id = w->b->id;
    fabric_node_issue(x, w->a, PKI_LEAF_LIFE_MS);
    fabric_node_identify(x);
    /* It must not believe it dials itself. */
    x->f->node_id = uuid_new();
    fabric_peer_set(x->f, &w->b->id, &w->b->addr, 1);
    assert_int_not_equal(echo_try(x, w->b), 0);
}

static bool is_up(void *data)
{
    return ((struct fabric_node *)data)->ups > 0;
}

/* --- enrolment --- */

static void test_pinned_host_enrolls_without_a_certificate(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct echo_end e;
    enroll_at(&e, j, &w->a->addr, "enroll");
    fabric_world_run(&w->w, echo_ended, &e);
    assert_false(e.closed);
    assert_true(e.peer.identity.authority);
    assert_memory_equal(e.peer.identity.node_id.b, w->a->id.b, 16);
    assert_false(w->accepted[0].peer.authenticated);
    assert_int_equal(w->a->ups, 0);
    fabric_stream_close(e.s);
    fabric_world_run(&w->w, echo_closed, &w->accepted[0]);
    fabric_world_run(&w->w, echo_no_sessions, w->a);
    fabric_world_run(&w->w, echo_no_sessions, j);
}

static void test_enrolling_host_reaches_no_other_service(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct echo_end e;
    enroll_at(&e, j, &w->a->addr, "echo");
    fabric_world_run(&w->w, echo_ended, &e);
    assert_true(e.closed);
    assert_int_equal(e.rc, -ERR_NO_SERVICE);
    assert_int_equal(w->accepted_count, 0);
}

static void test_host_without_identity_cannot_dial_a_node(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    fabric_peer_set(j->f, &w->a->id, &w->a->addr, 1);
    struct echo_end e;
    struct fabric_stream_to t = {.node_id = w->a->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(j->f, &t, &echo_client_vtab, &e, &e.s), -ERR_UNREACHABLE);
}

static void test_enroll_server_must_be_an_authority(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *fake = echo_add(
        w, (struct fabric_node_opts){.issuer = w->a, .serve_enroll = true});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct echo_end e;
    enroll_at(&e, j, &fake->addr, "enroll");
    fabric_world_run(&w->w, echo_ended, &e);
    assert_true(e.closed);
    assert_int_equal(e.rc, -ERR_NOT_AUTHORITY);
    assert_int_equal(w->accepted_count, 0);
}

static void test_enroll_server_of_another_root_is_refused_by_pin(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(
        w, (struct fabric_node_opts){.authority = true, .foreign = true, .serve_enroll = true});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct echo_end e;
    enroll_at(&e, j, &x->addr, "enroll");
    fabric_world_run(&w->w, echo_ended, &e);
    assert_true(e.closed);
    assert_int_equal(w->accepted_count, 0);
    assert_int_equal(refused(j), 1);
}

static void test_enroll_is_refused_where_it_is_not_served(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct echo_end e;
    enroll_at(&e, j, &w->b->addr, "enroll");
    fabric_world_run(&w->w, echo_ended, &e);
    assert_true(e.closed);
    assert_int_equal(e.rc, -ERR_UNSUPPORTED);
}

/* A raw client: what our own code would never send. */
static int raw_client(struct echo_world *w, enum session_kind claim, bool with_certificate)
{
    struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    struct tls_gen *mine = x->f->gen;
    if (!with_certificate) {
        x->f->gen = x->f->anon;
    }
    fabric_peer_set(x->f, &w->a->id, &w->a->addr, 1);
    struct echo_end e;
    *(&e) = (struct echo_end){.s = NULL};
    struct fabric_stream_to t = {
        .node_id = w->a->id, .service = "echo", .bulk = claim == KIND_BULK};
    assert_int_equal(fabric_stream_open(x->f, &t, &echo_client_vtab, &e, &e.s), 0);
    x->f->gen = mine;
    assert_int_equal(fabric_stream_send(e.s, blob_str("x")), 0);
    fabric_world_run(&w->w, echo_ended, &e);
    if (!e.closed) {
        fabric_stream_close(e.s);
    }
    return e.closed ? e.rc : 0;
}

static void test_client_without_certificate_is_refused(void **state)
{
    struct echo_world *w = *state;
    assert_int_equal(raw_client(w, KIND_CONTROL, true), 0);
    assert_int_equal(raw_client(w, KIND_CONTROL, false), -ERR_NO_CERT);
    assert_int_equal(raw_client(w, KIND_BULK, false), -ERR_NO_CERT);
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
    struct echo_world *w = *state;
    for (unsigned count = 0; count < 2; count++) {
        struct fabric_node *s = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
        struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
        struct session *ss = session_dial(x->f, KIND_CONTROL, &s->addr, peer_get(x->f, &s->id),
                                          10000);
        assert_true(fabric_forge_alpn(ss, count == 0 ? NULL : "h3"));
        fabric_world_run(&w->w, handshake_failed, s);
        fabric_world_run(&w->w, handshake_failed, x);
        assert_int_equal(s->ups, 0);
    }
}

static unsigned tickets;

static int on_ticket(gnutls_session_t tls, unsigned type, unsigned when, unsigned incoming,
                     const gnutls_datum_t *msg)
{
    (void)tls;
    (void)type;
    (void)when;
    (void)incoming;
    (void)msg;
    tickets++;
    return 0;
}

/* No ticket, so no resumption and no 0-RTT: who was revoked begins anew, and is judged. */
static void test_no_ticket_is_given_to_who_would_take_one(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    struct session *ss = session_dial(x->f, KIND_CONTROL, &w->a->addr, peer_get(x->f, &w->a->id),
                                      10000);
    assert_true(fabric_forge_alpn(ss, "rap/1"));
    tickets = 0;
    gnutls_handshake_set_hook_function(ss->tls, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET,
                                       GNUTLS_HOOK_POST, on_ticket);
    fabric_world_run(&w->w, is_up, x);
    fabric_world_spin(&w->w, 50);
    assert_int_equal(tickets, 0);
}

static void test_identity_that_comes_later_dials_what_was_kept(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.no_identity = true});
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
    struct echo_world *w = *state;
    static const char *const listens[] = {"0.0.0.0:0", "[::]:0", "[::1]:0"};
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < ARRAY_SIZE(listens); i++) {
        struct fabric_node *s = echo_add(
            w, (struct fabric_node_opts){.issuer = w->a, .listen = listens[i]});
        struct fabric_node *c = echo_add(
            w,
            (struct fabric_node_opts){.issuer = w->a, .listen = i == 0 ? "127.0.0.1:0" : "[::]:0"});
        char text[ADDR_TEXT_MAX];
        addr_format(&s->addr, text);
        unsigned port = (unsigned)strtoul(strrchr(text, ':') + 1, NULL, 10);
        (void)snprintf(text, sizeof text, "%s:%u", hosts[i], port);
        struct addr to;
        struct errmsg em;
        assert_int_equal(addr_parse(text, &to, &em), 0);
        fabric_peer_set(c->f, &s->id, &to, 1);
        assert_int_equal(echo_try(c, s), 0);
        assert_int_equal(echo_try(s, c), 0);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, echo_setup, echo_teardown)
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
        T(test_no_ticket_is_given_to_who_would_take_one),
        T(test_identity_that_comes_later_dials_what_was_kept),
        T(test_wildcard_and_ipv6_sockets_connect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
