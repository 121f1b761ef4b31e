/* What this authority refused, on its way into the audit: refusals.c decides which rows leave when, this
 * file asks the leader to commit them. */
#include "authority/authority_impl.h"

#include "base/log.h"
#include "base/text.h"

struct writing {
    struct authority *a;
    struct refusal r;
};

static void written(void *data, int rc, struct blob doc)
{
    struct writing *w = data;
    (void)doc;
    if (rc != 0 && err_retryable(rc) && !w->a->closing) {
        refusals_note(&w->a->refusals, &w->r,
                      authority_now_ms(w->a)); /* when there is a majority */
    } else if (rc != 0) {
        log_warn(LOG_AUTHORITY, "refusal not audited", "error=%s", err_slug(rc));
    }
    free(w);
}

/* Names come from strangers and texts may quote them. */
static struct blob clean(const char *text)
{
    struct blob b = blob_str(text);
    return text_is_clean(text, b.len) ? b : blob_str("");
}

static void write_row(struct authority *a, const struct refusal *r)
{
    struct writing *w = xcalloc(1, sizeof *w);
    w->a = a;
    w->r = *r;
    struct refusal_noted body = {
        .what = r->what,
        .error = (uint64_t)-r->rc,
        .count = r->count,
        .since_ms = r->since_ms,
        .subject = clean(r->subject),
        .node_id = r->node_id,
        .source_address = clean(r->source),
        .fingerprint = blob_of(r->fingerprint, r->has_key ? sizeof r->fingerprint : 0),
        .token_hash = blob_of(r->token_hash, r->has_token ? sizeof r->token_hash : 0),
        .detail = clean(r->detail),
        .actor_kind = clean(r->actor_kind),
        .actor_id = clean(r->actor_id),
    };
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&refusal_noted_desc, &body, &args);
    call_internal(a, "refusal.noted", buf_blob(&args), NULL, ACTOR_SYSTEM, "", written, w);
    buf_fini(&args);
}

/* While the group runs two versions, refusals are counted and wait. */
static void pump(struct authority *a)
{
    struct refusal r;
    if (fsm_level(a->fsm) < cmd_kind_level(CMD_REFUSAL_NOTED)) {
        return;
    }
    while (!a->closing && refusals_due(&a->refusals, authority_now_ms(a), &r)) {
        write_row(a, &r);
    }
}

void refused_note(struct authority *a, const struct refusal *r)
{
    a->refused[r->what - 1]++;
    refusals_note(&a->refusals, r, authority_now_ms(a));
    pump(a);
}

void refused_tick(struct authority *a)
{
    pump(a);
}

/* -ERR_DENIED means that the state does not list this node. A follower may only be behind, and so may a
 * leader that has not applied an entry of its own term yet: then all before it is not applied either. */
static bool is_current(const struct authority *a)
{
    struct core_status s;
    struct fsm_position pos;
    core_status_brief(a->core, &s);
    fsm_position(a->fsm, &pos);
    return s.role == CORE_LEADER && s.quorum && pos.term == s.term;
}

static void note_peer(struct authority *a, enum refusal_what what, const struct fabric_peer *peer,
                      const char *service, int rc)
{
    struct refusal r = {.what = what, .rc = rc, .node_id = peer->identity.node_id};
    addr_format(&peer->address, r.source);
    (void)snprintf(r.actor_kind, sizeof r.actor_kind, "%s", ACTOR_NODE);
    uuid_format(&peer->identity.node_id, r.actor_id);
    (void)snprintf(r.subject, sizeof r.subject, "%s", service);
    refused_note(a, &r);
}

void refused_peer(struct authority *a, enum refusal_what what, const struct fabric_peer *peer,
                  const char *service, int rc)
{
    if (rc != -ERR_DENIED || is_current(a)) {
        note_peer(a, what, peer, service, rc);
    }
}

void refused_forward(struct authority *a, const struct fabric_peer *via, const char *method)
{
    char what[64];
    (void)snprintf(what, sizeof what, "op %s", method);
    note_peer(a, REFUSAL_SERVICE, via, what, -ERR_DENIED);
}

/* A joiner is a node of whom only the key is known, or not even that. */
static void name_joiner(struct refusal *r)
{
    (void)snprintf(r->actor_kind, sizeof r->actor_kind, "%s", ACTOR_NODE);
    if (r->has_key) {
        hex_encode(r->fingerprint, sizeof r->fingerprint, r->actor_id);
    } else {
        (void)snprintf(r->actor_id, sizeof r->actor_id, "%s", r->source);
    }
}

static bool token_exists(struct authority *a, const uint8_t hash[PKI_HASH_BYTES])
{
    char hex[2 * PKI_HASH_BYTES + 1];
    hex_encode(hash, PKI_HASH_BYTES, hex);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT 1 AS known FROM node_join_tokens WHERE token_hash = ?");
    db_bind_text(st, hex);
    bool known = db_step(st) == 1;
    db_done(st);
    return known;
}

void refused_join(struct authority *a, struct refusal *r)
{
    r->what = REFUSAL_JOIN;
    r->has_token = r->has_token && token_exists(a, r->token_hash);
    name_joiner(r);
    refused_note(a, r);
}

void authority_refused(struct authority *a, const struct fabric_refusal *refusal)
{
    if (!refusal->peer.authenticated) {
        struct refusal r = {.rc = refusal->rc};
        addr_format(&refusal->peer.address, r.source);
        refused_join(a, &r);
        return;
    }
    refused_peer(a, refusal->service[0] == '\0' ? REFUSAL_HANDSHAKE : REFUSAL_SERVICE,
                 &refusal->peer, refusal->service, refusal->rc);
}

static void note_join(struct authority *a, const struct op_input *call, int rc, const char *detail)
{
    struct join_submit b;
    struct refusal r = {.rc = rc, .has_key = true, .has_token = true};
    if (msg_decode(&join_submit_desc, MSG_STRICT, call->args, &b) != 0) {
        return;
    }
    (void)snprintf(r.source, sizeof r.source, "%.*s", (int)b.source_address.len,
                   (const char *)b.source_address.data);
    (void)snprintf(r.subject, sizeof r.subject, "%.*s", (int)b.node_name.len,
                   (const char *)b.node_name.data);
    (void)snprintf(r.detail, sizeof r.detail, "%s", detail);
    memcpy(r.fingerprint, b.fingerprint.data, sizeof r.fingerprint);
    memcpy(r.token_hash, b.token_hash.data, sizeof r.token_hash);
    refused_join(a, &r);
}

void refused_call(struct authority *a, const struct op_input *call, int rc, const char *detail)
{
    uint64_t kind = op_kind(call->method);
    if (rc == 0 || err_retryable(rc)) {
        return;
    }
    if (kind == CMD_JOIN_SUBMIT) {
        note_join(a, call, rc, detail);
    } else if (kind != 0 && cmd_kind_high_risk(kind)) {
        struct refusal r = {.what = REFUSAL_COMMAND, .rc = rc};
        (void)snprintf(r.actor_kind, sizeof r.actor_kind, "%s", call->actor_kind);
        (void)snprintf(r.actor_id, sizeof r.actor_id, "%s", call->actor_id);
        (void)snprintf(r.subject, sizeof r.subject, "%s", cmd_kind_name(kind));
        (void)snprintf(r.detail, sizeof r.detail, "%s", detail);
        refused_note(a, &r);
    }
}
