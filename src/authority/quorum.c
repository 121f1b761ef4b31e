#include "authority/quorum.h"

static void count(struct quorum_counts *c, const struct quorum_member *m)
{
    c->voters++;
    c->live += m->votes && m->live;
}

static void finish(struct quorum_counts *c)
{
    c->slack = (int)c->live - (int)(c->voters / 2 + 1);
}

enum quorum_verdict quorum_judge(const struct quorum_member *m, size_t n, raft_id leaves,
                                 struct quorum_step *ret)
{
    struct quorum_step s = {0};
    for (size_t i = 0; i < n; i++) {
        bool stays = m[i].id != leaves;
        if (m[i].votes) {
            count(&s.now, &m[i]);
            if (stays) {
                count(&s.after, &m[i]);
            }
        }
        count(&s.expected_now, &m[i]);
        if (stays) {
            s.coming += !m[i].votes;
            count(&s.expected_after, &m[i]);
        }
    }
    finish(&s.now);
    finish(&s.after);
    finish(&s.expected_now);
    finish(&s.expected_after);
    *ret = s;
    if (PLANTED("quorum_not_asked")) {
        return QUORUM_SAFE;
    }
    if (s.after.slack < 0) {
        return QUORUM_LOST;
    }
    return s.after.slack < s.now.slack || s.expected_after.slack < s.expected_now.slack
               ? QUORUM_LESS
               : QUORUM_SAFE;
}
