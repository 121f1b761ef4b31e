#include "agent/renewal.h"

#include "agent/uplink.h"

#define RETRY_MIN_MS 10000
#define RETRY_MAX_MS 3600000u

int64_t renewal_due_ms(int64_t not_before_ms, int64_t not_after_ms, uint64_t random)
{
    int64_t life = not_after_ms > not_before_ms ? not_after_ms - not_before_ms : 0;
    return not_before_ms + life / 3 * 2 + (int64_t)(random % ((uint64_t)life / 20 + 1));
}

int64_t renewal_soonest_ms(int64_t now_ms, int64_t not_after_ms)
{
    int64_t half = not_after_ms > now_ms ? (not_after_ms - now_ms) / 2 : 0;
    return now_ms + (half < RETRY_MIN_MS ? RETRY_MIN_MS : half);
}

int64_t renewal_retry_ms(int64_t now_ms, int64_t not_after_ms, uint32_t failures, uint64_t random)
{
    int64_t left = not_after_ms > now_ms ? not_after_ms - now_ms : 0;
    int64_t delay = (int64_t)backoff_delay_ms(failures, RETRY_MIN_MS, RETRY_MAX_MS, random);
    if (delay > left / 10) {
        delay = left / 10;
    }
    return now_ms + (delay < RETRY_MIN_MS ? RETRY_MIN_MS : delay);
}
