#include "base/rng.h"

#include <errno.h>
#include <sys/random.h>

void rng_bytes(void *out, size_t len)
{
    uint8_t *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fatal("getrandom: errno %d", errno);
        }
        p += n;
        len -= (size_t)n;
    }
}

uint64_t rng_u64(void)
{
    uint64_t v;
    rng_bytes(&v, sizeof v);
    return v;
}

void prng_seed(struct prng *p, uint64_t seed)
{
    p->state = seed;
}

uint64_t prng_u64(struct prng *p)
{
    uint64_t z = (p->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t prng_below(struct prng *p, uint64_t n)
{
    CHECK(n > 0);
    uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t v;
    do {
        v = prng_u64(p);
    } while (v >= limit);
    return v % n;
}

void prng_bytes(struct prng *p, void *out, size_t len)
{
    uint8_t *o = out;
    while (len > 0) {
        uint64_t v = prng_u64(p);
        size_t n = len < 8 ? len : 8;
        memcpy(o, &v, n);
        o += n;
        len -= n;
    }
}
