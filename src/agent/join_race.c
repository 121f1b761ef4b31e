#include "agent/join_impl.h"

void join_race_init(struct join_race *r, size_t count)
{
    CHECK(count <= AUTHORITIES_MAX);
    *r = (struct join_race){.count = count};
}

bool join_race_next(const struct join_race *r, size_t *ret)
{
    for (size_t n = 0; n < r->count; n++) {
        size_t i = (r->from + n) % r->count;
        if (r->lane[i] == LANE_IDLE) {
            *ret = i;
            return true;
        }
    }
    return false;
}

void join_race_start(struct join_race *r, size_t i)
{
    CHECK(i < r->count && r->lane[i] == LANE_IDLE);
    r->lane[i] = LANE_UNDER_WAY;
    r->last_rc[i] = 0;
    r->from = (i + 1) % r->count;
}

void join_race_failed(struct join_race *r, size_t i, int rc)
{
    CHECK(i < r->count && r->lane[i] == LANE_UNDER_WAY);
    r->lane[i] = LANE_FAILED;
    r->last_rc[i] = rc;
}

void join_race_won(struct join_race *r, size_t i)
{
    CHECK(i < r->count && r->lane[i] == LANE_UNDER_WAY);
    for (size_t n = 0; n < r->count; n++) {
        if (n != i && r->lane[n] == LANE_UNDER_WAY) {
            r->lane[n] = LANE_IDLE;
        }
    }
    r->from = (i + 1) % r->count;
}

void join_race_again(struct join_race *r)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->lane[i] == LANE_FAILED) {
            r->lane[i] = LANE_IDLE;
        }
    }
    r->from = 0;
}

uint64_t join_race_delay_ms(uint64_t random)
{
    return JOIN_RACE_MS * 3 / 4 + random % (JOIN_RACE_MS / 2 + 1);
}
