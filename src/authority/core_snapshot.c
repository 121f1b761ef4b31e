/* When the state is written down, and how: libraft asks for a snapshot when as many entries as its threshold
 * were applied since the last. The threshold is ours to move, so that it asks when the log has grown by
 * something worth the image, whatever the size of entries and state. */
#include "authority/core_impl.h"

#include "authority/raft_image.h"
#include "base/log.h"

#include <limits.h>

#define THRESHOLD 8192
/* As many times the threshold: in memory, and to apply at a start. */
#define ENTRIES_MAX_TIMES 16
#define LOG_BYTES_MAX ((uint64_t)64 << 20)
/* An image this small is cheap whatever the log. */
#define IMAGE_FREE_BYTES ((uint64_t)8 << 20)

/* Writing an image costs in proportion to the state; waiting costs log: in memory, on disk, and at the
 * next start. So an image comes when the log has grown by a quarter of it, within bounds. */
bool core_snapshot_due(const struct core_growth *g)
{
    uint64_t most = g->image_bytes / 2 > LOG_BYTES_MAX ? g->image_bytes / 2 : LOG_BYTES_MAX;
    uint64_t worth = g->image_bytes <= IMAGE_FREE_BYTES ? 0 : g->image_bytes / 4;
    return (g->entries >= g->threshold && g->log_bytes >= worth) ||
           g->entries >= (uint64_t)g->threshold * ENTRIES_MAX_TIMES || g->log_bytes >= most;
}

void core_snapshot_init(struct core *c)
{
    uint32_t t = c->config.snapshot_threshold;
    t = t == 0 ? THRESHOLD : t;
    /* Members pack their images at different entries, not all at the same moment. */
    c->growth = (struct core_growth){.threshold = t + (uint32_t)(c->config.id % (t / 8 + 1))};
    raft_set_snapshot_threshold(&c->raft, UINT_MAX);
}

void core_snapshot_grow(struct core *c, uint64_t index, size_t entry_bytes)
{
    struct core_growth *g = &c->growth;
    g->entries = index - c->raft.trail.snapshot.index;
    g->log_bytes += entry_bytes;
    if (index >= c->no_snapshot_before && core_snapshot_due(g)) {
        raft_set_snapshot_threshold(&c->raft, 1);
    }
}

/* What libraft would put beside a snapshot of the commit index as its configuration is not the one
 * in force there.
 * G16: after a restart it counts the last but one configuration of its log as committed, for it must
 * be, before the commit index gets there.
 * G17: it takes note of committed configurations one event later than it applies them, and may take a
 * snapshot in between: whoever starts from that goes by members of the past. */
static bool configuration_is_elsewhere(const struct raft *r)
{
    return r->configuration_committed_index > r->commit_index ||
           (r->configuration_uncommitted_index != 0 &&
            r->configuration_uncommitted_index <= r->commit_index);
}

int core_take_snapshot(struct raft_fsm *rf, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct core *c = rf->data;
    if (configuration_is_elsewhere(&c->raft) && !PLANTED("configuration_of_the_past")) {
        return RAFT_BUSY; /* asked again with the next event */
    }
    struct db_image *image = NULL;
    int rc = fsm_freeze(c->fsm, &image);
    raft_set_snapshot_threshold(&c->raft, UINT_MAX);
    c->growth.log_bytes = 0;
    if (rc != 0) {
        c->no_snapshot_before = c->raft.last_applied + c->growth.threshold;
        log_error(LOG_AUTHORITY, "no snapshot",
                  "why=\"%s\" next=\"the log grows, tried again %u entries later\"", err_text(rc),
                  c->growth.threshold);
        return RAFT_NOMEM;
    }
    c->growth.image_bytes = db_image_bytes(image);
    struct raft_buffer *b = xmalloc(sizeof *b);
    *b = (struct raft_buffer){.base = image, .len = db_image_bytes(image)};
    *bufs = b;
    *n_bufs = 1;
    return 0;
}

int core_finish_snapshot(struct raft_fsm *rf, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    (void)rf;
    if (*n_bufs > 0) {
        db_image_free((*bufs)[0].base);
        free(*bufs);
    }
    *bufs = NULL;
    *n_bufs = 0;
    return 0;
}

void core_prepared(struct core *c, struct buf *packed, struct fsm_prepared *state)
{
    fsm_prepared_free(c->prepared);
    buf_fini(&c->prepared_of);
    c->prepared = state;
    if (packed != NULL) {
        c->prepared_of = *packed;
        *packed = (struct buf){0};
    }
}

static int restore_here(struct core *c, struct blob packed, struct errmsg *em)
{
    struct buf image;
    buf_init(&image, IMAGE_MAX_BYTES);
    int rc = raft_image_unpack(packed, &image);
    if (rc == 0) {
        rc = fsm_restore(c->fsm, buf_blob(&image), em);
    } else {
        (void)errmsg_set(em, rc, "image does not unpack");
    }
    buf_fini(&image);
    return rc;
}

int core_restore(struct raft_fsm *rf, struct raft_buffer *buf)
{
    struct core *c = rf->data;
    struct errmsg em = ERRMSG_INIT;
    struct blob packed = blob_of(buf->base, buf->len);
    size_t size = 0;
    int rc = 0;
    if (c->prepared != NULL && blob_equal(packed, buf_blob(&c->prepared_of))) {
        fsm_adopt(c->fsm, c->prepared);
        c->prepared = NULL;
    } else {
        rc = restore_here(c, packed, &em);
    }
    core_prepared(c, NULL, NULL);
    if (rc == 0 && raft_image_size(packed, &size) == 0) {
        c->growth.log_bytes = 0;
        c->growth.image_bytes = size;
    }
    if (rc != 0) {
        /* At start libraft reports it and core_start fails; later there is no way back. */
        if (c->started) {
            core_fail(c, "snapshot of the leader does not load: %s: %s", err_text(rc), em.text);
        }
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    core_want_flush(c);
    return 0;
}
