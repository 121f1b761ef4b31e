#include "authority/refusals.h"

#define MILLI 1000

/* Length of the address in "address:port". */
static int host_len(const char *source)
{
    const char *colon = strrchr(source, ':');
    return colon != NULL ? (int)(colon - source) : (int)strlen(source);
}

static bool same_host(const char *a, const char *b)
{
    int len = host_len(a);
    return len == host_len(b) && strncmp(a, b, (size_t)len) == 0;
}

/* One party, one reason. A joiner may call itself what it likes and make a key for each attempt, so
 * neither counts. */
static bool same_kind(const struct refusal *a, const struct refusal *b)
{
    if (a->what != b->what || a->rc != b->rc) {
        return false;
    }
    if (a->what == REFUSAL_JOIN) {
        return same_host(a->source, b->source) && a->has_token == b->has_token &&
               (!a->has_token || memcmp(a->token_hash, b->token_hash, PKI_HASH_BYTES) == 0);
    }
    return uuid_equal(&a->node_id, &b->node_id) && strcmp(a->actor_kind, b->actor_kind) == 0 &&
           strcmp(a->actor_id, b->actor_id) == 0 && strcmp(a->subject, b->subject) == 0;
}

static bool is_free(const struct refusal_slot *s)
{
    return s->r.count == 0;
}

/* The slot for r: its own, an unused one, or the one that has waited for nothing for longest. */
static struct refusal_slot *slot_for(struct refusals *t, const struct refusal *r)
{
    struct refusal_slot *best = NULL;
    for (size_t i = 0; i < REFUSALS_SLOTS; i++) {
        struct refusal_slot *s = &t->slot[i];
        if (s->noted_number != 0 && same_kind(&s->r, r)) {
            return s;
        }
        if (is_free(s) && (best == NULL || s->noted_number < best->noted_number)) {
            best = s;
        }
    }
    return best;
}

static void count_in(struct refusal *r, uint32_t n, int64_t now_ms)
{
    if (r->count == 0) {
        r->since_ms = now_ms;
    }
    r->count = r->count > UINT32_MAX - n ? UINT32_MAX : r->count + n;
}

void refusals_note(struct refusals *t, const struct refusal *r, int64_t now_ms)
{
    uint32_t n = r->count == 0 ? 1 : r->count;
    int64_t since_ms = r->count == 0 ? now_ms : r->since_ms;
    struct refusal_slot *s = r->what == REFUSAL_UNLISTED ? NULL : slot_for(t, r);
    if (s == NULL) {
        count_in(&t->unlisted, n, since_ms);
        return;
    }
    if (is_free(s)) {
        bool again = s->noted_number != 0 && same_kind(&s->r, r) &&
                     now_ms - s->written_ms < 2 * s->quiet_ms;
        s->r = *r;
        s->r.count = 0;
        s->written_ms = again ? s->written_ms : 0;
    }
    count_in(&s->r, n, since_ms);
    s->noted_number = ++t->notes;
}

static bool take_budget(struct refusals *t, int64_t now_ms)
{
    const int64_t full = (int64_t)REFUSALS_BURST * MILLI;
    int64_t passed_ms = now_ms > t->budget_at_ms ? now_ms - t->budget_at_ms : 0;
    if (t->budget_at_ms == 0 || passed_ms > 60 * MILLI * REFUSALS_BURST) {
        t->budget_milli = full;
    } else {
        t->budget_milli += passed_ms * REFUSALS_PER_MINUTE / 60;
    }
    t->budget_milli = t->budget_milli > full ? full : t->budget_milli;
    t->budget_at_ms = now_ms;
    if (t->budget_milli < MILLI) {
        return false;
    }
    t->budget_milli -= MILLI;
    return true;
}

static bool is_due(const struct refusal_slot *s, int64_t now_ms)
{
    return s->r.count > 0 &&
           (s->written_ms == 0 || now_ms < s->written_ms || now_ms - s->written_ms >= s->quiet_ms);
}

bool refusals_due(struct refusals *t, int64_t now_ms, struct refusal *ret)
{
    struct refusal_slot *oldest = NULL;
    for (size_t i = 0; i < REFUSALS_SLOTS; i++) {
        struct refusal_slot *s = &t->slot[i];
        if (is_due(s, now_ms) && (oldest == NULL || s->r.since_ms < oldest->r.since_ms)) {
            oldest = s;
        }
    }
    if (oldest == NULL &&
        (t->unlisted.count == 0 || now_ms - t->unlisted.since_ms < REFUSALS_QUIET_MS)) {
        return false;
    }
    if (!take_budget(t, now_ms)) {
        return false;
    }
    if (oldest == NULL) {
        *ret = (struct refusal){
            .what = REFUSAL_UNLISTED, .count = t->unlisted.count, .since_ms = t->unlisted.since_ms};
        t->unlisted = (struct refusal){.count = 0};
        return true;
    }
    *ret = oldest->r;
    oldest->r.count = 0;
    oldest->quiet_ms = oldest->written_ms == 0 ? REFUSALS_QUIET_MS : 2 * oldest->quiet_ms;
    if (oldest->quiet_ms > REFUSALS_QUIET_MAX_MS) {
        oldest->quiet_ms = REFUSALS_QUIET_MAX_MS;
    }
    oldest->written_ms = now_ms;
    return true;
}
