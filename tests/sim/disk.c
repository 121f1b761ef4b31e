/* A disk: operations take time, one after the other, and are durable when their callback runs.
 * Term and vote are durable when the call returns. */
#include "sim.h"

#include "authority/raft_image.h"
#include "authority/raft_log.h"

enum op_kind { OP_APPEND, OP_TRUNCATE, OP_PUT, OP_GET, OP_NOTHING };
struct disk_op {
    struct disk_op *next;
    enum op_kind kind;
    struct rec **recs;
    size_t count;
    uint64_t index;
    struct snap *snap;
    struct db_image *frozen;
    unsigned trailing;
    struct raft_store_loaded *ret;
    raft_store_cb cb;
    void *data;
};

/* --- records --- */

uint64_t rec_sum(const struct rec *r)
{
    uint64_t head[3] = {r->index, r->term, r->type};
    return (hash_bytes(head, sizeof head) * 31 + hash_bytes(r->data, r->len)) | 1;
}

struct rec *rec_new(uint64_t index, uint64_t term, uint16_t type, struct blob data)
{
    struct rec *r = xmalloc(sizeof *r + data.len);
    *r = (struct rec){.refs = 0, .type = type, .index = index, .term = term, .len = data.len};
    memcpy(r->data, data.data, data.len);
    r->sum = rec_sum(r);
    return r;
}

static void rec_unref(struct rec *r)
{
    if (--r->refs == 0) {
        free(r);
    }
}

void rec_list_push(struct rec_list *l, struct rec *r)
{
    if (l->count == 0) {
        l->first = r->index;
    }
    CHECK(r->index == l->first + l->count);
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 64 : 2 * l->cap;
        l->items = xrealloc(l->items, l->cap * sizeof(struct rec *));
    }
    r->refs++;
    l->items[l->count++] = r;
}

void rec_list_truncate(struct rec_list *l, uint64_t index)
{
    while (l->count > 0 && l->first + l->count > index) {
        rec_unref(l->items[--l->count]);
    }
}

void rec_list_drop_before(struct rec_list *l, uint64_t index)
{
    if (l->count == 0 || index <= l->first) {
        return;
    }
    size_t n = index - l->first < l->count ? (size_t)(index - l->first) : l->count;
    for (size_t i = 0; i < n; i++) {
        rec_unref(l->items[i]);
    }
    memmove(l->items, l->items + n, (l->count - n) * sizeof(struct rec *));
    l->count -= n;
    l->first += n;
}

void rec_list_clear(struct rec_list *l)
{
    rec_list_truncate(l, 0);
}

struct rec *rec_list_at(const struct rec_list *l, uint64_t index)
{
    return l->count == 0 || index < l->first || index >= l->first + l->count
               ? NULL
               : l->items[index - l->first];
}

/* --- operations --- */

static struct snap *snap_new(const struct raft_store_snapshot *from)
{
    struct snap *s = xcalloc(1, sizeof *s);
    s->refs = 1;
    s->index = from->index;
    s->term = from->term;
    s->conf_index = from->conf_index;
    buf_init(&s->conf, SIZE_MAX);
    buf_init(&s->image, SIZE_MAX);
    buf_add(&s->conf, from->conf.data, from->conf.len);
    buf_add(&s->image, from->packed.data, from->packed.len);
    return s;
}

static void snap_unref(struct snap *s)
{
    if (s != NULL && --s->refs == 0) {
        buf_fini(&s->conf);
        buf_fini(&s->image);
        free(s);
    }
}

static void op_free(struct disk_op *op)
{
    for (size_t i = 0; i < op->count; i++) {
        rec_unref(op->recs[i]);
    }
    free(op->recs);
    snap_unref(op->snap);
    free(op);
}

static uint64_t latency(struct disk *d, size_t bytes)
{
    struct world *w = d->w;
    uint64_t us = d->slow ? between(w, 20 * MS, 300 * MS) : between(w, 100, 900);
    if (!d->slow && chance(w, 10)) {
        us += between(w, 1 * MS, 40 * MS);
    }
    return us + bytes / 200;
}

static struct disk_op *queue(struct disk *d, enum op_kind kind, uint64_t takes_us, raft_store_cb cb,
                             void *data)
{
    struct disk_op *op = xcalloc(1, sizeof *op);
    op->kind = kind;
    op->cb = cb;
    op->data = data;
    if (d->last == NULL) {
        d->first = op;
    } else {
        d->last->next = op;
    }
    d->last = op;
    d->ops_count++;
    uint64_t now = d->w->now_us;
    uint64_t start = d->busy_until_us > now ? d->busy_until_us : now;
    d->busy_until_us = start + takes_us;
    struct event *e = world_schedule(d->w, d->busy_until_us - now, EV_DISK, d->node);
    e->generation = d->generation;
    return op;
}

static struct disk_op *dequeue(struct disk *d)
{
    struct disk_op *op = d->first;
    d->first = op->next;
    if (d->first == NULL) {
        d->last = NULL;
    }
    d->ops_count--;
    return op;
}

/* Does it to the platter; of an append only the first `count`. */
static void perform(struct disk *d, struct disk_op *op, size_t count)
{
    switch (op->kind) {
        case OP_APPEND:
            for (size_t i = 0; i < count; i++) {
                if (op->recs[i]->type == RAFT_CHANGE) {
                    members_check_stored(&d->w->nodes[d->node], op->recs[i]);
                }
                rec_list_push(&d->durable, op->recs[i]);
            }
            break;
        case OP_TRUNCATE:
            rec_list_truncate(&d->durable, op->index);
            break;
        case OP_PUT:
            if (op->frozen != NULL) {
                /* Only now: the node has applied more in the meantime. */
                CHECK(raft_image_pack(op->frozen, &op->snap->image) == 0);
            }
            snap_unref(d->snap);
            d->snap = op->snap;
            d->snap->refs++;
            if (op->trailing == 0) {
                rec_list_clear(&d->durable);
            } else if (op->snap->index > op->trailing) {
                rec_list_drop_before(&d->durable, op->snap->index - op->trailing + 1);
            }
            break;
        case OP_GET:
        case OP_NOTHING:
            break;
    }
}

static void fill_snapshot(const struct disk *d, struct raft_store_loaded *ret)
{
    const struct snap *snap = d->snap;
    ret->has_snapshot = snap != NULL;
    if (snap != NULL) {
        ret->snapshot_index = snap->index;
        ret->snapshot_term = snap->term;
        ret->snapshot_conf_index = snap->conf_index;
        buf_add(&ret->snapshot_conf, snap->conf.data, snap->conf.len);
        buf_add(&ret->snapshot_image, snap->image.data, snap->image.len);
    }
}

void disk_event(struct disk *d, uint32_t generation)
{
    if (generation != d->generation || d->first == NULL) {
        return;
    }
    struct disk_op *op = dequeue(d);
    int rc = 0;
    if (op->kind == OP_APPEND && d->fail_next) {
        d->fail_next = false;
        d->failed = true;
        d->w->stats.disk_errors++;
        rc = -ERR_IO;
    } else if (op->kind == OP_APPEND && d->failed) {
        rc = -ERR_IO; /* a disk that failed stays failed until it is looked at */
    } else {
        perform(d, op, op->count);
        if (op->kind == OP_GET) {
            fill_snapshot(d, op->ret);
        }
    }
    raft_store_cb cb = op->cb;
    void *data = op->data;
    op_free(op);
    if (cb != NULL) {
        faults_durable(&d->w->nodes[d->node], 1);
        cb(data, rc);
    }
}

void disk_wait(struct disk *d)
{
    for (struct disk_op *op = d->first; op != NULL && !d->fail_next && !d->failed; op = op->next) {
        if (op->kind != OP_GET) {
            perform(d, op, op->count);
            op->kind = OP_NOTHING;
        }
    }
}

void disk_crash(struct disk *d)
{
    struct world *w = d->w;
    d->generation++;
    size_t keep = d->failed || chance(w, 500) ? 0 : (size_t)between(w, 0, d->ops_count);
    bool arriving = true;
    while (d->first != NULL) {
        struct disk_op *op = dequeue(d);
        if (keep > 0) {
            keep--;
            perform(d, op, op->count);
        } else if (arriving && op->kind == OP_APPEND && op->count > 0 && !d->failed) {
            perform(d, op, (size_t)between(w, 0, op->count)); /* torn */
            arriving = false;
        } else {
            arriving = false;
        }
        raft_store_cb cb = op->cb;
        void *data = op->data;
        op_free(op);
        if (cb != NULL) {
            cb(data, -ERR_CANCELED);
        }
    }
    d->busy_until_us = 0;
}

void disk_boot(struct disk *d)
{
    d->generation++;
    d->failed = false;
    d->fail_next = false;
    rec_list_clear(&d->view);
    for (size_t i = 0; i < d->durable.count; i++) {
        rec_list_push(&d->view, d->durable.items[i]);
    }
}

bool disk_corrupt(struct disk *d)
{
    if (d->durable.count == 0 || d->corrupted != NULL) {
        return false;
    }
    struct rec *r = d->durable.items[between(d->w, 0, d->durable.count - 1)];
    d->corrupted = r;
    d->corrupted_at = (size_t)between(d->w, 0, r->len - 1);
    r->data[d->corrupted_at] ^= 0x10;
    return true;
}

void disk_repair(struct disk *d)
{
    if (d->corrupted != NULL) {
        d->corrupted->data[d->corrupted_at] ^= 0x10;
        d->corrupted = NULL;
    }
}

/* --- the owner's steps: nobody has it open --- */

int disk_restart(void *data, const struct raft_log_restart *r, struct errmsg *em)
{
    struct disk *d = data;
    struct raft_configuration conf;
    struct buf entry;
    if (r->epoch <= d->epoch || r->first_term <= d->term) {
        return errmsg_set(em, -ERR_INVALID, "the new log does not follow what is there");
    }
    struct snap *s = xcalloc(1, sizeof *s);
    *s = (struct snap){.refs = 1, .index = r->index, .term = r->term, .conf_index = r->index};
    buf_init(&s->conf, SIZE_MAX);
    buf_init(&s->image, SIZE_MAX);
    raft_configuration_init(&conf);
    CHECK(raft_configuration_add(&conf, r->id, r->address, RAFT_VOTER) == 0);
    raft_msg_conf_encode(&conf, &s->conf);
    raft_configuration_close(&conf);
    CHECK(raft_image_pack_bytes(r->image, &s->image) == 0);
    buf_init(&entry, SIZE_MAX);
    buf_add(&entry, r->first_entry.data, r->first_entry.len);
    raft_msg_pad(&entry);
    disk_give_up(d, r->epoch, r->statement);
    d->snap = s;
    d->term = r->first_term;
    rec_list_push(&d->durable,
                  rec_new(r->index + 1, r->first_term, RAFT_COMMAND, buf_blob(&entry)));
    buf_fini(&entry);
    return 0;
}

void disk_begin_empty(struct disk *d, uint64_t term, uint64_t vote, uint64_t silent_until)
{
    disk_repair(d);
    snap_unref(d->snap);
    d->snap = NULL;
    rec_list_clear(&d->durable);
    rec_list_clear(&d->view);
    d->term = term;
    d->vote = vote;
    d->silent_until = silent_until;
}

void disk_give_up(struct disk *d, uint64_t epoch, struct blob statement)
{
    disk_begin_empty(d, 0, 0, 0);
    d->epoch = epoch;
    buf_clear(&d->statement);
    buf_add(&d->statement, statement.data, statement.len);
}

/* --- raft_store --- */

static struct disk *of(struct raft_store *s)
{
    return container_of(s, struct disk, store);
}

static int op_load(struct raft_store *s, struct raft_store_loaded *ret, struct errmsg *em)
{
    struct disk *d = of(s);
    ret->term = d->term;
    ret->vote = d->vote;
    ret->silent_until = d->silent_until;
    ret->epoch = d->epoch;
    buf_init(&ret->statement, SIGNED_RECOVERY_MAX);
    buf_add(&ret->statement, d->statement.data, d->statement.len);
    fill_snapshot(d, ret);
    ret->entries = xcalloc(d->durable.count, sizeof *ret->entries);
    for (size_t i = 0; i < d->durable.count; i++) {
        const struct rec *r = d->durable.items[i];
        if (rec_sum(r) != r->sum && !PLANTED("checksum_not_checked")) {
            return errmsg_set(em, -ERR_CORRUPT, "entry %llu: checksum",
                              (unsigned long long)r->index);
        }
        uint8_t *copy = xmalloc(r->len);
        memcpy(copy, r->data, r->len);
        ret->entries[i] = (struct raft_store_entry){
            .index = r->index, .term = r->term, .type = r->type, .data = blob_of(copy, r->len)};
        ret->entries_count++;
    }
    return 0;
}

static int op_set_term(struct raft_store *s, uint64_t term, struct errmsg *em)
{
    struct disk *d = of(s);
    (void)em;
    if (term <= d->term) {
        violate(d->w, "S1: node %d forgets whom it gave its vote in term %llu", d->node,
                (unsigned long long)term);
    }
    d->term = term;
    d->vote = 0;
    return 0;
}

static int op_set_vote(struct raft_store *s, uint64_t vote, struct errmsg *em)
{
    (void)em;
    of(s)->vote = vote;
    faults_durable(&of(s)->w->nodes[of(s)->node], 30);
    return 0;
}

static void op_append(struct raft_store *s, const struct raft_store_entry *e, size_t n,
                      raft_store_cb cb, void *data)
{
    struct disk *d = of(s);
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += e[i].data.len;
    }
    if (PLANTED("ack_before_fsync")) {
        (void)queue(d, OP_NOTHING, 0, cb, data);
        cb = NULL;
        data = NULL;
    }
    struct disk_op *op = queue(d, OP_APPEND, latency(d, bytes), cb, data);
    op->recs = xcalloc(n, sizeof(struct rec *));
    op->count = n;
    for (size_t i = 0; i < n; i++) {
        op->recs[i] = rec_new(e[i].index, e[i].term, e[i].type, e[i].data);
        op->recs[i]->refs++;
        rec_list_push(&d->view, op->recs[i]);
    }
}

static void op_truncate(struct raft_store *s, uint64_t index)
{
    struct disk *d = of(s);
    queue(d, OP_TRUNCATE, 0, NULL, NULL)->index = index;
    rec_list_truncate(&d->view, index);
}

static void op_put(struct raft_store *s, const struct raft_store_snapshot *snap, raft_store_cb cb,
                   void *data)
{
    struct disk *d = of(s);
    uint64_t slow = chance(d->w, 200) ? between(d->w, 10 * MS, 800 * MS) : 0;
    size_t bytes = snap->frozen != NULL ? db_image_bytes(snap->frozen) : snap->packed.len;
    struct disk_op *op = queue(d, OP_PUT, latency(d, bytes) + slow, cb, data);
    op->snap = snap_new(snap);
    op->frozen = snap->frozen;
    op->trailing = snap->trailing;
    if (snap->trailing == 0) {
        rec_list_clear(&d->view);
        d->w->stats.snapshots_installed++;
    } else {
        d->w->stats.snapshots_taken++;
        members_check_snapshot(&d->w->nodes[d->node], op->snap);
        if (snap->index > snap->trailing) {
            rec_list_drop_before(&d->view, snap->index - snap->trailing + 1);
        }
    }
}

static void op_get(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                   void *data)
{
    struct disk *d = of(s);
    queue(d, OP_GET, latency(d, d->snap == NULL ? 0 : d->snap->image.len), cb, data)->ret = ret;
}

static void op_close(struct raft_store *s, void (*cb)(void *data), void *data)
{
    (void)s;
    cb(data);
}

static const struct raft_store_ops ops = {
    .load = op_load,
    .set_term = op_set_term,
    .set_vote = op_set_vote,
    .append = op_append,
    .truncate = op_truncate,
    .put_snapshot = op_put,
    .get_snapshot = op_get,
    .close = op_close,
};

void disk_init(struct disk *d, struct world *w, int node)
{
    *d = (struct disk){.store = {.ops = &ops}, .w = w, .node = node, .epoch = EPOCH_FIRST};
    buf_init(&d->statement, SIGNED_RECOVERY_MAX);
}

void disk_fini(struct disk *d)
{
    rec_list_clear(&d->durable);
    rec_list_clear(&d->view);
    free(d->durable.items);
    free(d->view.items);
    buf_fini(&d->statement);
    snap_unref(d->snap);
}
