/* Who may ask for what: one table, one function (decision 0018). */
#include "authority/authority_impl.h"
#include "wire/cmd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

static const struct uuid peer = {.b = {1, 2, 3}};

static int ask(const char *method, const char *kind, const char *id, const struct uuid *via)
{
    const struct op_input in = {.method = method, .actor_kind = kind, .actor_id = id};
    return op_admits(&in, via, NULL);
}

static const char *self(void)
{
    static char text[UUID_TEXT_MAX];
    uuid_format(&peer, text);
    return text;
}

/* What a forwarding authority may say of its caller, a row for each class and for each lie. */
static void test_forwarding_authority_asserts_no_more_than_its_class(void **state)
{
    static const char uid[] = "uid:0";
    const struct {
        const char *method, *kind, *id;
        int rc;
    } rows[] = {
        /* a person */
        {"token.create", ACTOR_ADMIN, uid, 0},
        {"authority.remove", ACTOR_ADMIN, uid, 0},
        {"authority.add", ACTOR_ADMIN, uid, 0},
        {"trust.rotate", ACTOR_ADMIN, uid, 0},
        {"mirror.verify", ACTOR_ADMIN, uid, 0},
        {"token.create", ACTOR_ADMIN, "somebody", -ERR_DENIED},
        {"token.create", ACTOR_OWNER, "", -ERR_DENIED},
        {"token.create", ACTOR_SYSTEM, "", -ERR_DENIED},
        {"token.create", ACTOR_NODE, self(), -ERR_DENIED},
        {"token.create", "root", uid, -ERR_DENIED},
        {"trust.rotate", ACTOR_OWNER, "", -ERR_DENIED},
        {"authority.renew", ACTOR_OWNER, "", -ERR_DENIED},
        /* a node it serves */
        {"join.submit", ACTOR_NODE, "ab12", 0},
        {"node.renew", ACTOR_NODE, "n", 0},
        {"node.renew", ACTOR_NODE, "", -ERR_DENIED},
        {"node.renew", ACTOR_ADMIN, uid, -ERR_DENIED},
        {"node.forgery", ACTOR_SYSTEM, "", -ERR_DENIED},
        /* itself */
        {"authority.renewed", ACTOR_NODE, self(), 0},
        {"authority.renewed", ACTOR_NODE, "another", -ERR_DENIED},
        {"divergence.report", ACTOR_NODE, "another", -ERR_DENIED},
        {"divergence.report", ACTOR_ADMIN, uid, -ERR_DENIED},
        /* what it saw */
        {"refusal.noted", ACTOR_SYSTEM, "", 0},
        {"refusal.noted", ACTOR_SYSTEM, "uid:0", -ERR_DENIED},
        {"refusal.noted", ACTOR_ADMIN, uid, -ERR_DENIED},
        /* reads, and what one member does to itself */
        {"token.list", ACTOR_ADMIN, uid, -ERR_DENIED},
        {"backup.create", ACTOR_ADMIN, uid, -ERR_DENIED},
        {"backup.read", ACTOR_ADMIN, uid, -ERR_DENIED},
        {"partition.promote", ACTOR_ADMIN, uid, -ERR_DENIED},
        {"divergence.own", ACTOR_ADMIN, uid, -ERR_DENIED},
        {"cluster.destroy", ACTOR_ADMIN, uid, -ERR_NOT_FOUND},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int rc = ask(rows[i].method, rows[i].kind, rows[i].id, &peer);
        if (rc != rows[i].rc) {
            fail_msg("%s as %s \"%s\": %s", rows[i].method, rows[i].kind, rows[i].id, err_slug(rc));
        }
    }
}

static void test_what_the_leader_decides_no_peer_may_ask_for(void **state)
{
    static const char *const leaders[] = {
        "authority.commit",   "authority.status", "authority.fenced", "authority.damaged",
        "authority.set_next", "mirror.event",     "join.expire",      "node.health",
        "partition.seen",     "heartbeat.log",    "certificate.alarm"};
    static const char *const kinds[] = {ACTOR_OWNER, ACTOR_ADMIN, ACTOR_NODE, ACTOR_SYSTEM};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(leaders); i++) {
        assert_true(op_is_for_leader(leaders[i]));
        for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
            assert_int_equal(ask(leaders[i], kinds[k], "uid:0", &peer), -ERR_DENIED);
            assert_int_equal(ask(leaders[i], kinds[k], "", &peer), -ERR_DENIED);
            assert_int_equal(ask(leaders[i], kinds[k], self(), &peer), -ERR_DENIED);
        }
        assert_int_equal(ask(leaders[i], ACTOR_ADMIN, "uid:0", NULL), -ERR_DENIED);
        assert_int_equal(ask(leaders[i], ACTOR_SYSTEM, "", NULL), 0);
    }
}

/* Whatever is added to the table: nobody passes on a call in the owner's name, and no method is open
 * to two kinds of caller. */
static void test_every_method_has_one_kind_of_caller_at_most(void **state)
{
    static const struct {
        const char *kind, *id;
    } callers[] = {{ACTOR_ADMIN, "uid:7"}, {ACTOR_NODE, ""}, {ACTOR_SYSTEM, ""}};
    size_t n = 0;
    (void)state;
    for (const char *m = op_method_at(0); m != NULL; m = op_method_at(++n)) {
        int open = 0;
        for (size_t i = 0; i < ARRAY_SIZE(callers); i++) {
            const char *id = strcmp(callers[i].kind, ACTOR_NODE) == 0 ? self() : callers[i].id;
            open += ask(m, callers[i].kind, id, &peer) == 0;
        }
        if (open > 1 || (open == 0 && !op_is_for_leader(m)) ||
            ask(m, ACTOR_OWNER, "", &peer) != -ERR_DENIED ||
            ask(m, ACTOR_OWNER, self(), &peer) != -ERR_DENIED) {
            fail_msg("%s is open to %d kinds of caller", m, open);
        }
    }
    assert_true(n > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forwarding_authority_asserts_no_more_than_its_class),
        cmocka_unit_test(test_what_the_leader_decides_no_peer_may_ask_for),
        cmocka_unit_test(test_every_method_has_one_kind_of_caller_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
