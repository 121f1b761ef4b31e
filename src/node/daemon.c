/* The running node: start, stop, and who is told of what. */
#include "node/synthetic.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#include <signal.h>

/* --- calls from the API --- */

static void answer_error(struct admin_call *c, int rc, const char *detail)
{
    struct buf out;
    struct mp_writer w;
    struct mp_doc doc;
    buf_init(&out, 4096);
    mp_writer_init(&w, &out);
    mp_doc_begin(&w, &doc);
    mp_doc_str(&w, &doc, "detail", detail);
    mp_doc_end(&w, &doc);
    admin_answer(c, rc, buf_blob(&out));
    buf_fini(&out);
}

static void authority_answered(void *data, int rc, struct blob doc)
{
    admin_answer(data, rc, doc);
}

static bool answer_locally(struct node *n, struct admin_call *c)
{
    struct buf out;
    struct mp_writer w;
    struct errmsg em = ERRMSG_INIT;
    int rc;
    buf_init(&out, 4u << 20);
    mp_writer_init(&w, &out);
    bool known = node_document(n, c->method, c->args, &w, &rc, &em);
    rc = rc == 0 ? out.err : rc;
    if (known && rc == 0) {
        admin_answer(c, 0, buf_blob(&out));
    } else if (known) {
        answer_error(c, rc, em.text[0] != '\0' ? em.text : err_text(rc));
    }
    buf_fini(&out);
    return known;
}

static void on_call(void *data, struct admin_call *c)
{
    struct node *n = data;
    if (n->stopping) {
        admin_answer(c, -ERR_CANCELED, blob_of(NULL, 0));
        return;
    }
    if (answer_locally(n, c)) {
        return;
    }
    if (strcmp(c->method, "node.ping") == 0) {
        synthetic_ping(n, c);
        return;
    }
    if (n->heal != NULL) {
        answer_error(c, -ERR_NOT_AUTHORITY,
                     "the log of this authority is damaged and it waits for the others to take it "
                     "in again: run this on another one (`rap status` says more)");
        return;
    }
    if (n->authority == NULL) {
        answer_error(c, -ERR_NOT_AUTHORITY,
                     "this node is not an authority: run this on one (`rap config show` lists "
                     "them)");
        return;
    }
    authority_call(n->authority, &(struct authority_call){
                                     .method = c->method,
                                     .args = c->args,
                                     .request_id = c->request_id,
                                     .actor_kind = c->actor_kind,
                                     .actor_id = c->actor_id,
                                     .stale = c->stale,
                                     .dry_run = c->dry_run,
                                     .timeout_ms = c->timeout_ms,
                                     .cb = authority_answered,
                                     .data = c,
                                 });
}

/* --- the authority, on nodes that are one --- */

static void on_state_config_changed(void *data)
{
    struct node *n = data;
    struct buf bytes;
    struct errmsg em = ERRMSG_INIT;
    if (n->authority == NULL || n->agent == NULL) {
        return;
    }
    struct authority_state st;
    authority_state(n->authority, &st);
    if (st.fenced_by != 0) {
        agent_set_local(n->agent, false); /* as a node it goes with the epoch that fenced it */
        return;
    }
    buf_init(&bytes, SNAPSHOT_MAX_BYTES);
    struct snapshot_held held;
    agent_held(n->agent, &held.audit_seq, &held.set_epoch, &held.set_seq);
    int rc = authority_snapshot(n->authority, &n->member->node_id, &held, &bytes, &em);
    if (rc == 0) {
        agent_set_local(n->agent, true);
        rc = agent_offer_snapshot(n->agent, buf_blob(&bytes), &em);
    }
    if (rc != 0 && rc != -ERR_ROLLBACK && rc != -ERR_NOT_FOUND && rc != -ERR_BUSY) {
        log_warn(LOG_AGENT, "own snapshot refused", "why=\"%s\"", em.text);
    }
    buf_fini(&bytes);
}

static void stop(struct node *n);

/* The log of this authority is another one from now on: all that knows the old one goes. */
static void on_restart(void *data)
{
    struct node *n = data;
    log_info(LOG_AUTHORITY, "starting anew", "%s", "");
    n->restart = true;
    stop(n);
}

static int load_chain(struct node *n, struct errmsg *em)
{
    for (int i = 0; i < 3; i++) {
        buf_fini(&n->chain[i]);
        buf_init(&n->chain[i], CERT_DER_MAX);
    }
    return member_load_chain(n->member, n->chain, em);
}

static void on_roots_changed(void *data, struct blob signed_trust)
{
    struct node *n = data;
    struct errmsg em = ERRMSG_INIT;
    if (n->agent != NULL && agent_adopt_roots(n->agent, signed_trust, &em) != 0) {
        log_warn(LOG_AGENT, "record of roots refused", "why=\"%s\"", em.text);
    }
}

/* The owner renewed our issuing CA, or certified it under another root. */
static int on_issuer_changed(void *data, struct blob issuer_der, struct errmsg *em)
{
    struct node *n = data;
    if (n->authority == NULL || n->agent == NULL) {
        return errmsg_set(em, -ERR_CANCELED, "the node is starting or stopping");
    }
    int rc = agent_install_issuer(n->agent, issuer_der, em);
    if (rc == 0) {
        rc = load_chain(n, em);
    }
    if (rc == 0) {
        rc = authority_issuer_installed(n->authority, buf_blob(&n->chain[0]),
                                        buf_blob(&n->chain[1]), em);
    }
    return rc;
}

static void on_mesh_report(void *data, struct heartbeat *hb, struct buf *links, struct buf *routes)
{
    struct node *n = data;
    if (n->overlay != NULL) {
        overlay_report(n->overlay, hb, links, routes);
    }
}

static void on_heal_fatal(void *data, const char *why)
{
    (void)data;
    fatal("%s" ERRMSG_RUNBOOK AUTHORITY_RUNBOOK, why);
}

/* The log of this authority does not verify: the others may let it begin anew. */
static int start_healing(struct node *n, const struct config *held, struct errmsg *em)
{
    struct heal_member members[AUTHORITIES_MAX];
    size_t count = 0;
    struct mp_reader r;
    mp_reader_init(&r, held->body.authorities.raw);
    for (uint32_t i = 0; i < held->body.authorities.count && count < ARRAY_SIZE(members); i++) {
        struct snapshot_authority a;
        if (msg_decode(&snapshot_authority_desc, MSG_LENIENT, mp_get_bin(&r, 4096), &a) == 0) {
            members[count++] = (struct heal_member){
                .node_id = a.node_id, .voter = blob_equal(a.status, blob_str("voter"))};
        }
    }
    return heal_open(&(struct heal_config){.loop = &n->loop,
                                           .fabric = n->fabric,
                                           .trust = n->trust,
                                           .cluster_id = n->member->cluster_id,
                                           .node_id = n->member->node_id,
                                           .dir = n->member->dir,
                                           .members = members,
                                           .members_count = count,
                                           .epoch = held->body.epoch,
                                           .statement = held->body.recovery,
                                           .data = n,
                                           .restart = on_restart,
                                           .fatal = on_heal_fatal},
                     &n->heal, em);
}

static int start_authority(struct node *n, struct errmsg *em)
{
    bool damaged = false;
    n->capabilities_count = 0;
    buf_clear(&n->facts);
    buf_clear(&n->capabilities);
    agent_facts(&n->facts);
    agent_capabilities(&n->capabilities, &n->capabilities_count);
    struct authority_config config = {
        .loop = &n->loop,
        .fabric = n->fabric,
        .trust = n->trust,
        .cluster_id = n->member->cluster_id,
        .node_id = n->member->node_id,
        .dir = n->member->dir,
        .node_key = n->key,
        .heartbeat_ms = n->options->heartbeat_ms,
        .election_ms = n->options->election_ms,
        .agent_heartbeat_ms = n->options->agent_heartbeat_ms,
        .mirror_check_ms = n->options->mirror_check_ms,
        .self = {.agent_version = blob_str(RAP_VERSION),
                 .facts = buf_blob(&n->facts),
                 .capabilities = {.raw = buf_blob(&n->capabilities),
                                  .count = n->capabilities_count},
                 .address = blob_str(n->member->advertise)},
        .data = n,
        .config_changed = on_state_config_changed,
        .restart = on_restart,
        .roots_changed = on_roots_changed,
        .issuer_changed = on_issuer_changed,
        .mesh_report = on_mesh_report,
        .log_damaged = &damaged,
    };
    const struct config *held = agent_snapshot(n->agent);
    if (held != NULL) {
        config.statement = held->body.recovery;
    }
    int rc = authority_open(&config, &n->authority, em);
    if (rc == 0) {
        authority_set_leaf(n->authority, buf_blob(&n->chain[0]), buf_blob(&n->chain[1]));
    } else if (damaged) {
        rc = held == NULL ? rc : start_healing(n, held, em);
        rc = rc == 0 ? 0 : errmsg_runbook(em, rc, AUTHORITY_RUNBOOK);
    }
    return rc;
}

static void on_identity_renewed(void *data)
{
    struct node *n = data;
    struct errmsg em = ERRMSG_INIT;
    int rc = load_chain(n, &em);
    if (rc != 0) {
        fatal("the renewed certificate cannot be read back: %s", em.text);
    }
    if (n->authority != NULL) {
        authority_leaf_renewed(n->authority, buf_blob(&n->chain[0]), buf_blob(&n->chain[1]));
    }
}

static void on_liar(void *data, const struct fabric_peer *who)
{
    struct node *n = data;
    if (n->agent != NULL) {
        agent_report_routes(n->agent, &who->identity);
    }
}

/* What the signed configuration says of the overlay and of test traffic; options turn them on whatever
 * it says. cfg may be NULL: none yet. */
static void apply_mesh(struct node *n, const struct config *cfg)
{
    struct config_mesh mesh = {.overlay = false};
    if (cfg != NULL && !config_is_disabled(cfg)) {
        config_mesh(cfg, &mesh);
    }
    n->synthetic.on = n->options->synthetic || mesh.synthetic;
    cut_off_limit(n, mesh.cut_off_after_ms);
    bool overlay = n->options->overlay || mesh.overlay;
    if (overlay && n->overlay == NULL) {
        n->overlay = overlay_open(&(struct overlay_config){.loop = &n->loop,
                                                           .fabric = n->fabric,
                                                           .member = n->member,
                                                           .data = n,
                                                           .liar = on_liar});
    } else if (!overlay && n->overlay != NULL) {
        overlay_close(n->overlay);
        n->overlay = NULL;
    }
    if (n->overlay != NULL) {
        overlay_directory(n->overlay, cfg);
    }
}

static void on_directory_changed(void *data, const struct config *cfg)
{
    struct node *n = data;
    if (!n->stopping) {
        apply_mesh(n, cfg);
    }
}

/* The owner has made this node an authority. */
static void on_authority_installed(void *data)
{
    struct node *n = data;
    struct errmsg em = ERRMSG_INIT;
    on_identity_renewed(n);
    if (n->authority != NULL || n->heal != NULL || n->stopping) {
        return;
    }
    int rc = start_authority(n, &em);
    if (rc != 0) {
        fatal("cannot start as an authority: %s", em.text);
    }
    log_info(LOG_AUTHORITY, "started", "next=\"waiting for the leader to send the state\"");
}

/* --- start and stop --- */

static void on_agent_closed(void *data);
static void on_authority_closed(void *data);

static void on_fabric_closed(void *data)
{
    struct node *n = data; /* nothing is left on the loop: uv_run returns */
    authority_free(n->authority);
    n->authority = NULL;
    heal_free(n->heal);
    n->heal = NULL;
}

static void on_agent_closed(void *data)
{
    struct node *n = data;
    n->agent = NULL;
    overlay_close(n->overlay);
    n->overlay = NULL;
    fabric_close(n->fabric, on_fabric_closed, n);
}

static void on_authority_closed(void *data)
{
    struct node *n = data;
    agent_close(n->agent, on_agent_closed, n);
}

static void on_admin_closed(void *data)
{
    struct node *n = data;
    n->admin = NULL;
}

/* Outermost first: no new calls, then the authority (which answers the ones under way), the agent,
 * and the fabric, which tells every peer. */
static void stop(struct node *n)
{
    if (n->stopping) {
        return;
    }
    n->stopping = true;
    loop_watch_close(&n->loop_watch);
    cut_off_close(n);
    uv_close((uv_handle_t *)&n->sigint, NULL);
    uv_close((uv_handle_t *)&n->sigterm, NULL);
    /* Admin finishes closing when the authority has answered the calls it holds. */
    admin_close(n->admin, on_admin_closed, n);
    if (n->heal != NULL) {
        heal_close(n->heal);
    }
    if (n->authority != NULL) {
        authority_close(n->authority, on_authority_closed, n);
    } else {
        on_authority_closed(n);
    }
}

static void on_signal(uv_signal_t *h, int signum)
{
    struct node *n = h->data;
    log_info(LOG_BASE, "stopping", "signal=%d", signum);
    stop(n);
}

static int on_admit(void *data, const struct pki_identity *who, struct errmsg *em)
{
    struct node *n = data;
    return n->agent == NULL ? 0 : agent_admit(n->agent, who, em);
}

static int on_own_proof(void *data, struct buf *out)
{
    struct node *n = data;
    return n->agent == NULL ? -ERR_NOT_FOUND : agent_own_proof(n->agent, out);
}

static int on_prove(void *data, const struct pki_identity *who, int rc, struct blob proof,
                    struct errmsg *em)
{
    struct node *n = data;
    return n->agent == NULL ? -ERR_CLOSED : agent_prove(n->agent, who, rc, proof, em);
}

static bool on_lists(void *data, const struct pki_identity *who)
{
    struct node *n = data;
    return n->authority != NULL && authority_lists(n->authority, who);
}

static void on_forgery_seen(void *data, struct blob report)
{
    struct node *n = data;
    if (n->authority != NULL) {
        authority_forgery(n->authority, report);
    }
}

static void on_refused(void *data, const struct fabric_refusal *refusal)
{
    struct node *n = data;
    if (n->authority != NULL) {
        authority_refused(n->authority, refusal);
    }
}

static int open_fabric(struct node *n, struct errmsg *em)
{
    struct fabric_config config = {
        .loop = &n->loop,
        .cluster_id = n->member->cluster_id,
        .trust = n->trust,
        .limits = {.enroll_per_second = n->options->enroll_per_second},
        .data = n,
        .admit = on_admit,
        .own_proof = on_own_proof,
        .prove = on_prove,
        .refused = on_refused,
    };
    memcpy(config.reset_secret, n->member->reset_secret, sizeof config.reset_secret);
    int rc = addr_parse(n->member->listen, &config.listen, em);
    if (rc == 0) {
        rc = fabric_open(&config, &n->fabric, em);
    }
    if (rc == 0) {
        struct blob chain[3] = {buf_blob(&n->chain[0]), buf_blob(&n->chain[1]),
                                buf_blob(&n->chain[2])};
        rc = fabric_set_identity(n->fabric, chain, 3, n->key, em);
    }
    return rc;
}

/* A host that moved keeps its identity: others learn where it is by its next report. */
static int set_addresses(struct node *n, struct errmsg *em)
{
    const struct cli_run *o = n->options;
    char listen[sizeof n->member->listen];
    char advertise[sizeof n->member->advertise];
    if (o->listen == NULL && o->advertise == NULL) {
        return 0;
    }
    bool same = strcmp(n->member->listen, n->member->advertise) == 0;
    (void)snprintf(listen, sizeof listen, "%s", o->listen != NULL ? o->listen : n->member->listen);
    (void)snprintf(advertise, sizeof advertise, "%s",
                   o->advertise != NULL        ? o->advertise
                   : o->listen != NULL && same ? o->listen
                                               : n->member->advertise);
    return member_set_addresses(n->member, listen, advertise, em);
}

static int open_identity(struct node *n, struct errmsg *em)
{
    int rc = member_open(n->options->data_dir, &n->member, em);
    if (rc != 0) {
        return rc;
    }
    if (member_is_pending(n->member)) {
        return errmsg_set(em, -ERR_CONFLICT,
                          "the join of this host is not approved yet: run `rap join` with the same "
                          "token to wait for the decision");
    }
    log_set_node(n->member->node_name);
    rc = set_addresses(n, em);
    if (rc != 0) {
        return rc;
    }
    rc = member_key(n->member, &n->key, em);
    if (rc == 0) {
        rc = load_chain(n, em);
    }
    if (rc == 0) {
        n->trust = pki_trust_new(&n->member->cluster_id);
        rc = pki_trust_set_root(n->trust, buf_blob(&n->chain[2]), em);
    }
    if (rc == 0) {
        agent_restore_trust(n->member, n->trust);
    }
    return rc;
}

static int open_all(struct node *n, struct errmsg *em)
{
    loop_watch_open(&n->loop_watch, &n->loop);
    int rc = open_fabric(n, em);
    if (rc != 0) {
        loop_watch_close(&n->loop_watch);
        (void)uv_run(&n->loop, UV_RUN_NOWAIT);
        return rc;
    }
    struct agent_config agent = {
        .loop = &n->loop,
        .fabric = n->fabric,
        .member = n->member,
        .trust = n->trust,
        .heartbeat_ms = n->options->agent_heartbeat_ms,
        .data = n,
        .config_changed = on_directory_changed,
        .identity_renewed = on_identity_renewed,
        .authority_installed = on_authority_installed,
        .mesh_report = on_mesh_report,
        .forgery_seen = on_forgery_seen,
        .lists = on_lists,
    };
    rc = agent_open(&agent, &n->agent, em);
    if (rc != 0) {
        return rc;
    }
    synthetic_serve(n);
    cut_off_open(n);
    apply_mesh(n, agent_snapshot(n->agent));
    char *issuer = member_path(n->member, "issuer.crt");
    if (file_exists(issuer)) {
        rc = start_authority(n, em);
    }
    free(issuer);
    if (rc != 0) {
        return rc;
    }
    char *socket_path = path_join(n->member->data_dir, "rap.sock");
    struct admin_config admin = {.core_loop = &n->loop,
                                 .socket_path = socket_path,
                                 .metrics = n->options->metrics,
                                 .data = n,
                                 .call = on_call};
    rc = admin_open(&admin, &n->admin, em);
    free(socket_path);
    return rc;
}

static int run_once(const struct cli_run *o, bool *ret_again, struct errmsg *em)
{
    struct node n = {.options = o};
    for (int i = 0; i < 3; i++) {
        buf_init(&n.chain[i], CERT_DER_MAX);
    }
    buf_init(&n.facts, FACTS_MAX_BYTES);
    buf_init(&n.capabilities, 4096);
    (void)signal(SIGPIPE, SIG_IGN);
    CHECK(uv_loop_init(&n.loop) == 0);
    n.started_ms = clock_wall_ms();
    int rc = open_identity(&n, em);
    if (rc == 0) {
        rc = open_all(&n, em);
        if (rc != 0 && n.fabric != NULL) {
            /* Half started: handles are live on the loop and threads may run. Nothing was promised
             * to anybody yet, so ending here is safe; the message says why. */
            fatal("cannot start: %s", em->text);
        }
    }
    if (rc != 0) {
        goto out;
    }
    CHECK(uv_signal_init(&n.loop, &n.sigint) == 0);
    CHECK(uv_signal_init(&n.loop, &n.sigterm) == 0);
    n.sigint.data = n.sigterm.data = &n;
    CHECK(uv_signal_start(&n.sigint, on_signal, SIGINT) == 0);
    CHECK(uv_signal_start(&n.sigterm, on_signal, SIGTERM) == 0);
    log_info(LOG_BASE, "running", "version=%s listen=%s advertise=%s authority=%s", RAP_VERSION,
             n.member->listen, n.member->advertise, n.authority != NULL ? "yes" : "no");
    (void)uv_run(&n.loop, UV_RUN_DEFAULT);
    log_info(LOG_BASE, "stopped", "node=%s", n.member->node_name);
out:
    CHECK(uv_loop_close(&n.loop) == 0 || rc != 0);
    pki_trust_free(n.trust);
    pki_key_free(n.key);
    for (int i = 0; i < 3; i++) {
        buf_fini(&n.chain[i]);
    }
    buf_fini(&n.facts);
    buf_fini(&n.capabilities);
    member_free(n.member);
    *ret_again = n.restart;
    return rc;
}

int node_run(const struct cli_run *o, struct errmsg *em)
{
    bool again;
    int rc;
    heap_keep();
    do {
        rc = run_once(o, &again, em);
    } while (rc == 0 && again);
    return rc;
}
