/* A step of the membership, judged: what may be lost before and after it (src/authority/quorum.h). */
#include "authority/quorum.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>
#include <string.h>

/* Members 1, 2, ... as letters: V votes and is in contact, v votes and is away, c is to vote and does not yet. */
static enum quorum_verdict judge(const char *group, raft_id leaves, struct quorum_step *s)
{
    struct quorum_member m[16];
    size_t n = strlen(group);
    for (size_t i = 0; i < n; i++) {
        m[i] = (struct quorum_member){
            .id = i + 1, .votes = group[i] != 'c', .live = group[i] == 'V'};
    }
    return quorum_judge(m, n, leaves, s);
}

static void test_vote_is_taken_only_from_what_can_spare_it(void **state)
{
    (void)state;
    static const struct {
        const char *group;
        raft_id leaves;
        enum quorum_verdict want;
    } rows[] = {
        {"VVV", 3, QUORUM_LESS},  /* survived one loss */
        {"VVVV", 4, QUORUM_SAFE}, /* an even one survives no more */
        {"VVVVV", 5, QUORUM_LESS},
        {"VVv", 3, QUORUM_SAFE},  /* the dead one */
        {"VVv", 2, QUORUM_LOST},  /* a live one beside it: damaged, perhaps */
        {"VVVv", 3, QUORUM_SAFE}, /* 2 of 3 are left, as 3 of 4 were: none to spare */
        {"VVVVv", 4, QUORUM_LESS},
        {"VVVvv", 3, QUORUM_LOST},
        {"VV", 2, QUORUM_SAFE},
        {"V", 1, QUORUM_LOST},
        /* One that heals left the configuration, one that was added is not in it yet. */
        {"VVc", 2, QUORUM_LESS},
        {"VVc", 3, QUORUM_SAFE}, /* it is itself given up */
        {"VVVc", 3, QUORUM_LESS},
        {"VVvc", 3, QUORUM_SAFE}, /* the dead one is replaced */
        {"VVVVc", 4, QUORUM_LESS},
        {"VVVVVcc", 7, QUORUM_SAFE},
        {"VVvc", 2, QUORUM_LOST},
        {"VVV", 9, QUORUM_SAFE}, /* who has no vote takes none away */
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct quorum_step s;
        enum quorum_verdict got = judge(rows[i].group, rows[i].leaves, &s);
        if (got != rows[i].want) {
            fail_msg("%s without %llu: %d", rows[i].group, rows[i].leaves, (int)got);
        }
    }
}

static void test_counts_tell_what_is_left(void **state)
{
    (void)state;
    struct quorum_step s;
    (void)judge("VVvc", 2, &s);
    assert_int_equal(s.now.voters, 3);
    assert_int_equal(s.now.live, 2);
    assert_int_equal(s.now.slack, 0);
    assert_int_equal(s.after.voters, 2);
    assert_int_equal(s.after.live, 1);
    assert_int_equal(s.after.slack, -1);
    assert_int_equal(s.expected_now.voters, 4);
    assert_int_equal(s.expected_after.voters, 3);
    assert_int_equal(s.expected_after.slack, -1);
    assert_int_equal(s.coming, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vote_is_taken_only_from_what_can_spare_it),
        cmocka_unit_test(test_counts_tell_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
