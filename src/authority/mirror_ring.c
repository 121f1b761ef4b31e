#include "authority/mirror_ring.h"

void mirror_ring_init_of(struct mirror_ring *r, uint64_t floor, size_t most)
{
    *r = (struct mirror_ring){.floor = floor, .most = most};
}

void mirror_ring_init(struct mirror_ring *r, uint64_t floor)
{
    mirror_ring_init_of(r, floor, MIRROR_RING_ENTRIES);
}

static struct mirror_entry *at(const struct mirror_ring *r, size_t i)
{
    return &r->entries[(r->first + i) % r->most];
}

static void drop_first(struct mirror_ring *r)
{
    struct mirror_entry *e = at(r, 0);
    r->floor = e->at.index;
    r->bytes -= e->len + e->before_len;
    free(e->changes);
    r->first = (r->first + 1) % r->most;
    r->count--;
}

void mirror_ring_reset(struct mirror_ring *r, uint64_t floor)
{
    while (r->count > 0) {
        drop_first(r);
    }
    r->floor = floor;
}

void mirror_ring_fini(struct mirror_ring *r)
{
    mirror_ring_reset(r, 0);
    free(r->entries);
    r->entries = NULL;
}

void mirror_ring_push(struct mirror_ring *r, const struct fsm_position *pos, struct blob changes,
                      struct blob before, uint64_t now_ms)
{
    uint64_t prev = mirror_ring_end(r);
    size_t bytes = changes.len + before.len;
    CHECK(pos->index > prev);
    if (r->entries == NULL) {
        r->entries = xcalloc(r->most, sizeof *r->entries);
    }
    while (r->count > 0 && (r->count == r->most || r->bytes + bytes > MIRROR_RING_BYTES)) {
        drop_first(r);
    }
    if (bytes > MIRROR_RING_BYTES) {
        r->floor = pos->index;
        return;
    }
    struct mirror_entry *e = at(r, r->count);
    *e = (struct mirror_entry){.at = *pos,
                               .prev = prev,
                               .applied_ms = now_ms,
                               .len = changes.len,
                               .before_len = before.len};
    e->changes = xmalloc(bytes + 1);
    if (changes.len > 0) {
        memcpy(e->changes, changes.data, changes.len);
    }
    if (before.len > 0) {
        memcpy(e->changes + changes.len, before.data, before.len);
    }
    r->count++;
    r->bytes += bytes;
}

uint64_t mirror_ring_end(const struct mirror_ring *r)
{
    return r->count == 0 ? r->floor : at(r, r->count - 1)->at.index;
}

/* How many entries are at or below index. */
static size_t position(const struct mirror_ring *r, uint64_t index)
{
    size_t low = 0;
    size_t high = r->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (at(r, mid)->at.index <= index) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

const struct mirror_entry *mirror_ring_after(const struct mirror_ring *r, uint64_t index)
{
    size_t i = position(r, index);
    return i < r->count ? at(r, i) : NULL;
}

const struct mirror_entry *mirror_ring_find(const struct mirror_ring *r, uint64_t index)
{
    size_t i = position(r, index);
    return i > 0 && at(r, i - 1)->at.index == index ? at(r, i - 1) : NULL;
}

bool mirror_ring_reaches(const struct mirror_ring *r, uint64_t index)
{
    return index == r->floor || mirror_ring_find(r, index) != NULL;
}
