/* `rap authority recover`: a quorum is lost for good, and this host's log goes on without it. */
#include "node/node.h"

#include "agent/member.h"
#include "authority/recover.h"
#include "base/clock.h"

static int recover(const struct cli_recover *o, const struct member *m, struct errmsg *em)
{
    struct recovery_plan *plan = NULL;
    struct buf doc;
    struct cli_consent consent;
    struct mp_writer w;
    buf_init(&doc, 1u << 20);
    buf_init(&consent.statement, SIGNED_RECOVERY_MAX);
    buf_init(&consent.issuer, CERT_DER_MAX);
    mp_writer_init(&w, &doc);
    /* A promotion that was cut off comes first: it may be what the owner wants. */
    int rc = recovery_finish_pending(m->dir, &m->node_id, em);
    if (rc == 0) {
        rc = recovery_plan_open(m->dir, &m->node_id, &plan, em);
    }
    if (rc == 0) {
        const struct recovery_terms terms = {
            .kind = RECOVERY_RECOVER,
            .now_ms = clock_wall_ms(),
            .reason = o->reason == NULL ? blob_of(NULL, 0) : blob_str(o->reason),
        };
        rc = recovery_plan_doc(plan, &terms, &w);
    }
    if (rc == 0) {
        rc = o->consent(o->data, buf_blob(&doc), &consent);
    }
    if (rc == 0) {
        rc = recovery_plan_apply(
            plan, m->dir, &(struct epoch_start){.statement = buf_blob(&consent.statement)}, em);
    }
    recovery_plan_free(plan);
    buf_fini(&doc);
    buf_fini(&consent.statement);
    buf_fini(&consent.issuer);
    return rc;
}

int node_recover(const struct cli_recover *o, struct errmsg *em)
{
    struct member *m = NULL;
    if (o->reason != NULL && strlen(o->reason) > REASON_MAX_BYTES) {
        return errmsg_set(em, -ERR_TOO_LARGE, "a reason has at most %d bytes", REASON_MAX_BYTES);
    }
    int rc = member_open(o->data_dir, &m, em);
    if (rc == 0 && member_is_pending(m)) {
        rc = errmsg_set(em, -ERR_CONFLICT, "the join of this host is not approved yet");
    }
    if (rc == 0) {
        rc = recover(o, m, em);
    }
    member_free(m);
    return rc;
}
