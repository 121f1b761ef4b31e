#include "lib/core_cluster.h"

#include "authority/raft_image.h"

#include "authority/fsm_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

#define STEP_MS 10
#define HEARTBEAT_MS 50
#define ELECTION_MS 500
#define FLUSHES_MAX 1000

/* --- store --- */

static struct cluster_node *of_store(struct raft_store *s)
{
    return container_of(s, struct cluster_node, store);
}

static void queue(struct cluster_node *n, struct raft_store_loaded *get, raft_store_cb cb,
                  void *data)
{
    struct cluster_op *op = xcalloc(1, sizeof *op);
    *op = (struct cluster_op){.cb = cb, .data = data, .get = get};
    *n->ops_end = op;
    n->ops_end = &op->next;
}

static void load_snapshot(const struct cluster_node *n, struct raft_store_loaded *ret)
{
    ret->has_snapshot = n->snapshot_index != 0;
    ret->snapshot_index = n->snapshot_index;
    ret->snapshot_term = n->snapshot_term;
    ret->snapshot_conf_index = n->snapshot_conf_index;
    buf_add(&ret->snapshot_conf, n->snapshot_conf.data, n->snapshot_conf.len);
    buf_add(&ret->snapshot_image, n->snapshot_image.data, n->snapshot_image.len);
}

static int op_load(struct raft_store *s, struct raft_store_loaded *ret, struct errmsg *em)
{
    struct cluster_node *n = of_store(s);
    (void)em;
    ret->term = n->term;
    ret->vote = n->vote;
    load_snapshot(n, ret);
    ret->entries = xcalloc(n->log_count, sizeof *ret->entries);
    ret->entries_count = n->log_count;
    for (size_t i = 0; i < n->log_count; i++) {
        const struct cluster_entry *e = &n->log[i];
        uint8_t *copy = xmalloc(e->data.len);
        memcpy(copy, e->data.data, e->data.len);
        ret->entries[i] = (struct raft_store_entry){.index = e->index,
                                                    .term = e->term,
                                                    .type = e->type,
                                                    .data = blob_of(copy, e->data.len)};
    }
    return 0;
}

static int op_set_term(struct raft_store *s, uint64_t term, struct errmsg *em)
{
    (void)em;
    of_store(s)->term = term;
    of_store(s)->vote = 0;
    return 0;
}

static int op_set_vote(struct raft_store *s, uint64_t vote, struct errmsg *em)
{
    (void)em;
    of_store(s)->vote = vote;
    return 0;
}

static void log_append(struct cluster_node *n, uint64_t index, uint64_t term, uint16_t type,
                       struct blob data)
{
    n->log = xrealloc(n->log, (n->log_count + 1) * sizeof *n->log);
    struct cluster_entry *e = &n->log[n->log_count++];
    *e = (struct cluster_entry){.index = index, .term = term, .type = type};
    buf_init(&e->data, SIZE_MAX);
    buf_add(&e->data, data.data, data.len);
}

static void log_drop(struct cluster_node *n, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        buf_fini(&n->log[i].data);
    }
    if (to < n->log_count) {
        memmove(&n->log[from], &n->log[to], (n->log_count - to) * sizeof *n->log);
    }
    n->log_count -= to - from;
}

static void op_append(struct raft_store *s, const struct raft_store_entry *e, size_t count,
                      raft_store_cb cb, void *data)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(e[i].data.len % 8, 0); /* G2 */
        log_append(of_store(s), e[i].index, e[i].term, e[i].type, e[i].data);
    }
    queue(of_store(s), NULL, cb, data);
}

static void op_truncate(struct raft_store *s, uint64_t index)
{
    struct cluster_node *n = of_store(s);
    size_t at = n->log_count;
    while (at > 0 && n->log[at - 1].index >= index) {
        at--;
    }
    log_drop(n, at, n->log_count);
}

static void op_put(struct raft_store *s, const struct raft_store_snapshot *snap, raft_store_cb cb,
                   void *data)
{
    struct cluster_node *n = of_store(s);
    n->snapshot_index = snap->index;
    n->snapshot_term = snap->term;
    n->snapshot_conf_index = snap->conf_index;
    buf_clear(&n->snapshot_conf);
    buf_clear(&n->snapshot_image);
    buf_add(&n->snapshot_conf, snap->conf.data, snap->conf.len);
    if (snap->frozen != NULL) {
        assert_int_equal(raft_image_pack(snap->frozen, &n->snapshot_image), 0);
    } else {
        buf_add(&n->snapshot_image, snap->packed.data, snap->packed.len);
    }
    size_t drop = 0;
    while (drop < n->log_count &&
           (snap->trailing == 0 || n->log[drop].index + snap->trailing <= snap->index)) {
        drop++;
    }
    log_drop(n, 0, drop);
    queue(n, NULL, cb, data);
}

static void op_get(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                   void *data)
{
    queue(of_store(s), ret, cb, data);
}

static void op_close(struct raft_store *s, void (*cb)(void *data), void *data)
{
    (void)s;
    cb(data);
}

static const struct raft_store_ops store_ops = {
    .load = op_load,
    .set_term = op_set_term,
    .set_vote = op_set_vote,
    .append = op_append,
    .truncate = op_truncate,
    .put_snapshot = op_put,
    .get_snapshot = op_get,
    .close = op_close,
};

/* Reports what was queued before this step. */
static void report(struct cluster_node *n)
{
    struct cluster_op *op = n->ops;
    n->ops = NULL;
    n->ops_end = &n->ops;
    while (op != NULL) {
        struct cluster_op *next = op->next;
        if (op->get != NULL) {
            load_snapshot(n, op->get);
        }
        op->cb(op->data, 0);
        free(op);
        op = next;
    }
}

/* --- network --- */

static bool op_send(struct raft_net *net, raft_id id, struct blob bytes)
{
    struct cluster_node *n = container_of(net, struct cluster_node, net);
    struct core_cluster *c = n->c;
    for (int to = 0; to < c->n; to++) {
        if (c->nodes[to].raft_id == id && !c->cut[n->i][to]) {
            struct cluster_message *m = xcalloc(1, sizeof *m);
            m->from = n->i;
            m->to = to;
            buf_init(&m->bytes, SIZE_MAX);
            buf_add(&m->bytes, bytes.data, bytes.len);
            *c->end = m;
            c->end = &m->next;
        }
    }
    return true;
}

static bool op_in_flight(struct raft_net *net, raft_id to)
{
    (void)net;
    (void)to;
    return false;
}

static const struct raft_net_ops net_ops = {
    .send = op_send, .send_image = op_send, .snapshot_in_flight = op_in_flight};

static void deliver(struct core_cluster *c)
{
    struct cluster_message *m = c->first;
    c->first = NULL;
    c->end = &c->first;
    while (m != NULL) {
        struct cluster_message *next = m->next;
        struct cluster_node *to = &c->nodes[m->to];
        if (to->core != NULL && to->fatals == 0 && !c->cut[m->from][m->to]) {
            assert_int_equal(
                raft_io_receive(&to->io, c->nodes[m->from].raft_id, buf_blob(&m->bytes)), 0);
        }
        buf_fini(&m->bytes);
        free(m);
        m = next;
    }
}

/* --- environment --- */

static uint64_t mono_ms(void *data)
{
    return ((struct cluster_node *)data)->c->now_ms;
}

static int64_t wall_ms(void *data)
{
    return 1780000000000LL + (int64_t)((struct cluster_node *)data)->c->now_ms;
}

static uint64_t random_u64(void *data)
{
    return prng_u64(&((struct cluster_node *)data)->rng);
}

static void random_bytes(void *data, void *out, size_t len)
{
    prng_bytes(&((struct cluster_node *)data)->rng, out, len);
}

static void on_fatal(void *data, const char *why)
{
    struct cluster_node *n = data;
    n->fatals++;
    (void)snprintf(n->why, sizeof n->why, "%s", why);
}

static void defer(void *data, void (*cb)(void *arg), void *arg)
{
    struct cluster_node *n = data;
    assert_null(n->deferred);
    n->deferred = cb;
    n->deferred_arg = arg;
}

static void want_flush(void *data)
{
    ((struct cluster_node *)data)->flush_wanted = true;
}

static void role_changed(void *data)
{
    ((struct cluster_node *)data)->role_changes++;
}

/* --- life --- */

void core_cluster_start(struct core_cluster *c, int node)
{
    struct cluster_node *n = &c->nodes[node];
    struct errmsg em = ERRMSG_INIT;
    assert_null(n->core);
    n->fatals = 0;
    assert_int_equal(
        n->schema == NULL ? fsm_new(&n->fsm, &em) : fsm_new_of(n->schema, &n->fsm, &em), 0);
    assert_int_equal(raft_io_init(&n->io, &n->store, &n->net, &n->io_env), 0);
    struct core_config config = {
        .id = n->raft_id,
        .node_id = n->id,
        .io = &n->io,
        .fsm = n->fsm,
        .env = &n->core_env,
        .heartbeat_ms = HEARTBEAT_MS,
        .election_ms = ELECTION_MS,
        .snapshot_threshold = c->threshold,
        .snapshot_trailing = c->trailing,
        .short_trailing = c->trailing != 0,
    };
    assert_int_equal(core_new(&config, &n->core, &em), 0);
    assert_int_equal(core_start(n->core, &em), 0);
}

static void on_closed(void *data)
{
    ((struct cluster_node *)data)->closed = true;
}

void core_cluster_stop(struct core_cluster *c, int node)
{
    struct cluster_node *n = &c->nodes[node];
    if (n->core == NULL) {
        return;
    }
    n->closed = false;
    core_close(n->core, on_closed, n);
    report(n);
    assert_false(n->closed); /* on a later turn */
    assert_non_null(n->deferred);
    void (*cb)(void *arg) = n->deferred;
    n->deferred = NULL;
    cb(n->deferred_arg);
    assert_true(n->closed);
    core_free(n->core);
    raft_io_fini(&n->io);
    fsm_free(n->fsm);
    n->core = NULL;
    n->fsm = NULL;
    n->flush_wanted = false;
}

void core_cluster_init(struct core_cluster *c, int nodes, int voters)
{
    uint32_t threshold = c->threshold;
    uint32_t trailing = c->trailing;
    *c = (struct core_cluster){
        .n = nodes, .now_ms = 1000, .threshold = threshold, .trailing = trailing};
    c->end = &c->first;
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (int i = 0; i < nodes; i++) {
        struct cluster_node *n = &c->nodes[i];
        *n = (struct cluster_node){
            .c = c, .i = i, .store = {.ops = &store_ops}, .net = {.ops = &net_ops}};
        n->ops_end = &n->ops;
        n->id.b[0] = 1;
        n->id.b[15] = (uint8_t)i;
        n->raft_id = core_raft_id(&n->id);
        prng_seed(&n->rng, (uint64_t)i + 1);
        buf_init(&n->snapshot_conf, SIZE_MAX);
        buf_init(&n->snapshot_image, SIZE_MAX);
        n->io_env = (struct raft_io_env){
            .data = n, .mono_ms = mono_ms, .random = random_u64, .fatal = on_fatal, .defer = defer};
        n->core_env = (struct core_env){.data = n,
                                        .wall_ms = wall_ms,
                                        .mono_ms = mono_ms,
                                        .random = random_bytes,
                                        .want_flush = want_flush,
                                        .role_changed = role_changed,
                                        .fatal = on_fatal};
        if (i < voters) {
            char address[UUID_TEXT_MAX];
            uuid_format(&n->id, address);
            assert_int_equal(raft_configuration_add(&conf, n->raft_id, address, RAFT_VOTER), 0);
        }
    }
    struct raft_buffer change;
    assert_int_equal(raft_configuration_encode(&conf, &change), 0);
    raft_configuration_close(&conf);
    for (int i = 0; i < nodes; i++) {
        if (i < voters) {
            c->nodes[i].term = 1;
            log_append(&c->nodes[i], 1, 1, RAFT_CHANGE, blob_of(change.base, change.len));
        }
        core_cluster_start(c, i);
    }
    raft_free(change.base);
}

void core_cluster_fini(struct core_cluster *c)
{
    for (int i = 0; i < c->n; i++) {
        struct cluster_node *n = &c->nodes[i];
        core_cluster_stop(c, i);
        log_drop(n, 0, n->log_count);
        free(n->log);
        buf_fini(&n->snapshot_conf);
        buf_fini(&n->snapshot_image);
    }
    while (c->first != NULL) {
        struct cluster_message *m = c->first;
        c->first = m->next;
        buf_fini(&m->bytes);
        free(m);
    }
}

/* --- time --- */

static void flush(struct core_cluster *c)
{
    bool again = true;
    for (int turn = 0; again; turn++) {
        assert_true(turn < FLUSHES_MAX);
        again = false;
        for (int i = 0; i < c->n; i++) {
            struct cluster_node *n = &c->nodes[i];
            if (n->core != NULL && n->flush_wanted && n->fatals == 0) {
                n->flush_wanted = false;
                core_flush(n->core);
                again = true;
            }
        }
    }
}

void core_cluster_run(struct core_cluster *c, uint64_t ms)
{
    flush(c);
    for (uint64_t end = c->now_ms + ms; c->now_ms < end;) {
        c->now_ms += STEP_MS;
        deliver(c);
        for (int i = 0; i < c->n; i++) {
            struct cluster_node *n = &c->nodes[i];
            if (n->core != NULL && n->fatals == 0) {
                if (!n->disk_stuck) {
                    report(n);
                }
                if ((c->now_ms + (uint64_t)i * STEP_MS) % HEARTBEAT_MS == 0) {
                    core_tick(n->core);
                }
            }
        }
        flush(c);
    }
}

struct core_status core_cluster_status(struct core_cluster *c, int node)
{
    struct core_status s;
    core_status(c->nodes[node].core, &s);
    return s;
}

int core_cluster_elect(struct core_cluster *c)
{
    for (int turns = 0; turns < 1000; turns++) {
        for (int i = 0; i < c->n; i++) {
            if (c->nodes[i].core == NULL || c->nodes[i].fatals > 0) {
                continue;
            }
            struct core_status s = core_cluster_status(c, i);
            int cuts = 0;
            for (int k = 0; k < c->n; k++) {
                cuts += c->cut[i][k];
            }
            if (s.role == CORE_LEADER && cuts <= c->n / 2 && s.applied_index == s.last_index) {
                core_cluster_run(c, 100); /* the others hear of it */
                return i;
            }
        }
        core_cluster_run(c, STEP_MS);
    }
    fail_msg("nobody leads");
    return -1;
}

void core_cluster_isolate(struct core_cluster *c, int node, bool alone)
{
    for (int i = 0; i < c->n; i++) {
        if (i != node) {
            c->cut[i][node] = c->cut[node][i] = alone;
        }
    }
}

struct blob core_cluster_command(struct core_cluster *c, uint32_t number)
{
    static uint8_t bytes[512];
    struct buf out;
    struct token_revoke body = {.token_id = {.b = {9}}};
    struct cmd cmd = {
        .kind = CMD_TOKEN_REVOKE,
        .time_ms = wall_ms(&c->nodes[0]),
        .actor_kind = blob_str(ACTOR_ADMIN),
        .request_id = {.b = {7, (uint8_t)(number >> 8), (uint8_t)number}},
    };
    buf_init(&out, sizeof bytes);
    cmd_encode(&cmd, &body, &out);
    assert_int_equal(out.err, 0);
    memcpy(bytes, out.data, out.len);
    struct blob b = blob_of(bytes, out.len);
    buf_fini(&out);
    return b;
}
