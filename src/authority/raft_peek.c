#include "authority/raft_peek.h"

_Static_assert(RAFT_VERSION_NUMBER >= 2201 && RAFT_VERSION_NUMBER < 2300,
               "raft_peek.c was written against libraft 0.22.x");

/* libraft tags a finished leadership transfer with this (src/legacy.h). */
enum { REQUEST_TRANSFER = RAFT_CHANGE + 1 };

static unsigned records_count(const struct raft_trail *t)
{
    return t->front <= t->back ? t->back - t->front : t->size - t->front + t->back;
}

/* Each record is the last index of a run of one term; runs are in order in a circular buffer. */
uint64_t raft_peek_term(const struct raft *r, uint64_t index)
{
    const struct raft_trail *t = &r->trail;
    uint64_t term = 0;
    if (index > t->offset) {
        for (unsigned n = records_count(t); n > 0; n--) {
            unsigned at = (t->front + n - 1) % t->size;
            if (index > t->records[at].index) {
                break;
            }
            term = t->records[at].term;
        }
    }
    if (term == 0 && index != 0 && index == t->snapshot.index) {
        term = t->snapshot.term;
    }
    return term;
}

uint64_t raft_peek_offset(const struct raft *r)
{
    return r->trail.offset;
}

void raft_peek_forget_leader(struct raft *r)
{
    raft_free(r->follower_state.current_leader.address);
    r->follower_state.current_leader.address = NULL;
    r->follower_state.current_leader.id = 0;
}

/* The head of every request struct (RAFT__REQUEST). */
struct request {
    void *data;
    int type;
    raft_index index;
    void *queue[2];
};
_Static_assert(offsetof(struct request, queue) == offsetof(struct raft_apply, queue), "layout");
_Static_assert(offsetof(struct request, type) == offsetof(struct raft_apply, type), "layout");
_Static_assert(offsetof(struct raft_apply, queue) == offsetof(struct raft_transfer, queue),
               "layout");

static void fire(struct request *q)
{
    switch (q->type) {
        case RAFT_COMMAND: {
            struct raft_apply *req = (struct raft_apply *)(void *)q;
            req->cb(req, req->status, req->result);
            break;
        }
        case RAFT_BARRIER: {
            struct raft_barrier *req = (struct raft_barrier *)(void *)q;
            req->cb(req, req->status);
            break;
        }
        case RAFT_CHANGE: {
            struct raft_change *req = (struct raft_change *)(void *)q;
            req->cb(req, req->status);
            break;
        }
        case REQUEST_TRANSFER: {
            struct raft_transfer *req = (struct raft_transfer *)(void *)q;
            req->cb(req);
            break;
        }
        default:
            CHECK(false);
    }
}

void raft_peek_fire(struct raft *r)
{
    void **head = r->legacy.requests;
    while (head[0] != (void *)head) {
        void **first = head[0];
        void **next = first[0];
        head[0] = next;
        next[1] = head;
        fire(container_of((void *(*)[2])(void *)first, struct request, queue));
    }
}
