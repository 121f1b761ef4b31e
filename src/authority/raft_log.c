/* The writer thread, in order:
 *   happy path   enqueue -> writer_main takes the queue -> run_batch (BEGIN, jobs, COMMIT) ->
 *                jobs on the done list -> uv_async -> on_done runs their callbacks
 *   snapshot     op_put_snapshot -> image_main packs it on a thread of its own -> enqueue -> the writer
 *                stores a part at a time, each in a transaction, and between two parts runs whatever batch
 *                is queued. So a batch waits for one part at most, whatever the size of the image. What the
 *                snapshot makes superfluous is deleted in the same way afterwards.
 *   a write fails  ROLLBACK, the whole batch ends with the error, `broken` keeps it, every later
 *                write ends with it at once
 *   close        a STOP job goes last: the writer ends after all before it, the loop delivers their
 *                callbacks, joins, closes the async handle, then reports and frees
 *   after close  late appends end with -ERR_CANCELED */
#include "authority/raft_log.h"

#include "authority/raft_image.h"
#include "authority/raft_log_db.h"
#include "base/log.h"
#include "wire/limits.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

/* libraft keeps far fewer in flight; a full queue makes the loop wait for the disk. */
#define QUEUE_MAX 4096
#define IMAGE_NICE 10

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
    struct raft_log *log;
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
        struct {
            struct raft_store_snapshot snap;
            struct raft_log_put put;
            struct buf packed; /* an image of our own */
            pthread_t thread;  /* of image_main */
            bool threaded;
            bool stored;
        } put;
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
    bool unclean;          /* the writer's: there may be something to delete */

    struct raft_store_loaded found; /* when it was opened; the first load takes it */
    bool has_found;

    pthread_t writer;
    pthread_mutex_t lock;
    pthread_cond_t work;    /* the queue is not empty */
    pthread_cond_t changed; /* there is room, or a job that is waited for has finished */
    struct job_list queue;  /* under lock */
    struct job_list done;   /* under lock */

    uv_async_t async;
    bool closing;
    unsigned packing;  /* images on their way to the writer or in its hands */
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

/* The first job stands alone afterwards. */
static void list_pop(struct job_list *l)
{
    struct job *j = l->head;
    l->head = j->next;
    j->next = NULL;
    l->tail = l->head == NULL ? &l->head : l->tail;
    l->count--;
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
            return true;
        case JOB_PUT_SNAPSHOT:
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
        case JOB_GET_SNAPSHOT:
        case JOB_LOAD:
        case JOB_STOP:
            break;
    }
    CHECK(false);
    return 0;
}

typedef int (*transaction_body)(struct raft_log *l, void *arg);

/* One transaction. Its first error is the last: `broken` keeps it, and nothing is written any more. */
static int transact(struct raft_log *l, transaction_body body, void *arg, struct errmsg *em)
{
    struct raft_log_state before = l->db.state;
    const char *step = "begin";
    if (l->broken != 0) {
        return errmsg_set(em, l->broken, "raft log: %s", err_text(l->broken));
    }
    int rc = db_begin(l->db.db);
    if (rc == 0) {
        step = "write";
        rc = body(l, arg);
    }
    if (rc == 0) {
        step = "commit";
        rc = db_commit(l->db.db);
    }
    if (rc != 0) {
        bool ours = sqlite3_errcode(db_handle(l->db.db)) == SQLITE_OK;
        errmsg_set(em, rc, "%s", ours ? err_text(rc) : db_errmsg(l->db.db));
        db_rollback(l->db.db);
        l->db.state = before;
        l->broken = rc;
        log_error(LOG_AUTHORITY, "raft log cannot be written", "step=%s why=\"%s\"", step,
                  em->text);
        errmsg_wrap(em, rc, "raft log");
    }
    return rc;
}

/* The writes from the head of a list to the first job that is none. */
static int write_run(struct raft_log *l, void *arg)
{
    int rc = 0;
    for (struct job *j = arg; rc == 0 && j != NULL && is_write(j); j = j->next) {
        rc = run_write(&l->db, j);
    }
    return rc;
}

/* Returns what follows them. */
static struct job *run_batch(struct raft_log *l, struct job *head)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = transact(l, write_run, head, &em);
    struct job *j;
    for (j = head; j != NULL && is_write(j); j = j->next) {
        j->rc = rc;
        j->em = em;
    }
    return j;
}

/* --- between batches --- */

static int put_step(struct raft_log *l, void *arg)
{
    struct job *j = arg;
    return raft_log_db_put_step(&l->db, &j->u.put.put, &j->u.put.stored);
}

static int clean_step(struct raft_log *l, void *arg)
{
    (void)arg;
    return raft_log_db_clean(&l->db, &l->unclean);
}

/* Works a little on the job; true when it is finished. */
static bool step_job(struct raft_log *l, struct job *j)
{
    switch (j->kind) {
        case JOB_PUT_SNAPSHOT:
            if (j->rc == 0) {
                j->rc = transact(l, put_step, j, &j->em);
            }
            l->unclean = l->unclean || j->u.put.stored;
            return j->rc != 0 || j->u.put.stored;
        case JOB_GET_SNAPSHOT:
            j->rc = raft_log_db_get_snapshot(&l->db, j->u.loaded, &j->em);
            if (j->rc != 0) {
                log_error(LOG_AUTHORITY, "snapshot cannot be read", "why=\"%s\"", j->em.text);
            }
            return true;
        case JOB_LOAD:
            j->rc = raft_log_db_load(&l->db, j->u.loaded, &j->em);
            return true;
        case JOB_STOP:
            /* Here, not on the loop: it checkpoints. */
            raft_log_db_close(&l->db);
            return true;
        case JOB_APPEND:
        case JOB_TRUNCATE:
        case JOB_SET_TERM:
        case JOB_SET_VOTE:
            break;
    }
    CHECK(false);
    return true;
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

/* From any thread but the writer. */
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

/* What is queued; waits for it unless there is something else to do. */
static struct job *take_queue(struct raft_log *l, bool wait)
{
    (void)pthread_mutex_lock(&l->lock);
    while (wait && l->queue.head == NULL) {
        (void)pthread_cond_wait(&l->work, &l->lock);
    }
    struct job *head = list_take(&l->queue);
    (void)pthread_cond_broadcast(&l->changed);
    (void)pthread_mutex_unlock(&l->lock);
    return head;
}

static void *writer_main(void *arg)
{
    struct raft_log *l = arg;
    struct job_list later; /* in order; writes overtake them */
    bool stop = false;
    list_init(&later);
    while (!stop) {
        struct job *head = take_queue(l, later.head == NULL && !l->unclean);
        while (head != NULL) {
            struct job *next;
            if (is_write(head)) {
                next = run_batch(l, head);
                finish(l, head, next);
            } else {
                next = head->next;
                list_push(&later, head);
            }
            head = next;
        }
        struct job *j = later.head;
        if (j != NULL && step_job(l, j)) {
            stop = j->kind == JOB_STOP;
            list_pop(&later);
            finish(l, j, NULL);
        } else if (j == NULL && l->unclean) {
            struct errmsg em = ERRMSG_INIT;
            if (transact(l, clean_step, NULL, &em) != 0) {
                l->unclean = false; /* every write says it from now on */
            }
        }
    }
    return NULL;
}

/* --- image thread ---
 * Reads and packs an image, which takes as long as it takes, then hands the job to the writer. */

static void *image_main(void *arg)
{
    struct job *j = arg;
    const struct raft_store_snapshot *s = &j->u.put.snap;
    struct blob packed = s->packed;
    /* Commands go before images where they share a processor. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), IMAGE_NICE);
    if (s->frozen != NULL) {
        j->rc = raft_image_pack(s->frozen, &j->u.put.packed);
        packed = buf_blob(&j->u.put.packed);
    }
    if (j->rc == 0) {
        j->rc = raft_log_put_init(&j->u.put.put, s, packed);
    }
    if (j->rc != 0) {
        errmsg_set(&j->em, j->rc, "image: %s", err_text(j->rc));
    }
    enqueue(j->log, j);
    return NULL;
}

static pthread_t start_thread(void *(*fn)(void *arg), void *arg)
{
    pthread_t t;
    sigset_t all;
    sigset_t old;
    /* Signals belong to the loop's thread. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rv = pthread_create(&t, NULL, fn, arg);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rv != 0) {
        fatal("cannot start a thread of the log: %s", strerror(rv));
    }
    return t;
}

/* --- loop thread --- */

static void drop_found(struct raft_log *l)
{
    if (l->has_found) {
        raft_store_loaded_fini(&l->found);
        l->has_found = false;
    }
}

static void enqueue_async(struct raft_log *l, struct job *j)
{
    drop_found(l);
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
    drop_found(l);
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

static struct job *job_new(struct raft_log *l, enum job_kind kind, raft_store_cb cb, void *data)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->log = l;
    j->kind = kind;
    j->cb = cb;
    j->data = data;
    return j;
}

static void job_free(struct job *j)
{
    if (j->kind == JOB_APPEND) {
        free(j->u.append.entries);
    } else if (j->kind == JOB_PUT_SNAPSHOT) {
        buf_fini(&j->u.put.packed);
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

/* The last job, so not before an image that is still being packed. */
static void stop_writer(struct raft_log *l)
{
    if (l->packing == 0) {
        enqueue_async(l, job_new(l, JOB_STOP, NULL, NULL));
    }
}

static void put_ended(struct raft_log *l, struct job *j)
{
    CHECK(pthread_join(j->u.put.thread, NULL) == 0);
    l->packing--;
    if (l->closing) {
        stop_writer(l);
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
            if (j->kind == JOB_PUT_SNAPSHOT && j->u.put.threaded) {
                put_ended(l, j);
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
    struct raft_log *l = from_store(s);
    struct raft_store_loaded loaded = {0};
    struct job j = {.kind = JOB_LOAD, .u.loaded = &loaded};
    if (l->has_found) {
        l->has_found = false;
        *ret = l->found;
        return 0;
    }
    int rc = enqueue_and_wait(l, &j, em);
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
    struct job *j = job_new(from_store(s), JOB_APPEND, cb, data);
    j->u.append.entries = xcalloc(n, sizeof *e);
    j->u.append.count = n;
    if (n > 0) {
        memcpy(j->u.append.entries, e, n * sizeof *e);
    }
    enqueue_async(from_store(s), j);
}

static void op_truncate(struct raft_store *s, uint64_t index)
{
    struct job *j = job_new(from_store(s), JOB_TRUNCATE, NULL, NULL);
    j->u.number = index;
    enqueue_async(from_store(s), j);
}

static void op_put_snapshot(struct raft_store *s, const struct raft_store_snapshot *snap,
                            raft_store_cb cb, void *data)
{
    struct raft_log *l = from_store(s);
    struct job *j = job_new(l, JOB_PUT_SNAPSHOT, cb, data);
    j->u.put.snap = *snap;
    buf_init(&j->u.put.packed, IMAGE_PACKED_MAX);
    if (l->closing) {
        enqueue_async(l, j);
        return;
    }
    drop_found(l);
    l->packing++;
    j->u.put.threaded = true;
    j->u.put.thread = start_thread(image_main, j);
}

static void op_get_snapshot(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                            void *data)
{
    struct job *j = job_new(from_store(s), JOB_GET_SNAPSHOT, cb, data);
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
    stop_writer(l);
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
    if (rc == 0) {
        rc = raft_log_db_load(&l->db, &l->found, em);
        if (rc != 0) {
            raft_log_db_close(&l->db);
        }
    }
    if (rc != 0) {
        raft_store_loaded_fini(&l->found);
        free(l);
        return rc;
    }
    l->has_found = true;
    list_init(&l->queue);
    list_init(&l->done);
    CHECK(pthread_mutex_init(&l->lock, NULL) == 0);
    CHECK(pthread_cond_init(&l->work, NULL) == 0);
    CHECK(pthread_cond_init(&l->changed, NULL) == 0);
    CHECK(uv_async_init(loop, &l->async, on_done) == 0);
    l->unclean = true; /* perhaps: a crash leaves unfinished images */
    l->writer = start_thread(writer_main, l);
    *ret = &l->store;
    return 0;
}
