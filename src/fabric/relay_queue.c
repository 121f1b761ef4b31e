#include "fabric/relay_queue.h"

#define MS 1000000ULL
#define QUANTUM 1500
#define RATE_BURST_MS 100        /* of a class's rate, at once */
#define OWED_MAX (64u << 10)    /* a class that waited long does not take over */
#define CODEL_TARGET_NS (15 * MS)
#define CODEL_INTERVAL_NS (100 * MS)
#define CODEL_KEEP_BYTES 1500   /* one packet always stays (RFC 8289 section 4.4) */

void relay_policy_set(struct relay_policy *p, const struct overlay_qos qos[OVERLAY_CLASSES])
{
    if (qos == NULL) {
        overlay_qos_default(p->class);
    } else {
        memcpy(p->class, qos, sizeof p->class);
    }
    for (uint8_t i = 0; i < OVERLAY_CLASSES; i++) { /* insertion keeps the order of equals */
        uint8_t at = i;
        while (at > 0 && p->class[p->order[at - 1]].priority > p->class[i].priority) {
            p->order[at] = p->order[at - 1];
            at--;
        }
        p->order[at] = i;
    }
}

struct relay_packet *relay_packet_new(struct blob data)
{
    struct relay_packet *p = xmalloc(sizeof *p + data.len);
    *p = (struct relay_packet){.len = data.len};
    memcpy(p->data, data.data, data.len);
    return p;
}

void relay_queue_init(struct relay_queue *q, uint64_t salt, const struct relay_policy *policy)
{
    *q = (struct relay_queue){.salt = salt, .policy = policy};
}

/* --- a bucket --- */

static struct relay_packet *take(struct relay_queue *q, struct relay_class *c,
                                 struct relay_bucket *b)
{
    struct relay_packet *p = b->first;
    b->first = p->next;
    if (b->first == NULL) {
        b->last = NULL;
    }
    p->next = NULL;
    b->bytes -= p->len;
    c->bytes -= p->len;
    q->bytes -= p->len;
    return p;
}

void relay_queue_fini(struct relay_queue *q)
{
    for (size_t i = 0; i < OVERLAY_CLASSES; i++) {
        for (size_t k = 0; k < RELAY_BUCKETS; k++) {
            struct relay_bucket *b = &q->class[i].bucket[k];
            while (b->first != NULL) {
                free(take(q, &q->class[i], b));
            }
        }
    }
    CHECK(q->bytes == 0);
}

static void activate(struct relay_class *c, struct relay_bucket *b)
{
    b->next_active = NULL;
    if (c->last != NULL) {
        c->last->next_active = b;
    } else {
        c->first = b;
    }
    c->last = b;
    b->active = true;
}

static void rotate(struct relay_class *c, bool stays)
{
    struct relay_bucket *b = c->first;
    c->first = b->next_active;
    if (c->first == NULL) {
        c->last = NULL;
    }
    b->active = false;
    if (stays) {
        activate(c, b);
    }
}

static void drop_from_longest(struct relay_queue *q, struct relay_class *c)
{
    struct relay_bucket *longest = &c->bucket[0];
    for (size_t k = 1; k < RELAY_BUCKETS; k++) {
        if (c->bucket[k].bytes > longest->bytes) {
            longest = &c->bucket[k];
        }
    }
    CHECK(longest->first != NULL);
    free(take(q, c, longest));
    q->dropped_full++;
}

/* A token bucket. 1 kbit/s is a byte in 8 ms. */
static bool within_rate(struct relay_class *c, uint32_t rate_kbps, size_t len, uint64_t now_ns)
{
    uint64_t burst = (uint64_t)rate_kbps * RATE_BURST_MS / 8 + QUANTUM;
    uint64_t since_us = (now_ns - c->allowed_ns) / 1000;
    if (rate_kbps == 0) {
        return true;
    }
    /* After so long the bucket is full, whatever the rate. */
    uint64_t earned = since_us > RATE_BURST_MS * 1000 * 16 ? burst : rate_kbps * since_us / 8000;
    if (earned > 0) {
        c->allowed = c->allowed + earned < burst ? c->allowed + earned : burst;
        c->allowed_ns = now_ns;
    }
    if (c->allowed < len) {
        return false;
    }
    c->allowed -= len;
    return true;
}

void relay_queue_push(struct relay_queue *q, enum overlay_class class, struct relay_packet *p,
                      uint64_t now_ns)
{
    struct relay_class *c = &q->class[class];
    const struct overlay_qos *policy = &q->policy->class[class];
    if (!within_rate(c, policy->rate_kbps, p->len, now_ns)) {
        free(p);
        q->dropped_early++;
        return;
    }
    /* Fibonacci hashing (Knuth, volume 3, section 6.4) of a hash that is salted already. */
    uint64_t h = (p->source ^ q->salt) * 0x9e3779b97f4a7c15u;
    struct relay_bucket *b = &c->bucket[(h >> 32) % RELAY_BUCKETS];
    p->queued_ns = now_ns;
    p->next = NULL;
    if (b->last != NULL) {
        b->last->next = p;
    } else {
        b->first = p;
    }
    b->last = p;
    b->bytes += p->len;
    c->bytes += p->len;
    q->bytes += p->len;
    if (!b->active) {
        b->deficit = QUANTUM;
        activate(c, b);
    }
    while (c->bytes > policy->limit_bytes) {
        drop_from_longest(q, c);
    }
}

static uint64_t isqrt(uint64_t v)
{
    uint64_t r = 0;
    while ((r + 1) * (r + 1) <= v) {
        r++;
    }
    return r;
}

/* RFC 8289 section 3: drop at intervals that shrink with the square root of how many went. */
static uint64_t control_law(uint64_t from_ns, uint32_t drops)
{
    uint64_t root_milli = isqrt((drops > 1000 ? 1000 : drops) * 1000000ULL);
    return from_ns + CODEL_INTERVAL_NS * 1000 / (root_milli == 0 ? 1 : root_milli);
}

static bool above_target(struct relay_bucket *b, uint64_t now_ns)
{
    if (b->first == NULL || now_ns - b->first->queued_ns < CODEL_TARGET_NS ||
        b->bytes <= CODEL_KEEP_BYTES) {
        b->above_since_ns = 0;
        return false;
    }
    if (b->above_since_ns == 0) {
        b->above_since_ns = now_ns;
        return false;
    }
    return now_ns - b->above_since_ns >= CODEL_INTERVAL_NS;
}

/* Drops what CoDel and the expiry guard want gone from the head. */
static void thin_out(struct relay_queue *q, struct relay_class *c, struct relay_bucket *b,
                     uint64_t now_ns, uint64_t life_ns, bool early)
{
    while (b->first != NULL && now_ns - b->first->queued_ns > life_ns) {
        free(take(q, c, b));
        q->dropped_expired++;
    }
    if (!early) {
        return;
    }
    bool above = above_target(b, now_ns);
    if (!above) {
        b->dropping = false;
    } else if (!b->dropping) {
        b->dropping = true;
        /* Remembers how hard it had to drop last time. */
        b->drops = b->drops > 2 && now_ns - b->drop_next_ns < 16 * CODEL_INTERVAL_NS ? b->drops - 2
                                                                                     : 1;
        b->drop_next_ns = control_law(now_ns, b->drops);
        free(take(q, c, b));
        q->dropped_early++;
    } else {
        while (now_ns >= b->drop_next_ns && b->dropping) {
            free(take(q, c, b));
            q->dropped_early++;
            b->drops++;
            b->drop_next_ns = control_law(b->drop_next_ns, b->drops);
            b->dropping = above_target(b, now_ns);
        }
    }
}

/* --- a class --- */

/* The packet whose turn it is, still in its bucket (first of the active ones); NULL: none left. */
static struct relay_packet *head(struct relay_queue *q, enum overlay_class class, uint64_t now_ns)
{
    const struct overlay_qos *policy = &q->policy->class[class];
    struct relay_class *c = &q->class[class];
    while (c->first != NULL) {
        struct relay_bucket *b = c->first;
        thin_out(q, c, b, now_ns, policy->life_ms * MS, policy->early);
        if (b->first == NULL) {
            rotate(c, false);
        } else if (b->deficit <= 0) {
            b->deficit += QUANTUM;
            rotate(c, true);
        } else {
            return b->first;
        }
    }
    c->owed = 0;
    return NULL;
}

/* rank: its place in the order of priorities. */
static struct relay_packet *serve(struct relay_queue *q, size_t rank)
{
    struct relay_class *c = &q->class[q->policy->order[rank]];
    struct relay_bucket *b = c->first;
    struct relay_packet *p = take(q, c, b);
    b->deficit -= (int64_t)p->len;
    c->owed = c->owed > p->len ? c->owed - p->len : 0;
    for (size_t worse = rank + 1; worse < OVERLAY_CLASSES; worse++) {
        uint8_t class = q->policy->order[worse];
        struct relay_class *l = &q->class[class];
        if (l->first != NULL) {
            l->owed += p->len * q->policy->class[class].floor_permille / 1000;
            l->owed = l->owed > OWED_MAX ? OWED_MAX : l->owed;
        }
    }
    return p;
}

struct relay_packet *relay_queue_pop(struct relay_queue *q, unsigned mask, uint64_t now_ns)
{
    int best = -1;
    for (int rank = OVERLAY_CLASSES - 1; rank >= 0; rank--) {
        uint8_t class = q->policy->order[rank];
        if ((mask & (1u << class)) == 0 || q->class[class].first == NULL) {
            continue;
        }
        struct relay_packet *p = head(q, (enum overlay_class) class, now_ns);
        if (p == NULL) {
            continue;
        }
        best = rank;
        if (q->class[class].owed >= p->len) {
            break; /* the worst that has earned its turn */
        }
    }
    return best >= 0 ? serve(q, (size_t)best) : NULL;
}

bool relay_queue_waits(const struct relay_queue *q, unsigned mask)
{
    for (size_t i = 0; i < OVERLAY_CLASSES; i++) {
        if ((mask & (1u << i)) != 0 && q->class[i].bytes > 0) {
            return true;
        }
    }
    return false;
}

bool relay_queue_has_room(const struct relay_queue *q, enum overlay_class class)
{
    return q->class[class].bytes < q->policy->class[class].limit_bytes / 2;
}
