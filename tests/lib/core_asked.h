/* Things asked of a core, and what came of them. */
#ifndef TESTS_LIB_CORE_ASKED_H
#define TESTS_LIB_CORE_ASKED_H

#include "lib/core_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

#define UNSET 12345

struct asked {
    struct core_proposal p;
    struct core_read r;
    struct core_change ch;
    int calls;
    int rc;
    struct uuid id;
    uint64_t index;
};

static inline void proposed(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    struct asked *a = container_of(p, struct asked, p);
    a->calls++;
    a->rc = rc;
    assert_true((rc == 0) == (result != NULL));
    if (result != NULL) {
        a->id = result->request_id;
    }
}

static inline void was_read(struct core_read *r, int rc, uint64_t index)
{
    struct asked *a = container_of(r, struct asked, r);
    a->calls++;
    a->rc = rc;
    a->index = index;
}

static inline void was_changed(struct core_change *ch, int rc)
{
    struct asked *a = container_of(ch, struct asked, ch);
    a->calls++;
    a->rc = rc;
}

static inline int propose(struct core_cluster *c, int node, struct asked *a, uint32_t number)
{
    *a = (struct asked){.rc = UNSET};
    return core_propose(c->nodes[node].core, &a->p, core_cluster_command(c, number), proposed);
}

static inline int read_index(struct core_cluster *c, int node, struct asked *a)
{
    *a = (struct asked){.rc = UNSET};
    return core_read_index(c->nodes[node].core, &a->r, was_read);
}

static inline int other(int node)
{
    return node == 0 ? 1 : 0;
}

static inline uint64_t last_index(struct core_cluster *c, int node)
{
    return core_cluster_status(c, node).last_index;
}

#endif
