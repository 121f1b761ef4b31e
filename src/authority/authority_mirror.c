/* The mirror as a part of this authority: what it may ask of it, and the check that runs by itself.
 *
 * The check reads the whole mirror in libuv's pool now and then, as somebody would who has nothing else
 * (mirror_read.h): it needs no copy of the state and holds up no writing. A pause after each page bounds
 * what it takes of a core and of PostgreSQL. */
#include "authority/authority_impl.h"
#include "authority/mirror.h"
#include "authority/mirror_read.h"

#include "base/log.h"

#include <stdatomic.h>

#define CHECK_EVERY_MS 3600000
#define CHECK_RETRY_MS 60000 /* after one that could not be made */
#define CHECK_PAUSE_MS 20    /* after each page: 50,000 rows a second at most */

struct mirror_check {
    uv_work_t req;
    struct authority *a;
    char dsn[MIRROR_DSN_MAX + 1];
    char cluster_id[UUID_TEXT_MAX];
    atomic_bool over; /* told to end */
    struct buf root;
    uint64_t index, rows, began_ms;
    int rc;
    struct errmsg em;
};

static void ignore_answer(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)rc;
    (void)doc;
}

/* An alarm is repeated until the state has it (mirror_core.c), so a lost proposal is no loss. */
static void on_report(void *data, const char *event, const char *kind, const char *detail)
{
    struct authority *a = data;
    struct buf args;
    struct mirror_event body = {
        .event = blob_str(event), .kind = blob_str(kind), .detail = blob_str(detail)};
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&mirror_event_desc, &body, &args);
    call_internal(a, "mirror.event", buf_blob(&args), NULL, ACTOR_SYSTEM, "", ignore_answer, NULL);
    buf_fini(&args);
}

static int on_seal(void *data, struct backup_header *h, struct buf *out)
{
    struct authority *a = data;
    const struct blob chain[3] = {buf_blob(&a->leaf_der), buf_blob(&a->leaf_issuer_der),
                                  buf_blob(&a->root_der)};
    h->node_id = a->cfg.node_id;
    return seal_make(a->cfg.node_key, chain, h, out);
}

static uint64_t mono_ms(void *data)
{
    (void)data;
    return authority_mono_ms();
}

static uint64_t every_ms(const struct authority *a)
{
    return a->cfg.mirror_check_ms == 0 ? CHECK_EVERY_MS : a->cfg.mirror_check_ms;
}

void authority_mirror_open(struct authority *a)
{
    a->mirror = mirror_new(a->fsm, &a->cfg.node_id,
                           &(struct mirror_env){.loop = a->cfg.loop,
                                                .data = a,
                                                .mono_ms = mono_ms,
                                                .report = on_report,
                                                .seal = on_seal});
    a->mirror_check_at_ms = authority_mono_ms() + every_ms(a);
}

/* --- the check --- */

static bool go_on(void *data)
{
    struct mirror_check *c = data;
    return !atomic_load(&c->over);
}

static void check(uv_work_t *req)
{
    struct mirror_check *c = container_of(req, struct mirror_check, req);
    const struct mirror_read o = {.dsn = c->dsn,
                                  .cluster_id = c->cluster_id,
                                  .go_on = go_on,
                                  .data = c,
                                  .pause_ms = CHECK_PAUSE_MS};
    c->rc = mirror_read_check(&o, &c->index, &c->rows, &c->root, &c->em);
}

static void checked(uv_work_t *req, int status)
{
    struct mirror_check *c = container_of(req, struct mirror_check, req);
    struct authority *a = c->a;
    uint64_t now = authority_mono_ms();
    int rc = status != 0 ? -ERR_CANCELED : c->rc;
    a->mirror_check = NULL;
    a->mirror_check_at_ms = now + every_ms(a);
    if (!a->closing && !atomic_load(&c->over)) {
        rc = mirror_checked(a->mirror, rc, buf_blob(&c->root), c->em.text);
        if (rc == 0) {
            log_info(LOG_AUTHORITY, "mirror checked", "index=%llu rows=%llu ms=%llu",
                     (unsigned long long)c->index, (unsigned long long)c->rows,
                     (unsigned long long)(now - c->began_ms));
        } else if (every_ms(a) > CHECK_RETRY_MS) {
            a->mirror_check_at_ms = now + CHECK_RETRY_MS;
        }
    }
    buf_fini(&c->root);
    free(c);
    authority_release(a);
}

static void begin_check(struct authority *a, const char *dsn)
{
    struct mirror_check *c = xcalloc(1, sizeof *c);
    c->a = a;
    c->began_ms = authority_mono_ms();
    buf_init(&c->root, CERT_DER_MAX);
    (void)snprintf(c->dsn, sizeof c->dsn, "%s", dsn);
    uuid_format(&a->cfg.cluster_id, c->cluster_id);
    a->mirror_check = c;
    authority_hold(a);
    CHECK(uv_queue_work(a->cfg.loop, &c->req, check, checked) == 0);
}

void authority_mirror_tick(struct authority *a)
{
    struct core_status s;
    core_status_brief(a->core, &s);
    bool leads = s.role == CORE_LEADER && !a->fence.fenced;
    if (leads) {
        mirror_lead(a->mirror, authority_epoch(a), s.term);
    } else {
        mirror_unlead(a->mirror);
    }
    mirror_tick(a->mirror);
    const char *dsn = mirror_followed(a->mirror);
    if (dsn == NULL) {
        authority_mirror_stop(a); /* what it found would be about another mirror than ours */
    } else if (leads && a->mirror_check == NULL && authority_mono_ms() >= a->mirror_check_at_ms) {
        begin_check(a, dsn);
    }
}

void authority_mirror_stop(struct authority *a)
{
    if (a->mirror_check != NULL) {
        atomic_store(&a->mirror_check->over, true);
    }
}
