/* Towards the disk. An append or a snapshot goes
 *     io_append -> store.append -> (later turn) append_done -> libraft's callback
 * and the first error of the store ends the process: raft_io_fail. libraft itself would swallow it
 * (its asserts are compiled out) and go on as if the entry were stored. */
#include "authority/raft_io_impl.h"

#include "authority/raft_image.h"
#include "base/log.h"
#include "pki/statement.h"

void raft_io_fail(struct raft_io_impl *im, const char *what, int rc)
{
    if (!im->failed) {
        char why[160];
        (void)snprintf(why, sizeof why, "raft store: %s: %s", what, err_text(rc));
        im->failed = true;
        im->env->fatal(im->env->data, why);
    }
}

/* What the store still works on belongs to libraft: it may go when the last of it is back. */
static void closed(void *data)
{
    struct raft_io_impl *im = data;
    im->close_cb(im->io);
}

static void maybe_closed(struct raft_io_impl *im)
{
    if (im->closing && im->close_cb != NULL && im->pending == 0 && !im->close_deferred) {
        im->close_deferred = true;
        im->env->defer(im->env->data, closed, im);
    }
}

static void loaded_init(struct raft_store_loaded *l)
{
    *l = (struct raft_store_loaded){0};
    buf_init(&l->snapshot_conf, RAFT_MSG_CONF_MAX);
    buf_init(&l->snapshot_image, IMAGE_PACKED_MAX);
}

/* --- start --- */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io;
    (void)id;
    (void)address;
    return 0;
}

static int make_snapshot(const struct raft_store_loaded *l, struct raft_snapshot **ret)
{
    struct raft_snapshot *s = raft_calloc(1, sizeof *s);
    struct raft_buffer *b = raft_calloc(1, sizeof *b);
    CHECK(s != NULL && b != NULL);
    int rc = raft_msg_conf_decode(buf_blob(&l->snapshot_conf), &s->configuration);
    if (rc != 0 || l->snapshot_image.len == 0) {
        if (rc == 0) {
            raft_configuration_close(&s->configuration);
        }
        raft_free(b);
        raft_free(s);
        return -ERR_CORRUPT;
    }
    b->len = l->snapshot_image.len;
    b->base = raft_malloc(b->len);
    CHECK(b->base != NULL);
    memcpy(b->base, l->snapshot_image.data, b->len);
    s->index = l->snapshot_index;
    s->term = l->snapshot_term;
    s->configuration_index = l->snapshot_conf_index;
    s->bufs = b;
    s->n_bufs = 1;
    *ret = s;
    return 0;
}

static struct raft_entry *make_entries(const struct raft_store_loaded *l)
{
    size_t bytes = 0;
    for (size_t i = 0; i < l->entries_count; i++) {
        bytes += l->entries[i].data.len;
    }
    struct raft_entry *entries = raft_malloc(l->entries_count * sizeof *entries);
    uint8_t *batch = raft_malloc(bytes);
    CHECK(entries != NULL && batch != NULL);
    uint8_t *at = batch;
    for (size_t i = 0; i < l->entries_count; i++) {
        const struct raft_store_entry *e = &l->entries[i];
        memcpy(at, e->data.data, e->data.len);
        entries[i] = (struct raft_entry){
            .term = e->term,
            .type = (enum raft_entry_type)e->type,
            .buf = {.base = at, .len = e->data.len},
            .batch = batch,
        };
        at += e->data.len;
    }
    return entries;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                   struct raft_snapshot **snapshot, raft_index *start_index,
                   struct raft_entry *entries[], size_t *n_entries)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    struct errmsg em = ERRMSG_INIT;
    struct raft_store_loaded l;
    struct raft_snapshot *snap = NULL;
    loaded_init(&l);
    int rc = im->store->ops->load(im->store, &l, &em);
    if (rc == 0) {
        rc = raft_io_check_loaded(&l, &em);
    }
    if (rc == 0 && l.has_snapshot) {
        rc = make_snapshot(&l, &snap);
        if (rc != 0) {
            (void)errmsg_set(&em, rc, "snapshot does not decode");
        }
    }
    if (rc == 0) {
        rc = raft_io_begin_lone_term(im, &l, &em);
    }
    if (rc != 0) {
        (void)snprintf(io->errmsg, sizeof io->errmsg, "%.200s",
                       em.text[0] == '\0' ? err_text(rc) : em.text);
        raft_store_loaded_fini(&l);
        return rc == -ERR_CORRUPT ? RAFT_CORRUPT : RAFT_IOERR;
    }
    uint64_t last = l.entries_count == 0 ? 0 : l.entries[l.entries_count - 1].index;
    bool useful = l.entries_count > 0 && (!l.has_snapshot || last >= l.snapshot_index);
    im->term = l.term;
    im->vote = l.vote;
    im->last_index = useful ? last : l.snapshot_index;
    im->silent_until = l.silent_until;
    im->was_silent = raft_io_is_silent(im);
    im->epoch = l.epoch < EPOCH_FIRST ? EPOCH_FIRST : l.epoch;
    buf_add(&im->statement, l.statement.data, l.statement.len);
    statement_lineage(buf_blob(&im->statement), im->lineage);
    im->boot = im->env->random(im->env->data) | 1;
    im->boot_term = im->term;
    im->boot_index = im->last_index;
    *term = l.term;
    *voted_for = l.vote;
    *snapshot = snap;
    *start_index = useful ? l.entries[0].index : l.snapshot_index + 1;
    *entries = useful ? make_entries(&l) : NULL;
    *n_entries = useful ? l.entries_count : 0;
    if (l.entries_count > 0 && !useful) {
        /* Older than the snapshot: what is appended next would leave a hole behind them. */
        im->store->ops->truncate(im->store, l.entries[0].index);
    }
    raft_store_loaded_fini(&l);
    return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    (void)msecs; /* whoever owns the loop ticks */
    im->tick_cb = tick;
    im->recv_cb = recv;
    return 0;
}

/* The first log is written by raft_log, recovery by recover: not through libraft. */
static int io_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    (void)io;
    (void)conf;
    return RAFT_CANTBOOTSTRAP;
}

/* --- term and vote --- */

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    if (im->failed) {
        return RAFT_IOERR;
    }
    /* G6: libraft writes the term again with each vote, and writing it forgets the vote. */
    if (term == im->term && !PLANTED("vote_forgotten")) {
        return 0;
    }
    struct errmsg em = ERRMSG_INIT;
    int rc = im->store->ops->set_term(im->store, term, &em);
    if (rc != 0) {
        raft_io_fail(im, "writing the term", rc);
        return RAFT_IOERR;
    }
    im->term = term;
    im->vote = 0;
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    if (im->failed) {
        return RAFT_IOERR;
    }
    if (id == im->vote || PLANTED("vote_not_saved")) {
        return 0;
    }
    struct errmsg em = ERRMSG_INIT;
    int rc = im->store->ops->set_vote(im->store, id, &em);
    if (rc != 0) {
        raft_io_fail(im, "writing the vote", rc);
        return RAFT_IOERR;
    }
    im->vote = id;
    return 0;
}

/* --- log --- */

struct append {
    struct raft_io_impl *im;
    struct raft_io_append *req;
    bool configuration; /* among them; one comes in force when it is stored */
    struct raft_store_entry entries[];
};

static void append_done(void *data, int rc)
{
    struct append *a = data;
    struct raft_io_impl *im = a->im;
    struct raft_io_append *req = a->req;
    bool configuration = a->configuration;
    free(a);
    im->pending--;
    if (rc != 0 && !im->closing && !PLANTED("ack_after_store_error")) {
        raft_io_fail(im, "appending to the log", rc);
    }
    req->cb(req, im->closing || im->failed ? RAFT_CANCELED : 0);
    if (configuration && !im->closing) {
        raft_io_forget_non_voters(im);
    }
    maybe_closed(im);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    static const uint8_t barrier[8];
    struct raft_io_impl *im = raft_io_impl_of(io);
    struct append *a = xmalloc(sizeof *a + n * sizeof a->entries[0]);
    a->im = im;
    a->req = req;
    a->configuration = false;
    req->cb = cb;
    for (unsigned i = 0; i < n; i++) {
        bool is_barrier = entries[i].type == RAFT_BARRIER;
        a->configuration = a->configuration || entries[i].type == RAFT_CHANGE;
        a->entries[i] = (struct raft_store_entry){
            .index = im->last_index + 1 + i,
            .term = entries[i].term,
            .type = (uint16_t)entries[i].type,
            /* raft_barrier leaves its 8 bytes uninitialised. */
            .data = is_barrier ? blob_of(barrier, sizeof barrier)
                               : blob_of(entries[i].buf.base, entries[i].buf.len),
        };
    }
    im->last_index += n;
    im->pending++;
    im->store->ops->append(im->store, a->entries, n, append_done, a);
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    /* libraft truncates before each append, mostly nothing. */
    if (index <= im->last_index) {
        im->store->ops->truncate(im->store, index);
        im->last_index = index - 1;
    }
    return 0;
}

/* --- snapshots --- */

struct put {
    struct raft_io_impl *im;
    struct raft_io_snapshot_put *req;
    raft_io_snapshot_put_cb cb;
    bool taking;
    uint64_t index, started_ms;
    struct buf conf;
};

static void put_done(void *data, int rc)
{
    struct put *p = data;
    struct raft_io_impl *im = p->im;
    struct raft_io_snapshot_put *req = p->req;
    raft_io_snapshot_put_cb cb = p->cb;
    if (p->taking) {
        im->taking = false;
    } else {
        im->installing = false;
        raft_io_forget_what_was_acked(im);
    }
    if (rc == 0) {
        log_info(LOG_AUTHORITY, "snapshot stored", "index=%llu from=%s took_ms=%llu",
                 (unsigned long long)p->index, p->taking ? "here" : "leader",
                 (unsigned long long)(im->env->mono_ms(im->env->data) - p->started_ms));
    }
    buf_fini(&p->conf);
    free(p);
    im->pending--;
    if (rc != 0 && !im->closing) {
        raft_io_fail(im, "storing a snapshot", rc);
    }
    cb(req, im->closing || im->failed ? RAFT_CANCELED : 0);
    maybe_closed(im);
}

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    struct put *p = xmalloc(sizeof *p);
    *p = (struct put){.im = im,
                      .req = req,
                      .cb = cb,
                      .taking = trailing > 0,
                      .index = snapshot->index,
                      .started_ms = im->env->mono_ms(im->env->data)};
    buf_init(&p->conf, RAFT_MSG_CONF_MAX);
    raft_msg_conf_encode(&snapshot->configuration, &p->conf);
    CHECK(snapshot->n_bufs == 1);
    struct raft_store_snapshot s = {.index = snapshot->index,
                                    .term = snapshot->term,
                                    .conf_index = snapshot->configuration_index,
                                    .conf = buf_blob(&p->conf),
                                    .trailing = trailing};
    if (p->taking) {
        im->taking = true;
        s.frozen = snapshot->bufs[0].base; /* raft_io.h */
    } else {
        im->installing = true;
        im->last_index = snapshot->index;
        s.packed = blob_of(snapshot->bufs[0].base, snapshot->bufs[0].len);
    }
    im->pending++;
    im->store->ops->put_snapshot(im->store, &s, put_done, p);
    return 0;
}

struct get {
    struct raft_io_impl *im;
    struct raft_io_snapshot_get *req;
    raft_io_snapshot_get_cb cb;
    struct raft_store_loaded loaded;
};

/* libraft reads a message it never initialised when a get fails, so a get always gives something;
 * io_send drops what was made up. */
static struct raft_snapshot *empty_snapshot(void)
{
    struct raft_snapshot *s = raft_calloc(1, sizeof *s);
    struct raft_buffer *b = raft_calloc(1, sizeof *b);
    CHECK(s != NULL && b != NULL);
    raft_configuration_init(&s->configuration);
    s->bufs = b;
    s->n_bufs = 1;
    return s;
}

static void get_done(void *data, int rc)
{
    struct get *g = data;
    struct raft_io_impl *im = g->im;
    struct raft_io_snapshot_get *req = g->req;
    raft_io_snapshot_get_cb cb = g->cb;
    struct raft_snapshot *s = NULL;
    if (rc == 0 && (!g->loaded.has_snapshot || make_snapshot(&g->loaded, &s) != 0)) {
        rc = -ERR_CORRUPT;
    }
    if (s != NULL) {
        im->got_index = s->index;
        im->got_term = s->term;
    }
    raft_store_loaded_fini(&g->loaded);
    free(g);
    im->pending--;
    if (rc != 0 && !im->closing) {
        raft_io_fail(im, "reading the snapshot", rc);
    }
    cb(req, s != NULL ? s : empty_snapshot(), 0);
    maybe_closed(im);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    struct get *g = xmalloc(sizeof *g);
    *g = (struct get){.im = im, .req = req, .cb = cb};
    loaded_init(&g->loaded);
    im->pending++;
    im->store->ops->get_snapshot(im->store, &g->loaded, get_done, g);
    return 0;
}

/* --- the rest --- */

static raft_time io_time(struct raft_io *io)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    return im->env->mono_ms(im->env->data);
}

static int io_random(struct raft_io *io, int min, int max)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    uint64_t span = (uint64_t)((int64_t)max - min) + 1;
    return (int)((int64_t)min + (int64_t)(im->env->random(im->env->data) % span));
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    im->closing = true;
    im->close_cb = cb;
    maybe_closed(im);
}

int raft_io_init(struct raft_io *io, struct raft_store *store, struct raft_net *net,
                 const struct raft_io_env *env)
{
    struct raft_io_impl *im = xmalloc(sizeof *im);
    *im = (struct raft_io_impl){
        .io = io, .store = store, .net = net, .env = env, .epoch = EPOCH_FIRST};
    buf_init(&im->out, RAFT_FRAME_MAX);
    buf_init(&im->statement, SIGNED_RECOVERY_MAX);
    *io = (struct raft_io){
        .version = 2,
        .impl = im,
        .init = io_init,
        .close = io_close,
        .load = io_load,
        .start = io_start,
        .bootstrap = io_bootstrap,
        .recover = io_bootstrap,
        .set_term = io_set_term,
        .set_vote = io_set_vote,
        .send = raft_io_send,
        .append = io_append,
        .truncate = io_truncate,
        .snapshot_put = io_snapshot_put,
        .snapshot_get = io_snapshot_get,
        .time = io_time,
        .random = io_random,
    };
    return 0;
}

void raft_io_fini(struct raft_io *io)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    if (im != NULL) {
        buf_fini(&im->out);
        buf_fini(&im->statement);
        free(im);
        io->impl = NULL;
    }
}

void raft_io_fence(struct raft_io *io)
{
    raft_io_impl_of(io)->fenced = true;
}

uint64_t raft_io_epoch(const struct raft_io *io)
{
    return raft_io_impl_of(io)->epoch;
}

struct blob raft_io_statement(const struct raft_io *io)
{
    return buf_blob(&raft_io_impl_of(io)->statement);
}

void raft_io_tick(struct raft_io *io)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    if (im->tick_cb != NULL && !im->closing && !im->failed && !im->fenced) {
        im->tick_cb(io);
    }
}

void raft_io_on_digest(struct raft_io *io, const struct raft_io_digest_ops *ops, void *data)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    im->digest_ops = ops;
    im->digest_data = data;
}
