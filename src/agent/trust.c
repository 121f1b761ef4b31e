/* Which roots count, as the owner signed it (wire/trust_msg.h). A record comes beside each snapshot and
 * is kept on its own, so that no snapshot without one makes a node forget a root that was retired. */
#include "agent/agent_impl.h"

#include "base/rng.h"

#define TRUST_KEY "trust_record"
/* Within this, nodes tell that they have a new record: the owner waits for it. */
#define REPORT_WITHIN_MS 2000

void agent_restore_trust(struct member *m, struct pki_trust *trust)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf record;
    buf_init(&record, TRUST_SIGNED_MAX);
    int rc = member_get(m, TRUST_KEY, &record);
    if (rc == 0) {
        rc = pki_trust_adopt(trust, buf_blob(&record), &em);
    }
    if (rc != 0 && rc != -ERR_NOT_FOUND) {
        log_error(LOG_AGENT, "stored record of roots not usable",
                  "error=%s why=\"%s\" next=\"if the root was rotated while this node was away, "
                  "enrol it anew with a new token\"",
                  err_slug(rc), em.text);
    }
    buf_fini(&record);
}

void agent_put_roots(const struct agent *a, struct buf *out)
{
    (void)member_get(a->member, TRUST_KEY, out);
}

int trust_adopt(struct agent *a, struct blob signed_snapshot, struct errmsg *em)
{
    return agent_adopt_roots(a, config_trust(signed_snapshot), em);
}

int agent_adopt_roots(struct agent *a, struct blob record, struct errmsg *em)
{
    struct pki_trust_view view;
    if (record.len == 0 || a->closing) {
        return 0;
    }
    int rc = pki_trust_check(a->cfg.trust, record, &view, em);
    if (rc == -ERR_ROLLBACK) {
        return 0; /* the one in force, or older: no news */
    }
    if (rc == 0) {
        rc = member_put(a->member, TRUST_KEY, record, em);
    }
    if (rc == 0) {
        rc = pki_trust_adopt(a->cfg.trust, record, em);
    }
    if (rc != 0) {
        return errmsg_wrap(em, rc, "roots");
    }
    log_info(LOG_AGENT, "roots changed", "record=%llu roots=%zu", (unsigned long long)view.seq,
             view.count);
    (void)fabric_recheck(a->fabric);
    uplink_report_by(&a->uplink, agent_mono_ms() + rng_u64() % REPORT_WITHIN_MS);
    return 0;
}
