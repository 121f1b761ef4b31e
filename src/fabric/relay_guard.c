#include "fabric/relay_guard.h"

#define CONTROL_BURST_BYTES (64u << 10)
#define CONTROL_BYTES_PER_S (256u << 10)

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

static struct relay_flow *new_flow(struct relay_guard *g, const struct relay_flow_key *key,
                                   uint64_t now_ns)
{
    if (HASH_COUNT(g->flows) >= RELAY_FLOWS_MAX) {
        free_flow(g, g->flows);
    }
    struct relay_flow *f = xcalloc(1, sizeof *f);
    f->key = *key;
    f->tokens = CONTROL_BURST_BYTES;
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
    if (sequence - f->top >= RELAY_WINDOW) {
        memset(f->seen, 0, sizeof f->seen);
    } else {
        for (uint64_t s = f->top + 1; s <= sequence; s++) {
            *word(f, s) &= ~(1ULL << (s % 64));
        }
    }
    f->top = sequence;
}

struct relay_flow *relay_guard_pass(struct relay_guard *g, const struct uuid *neighbour,
                                    const struct overlay_packet *p, uint64_t now_ns)
{
    struct relay_flow_key key;
    memset(&key, 0, sizeof key); /* the hash covers padding */
    key.neighbour = *neighbour;
    key.from = p->from;
    key.class = p->class;
    struct relay_flow *f = NULL;
    HASH_FIND(hh, g->flows, &key, sizeof key, f);
    if (f == NULL) {
        f = new_flow(g, &key, now_ns);
        f->top = p->sequence;
    } else {
        if (f->hh.next != NULL) { /* used last now */
            HASH_DEL(g->flows, f);
            HASH_ADD(hh, g->flows, key, sizeof f->key, f);
        }
        if (p->sequence > f->top) {
            advance(f, p->sequence);
        } else if (f->top - p->sequence >= RELAY_WINDOW) {
            return NULL;
        }
    }
    uint64_t bit = 1ULL << (p->sequence % 64);
    if ((*word(f, p->sequence) & bit) != 0) {
        return NULL;
    }
    *word(f, p->sequence) |= bit;
    return f;
}

bool relay_flow_is_control(struct relay_flow *f, size_t len, uint64_t now_ns)
{
    uint64_t since_ns = now_ns - f->filled_ns;
    since_ns = since_ns > 1000000000ULL ? 1000000000ULL : since_ns;
    uint64_t earned = since_ns * CONTROL_BYTES_PER_S / 1000000000ULL;
    if (earned > 0) {
        f->tokens += earned;
        f->tokens = f->tokens > CONTROL_BURST_BYTES ? CONTROL_BURST_BYTES : f->tokens;
        f->filled_ns = now_ns;
    }
    if (f->tokens < len) {
        return false;
    }
    f->tokens -= len;
    return true;
}
