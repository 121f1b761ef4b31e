/* The writer thread, in order:
 *   happy path   enqueue -> writer_main takes the queue -> run_batch (BEGIN, jobs, COMMIT) ->
 *                jobs on the done list -> uv_async -> on_done runs their callbacks
 *   a write fails  ROLLBACK, the whole batch ends with the error, `broken` keeps it, every later
 *                write ends with it at once
 *   close        a STOP job goes last: the writer ends after all before it, the loop delivers their
 *                callbacks, joins, closes the async handle, then reports and frees
 *   after close  late appends end with -ERR_CANCELED */
#include "authority/raft_log.h"

#include "authority/raft_log_db.h"
#include "base/log.h"
#include "wire/limits.h"

#include <pthread.h>
#include <signal.h>

/* libraft keeps far fewer in flight; a full queue makes the loop wait for the disk. */
#define QUEUE_MAX 4096

enum job_kind {
    JOB_APPEND,
    JOB_TRUNCATE,
    JOB_SET_TERM,
    JOB_SET_VOTE,
    JOB_PUT_SNAPSHOT,
    JOB_GET_SNAPSHOT,
    JOB_LOAD,
    JOB_STOP,
};

struct job {
    enum job_kind kind;
    int rc;
    bool waited_for; /* somebody sleeps until `finished`; the memory is theirs */
    bool finished;
    raft_store_cb cb; /* else: run on the loop; may be NULL */
    void *data;
    union {
        struct {
            struct raft_store_entry *entries;
            size_t count;
        } append;
        uint64_t number; /* index, term or vote */
        struct raft_log_snapshot put;
        struct raft_store_loaded *loaded;
    } u;
    struct errmsg em; /* for those who wait */
    struct job *next;
};

struct job_list {
    struct job *head;
    struct job **tail;
    size_t count;
};

struct raft_log {
    struct raft_store store;
    struct raft_log_db db; /* the writer's, once it runs */
    int broken;            /* the writer's: the error of the first failed write */

    pthread_t writer;
    pthread_mutex_t lock;
    pthread_cond_t work;    /* the queue is not empty */
    pthread_cond_t changed; /* there is room, or a job that is waited for has finished */
    struct job_list queue;  /* under lock */
    struct job_list done;   /* under lock */

    uv_async_t async;
    bool closing;
    bool writer_ended; /* the STOP job came back */
    void (*close_cb)(void *data);
    void *close_data;
};

static struct raft_log *from_store(struct raft_store *s)
{
    return container_of(s, struct raft_log, store);
}

static void list_init(struct job_list *l)
{
    *l = (struct job_list){.tail = &l->head};
}

static void list_push(struct job_list *l, struct job *j)
{
    j->next = NULL;
    *l->tail = j;
    l->tail = &j->next;
    l->count++;
}

/* Leaves l empty. */
static struct job *list_take(struct job_list *l)
{
    struct job *head = l->head;
    list_init(l);
    return head;
}

/* --- writer thread --- */

static bool is_write(const struct job *j)
{
    switch (j->kind) {
        case JOB_APPEND:
        case JOB_TRUNCATE:
        case JOB_SET_TERM:
        case JOB_SET_VOTE:
        case JOB_PUT_SNAPSHOT:
            return true;
        case JOB_GET_SNAPSHOT:
        case JOB_LOAD:
        case JOB_STOP:
            return false;
    }
    CHECK(false);
    return false;
}

static int run_write(struct raft_log_db *d, struct job *j)
{
    struct raft_log_state next = d->state;
    switch (j->kind) {
        case JOB_APPEND:
            return raft_log_db_append(d, j->u.append.entries, j->u.append.count);
        case JOB_TRUNCATE:
            return raft_log_db_truncate(d, j->u.number);
        case JOB_SET_TERM:
            if (j->u.number <= next.term) {
                /* Writing the same term again would forget the vote given in it. */
                return j->u.number == next.term ? 0 : -ERR_INVALID;
            }
            next.term = j->u.number;
            next.vote = 0;
            return raft_log_db_set_state(d, &next);
        case JOB_SET_VOTE:
            next.vote = j->u.number;
            return raft_log_db_set_state(d, &next);
        case JOB_PUT_SNAPSHOT:
            return raft_log_db_put_snapshot(d, &j->u.put);
        case JOB_GET_SNAPSHOT:
        case JOB_LOAD:
        case JOB_STOP:
            break;
    }
    CHECK(false);
    return 0;
}

/* A run of writes from the head of the list, as one transaction. Returns what follows them. */
static struct job *run_batch(struct raft_log *l, struct job *head)
{
    struct raft_log_state before = l->db.state;
    const char *step = "begin";
    struct errmsg em = ERRMSG_INIT;
    int rc = l->broken;
    struct job *end;
    if (rc == 0) {
        rc = db_begin(l->db.db);
    }
    for (end = head; end != NULL && is_write(end); end = end->next) {
        if (rc == 0) {
            step = "write";
            rc = run_write(&l->db, end);
        }
    }
    if (rc == 0) {
        step = "commit";
        rc = db_commit(l->db.db);
    }
    if (rc != 0 && l->broken == 0) {
        bool ours = sqlite3_errcode(db_handle(l->db.db)) == SQLITE_OK;
        errmsg_set(&em, rc, "%s", ours ? err_text(rc) : db_errmsg(l->db.db));
        db_rollback(l->db.db);
        l->db.state = before;
        l->broken = rc;
        log_error(LOG_AUTHORITY, "raft log cannot be written", "step=%s why=\"%s\"", step, em.text);
    }
    for (struct job *j = head; j != end; j = j->next) {
        j->rc = rc;
        if (rc != 0) {
            errmsg_set(&j->em, rc, "raft log: %s", em.text[0] != '\0' ? em.text : err_text(rc));
        }
    }
    return end;
}

static void run_read(struct raft_log *l, struct job *j)
{
    if (j->kind == JOB_LOAD) {
        j->rc = raft_log_db_load(&l->db, j->u.loaded, &j->em);
    } else if (j->kind == JOB_GET_SNAPSHOT) {
        j->rc = raft_log_db_get_snapshot(&l->db, j->u.loaded, &j->em);
    } else {
        CHECK(j->kind == JOB_STOP);
        /* Here, not on the loop: it checkpoints. */
        raft_log_db_close(&l->db);
    }
}

/* Hands finished jobs back. */
static void finish(struct raft_log *l, struct job *head, struct job *end)
{
    bool wake_loop = false;
    (void)pthread_mutex_lock(&l->lock);
    while (head != end) {
        struct job *next = head->next;
        if (head->waited_for) {
            head->finished = true;
        } else {
            list_push(&l->done, head);
            wake_loop = true;
        }
        head = next;
    }
    (void)pthread_cond_broadcast(&l->changed);
    (void)pthread_mutex_unlock(&l->lock);
    if (wake_loop) {
        (void)uv_async_send(&l->async);
    }
}

static void *writer_main(void *arg)
{
    struct raft_log *l = arg;
    bool stop = false;
    while (!stop) {
        (void)pthread_mutex_lock(&l->lock);
        while (l->queue.head == NULL) {
            (void)pthread_cond_wait(&l->work, &l->lock);
        }
        struct job *head = list_take(&l->queue);
        (void)pthread_cond_broadcast(&l->changed);
        (void)pthread_mutex_unlock(&l->lock);
        while (head != NULL) {
            struct job *end;
            if (is_write(head)) {
                end = run_batch(l, head);
            } else {
                run_read(l, head);
                stop = head->kind == JOB_STOP;
                end = head->next;
            }
            finish(l, head, end);
            head = end;
        }
    }
    return NULL;
}

/* --- loop thread --- */

static void enqueue(struct raft_log *l, struct job *j)
{
    (void)pthread_mutex_lock(&l->lock);
    while (l->queue.count >= QUEUE_MAX) {
        (void)pthread_cond_wait(&l->changed, &l->lock);
    }
    list_push(&l->queue, j);
    /* After the lock: a writer woken under it runs into it and sleeps again. */
    (void)pthread_mutex_unlock(&l->lock);
    (void)pthread_cond_signal(&l->work);
}

static void enqueue_async(struct raft_log *l, struct job *j)
{
    if (l->closing && j->kind != JOB_STOP) {
        j->rc = -ERR_CANCELED;
        (void)pthread_mutex_lock(&l->lock);
        list_push(&l->done, j);
        (void)pthread_mutex_unlock(&l->lock);
        (void)uv_async_send(&l->async);
        return;
    }
    enqueue(l, j);
}

static int enqueue_and_wait(struct raft_log *l, struct job *j, struct errmsg *em)
{
    if (l->closing) {
        return errmsg_set(em, -ERR_CANCELED, "raft log is closing");
    }
    j->waited_for = true;
    enqueue(l, j);
    (void)pthread_mutex_lock(&l->lock);
    while (!j->finished) {
        (void)pthread_cond_wait(&l->changed, &l->lock);
    }
    (void)pthread_mutex_unlock(&l->lock);
    if (j->rc != 0 && em != NULL) {
        *em = j->em;
    }
    return j->rc;
}

static struct job *job_new(enum job_kind kind, raft_store_cb cb, void *data)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->kind = kind;
    j->cb = cb;
    j->data = data;
    return j;
}

static void job_free(struct job *j)
{
    if (j->kind == JOB_APPEND) {
        free(j->u.append.entries);
    }
    free(j);
}

static void on_closed(uv_handle_t *handle)
{
    struct raft_log *l = container_of((uv_async_t *)handle, struct raft_log, async);
    void (*cb)(void *data) = l->close_cb;
    void *data = l->close_data;
    (void)pthread_cond_destroy(&l->changed);
    (void)pthread_cond_destroy(&l->work);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
    if (cb != NULL) {
        cb(data);
    }
}

static void on_done(uv_async_t *handle)
{
    struct raft_log *l = container_of(handle, struct raft_log, async);
    for (;;) {
        (void)pthread_mutex_lock(&l->lock);
        struct job *j = list_take(&l->done);
        (void)pthread_mutex_unlock(&l->lock);
        if (j == NULL) {
            break;
        }
        while (j != NULL) {
            struct job *next = j->next;
            if (j->kind == JOB_STOP) {
                l->writer_ended = true;
            } else if (j->cb != NULL) {
                j->cb(j->data, j->rc);
            }
            job_free(j);
            j = next;
        }
    }
    if (l->writer_ended && !uv_is_closing((uv_handle_t *)&l->async)) {
        CHECK(pthread_join(l->writer, NULL) == 0);
        uv_close((uv_handle_t *)&l->async, on_closed);
    }
}

/* --- raft_store_ops --- */

static int op_load(struct raft_store *s, struct raft_store_loaded *ret, struct errmsg *em)
{
    struct raft_store_loaded loaded = {0};
    struct job j = {.kind = JOB_LOAD, .u.loaded = &loaded};
    int rc = enqueue_and_wait(from_store(s), &j, em);
    if (rc == 0) {
        *ret = loaded;
    } else {
        raft_store_loaded_fini(&loaded);
    }
    return rc;
}

static int op_set_term(struct raft_store *s, uint64_t term, struct errmsg *em)
{
    struct job j = {.kind = JOB_SET_TERM, .u.number = term};
    return enqueue_and_wait(from_store(s), &j, em);
}

static int op_set_vote(struct raft_store *s, uint64_t vote, struct errmsg *em)
{
    struct job j = {.kind = JOB_SET_VOTE, .u.number = vote};
    return enqueue_and_wait(from_store(s), &j, em);
}

static void op_append(struct raft_store *s, const struct raft_store_entry *e, size_t n,
                      raft_store_cb cb, void *data)
{
    struct job *j = job_new(JOB_APPEND, cb, data);
    j->u.append.entries = xcalloc(n, sizeof *e);
    j->u.append.count = n;
    if (n > 0) {
        memcpy(j->u.append.entries, e, n * sizeof *e);
    }
    enqueue_async(from_store(s), j);
}

static void op_truncate(struct raft_store *s, uint64_t index)
{
    struct job *j = job_new(JOB_TRUNCATE, NULL, NULL);
    j->u.number = index;
    enqueue_async(from_store(s), j);
}

static void op_put_snapshot(struct raft_store *s, uint64_t index, uint64_t term,
                            uint64_t conf_index, struct blob conf, struct blob image,
                            unsigned trailing, raft_store_cb cb, void *data)
{
    struct job *j = job_new(JOB_PUT_SNAPSHOT, cb, data);
    j->u.put = (struct raft_log_snapshot){.index = index,
                                          .term = term,
                                          .conf_index = conf_index,
                                          .conf = conf,
                                          .image = image,
                                          .trailing = trailing};
    enqueue_async(from_store(s), j);
}

static void op_get_snapshot(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                            void *data)
{
    struct job *j = job_new(JOB_GET_SNAPSHOT, cb, data);
    *ret = (struct raft_store_loaded){0};
    j->u.loaded = ret;
    enqueue_async(from_store(s), j);
}

static void op_close(struct raft_store *s, void (*cb)(void *data), void *data)
{
    struct raft_log *l = from_store(s);
    CHECK(!l->closing);
    l->closing = true;
    l->close_cb = cb;
    l->close_data = data;
    enqueue_async(l, job_new(JOB_STOP, NULL, NULL));
}

static const struct raft_store_ops ops = {
    .load = op_load,
    .set_term = op_set_term,
    .set_vote = op_set_vote,
    .append = op_append,
    .truncate = op_truncate,
    .put_snapshot = op_put_snapshot,
    .get_snapshot = op_get_snapshot,
    .close = op_close,
};

int raft_log_open(uv_loop_t *loop, const char *path, struct raft_store **ret, struct errmsg *em)
{
    struct raft_log *l = xcalloc(1, sizeof *l);
    l->store.ops = &ops;
    int rc = raft_log_db_open(&l->db, path, em);
    if (rc != 0) {
        free(l);
        return rc;
    }
    list_init(&l->queue);
    list_init(&l->done);
    CHECK(pthread_mutex_init(&l->lock, NULL) == 0);
    CHECK(pthread_cond_init(&l->work, NULL) == 0);
    CHECK(pthread_cond_init(&l->changed, NULL) == 0);
    CHECK(uv_async_init(loop, &l->async, on_done) == 0);
    /* Signals belong to the loop's thread. */
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rv = pthread_create(&l->writer, NULL, writer_main, l);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rv != 0) {
        fatal("cannot start the log writer: %s", strerror(rv));
    }
    *ret = &l->store;
    return 0;
}

/* --- bootstrap --- */

static int encode_first_configuration(const struct raft_log_bootstrap *b, struct raft_buffer *ret)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    int rv = raft_configuration_add(&conf, b->id, b->address, RAFT_VOTER);
    if (rv == 0) {
        rv = raft_configuration_encode(&conf, ret);
    }
    raft_configuration_close(&conf);
    return rv == 0 ? 0 : -ERR_INVALID;
}

static int write_first_entries(struct raft_log_db *d, struct blob conf, struct blob command)
{
    const struct raft_store_entry entries[] = {
        {.index = 1, .term = 1, .type = RAFT_CHANGE, .data = conf},
        {.index = 2, .term = 1, .type = RAFT_COMMAND, .data = command},
    };
    const struct raft_log_state state = {.term = 1, .first = 1};
    int rc = db_begin(d->db);
    if (rc == 0) {
        rc = raft_log_db_set_state(d, &state);
    }
    if (rc == 0) {
        rc = raft_log_db_append(d, entries, ARRAY_SIZE(entries));
    }
    if (rc == 0) {
        rc = db_commit(d->db);
    }
    if (rc != 0) {
        db_rollback(d->db);
    }
    return rc;
}

int raft_log_bootstrap(const char *path, const struct raft_log_bootstrap *b, struct errmsg *em)
{
    static const uint8_t zeros[8];
    struct raft_log_db d = {0};
    struct raft_store_loaded have = {0};
    struct raft_buffer conf = {0};
    struct buf command;
    buf_init(&command, ENTRY_MAX_BYTES);
    buf_add(&command, b->command.data, b->command.len);
    buf_add(&command, zeros, (8 - b->command.len % 8) % 8);
    int rc = command.err != 0 ? errmsg_set(em, command.err, "first command is too large")
                              : raft_log_db_open(&d, path, em);
    if (rc != 0) {
        goto out;
    }
    rc = raft_log_db_load(&d, &have, em);
    if (rc != 0) {
        goto out;
    }
    if (have.term != 0 || have.has_snapshot || have.entries_count != 0) {
        rc = errmsg_set(em, -ERR_EXISTS, "%s already holds a log", path);
        goto out;
    }
    rc = encode_first_configuration(b, &conf);
    if (rc != 0) {
        rc = errmsg_set(em, rc, "bad raft id or address");
        goto out;
    }
    rc = write_first_entries(&d, blob_of(conf.base, conf.len), buf_blob(&command));
    if (rc != 0) {
        rc = errmsg_set(em, rc, "%s: %s", path, db_errmsg(d.db));
    }
out:
    raft_free(conf.base);
    raft_store_loaded_fini(&have);
    raft_log_db_close(&d);
    buf_fini(&command);
    return rc;
}
