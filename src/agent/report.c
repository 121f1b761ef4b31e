/* Telling the authorities what this node was shown that no majority signed (decision 0008).
 *
 *   refused ─> kept here (few, each once) ─> an authority answers that is not the offender ─> rpc
 *   "report" ─> audited there ─> forgotten here; an error: again with the next answer
 *
 * What is not told yet is in node.db too, for the node may be restarted before an honest authority
 * answers.
 *
 * A node that is an authority itself hands it to its own. */
#include "agent/agent_impl.h"

#include "base/clock.h"

#define REPORT_DEADLINE_MS 5000
#define REPEAT_MS 600000 /* the same again is told again after this */
#define STORED_KEY "forgeries"
#define STORED_MAX 16384

static bool is_forgery(int rc)
{
    switch (-rc) {
        case ERR_NOT_WITNESSED:
        case ERR_BAD_PROOF:
        case ERR_BAD_SET:
        case ERR_HISTORY:
        case ERR_NOT_AUTHORITY:
        case ERR_BAD_SIGNATURE:
            return true;
        default:
            return false;
    }
}

static bool same_kind(const struct agent_forgery *f, const char *kind, int rc,
                      const struct uuid *offender)
{
    return strcmp(f->kind, kind) == 0 && f->rc == rc && uuid_equal(&f->offender_id, offender);
}

/* The place for it: that of the same thing before, a free one, or that of the oldest. NULL: told
 * lately. */
static struct agent_forgery *place(struct agent *a, const char *kind, int rc,
                                   const struct uuid *offender, int64_t now_ms)
{
    struct agent_forgery *best = &a->forgeries[0];
    for (size_t i = 0; i < ARRAY_SIZE(a->forgeries); i++) {
        struct agent_forgery *f = &a->forgeries[i];
        if (f->seen_at_ms != 0 && same_kind(f, kind, rc, offender)) {
            return f->waiting || now_ms - f->seen_at_ms < REPEAT_MS ? NULL : f;
        }
        if (f->seen_at_ms < best->seen_at_ms && f != a->reporting) {
            best = f;
        }
    }
    return best == a->reporting ? NULL : best;
}

static void encode(const struct agent *a, const struct agent_forgery *f, struct buf *out)
{
    msg_encode(&forgery_report_desc,
               &(struct forgery_report){
                   .request_id = f->request_id,
                   .kind = blob_str(f->kind),
                   .error = blob_str(err_slug(f->rc)),
                   .detail = blob_str(f->detail),
                   .offender_id = f->offender_id,
                   .offender_fingerprint = blob_of(f->offender_fingerprint, PKI_HASH_BYTES),
                   .evidence = blob_of(f->evidence, PKI_HASH_BYTES),
                   .seen_at_ms = f->seen_at_ms,
                   .node_id = a->member->node_id,
               },
               out);
}

/* --- in node.db --- */

static void save(struct agent *a)
{
    struct buf list;
    struct mp_writer w;
    uint32_t count = 0;
    buf_init(&list, STORED_MAX);
    mp_writer_init(&w, &list);
    size_t at = mp_list_begin(&w);
    for (size_t i = 0; i < ARRAY_SIZE(a->forgeries); i++) {
        struct buf one;
        if (!a->forgeries[i].waiting) {
            continue;
        }
        buf_init(&one, STORED_MAX);
        encode(a, &a->forgeries[i], &one);
        mp_put_bin(&w, buf_blob(&one));
        buf_fini(&one);
        count++;
    }
    mp_list_end(&w, at, count);
    CHECK(list.err == 0);
    (void)member_put(a->member, STORED_KEY, buf_blob(&list), NULL); /* the log has it in any case */
    buf_fini(&list);
}

static void copy_text(char *to, size_t size, struct blob from)
{
    (void)snprintf(to, size, "%.*s", (int)from.len, from.len == 0 ? "" : (const char *)from.data);
}

static void decode(const struct forgery_report *r, struct agent_forgery *ret)
{
    char error[33];
    *ret = (struct agent_forgery){.waiting = true,
                                  .request_id = r->request_id,
                                  .offender_id = r->offender_id,
                                  .seen_at_ms = r->seen_at_ms};
    copy_text(error, sizeof error, r->error);
    copy_text(ret->kind, sizeof ret->kind, r->kind);
    copy_text(ret->detail, sizeof ret->detail, r->detail);
    ret->rc = err_from_slug(error);
    if (r->offender_fingerprint.len == PKI_HASH_BYTES) {
        memcpy(ret->offender_fingerprint, r->offender_fingerprint.data, PKI_HASH_BYTES);
    }
    if (r->evidence.len == PKI_HASH_BYTES) {
        memcpy(ret->evidence, r->evidence.data, PKI_HASH_BYTES);
    }
}

void report_load(struct agent *a)
{
    struct buf stored;
    struct mp_reader r;
    buf_init(&stored, STORED_MAX);
    if (member_get(a->member, STORED_KEY, &stored) == 0) {
        mp_reader_init(&r, buf_blob(&stored));
        uint32_t n = mp_get_array(&r, AGENT_FORGERIES_MAX);
        for (uint32_t i = 0; i < n; i++) {
            struct forgery_report one;
            struct blob item = mp_get_bin(&r, STORED_MAX);
            if (r.err == 0 && msg_decode(&forgery_report_desc, MSG_LENIENT, item, &one) == 0) {
                decode(&one, &a->forgeries[i]);
            }
        }
    }
    buf_fini(&stored);
}

static void note(struct agent *a, const char *kind, int rc, const char *why,
                 const struct pki_identity *offender, struct blob evidence)
{
    int64_t now_ms = clock_wall_ms();
    struct uuid id = offender == NULL ? UUID_NIL : offender->node_id;
    struct agent_forgery *f = place(a, kind, rc, &id, now_ms);
    if (f == NULL) {
        return;
    }
    *f = (struct agent_forgery){.waiting = true,
                                .rc = rc,
                                .request_id = uuid_new(),
                                .offender_id = id,
                                .seen_at_ms = now_ms};
    (void)snprintf(f->kind, sizeof f->kind, "%s", kind);
    (void)snprintf(f->detail, sizeof f->detail, "%s", why);
    if (offender != NULL) {
        memcpy(f->offender_fingerprint, offender->fingerprint, PKI_HASH_BYTES);
    }
    pki_sha256(evidence, f->evidence);
    char text[UUID_TEXT_MAX];
    uuid_format(&id, text);
    log_error(LOG_AGENT, "forgery refused", "kind=%s from=%s error=%s why=\"%s\" next=\"%s\"", kind,
              text, err_slug(rc), why, "reporting it to the authorities");
    save(a);
    report_flush(a);
}

void report_forgery(struct agent *a, const char *kind, int rc, const char *why,
                    const struct pki_identity *offender, struct blob evidence)
{
    if (is_forgery(rc)) {
        note(a, kind, rc, why, offender, evidence);
    }
}

void agent_report_routes(struct agent *a, const struct pki_identity *offender)
{
    note(a, "routes", -ERR_DENIED, "it advertises routes to others without a role that relays",
         offender, blob_of(NULL, 0));
}

/* --- telling --- */

static void on_answer(struct agent *a, int rc, struct blob body)
{
    struct agent_forgery *f = a->reporting;
    (void)body;
    a->reporting = NULL;
    if (f == NULL) {
        return;
    }
    if (rc == 0) {
        f->waiting = false;
        save(a);
        log_info(LOG_AGENT, "forgery reported", "kind=%s error=%s", f->kind, err_slug(f->rc));
    } else {
        log_warn(LOG_AGENT, "forgery not reported", "error=%s next=\"with the next heartbeat\"",
                 err_slug(rc));
    }
}

void report_flush(struct agent *a)
{
    bool local = a->uplink.local;
    if (a->report_rpc != NULL || (!local && a->uplink.state != UPLINK_UP)) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(a->forgeries); i++) {
        struct agent_forgery *f = &a->forgeries[i];
        if (!f->waiting || (!local && uuid_equal(&f->offender_id, &a->stream_to))) {
            continue; /* the one who did it would not pass it on */
        }
        struct buf body;
        buf_init(&body, RPC_FRAME_MAX);
        encode(a, f, &body);
        if (local) {
            if (a->cfg.forgery_seen != NULL) {
                a->cfg.forgery_seen(a->cfg.data, buf_blob(&body));
            }
            f->waiting = false;
            save(a);
        } else if (agent_rpc_start(a, &a->report_rpc, &a->stream_to, "report", buf_blob(&body),
                                   REPORT_DEADLINE_MS, on_answer) == 0) {
            a->reporting = f;
        }
        buf_fini(&body);
        if (!local) {
            return;
        }
    }
}
