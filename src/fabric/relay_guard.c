#include "fabric/relay_guard.h"

#define CONTROL_BURST_BYTES (64u << 10)
#define CONTROL_BYTES_PER_S (256u << 10)
#define NEIGHBOUR_SHARE 16 /* times that, for all sources of one neighbour */

static void free_flow(struct relay_guard *g, struct relay_flow *f)
{
    HASH_DEL(g->flows, f);
    free(f);
}

void relay_guard_fini(struct relay_guard *g)
{
    while (g->flows != NULL) {
        free_flow(g, g->flows);
    }
}

void relay_guard_forget(struct relay_guard *g, const struct uuid *neighbour)
{
    struct relay_flow *f;
    struct relay_flow *next;
    HASH_ITER(hh, g->flows, f, next)
    {
        if (uuid_equal(&f->key.neighbour, neighbour)) {
            free_flow(g, f);
        }
    }
}

/* One without a source stands for all of its neighbour. */
static uint64_t share(const struct relay_flow *f)
{
    return uuid_is_nil(&f->key.from) ? NEIGHBOUR_SHARE : 1;
}

static uint64_t bucket_size(const struct relay_flow *f)
{
    return CONTROL_BURST_BYTES * share(f);
}

static struct relay_flow *new_flow(struct relay_guard *g, const struct relay_flow_key *key,
                                   uint64_t now_ns)
{
    if (HASH_COUNT(g->flows) >= RELAY_FLOWS_MAX) {
        free_flow(g, g->flows);
    }
    struct relay_flow *f = xcalloc(1, sizeof *f);
    f->key = *key;
    f->tokens = bucket_size(f);
    f->filled_ns = now_ns;
    HASH_ADD(hh, g->flows, key, sizeof f->key, f);
    return f;
}

static uint64_t *word(struct relay_flow *f, uint64_t sequence)
{
    return &f->seen[sequence % RELAY_WINDOW / 64];
}

/* Moves the window so that its top is `sequence`. */
static void advance(struct relay_flow *f, uint64_t sequence)
{
    uint64_t steps = sequence - f->top;
    if (steps >= RELAY_WINDOW) {
        memset(f->seen, 0, sizeof f->seen);
    } else { /* counted, for no number is above the last one a peer may send */
        for (uint64_t i = 1; i <= steps; i++) {
            uint64_t s = f->top + i;
            *word(f, s) &= ~(1ULL << (s % 64));
        }
    }
    f->top = sequence;
}

static struct relay_flow *use_flow(struct relay_guard *g, const struct uuid *neighbour,
                                   const struct uuid *from, enum overlay_class class,
                                   uint64_t now_ns, bool *ret_new)
{
    struct relay_flow_key key;
    memset(&key, 0, sizeof key); /* the hash covers padding */
    key.neighbour = *neighbour;
    key.from = *from;
    key.class = class;
    struct relay_flow *f = NULL;
    HASH_FIND(hh, g->flows, &key, sizeof key, f);
    *ret_new = f == NULL;
    if (f == NULL) {
        return new_flow(g, &key, now_ns);
    }
    if (f->hh.next != NULL) { /* used last now */
        HASH_DEL(g->flows, f);
        HASH_ADD(hh, g->flows, key, sizeof f->key, f);
    }
    return f;
}

struct relay_flow *relay_guard_pass(struct relay_guard *g, const struct uuid *neighbour,
                                    const struct overlay_packet *p, uint64_t now_ns)
{
    bool is_new;
    struct relay_flow *f = use_flow(g, neighbour, &p->from, p->class, now_ns, &is_new);
    if (is_new) {
        f->top = p->sequence;
    } else if (p->sequence > f->top) {
        advance(f, p->sequence);
    } else if (f->top - p->sequence >= RELAY_WINDOW) {
        return NULL;
    }
    uint64_t bit = 1ULL << (p->sequence % 64);
    if ((*word(f, p->sequence) & bit) != 0) {
        return NULL;
    }
    *word(f, p->sequence) |= bit;
    return f;
}

static bool take_tokens(struct relay_flow *f, size_t len, uint64_t now_ns)
{
    uint64_t since_ns = now_ns - f->filled_ns;
    since_ns = since_ns > 1000000000ULL ? 1000000000ULL : since_ns;
    uint64_t earned = since_ns * CONTROL_BYTES_PER_S * share(f) / 1000000000ULL;
    if (earned > 0) {
        f->tokens += earned;
        f->tokens = f->tokens > bucket_size(f) ? bucket_size(f) : f->tokens;
        f->filled_ns = now_ns;
    }
    if (f->tokens < len) {
        return false;
    }
    f->tokens -= len;
    return true;
}

bool relay_guard_is_control(struct relay_guard *g, struct relay_flow *flow, size_t len,
                            uint64_t now_ns)
{
    bool is_new;
    struct uuid neighbour = flow->key.neighbour;
    if (!take_tokens(flow, len, now_ns)) {
        return false;
    }
    struct relay_flow *all = use_flow(g, &neighbour, &UUID_NIL, OVERLAY_CONTROL, now_ns, &is_new);
    return take_tokens(all, len, now_ns);
}
