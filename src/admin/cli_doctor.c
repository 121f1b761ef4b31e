/* `rap doctor`: what the daemon says of itself, when it runs, and what is seen from outside (cli_ops). */
#include "admin/cli_util.h"

#include "base/clock.h"
#include "base/text.h"
#include "wire/trust_msg.h"

#define ASK_MS 3000
#define CHECKS_MAX_BYTES (256u << 10)

static const char *const result_names[] = {
    [CLI_CHECK_PASS] = "pass", [CLI_CHECK_WARN] = "warn", [CLI_CHECK_FAIL] = "fail"};

struct doctor_run {
    struct cli *c;
    struct buf rows; /* documents */
    struct mp_writer w;
    uint32_t count;
    enum cli_check_result worst;
    struct buf status; /* empty: no daemon answers */
    struct buf trust;
};

static void take(void *data, const struct cli_check *check)
{
    struct doctor_run *r = data;
    struct mp_doc d;
    mp_doc_begin(&r->w, &d);
    mp_doc_str(&r->w, &d, "check", check->check);
    mp_doc_str(&r->w, &d, "result", result_names[check->result]);
    mp_doc_str(&r->w, &d, "code", check->code);
    mp_doc_str(&r->w, &d, "subject", check->subject[0] == '\0' ? NULL : check->subject);
    mp_doc_str(&r->w, &d, "text", check->text);
    mp_doc_str(&r->w, &d, "next", check->next[0] == '\0' ? NULL : check->next);
    mp_doc_end(&r->w, &d);
    r->count++;
    r->worst = check->result > r->worst ? check->result : r->worst;
    if (r->c->json) {
        return;
    }
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    fprintf(r->c->out, "%s%s%s  %-11s %s%s%s\n", r->c->colour ? colours[check->result] : "",
            result_names[check->result], r->c->colour ? "\033[0m" : "", check->check, check->text,
            check->result == CLI_CHECK_PASS ? "" : "  ",
            check->result == CLI_CHECK_PASS ? "" : check->code);
    if (check->next[0] != '\0') {
        fprintf(r->c->out, "      next: %s\n", check->next);
    }
    (void)fflush(r->c->out);
}

static void tell(struct doctor_run *r, const char *check, enum cli_check_result result,
                 const char *code, const char *text, const char *next)
{
    struct cli_check c = {.check = check, .result = result, .code = code};
    (void)snprintf(c.text, sizeof c.text, "%s", text);
    (void)snprintf(c.next, sizeof c.next, "%s", next);
    take(r, &c);
}

/* --- what the daemon says --- */

static int64_t time_of(struct blob doc, const char *key)
{
    char text[CLOCK_TEXT_MAX];
    int64_t ms = 0;
    mp_find_str(doc, key, text, sizeof text);
    return text[0] != '\0' && clock_parse(text, &ms) == 0 ? ms : 0;
}

static void uuid_of(struct blob doc, const char *key, struct uuid *ret)
{
    char text[UUID_TEXT_MAX];
    mp_find_str(doc, key, text, sizeof text);
    if (uuid_parse(text, ret) != 0) {
        *ret = UUID_NIL;
    }
}

static void read_authorities(struct blob doc, struct cli_doctor *o)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, "authorities"));
    uint32_t n = mp_get_array(&r, AUTHORITIES_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        struct cli_doctor_authority *a = &o->authority[o->authorities++];
        uuid_of(item, "node_id", &a->node_id);
        mp_find_str(item, "name", a->name, sizeof a->name);
        mp_find_str(item, "address", a->address, sizeof a->address);
    }
}

/* What is longer, or no hex, is as if there were none. */
static void read_trust(struct blob doc, struct doctor_run *r, struct cli_doctor *o)
{
    char hex[2 * TRUST_SIGNED_MAX + 1];
    uint8_t record[TRUST_SIGNED_MAX];
    mp_find_str(doc, "trust_record", hex, sizeof hex);
    size_t len = strlen(hex) / 2;
    if (len > 0 && hex_decode(hex, record, len) == 0) {
        buf_add(&r->trust, record, len);
        o->trust_record = buf_blob(&r->trust);
    }
}

static void ask_daemon(struct doctor_run *r, struct cli_doctor *o)
{
    struct buf config;
    buf_init(&r->status, CLIENT_DOC_MAX);
    buf_init(&config, CLIENT_DOC_MAX);
    o->running = client_once(r->c, "GET", "/v1/status?stale=true", blob_of(NULL, 0), NULL, ASK_MS,
                             &r->status) == 0;
    if (!o->running) {
        buf_clear(&r->status);
    } else {
        uuid_of(buf_blob(&r->status), "node_id", &o->node_id);
        uuid_of(buf_blob(&r->status), "connected_to", &o->connected_to);
        if (client_once(r->c, "GET", "/v1/config", blob_of(NULL, 0), NULL, ASK_MS, &config) == 0) {
            o->config_issued_ms = time_of(buf_blob(&config), "issued_at");
            o->config_expires_ms = time_of(buf_blob(&config), "expires_at");
            read_authorities(buf_blob(&config), o);
            read_trust(buf_blob(&config), r, o);
        }
    }
    buf_fini(&config);
}

static void check_authority(struct doctor_run *r, struct blob doc)
{
    char state[32];
    char text[160];
    mp_find_str(doc, "authority_state", state, sizeof state);
    int64_t seen = mp_find_int(doc, "seen");
    int64_t voters = mp_find_int(doc, "voters");
    int64_t needed = mp_find_int(doc, "needed");
    (void)snprintf(text, sizeof text, "%lld of %lld voters are in contact, %lld are needed",
                   (long long)seen, (long long)voters, (long long)needed);
    if (strcmp(state, "fenced") == 0) {
        tell(r, "quorum", CLI_CHECK_FAIL, "fenced",
             "the owner let the cluster go on without this authority",
             "rap partition divergence here; rap partition merge N on the new side");
    } else if (strcmp(state, "recovering") == 0) {
        tell(r, "quorum", CLI_CHECK_WARN, "recovering",
             "this authority is catching up with the others", "rap status, until it is healthy");
    } else if (!mp_find_bool(doc, "quorum")) {
        tell(r, "quorum", CLI_CHECK_FAIL, "no_quorum", text,
             "rap authority list --stale: bring the others back; lost for good: rap help authority "
             "recover");
    } else if (seen < voters && strcmp(state, "healthy") == 0) {
        char role[32];
        mp_find_str(doc, "raft_role", role, sizeof role);
        bool leads = strcmp(role, "leader") == 0; /* a follower hears its leader only */
        tell(r, "quorum", leads ? CLI_CHECK_WARN : CLI_CHECK_PASS, leads ? "voter_out" : "ok",
             leads ? text : "a majority decides", leads ? "rap partition list: who is out?" : "");
    } else {
        tell(r, "quorum", CLI_CHECK_PASS, "ok", text, "");
    }
}

static void check_contact(struct doctor_run *r, struct blob doc)
{
    char health[32], name[NAME_MAX_BYTES + 1], error[32], text[160];
    mp_find_str(doc, "health", health, sizeof health);
    mp_find_str(doc, "node_name", name, sizeof name);
    mp_find_str(doc, "contact_error", error, sizeof error);
    if (strcmp(health, "revoked") == 0) {
        tell(r, "contact", CLI_CHECK_FAIL, health, "the cluster does not count this node any more",
             "join again with an empty data directory");
    } else if (strcmp(health, "disabled") == 0) {
        (void)snprintf(text, sizeof text, "rap node enable %s, on an authority", name);
        tell(r, "contact", CLI_CHECK_FAIL, health,
             "this node's membership is disabled: `rap node show` on an authority has the reason",
             text);
    } else if (!mp_find_bool(doc, "connected")) {
        bool quorum = strcmp(error, err_slug(-ERR_NO_QUORUM)) == 0;
        (void)snprintf(text, sizeof text, "the daemon hears no authority%s%s",
                       error[0] == '\0' ? "" : "; the last one tried: ", error);
        tell(r, "contact", CLI_CHECK_FAIL, quorum ? error : "cut_off",
             quorum ? "the authorities have no majority: those that answer decide nothing" : text,
             quorum ? "rap doctor on an authority" : "the path checks say why");
    } else {
        tell(r, "contact", CLI_CHECK_PASS, "ok", "the daemon hears an authority", "");
    }
}

static void check_mirror(struct doctor_run *r)
{
    struct buf doc;
    char mode[16], state[16], alarm[32], text[160];
    buf_init(&doc, CLIENT_DOC_MAX);
    if (client_once(r->c, "GET", "/v1/mirror", blob_of(NULL, 0), NULL, ASK_MS, &doc) == 0) {
        struct blob d = buf_blob(&doc);
        mp_find_str(d, "mode", mode, sizeof mode);
        mp_find_str(d, "state", state, sizeof state);
        mp_find_str(d, "alarm", alarm, sizeof alarm);
        (void)snprintf(text, sizeof text, "PostgreSQL is %lld entries, %lld s behind (%s)",
                       (long long)mp_find_int(d, "lag_entries"),
                       (long long)(mp_find_int(d, "lag_ms") / 1000), state);
        bool follows = strcmp(state, "following") == 0 || strcmp(state, "verifying") == 0;
        if (alarm[0] != '\0') {
            tell(r, "mirror", CLI_CHECK_FAIL, "mirror_alarm", "PostgreSQL is not to be believed",
                 "rap mirror status; docs/OPERATIONS.md, a mirror alarm");
        } else if (strcmp(mode, "disabled") == 0) {
            tell(r, "mirror", CLI_CHECK_PASS, "ok", "no mirror is configured", "");
        } else if (!mp_find_bool(d, "available")) {
            tell(r, "mirror", CLI_CHECK_FAIL, "mirror_unavailable", text,
                 "rap mirror status; bring PostgreSQL back");
        } else if (!follows || mp_find_int(d, "lag_ms") > 10000) {
            tell(r, "mirror", CLI_CHECK_WARN, "mirror_lagging", text, "rap mirror status");
        } else {
            tell(r, "mirror", CLI_CHECK_PASS, "ok", text, "");
        }
    }
    buf_fini(&doc);
}

/* What was begun and waits for its owner. */
static void look_at_split(struct doctor_run *r, struct blob split)
{
    char name[NAME_MAX_BYTES + 1], status[16], last[256], text[480], next[160];
    struct mp_reader in;
    mp_find_str(split, "status", status, sizeof status);
    mp_find_str(split, "name", name, sizeof name);
    mp_find_str(split, "last_attempt", last, sizeof last);
    if (strcmp(status, "open") != 0) {
        return;
    }
    mp_reader_init(&in, mp_find(split, "staying"));
    uint32_t staying = mp_peek(&in) == MP_ARRAY ? mp_get_array(&in, UINT32_MAX) : 0;
    (void)snprintf(text, sizeof text, "a split is open: %u %s still to leave for %s%s%s", staying,
                   staying == 1 ? "node has" : "nodes have", name,
                   last[0] == '\0' ? "" : "; last attempt: ", last);
    (void)snprintf(next, sizeof next, "rap split show %s", name);
    tell(r, "split", CLI_CHECK_WARN, "split_open", text, next);
}

static void check_splits(struct doctor_run *r)
{
    struct buf doc;
    buf_init(&doc, CLIENT_DOC_MAX);
    if (client_once(r->c, "GET", "/v1/splits", blob_of(NULL, 0), NULL, ASK_MS, &doc) == 0) {
        struct mp_reader in;
        mp_reader_init(&in, mp_find(buf_blob(&doc), "items"));
        uint32_t n = mp_get_array(&in, UINT32_MAX);
        for (uint32_t i = 0; i < n && in.err == 0; i++) {
            look_at_split(r, mp_skip(&in));
        }
    }
    buf_fini(&doc);
}

static void check_rotation(struct doctor_run *r)
{
    struct buf doc;
    char phase[16], text[160];
    buf_init(&doc, CLIENT_DOC_MAX);
    if (client_once(r->c, "GET", "/v1/trust", blob_of(NULL, 0), NULL, ASK_MS, &doc) == 0) {
        mp_find_str(buf_blob(&doc), "last_phase", phase, sizeof phase);
        bool prepared = strcmp(phase, "prepare") == 0;
        if (prepared || strcmp(phase, "activate") == 0) {
            (void)snprintf(text, sizeof text,
                           "a rotation of the root is under way, its last step: %s", phase);
            tell(r, "rotation", CLI_CHECK_WARN, "rotation_open", text,
                 prepared ? "rap trust rotate activate, once every node has confirmed"
                          : "rap trust rotate retire, once rap trust show has no node under the "
                            "old root");
        }
    }
    buf_fini(&doc);
}

static void check_version(struct doctor_run *r, struct blob doc)
{
    char version[64], text[160];
    mp_find_str(doc, "version", version, sizeof version);
    int64_t level = mp_find_int(doc, "level");
    int64_t known = mp_find_int(doc, "level_known");
    if (strcmp(version, RAP_VERSION) != 0) {
        (void)snprintf(text, sizeof text, "the daemon is version %s, this command %s", version,
                       RAP_VERSION);
        tell(r, "version", CLI_CHECK_WARN, "version_skew", text, "restart the daemon");
    } else if (level != 0 && level < known &&
               mp_find_bool(doc, "quorum")) { /* or nobody could raise it */
        (void)snprintf(text, sizeof text,
                       "the cluster's schema is at level %lld, this version knows %lld: some "
                       "authority is older",
                       (long long)level, (long long)known);
        tell(r, "version", CLI_CHECK_WARN, "version_skew", text, "upgrade the other authorities");
    } else {
        tell(r, "version", CLI_CHECK_PASS, "ok", "the daemon runs this version", "");
    }
}

static void check_daemon_status(struct doctor_run *r)
{
    struct blob doc = buf_blob(&r->status);
    char state[32];
    if (doc.len == 0) {
        return;
    }
    mp_find_str(doc, "authority_state", state, sizeof state);
    if (strcmp(state, "none") == 0) {
        check_contact(r, doc);
    } else {
        check_authority(r, doc);
        check_mirror(r);
        check_splits(r);
        check_rotation(r);
    }
    check_version(r, doc);
}

/* --- the command --- */

static int read_token(struct cli *c, struct join_token *ret)
{
    struct buf text;
    struct errmsg em = ERRMSG_INIT;
    int rc = cli_read_secret(c, cli_get(c, "token-file"), TOKEN_TEXT_MAX, &text);
    if (rc != CLI_OK) {
        return rc;
    }
    int err = token_parse((const char *)text.data, text.len, ret, &em);
    buf_wipe(&text);
    return err == 0 ? CLI_OK
                    : cli_fail(c, err, "copy the token whole, as `rap token create` printed it",
                               "%s", em.text);
}

static void finish(struct doctor_run *r)
{
    struct util_body b;
    if (!r->c->json) {
        return;
    }
    util_body_begin(&b);
    mp_doc_str(&b.w, &b.d, "result", result_names[r->worst]);
    mp_doc_key(&b.w, &b.d, "items");
    mp_put_array(&b.w, r->count);
    mp_put_raw(&b.w, buf_blob(&r->rows));
    out_json(r->c, util_body_end(&b));
    util_body_fini(&b);
}

int cli_run_doctor(struct cli *c)
{
    struct doctor_run r = {.c = c};
    struct join_token token;
    bool has_token = cli_get(c, "token-file") != NULL;
    if (has_token) {
        int rc = read_token(c, &token);
        if (rc != CLI_OK) {
            return rc;
        }
    }
    buf_init(&r.rows, CHECKS_MAX_BYTES);
    buf_init(&r.trust, TRUST_SIGNED_MAX);
    mp_writer_init(&r.w, &r.rows);
    struct cli_doctor o = {
        .data_dir = c->data_dir, .token = has_token ? &token : NULL, .data = &r, .found = take};
    ask_daemon(&r, &o);
    check_daemon_status(&r);
    c->ops->doctor(&o);
    finish(&r);
    buf_fini(&r.rows);
    buf_fini(&r.status);
    buf_fini(&r.trust);
    explicit_bzero(&token, sizeof token);
    return r.worst == CLI_CHECK_FAIL ? CLI_DEGRADED : CLI_OK;
}
