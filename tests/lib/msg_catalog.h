/* Every message there is, and sample values for them. A new MSG_DEFINE belongs here: golden bytes,
 * round trips and fuzzing follow from it. */
#ifndef RAP_TESTS_MSG_CATALOG_H
#define RAP_TESTS_MSG_CATALOG_H

#include "base/rng.h"
#include "wire/cmd.h"
#include "wire/node_msg.h"

struct msg_catalog_entry {
    const struct msg_desc *desc;
    bool strict; /* decoded strictly in the product */
};
extern const struct msg_catalog_entry msg_catalog[];
extern const size_t msg_catalog_count;

/* Memory behind the views of sample messages. */
struct msg_arena {
    struct buf chunks[64];
    size_t count;
};
void msg_arena_free(struct msg_arena *a);

/* The same values whenever it is asked, each field's from its key alone: a new field leaves the
 * others as they were. msg has d->size bytes. */
void msg_sample_fixed(const struct msg_desc *d, struct msg_arena *a, void *msg);
/* Random values: required fields set, others sometimes, lengths up to their bounds. */
void msg_sample_random(const struct msg_desc *d, struct prng *p, struct msg_arena *a, void *msg);

#endif
