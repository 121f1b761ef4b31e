/* overlay.c drives, overlay_doc.c tells people, overlay_store.c remembers. */
#ifndef RAP_NODE_OVERLAY_IMPL_H
#define RAP_NODE_OVERLAY_IMPL_H

#include "fabric/mesh.h"
#include "node/overlay.h"

#define OVERLAY_WANTS_MAX 64
#define OVERLAY_FACTS_MAX 256

struct overlay {
    struct overlay_config cfg;
    struct mesh *mesh;
    struct mesh_intents policy; /* of the snapshot in force; the mesh reads it */
    struct mesh_todo todo;
    uv_timer_t timer;
    bool closing;
    struct uuid *up; /* who has a direct session, sorted */
    size_t up_count, up_cap;
    uint64_t next_sync_us, next_save_us;
    uint64_t generation;
    struct uuid want[OVERLAY_WANTS_MAX]; /* asked for by the fabric since the last tick */
    size_t want_count;
    bool relay;  /* we are one */
    bool loaded; /* the peer cache */
    bool stepping;
};

/* overlay_policy.c: intents and queues of a snapshot. */
void overlay_read_policy(const struct config *cfg, struct mesh_intents *ret);
void overlay_read_qos(const struct config *cfg, struct overlay_qos ret[OVERLAY_CLASSES]);
/* Regions and organizations are compared, never looked up; 0 is none. */
uint32_t overlay_word_hash(struct blob word);
/* The intent that decided which way packets to dst go, or that there is none; NULL: none did. */
const struct mesh_intent *overlay_decided(const struct overlay *o, const struct uuid *dst);

void overlay_step(struct overlay *o, struct mesh_event *ev);
uint64_t overlay_now_us(void);

/* Measured facts of an earlier run, into the mesh; -ERR_CORRUPT is logged and means none. */
void overlay_store_load(struct overlay *o);
void overlay_store_save(struct overlay *o);

#endif
