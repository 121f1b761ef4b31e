/* The engine: equal logs, request ids, refusals, what stops a replica (S4, S6, S15). */
#include "lib/fsm_fixture.h"

#include "base/text.h"
#include "pki/pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_first_command_must_make_the_cluster(void **state)
{
    (void)state;
    struct fsm_world w;
    uint8_t hash[32];
    fsm_world_init_empty(&w);
    fsm_fake_token(1, hash);
    struct token_create body = {.token_id = fsm_fake_id(3, 1),
                                .token_hash = blob_of(hash, 32),
                                .expires_at_ms = w.now_ms + FSM_HOUR,
                                .max_uses = 1};
    assert_int_equal(fsm_do(&w, CMD_TOKEN_CREATE, &body), -ERR_CONFLICT);
    assert_int_equal(fsm_world_init_cluster(&w), 0);
    assert_string_equal(fsm_doc_text(&w, "name"), "lab");
    assert_int_equal(fsm_world_init_cluster(&w), -ERR_EXISTS);
    assert_int_equal(fsm_do(&w, CMD_TOKEN_CREATE, &body), 0);
    struct fsm_position p;
    fsm_position(w.fsm, &p);
    assert_int_equal(p.epoch, 1);
    assert_int_equal(p.index, w.index);
    assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
    (void)fsm_make_node(&w, 7, "n7");
    (void)fsm_make_authority(&w, 8, "a8");
    assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_command_must_make_the_cluster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
