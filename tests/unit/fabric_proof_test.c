/* A session is nobody's until its peer has proved its key (fabric/proof.c, decision 0018). */
#include "lib/fabric_echo.h"

#include "fabric/fabric_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

static const char good[] = "good";

/* What a node shows and asks for; in fabric_node.data. */
struct asks {
    bool proofs;       /* of every peer */
    const char *shows; /* NULL: nothing */
    bool sends;        /* a datagram, as soon as it is up */
    unsigned asked, believed;
    int last_rc;
    unsigned waiting; /* streams of peers, when the answer came */
    unsigned refusals;
};

static int admit(void *data, const struct pki_identity *who, struct errmsg *em)
{
    struct fabric_node *n = data;
    const struct asks *k = n->data;
    (void)who;
    (void)em;
    return k->proofs ? FABRIC_ADMIT_PROVE : 0;
}

static int own_proof(void *data, struct buf *out)
{
    struct fabric_node *n = data;
    const struct asks *k = n->data;
    if (k->shows == NULL) {
        return -ERR_NOT_FOUND;
    }
    buf_add_str(out, k->shows);
    return 0;
}

static int prove(void *data, const struct pki_identity *who, int rc, struct blob proof,
                 struct errmsg *em)
{
    struct fabric_node *n = data;
    struct asks *k = n->data;
    assert_false(uuid_is_nil(&who->node_id));
    k->asked++;
    k->waiting = 0;
    const struct session *ss = container_of(n->f->sessions.next, struct session, link);
    for (struct link *l = ss->streams.next; l != &ss->streams; l = l->next) {
        const struct fabric_stream *s = container_of(l, struct fabric_stream, link);
        k->waiting += !s->local && !s->silent;
    }
    k->last_rc = rc;
    if (rc != 0 || !blob_equal(proof, blob_str(good))) {
        return errmsg_set(em, -ERR_NOT_WITNESSED, "not believed");
    }
    k->believed++;
    return 0;
}

static void session_up(void *data, const struct fabric_peer *peer)
{
    struct fabric_node *n = data;
    const struct asks *k = n->data;
    n->ups++;
    if (k->sends) {
        assert_int_equal(fabric_datagram_send(n->f, &peer->identity.node_id, blob_str("\x02probe")),
                         0);
    }
}

static void refused(void *data, const struct fabric_refusal *r)
{
    struct fabric_node *n = data;
    struct asks *k = n->data;
    assert_int_equal(r->rc, -ERR_NOT_WITNESSED);
    k->refusals++;
}

/* Nodes with proofs; a is an authority and asks for them, or not. */
static void build(struct echo_world *w, struct fabric_node *n[2], struct asks k[2])
{
    fabric_world_init(&w->w);
    for (int i = 0; i < 2; i++) {
        n[i] = fabric_world_node(&w->w, &(struct fabric_node_opts){.authority = i == 0,
                                                                   .issuer = i == 0 ? NULL : n[0],
                                                                   .manual = true});
        n[i]->data = &k[i];
        n[i]->config.admit = admit;
        n[i]->config.own_proof = own_proof;
        n[i]->config.prove = prove;
        n[i]->config.refused = refused;
        n[i]->config.session_up = session_up;
        n[i]->config.data = n[i];
        fabric_node_open(n[i]);
        echo_serve(w, n[i]);
    }
    fabric_world_introduce(n[0], n[1]);
}

static void test_both_prove_and_then_speak(void **state)
{
    struct echo_world w = {.accepted_count = 0};
    struct fabric_node *n[2];
    struct asks k[2] = {{.proofs = true, .shows = good}, {.proofs = true, .shows = good}};
    (void)state;
    build(&w, n, k);
    assert_int_equal(echo_try(n[1], n[0]), 0);
    assert_int_equal(k[0].believed, 1);
    assert_int_equal(k[1].believed, 1);
    assert_int_equal(n[0]->ups, 1);
    assert_int_equal(n[1]->ups, 1);
    fabric_world_fini(&w.w);
}

/* Only the acceptor asks: what the dialler sends meanwhile waits, and is served. */
static void test_what_comes_before_the_proof_waits_for_it(void **state)
{
    struct echo_world w = {.accepted_count = 0};
    struct fabric_node *n[2];
    struct asks k[2] = {{.proofs = true, .shows = good}, {.shows = good}};
    (void)state;
    build(&w, n, k);
    assert_int_equal(echo_try(n[1], n[0]), 0);
    assert_int_equal(k[0].believed, 1);
    assert_int_equal(k[1].asked, 0);
    fabric_world_fini(&w.w);
}

static void test_acceptor_turns_away_who_proves_nothing(void **state)
{
    static const char *const shows[] = {NULL, "bad", ""};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(shows); i++) {
        struct echo_world w = {.accepted_count = 0};
        struct fabric_node *n[2];
        struct asks k[2] = {{.proofs = true, .shows = good}, {.shows = shows[i]}};
        build(&w, n, k);
        assert_int_equal(echo_try(n[1], n[0]), -ERR_NOT_WITNESSED);
        assert_true(k[0].asked >= 1 && k[0].believed == 0);
        assert_int_equal(w.accepted_count, 0); /* it reached no service */
        assert_int_equal(n[0]->ups, 0);        /* and was no peer */
        assert_true(k[0].refusals >= 1);
        fabric_world_fini(&w.w);
    }
}

/* The dialler sends nothing to who cannot prove that it is who was dialled. */
static void test_dialler_sends_nothing_before_the_proof(void **state)
{
    struct echo_world w = {.accepted_count = 0};
    struct fabric_node *n[2];
    struct asks k[2] = {{.shows = "bad"}, {.proofs = true, .shows = good}};
    (void)state;
    build(&w, n, k);
    assert_int_equal(echo_try(n[1], n[0]), -ERR_NOT_WITNESSED);
    assert_int_equal(w.accepted_count, 0);
    assert_int_equal(n[1]->ups, 0);
    fabric_world_fini(&w.w);
}

/* A peer without the service, as an older version is. */
static void test_peer_that_knows_no_proofs_is_turned_away(void **state)
{
    struct echo_world w = {.accepted_count = 0};
    struct fabric_node *n[2];
    struct asks k[2] = {{.proofs = true, .shows = good}, {.shows = good}};
    (void)state;
    build(&w, n, k);
    n[1]->f->service_count = 0;
    assert_int_equal(echo_try(n[1], n[0]), -ERR_NOT_WITNESSED);
    assert_int_equal(k[0].last_rc, -ERR_NO_SERVICE);
    fabric_world_fini(&w.w);
}

struct flood {
    struct echo_end e[64];
    struct fabric_node *n;
};

static bool all_ended(void *data)
{
    struct flood *f = data;
    for (size_t i = 0; i < ARRAY_SIZE(f->e); i++) {
        if (!echo_ended(&f->e[i])) {
            return false;
        }
    }
    return true;
}

static void test_few_streams_wait_for_a_proof(void **state)
{
    struct echo_world w = {.accepted_count = 0};
    struct fabric_node *n[2];
    struct asks k[2] = {{.proofs = true, .shows = good}, {.shows = "bad"}};
    struct flood f = {.n = NULL};
    (void)state;
    build(&w, n, k);
    for (size_t i = 0; i < ARRAY_SIZE(f.e); i++) {
        echo_open(&f.e[i], n[1], n[0]);
    }
    fabric_world_run(&w.w, all_ended, &f);
    for (size_t i = 0; i < ARRAY_SIZE(f.e); i++) {
        assert_true(f.e[i].closed && f.e[i].rc != 0 && f.e[i].got == 0);
    }
    assert_int_equal(k[0].waiting, 16);
    assert_int_equal(w.accepted_count, 0);
    fabric_world_fini(&w.w);
}

static bool dropped(void *data)
{
    struct fabric_node *n = data;
    struct fabric_counters c;
    fabric_counters(n->f, &c);
    return c.datagrams_in > 0;
}

static unsigned heard;
static void on_datagram(void *data, const struct fabric_peer *from, struct blob payload)
{
    (void)data;
    (void)from;
    (void)payload;
    heard++;
}

/* It has us as a neighbour; we have it as none. */
static void test_datagrams_of_the_unproven_are_dropped(void **state)
{
    struct echo_world w = {.accepted_count = 0};
    struct fabric_node *n[2];
    struct asks k[2] = {{.proofs = true, .shows = good}, {.shows = "bad", .sends = true}};
    (void)state;
    build(&w, n, k);
    heard = 0;
    fabric_on_datagram(n[0]->f, on_datagram, n[0]);
    fabric_peer_keep(n[1]->f, &n[0]->id, true);
    fabric_world_run(&w.w, dropped, n[0]);
    fabric_world_spin(&w.w, 5);
    assert_int_equal(heard, 0);
    assert_false(fabric_is_neighbour(n[0]->f, &n[1]->id));
    fabric_peer_keep(n[1]->f, &n[0]->id, false);
    fabric_world_fini(&w.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_prove_and_then_speak),
        cmocka_unit_test(test_what_comes_before_the_proof_waits_for_it),
        cmocka_unit_test(test_acceptor_turns_away_who_proves_nothing),
        cmocka_unit_test(test_dialler_sends_nothing_before_the_proof),
        cmocka_unit_test(test_peer_that_knows_no_proofs_is_turned_away),
        cmocka_unit_test(test_few_streams_wait_for_a_proof),
        cmocka_unit_test(test_datagrams_of_the_unproven_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
