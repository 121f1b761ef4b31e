/* Renewal of our certificate, with the same key.
 *
 *   due -> renew_tick -> rpc "renew" -> on_answer: verify, store, show to the fabric
 *   refused or lost: again after renewal_retry_ms, with the same request id (DESIGN D14), which is
 *   kept in node.db until the answer is stored
 *   an authority signs its own leaf under its own CA: no rpc */
#include "agent/agent_impl.h"
#include "agent/issuer.h"
#include "agent/renewal.h"
#include "base/clock.h"
#include "base/rng.h"

#define RENEW_DEADLINE_MS 10000
#define RENEW_ID_KEY "renew_request_id"

void renew_schedule(struct agent *a)
{
    a->renew_failures = 0;
    a->renew_at_ms = renewal_due_ms(a->leaf.not_before_ms, a->leaf.not_after_ms, rng_u64());
}

/* Spread: all nodes learn it at once. */
static void renew_within(struct agent *a, uint64_t ms)
{
    int64_t soon = clock_wall_ms() + (int64_t)(rng_u64() % ms);
    if (a->renew_at_ms > soon) {
        a->renew_at_ms = soon;
    }
}

void renew_if_outdated(struct agent *a)
{
    if (a->leaf.authority) {
        return; /* its own CA comes first (agent_install_issuer) */
    }
    if (config_retires(a->snapshot, a->issuer.fingerprint)) {
        renew_within(a, 4ULL * a->uplink.interval_ms);
    }
    if (!pki_trust_root_is_active(a->cfg.trust, a->root.fingerprint)) {
        renew_within(a, a->uplink.interval_ms);
    }
}

static void failed(struct agent *a, int rc, const char *why)
{
    static struct log_limit limit;
    a->renew_at_ms = renewal_retry_ms(clock_wall_ms(), a->leaf.not_after_ms, a->renew_failures,
                                      rng_u64());
    a->renew_failures++;
    if (log_allow(&limit, 5)) {
        char at[CLOCK_TEXT_MAX];
        clock_format(a->leaf.not_after_ms, at);
        log_warn(LOG_AGENT, "certificate not renewed", "error=%s why=\"%s\" expires=%s",
                 err_slug(rc), why, at);
    }
    agent_wake(a);
}

static void renewed(struct agent *a)
{
    char at[CLOCK_TEXT_MAX];
    (void)member_drop(a->member, RENEW_ID_KEY, NULL);
    renew_schedule(a);
    int64_t soonest = renewal_soonest_ms(clock_wall_ms(), a->leaf.not_after_ms);
    if (a->renew_at_ms < soonest) {
        a->renew_at_ms = soonest;
    }
    if (a->snapshot != NULL) {
        renew_if_outdated(a);
    }
    clock_format(a->leaf.not_after_ms, at);
    log_info(LOG_AGENT, "certificate renewed", "expires=%s", at);
    if (a->cfg.identity_renewed != NULL) {
        a->cfg.identity_renewed(a->cfg.data);
    }
}

/* Same key, same node, and no step back. */
static int check(struct agent *a, const struct blob chain[3], struct errmsg *em)
{
    struct pki_identity id;
    struct pki_cert leaf;
    int rc = pki_chain_verify(a->cfg.trust, chain, 3, clock_wall_ms(), &id, em);
    if (rc == 0) {
        rc = pki_cert_parse(chain[0], &leaf, em);
    }
    if (rc != 0) {
        return rc;
    }
    if (!uuid_equal(&id.node_id, &a->member->node_id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "certificate is for another node");
    }
    if (memcmp(id.public_key, a->leaf.public_key, PKI_KEY_BYTES) != 0) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate is for another key");
    }
    /* It may end before the one held: the cluster's policy may have changed. */
    if (leaf.not_before_ms < a->leaf.not_before_ms) {
        return errmsg_set(em, -ERR_BAD_CERT, "certificate is older than the one held");
    }
    return 0;
}

static void on_answer(struct agent *a, int rc, struct blob body)
{
    struct errmsg em = ERRMSG_INIT;
    struct renew_answer answer;
    if (rc == 0) {
        rc = msg_decode(&renew_answer_desc, MSG_LENIENT, body, &answer);
    } else if (rc == -ERR_REVOKED || rc == -ERR_KEY_REVOKED) {
        agent_bar(a, "an authority refuses to renew our certificate");
        agent_uplink_event(a, UPLINK_EV_BARRED, rc, 0);
    } else if (rc == -ERR_REUSED_ID) {
        (void)member_drop(a->member, RENEW_ID_KEY, NULL);
    }
    if (rc != 0) {
        failed(a, rc, err_text(rc));
        return;
    }
    struct blob root = pki_trust_root_above(a->cfg.trust, answer.issuer);
    const struct blob chain[3] = {answer.leaf, answer.issuer,
                                  root.len > 0 ? root : buf_blob(&a->chain[2])};
    rc = check(a, chain, &em);
    if (rc != 0) {
        /* The same id would bring the same answer. */
        (void)member_drop(a->member, RENEW_ID_KEY, NULL);
    } else {
        rc = member_save_chain(a->member, chain, &em);
    }
    if (rc == 0) {
        rc = agent_load_identity(a, &em);
    }
    if (rc != 0) {
        failed(a, rc, em.text);
        return;
    }
    renewed(a);
}

/* The id of the request under way, or a new one, stored before it is used. */
static int request_id(struct agent *a, struct uuid *ret, struct errmsg *em)
{
    struct buf held;
    buf_init(&held, sizeof ret->b);
    int rc = member_get(a->member, RENEW_ID_KEY, &held);
    if (rc == 0 && held.len == sizeof ret->b) {
        memcpy(ret->b, held.data, held.len);
    } else {
        *ret = uuid_new();
        rc = member_put(a->member, RENEW_ID_KEY, blob_of(ret->b, sizeof ret->b), em);
    }
    buf_fini(&held);
    return rc;
}

static int ask(struct agent *a, struct errmsg *em)
{
    struct renew_request rq = {.request_id = UUID_NIL};
    struct buf csr;
    struct buf body;
    buf_init(&csr, CSR_DER_MAX);
    buf_init(&body, RPC_FRAME_MAX);
    int rc = request_id(a, &rq.request_id, em);
    if (rc == 0) {
        rc = pki_csr_build(a->key, &csr);
    }
    if (rc == 0) {
        rq.csr = buf_blob(&csr);
        msg_encode(&renew_request_desc, &rq, &body);
        rc = agent_rpc_start(a, &a->renewal, &a->stream_to, "renew", buf_blob(&body),
                             RENEW_DEADLINE_MS, on_answer);
    }
    buf_fini(&body);
    buf_fini(&csr);
    return rc;
}

void renew_tick(struct agent *a, int64_t now_ms)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = 0;
    if (now_ms < a->renew_at_ms || a->renewal != NULL) {
        return;
    }
    if (a->leaf.authority) {
        const struct issuer_time time = {.now_ms = now_ms, .leaf_life_ms = agent_leaf_life_ms(a)};
        rc = issuer_renew_leaf(a->member, a->cfg.trust, &time, &em);
        if (rc == 0) {
            rc = agent_load_identity(a, &em);
        }
        if (rc == 0) {
            renewed(a);
        }
    } else if (a->uplink.state == UPLINK_UP) {
        rc = ask(a, &em);
    }
    if (rc != 0) {
        failed(a, rc, em.text[0] != '\0' ? em.text : err_text(rc));
    }
}
