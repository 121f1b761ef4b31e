/* What PostgreSQL does not have yet: the row changes of recent entries, kept by every authority that
 * knows of a mirror, so that whoever leads next goes on from wherever PostgreSQL is (DESIGN D10).
 * Bounded: when it is full the oldest entry goes, and a reader who needed it must resync. */
#ifndef RAP_AUTHORITY_MIRROR_RING_H
#define RAP_AUTHORITY_MIRROR_RING_H

#include "authority/fsm.h"
#include "wire/limits.h"

struct mirror_entry {
    struct fsm_position at;
    uint64_t prev;       /* index of the entry before it: the log has other entries than commands */
    uint64_t applied_ms; /* monotonic */
    uint8_t *changes;    /* `len` bytes, then `before_len` of old rows (fsm_keep_before) */
    size_t len, before_len;
};

struct mirror_ring {
    struct mirror_entry *entries; /* `most` of them, oldest at `first` */
    size_t most, first, count, bytes;
    uint64_t floor; /* index after which everything is here */
};

/* Empty: nothing after `floor` has been applied yet. No allocation until the first entry. */
void mirror_ring_init(struct mirror_ring *r, uint64_t floor);
/* Of fewer entries than MIRROR_RING_ENTRIES: in tests, a reader who comes too late. */
void mirror_ring_init_of(struct mirror_ring *r, uint64_t floor, size_t most);
void mirror_ring_fini(struct mirror_ring *r);
/* Forgets all; as init. */
void mirror_ring_reset(struct mirror_ring *r, uint64_t floor);
/* The entry after the last one. changes and before are copied. */
void mirror_ring_push(struct mirror_ring *r, const struct fsm_position *pos, struct blob changes,
                      struct blob before, uint64_t now_ms);
/* Whether everything after index is here, and index is an entry of this log: its end, or what the
 * entry after it says it followed. */
bool mirror_ring_reaches(const struct mirror_ring *r, uint64_t index);
/* The first entry above index; NULL when there is none. Valid until the next push. */
const struct mirror_entry *mirror_ring_after(const struct mirror_ring *r, uint64_t index);
/* The entry of this index; NULL when it is not here. */
const struct mirror_entry *mirror_ring_find(const struct mirror_ring *r, uint64_t index);
uint64_t mirror_ring_end(const struct mirror_ring *r);

#endif
