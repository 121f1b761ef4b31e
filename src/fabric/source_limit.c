#include "fabric/source_limit.h"

#include <netinet/in.h>
#include <sys/queue.h>
#include <uthash.h>

#define MILLI 1000 /* balances are in thousandths of an attempt: per_second * ms, exactly */

struct source_key {
    uint8_t b[16]; /* ::ffff:a.b.c.d, or a /64 and zeros */
};

struct entry {
    UT_hash_handle hh;
    TAILQ_ENTRY(entry) idle; /* while nothing of it is here, oldest first */
    struct source_key key;
    int64_t balance; /* as of at_ms */
    uint64_t at_ms;
    uint64_t member_until_ms;
    uint32_t sessions, half_open;
};

struct source_limit {
    struct source_limit_config c;
    struct entry *entries;
    TAILQ_HEAD(, entry) idle;
    size_t idle_count;
};

struct source_limit *source_limit_new(const struct source_limit_config *c)
{
    CHECK(c->per_second > 0 && c->sessions_max > 0 && c->half_open_max > 0 && c->sources_max > 0);
    struct source_limit *t = xcalloc(1, sizeof *t);
    t->c = *c;
    TAILQ_INIT(&t->idle);
    return t;
}

void source_limit_free(struct source_limit *t)
{
    if (t == NULL) {
        return;
    }
    struct entry *e = t->entries;
    HASH_CLEAR(hh, t->entries); /* the items stay chained */
    while (e != NULL) {
        struct entry *next = e->hh.next;
        free(e);
        e = next;
    }
    free(t);
}

static int64_t burst(const struct source_limit *t)
{
    return (int64_t)t->c.per_second * SOURCE_BURST_SECONDS * MILLI;
}

static struct source_key key_of(const struct addr *a)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct source_key k = {{0}};
    if (a->ss.ss_family == AF_INET) {
        memcpy(k.b, mapped, sizeof mapped);
        memcpy(k.b + 12, &((const struct sockaddr_in *)&a->ss)->sin_addr, 4);
    } else if (a->ss.ss_family == AF_INET6) {
        const uint8_t *ip = ((const struct sockaddr_in6 *)&a->ss)->sin6_addr.s6_addr;
        memcpy(k.b, ip, memcmp(ip, mapped, sizeof mapped) == 0 ? 16 : 8);
    }
    return k;
}

static struct entry *find(const struct source_limit *t, const struct addr *from)
{
    struct source_key k = key_of(from);
    struct entry *e = NULL;
    HASH_FIND_BYHASHVALUE(hh, t->entries, k.b, sizeof k.b, siphash(&t->c.key, k.b, sizeof k.b), e);
    return e;
}

static bool is_here(const struct entry *e)
{
    return e->sessions > 0 || e->half_open > 0;
}

static int64_t balance_at(const struct source_limit *t, const struct entry *e, uint64_t now_ms)
{
    uint64_t passed = now_ms > e->at_ms ? now_ms - e->at_ms : 0;
    uint64_t full_after = 2ULL * SOURCE_BURST_SECONDS * 1000; /* from the deepest debt */
    passed = passed > full_after ? full_after : passed;
    int64_t balance = e->balance + (int64_t)passed * t->c.per_second;
    return balance > burst(t) ? burst(t) : balance;
}

static void forget_oldest(struct source_limit *t)
{
    struct entry *e = TAILQ_FIRST(&t->idle);
    TAILQ_REMOVE(&t->idle, e, idle);
    t->idle_count--;
    HASH_DELETE(hh, t->entries, e);
    free(e);
}

/* Finds or makes it, brings its balance up to now and makes it the youngest. */
static struct entry *touch(struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    struct entry *e = find(t, from);
    if (e == NULL) {
        if (t->idle_count >= t->c.sources_max) {
            forget_oldest(t);
        }
        e = xcalloc(1, sizeof *e);
        e->key = key_of(from);
        e->balance = burst(t);
        HASH_ADD_KEYPTR_BYHASHVALUE(hh, t->entries, e->key.b, sizeof e->key.b,
                                    siphash(&t->c.key, e->key.b, sizeof e->key.b), e);
        t->idle_count++;
    } else {
        e->balance = balance_at(t, e, now_ms);
        if (is_here(e)) {
            e->at_ms = now_ms;
            return e;
        }
        TAILQ_REMOVE(&t->idle, e, idle);
    }
    e->at_ms = now_ms;
    TAILQ_INSERT_TAIL(&t->idle, e, idle);
    return e;
}

uint32_t source_limit_wait_ms(const struct source_limit *t, const struct addr *from,
                              uint64_t now_ms)
{
    const struct entry *e = find(t, from);
    if (e == NULL) {
        return 0;
    }
    if (e->sessions >= t->c.sessions_max) {
        return 1000; /* nobody knows when one ends */
    }
    int64_t missing = MILLI - balance_at(t, e, now_ms);
    return missing <= 0 ? 0 : (uint32_t)((missing + t->c.per_second - 1) / t->c.per_second);
}

void source_limit_charge(struct source_limit *t, const struct addr *from, uint32_t attempts,
                         uint64_t now_ms)
{
    struct entry *e = touch(t, from, now_ms);
    e->balance -= (int64_t)attempts * MILLI;
    if (e->balance < -burst(t)) {
        e->balance = -burst(t);
    }
}

static void begin(struct source_limit *t, struct entry *e, uint32_t *count)
{
    if (!is_here(e)) {
        TAILQ_REMOVE(&t->idle, e, idle);
        t->idle_count--;
    }
    ++*count;
}

static void end(struct source_limit *t, struct entry *e, uint32_t *count, uint64_t now_ms)
{
    CHECK(*count > 0);
    --*count;
    if (is_here(e)) {
        return;
    }
    if (t->idle_count >= t->c.sources_max) {
        forget_oldest(t);
    }
    e->balance = balance_at(t, e, now_ms);
    e->at_ms = now_ms;
    TAILQ_INSERT_TAIL(&t->idle, e, idle);
    t->idle_count++;
}

void source_limit_enter(struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    struct entry *e = touch(t, from, now_ms);
    begin(t, e, &e->sessions);
}

void source_limit_leave(struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    struct entry *e = find(t, from);
    CHECK(e != NULL);
    end(t, e, &e->sessions, now_ms);
}

bool source_limit_open(struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    struct entry *e = touch(t, from, now_ms);
    if (e->half_open >= t->c.half_open_max) {
        return false;
    }
    begin(t, e, &e->half_open);
    return true;
}

void source_limit_opened(struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    struct entry *e = find(t, from);
    CHECK(e != NULL);
    end(t, e, &e->half_open, now_ms);
}

bool source_limit_in_debt(const struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    const struct entry *e = find(t, from);
    return e != NULL && balance_at(t, e, now_ms) < 0;
}

void source_limit_member(struct source_limit *t, const struct addr *from, uint64_t now_ms)
{
    touch(t, from, now_ms)->member_until_ms = now_ms + SOURCE_KNOWN_MS;
}

bool source_limit_has_members(const struct source_limit *t, const struct addr *from,
                              uint64_t now_ms)
{
    const struct entry *e = find(t, from);
    return e != NULL && now_ms < e->member_until_ms;
}

size_t source_limit_count(const struct source_limit *t)
{
    return HASH_COUNT(t->entries);
}
