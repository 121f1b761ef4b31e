/* Linearizable reads. libraft has no ReadIndex, so a barrier entry confirms that we still lead:
 * when it is applied, everything acknowledged before it was asked for is applied too.
 *
 *     waiting ──(no barrier runs, the term has started)──> running ──barrier applied──> ready
 *
 * Reads that come while a barrier runs share the next one: the running one may have been proposed
 * before something they must see. */
#include "authority/core_impl.h"

static void push(struct read_list *l, struct core_read *r)
{
    r->next = NULL;
    if (l->last == NULL) {
        l->first = r;
    } else {
        l->last->next = r;
    }
    l->last = r;
}

static struct core_read *pop(struct read_list *l)
{
    struct core_read *r = l->first;
    if (r != NULL) {
        l->first = r->next;
        if (l->first == NULL) {
            l->last = NULL;
        }
        r->next = NULL;
    }
    return r;
}

static bool take_out(struct read_list *l, struct core_read *r)
{
    struct core_read *before = NULL;
    for (struct core_read *at = l->first; at != NULL; before = at, at = at->next) {
        if (at == r) {
            if (before == NULL) {
                l->first = r->next;
            } else {
                before->next = r->next;
            }
            if (l->last == r) {
                l->last = before;
            }
            r->next = NULL;
            return true;
        }
    }
    return false;
}

static void fail(struct read_list *l, int rc)
{
    struct read_list mine = *l;
    *l = (struct read_list){0};
    struct core_read *r;
    while ((r = pop(&mine)) != NULL) {
        r->cb(r, rc, 0);
    }
}

void core_reads_fail(struct core *c, int rc)
{
    fail(&c->reads_waiting, rc);
    fail(&c->reads_running, rc);
    if (rc == -ERR_CANCELED) {
        fail(&c->reads_ready, rc);
    }
}

void core_waiters_fail(struct core *c, int rc)
{
    fail(&c->waiters, rc);
}

int core_read_index(struct core *c, struct core_read *r, core_read_cb cb)
{
    int rc = core_check_leader(c);
    if (rc != 0) {
        return rc;
    }
    r->cb = cb;
    push(PLANTED("read_without_barrier") ? &c->reads_ready : &c->reads_waiting, r);
    core_want_flush(c);
    return 0;
}

int core_wait_applied(struct core *c, struct core_read *r, uint64_t index, core_read_cb cb)
{
    if (!c->started || c->closing || c->failed) {
        return -ERR_CLOSED;
    }
    r->cb = cb;
    r->index = index;
    push(&c->waiters, r);
    core_want_flush(c);
    return 0;
}

void core_read_cancel(struct core *c, struct core_read *r)
{
    (void)(take_out(&c->reads_waiting, r) || take_out(&c->reads_running, r) ||
           take_out(&c->reads_ready, r) || take_out(&c->waiters, r));
}

static void barrier_done(struct raft_barrier *req, int status)
{
    struct core *c = container_of(req, struct core, barrier);
    c->barrier_active = false;
    if (c->closing || status != 0) {
        fail(&c->reads_running, c->closing ? -ERR_CANCELED : -ERR_NOT_LEADER);
    } else {
        struct core_read *r;
        while ((r = pop(&c->reads_running)) != NULL) {
            push(&c->reads_ready, r);
        }
    }
    core_want_flush(c);
}

void core_reads_start(struct core *c)
{
    if (c->barrier_active || c->reads_waiting.first == NULL || !c->term_started || c->failed ||
        c->closing) {
        return;
    }
    c->reads_running = c->reads_waiting;
    c->reads_waiting = (struct read_list){0};
    int rv = raft_barrier(&c->raft, &c->barrier, barrier_done);
    if (rv == 0) {
        c->barrier_active = true;
        return;
    }
    if (rv != RAFT_NOTLEADER && rv != RAFT_NOSPACE) {
        core_fail(c, "raft_barrier: %s", raft_strerror(rv));
    }
    fail(&c->reads_running, -ERR_NOT_LEADER);
}

void core_reads_finish(struct core *c)
{
    uint64_t applied = raft_last_applied(&c->raft);
    struct read_list ready = c->reads_ready;
    c->reads_ready = (struct read_list){0};
    for (struct core_read *at = c->waiters.first; at != NULL;) {
        struct core_read *next = at->next;
        if (at->index <= applied) {
            (void)take_out(&c->waiters, at);
            push(&ready, at);
        }
        at = next;
    }
    struct core_read *r;
    while ((r = pop(&ready)) != NULL) {
        r->cb(r, 0, applied);
    }
}
