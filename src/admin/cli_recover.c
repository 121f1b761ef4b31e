/* Recovery by the owner: what it would do is shown first, then signed with the root key. */
#include "admin/cli_owner.h"
#include "admin/cli_util.h"

#include "base/clock.h"
#include "base/text.h"
#include "pki/statement.h"

#include <time.h>

/* --- what it would do --- */

static bool is_among(struct blob doc, const char *key, const char *id)
{
    struct mp_reader r;
    char text[64];
    mp_reader_init(&r, mp_find(doc, key));
    uint32_t n = mp_peek(&r) == MP_ARRAY ? mp_get_array(&r, UINT32_MAX) : 0;
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob s = mp_get_str(&r, sizeof text);
        (void)snprintf(text, sizeof text, "%.*s", (int)s.len, (const char *)s.data);
        if (strcmp(text, id) == 0) {
            return true;
        }
    }
    return false;
}

static void show_others(struct cli *c, struct blob doc, const char *own)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, "authorities"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        char id[64], name[64], address[300];
        mp_find_str(item, "node_id", id, sizeof id);
        mp_find_str(item, "name", name, sizeof name);
        mp_find_str(item, "address", address, sizeof address);
        if (strcmp(id, own) != 0) {
            cli_note(c,
                     "  fenced: %s (%s) at %s%s: it re-joins when it comes back, without a vote at "
                     "first; remove it if it does not",
                     name, id, address, is_among(doc, "reachable", id) ? ", in reach now" : "");
        }
    }
}

static void show_plan(struct cli *c, struct blob doc)
{
    char own[64], name[64], cluster[64], kind[32], stamp[64];
    mp_find_str(doc, "node_id", own, sizeof own);
    mp_find_str(doc, "node_name", name, sizeof name);
    mp_find_str(doc, "cluster_name", cluster, sizeof cluster);
    mp_find_str(doc, "kind", kind, sizeof kind);
    mp_find_str(doc, "last_stamp_at", stamp, sizeof stamp);
    cli_note(c, "%s: cluster %s, epoch %lld -> %lld", kind, cluster,
             (long long)mp_find_int(doc, "epoch"), (long long)mp_find_int(doc, "new_epoch"));
    cli_note(c, "  goes on: %s (%s), the only voter, from entry %lld of term %lld (last stamp %s)",
             name[0] == '\0' ? "this host" : name, own, (long long)mp_find_int(doc, "base_index"),
             (long long)mp_find_int(doc, "base_term"), stamp[0] == '\0' ? "-" : stamp);
    show_others(c, doc, own);
    cli_note(c,
             "  may be lost: whatever the others decided after that entry without this host. Each "
             "of them reports it when it comes back (`rap partition list`)");
    if (strcmp(kind, "recover") == 0) {
        cli_note(c,
                 "  with more than one survivor, compare: recover the one with the highest term, "
                 "then entry (--dry-run shows them)");
    }
}

/* --- the signature --- */

/* The CA of a host that is new to the cluster, when the plan has one. */
static int sign_issuer(struct cli *c, const struct owner_root *owner, struct blob doc,
                       struct buf *ret)
{
    char hex[2 * PKI_KEY_BYTES + 1];
    char id[64];
    struct pki_cert spec = {.kind = PKI_ISSUER};
    mp_find_str(doc, "issuer_key", hex, sizeof hex);
    if (hex[0] == '\0') {
        return CLI_OK;
    }
    mp_find_str(doc, "cluster_id", id, sizeof id);
    int bad = uuid_parse(id, &spec.cluster_id);
    mp_find_str(doc, "node_id", id, sizeof id);
    bad = bad != 0 ? bad : uuid_parse(id, &spec.node_id);
    if (bad != 0 || hex_decode(hex, spec.public_key, sizeof spec.public_key) != 0) {
        return cli_fail(c, -ERR_MALFORMED, NULL, "the key to certify does not read");
    }
    return owner_certify(c, owner, &spec, ret);
}

static int sign_plan(struct cli *c, struct blob doc, struct cli_consent *ret)
{
    char hex[2 * RECOVERY_BODY_MAX + 1];
    uint8_t body[RECOVERY_BODY_MAX];
    struct recovery_statement s;
    struct owner_root owner;
    mp_find_str(doc, "statement", hex, sizeof hex);
    size_t n = strlen(hex) / 2;
    if (hex_decode(hex, body, n) != 0 || recovery_statement_decode(blob_of(body, n), &s) != 0 ||
        s.epoch != (uint64_t)mp_find_int(doc, "new_epoch") ||
        s.base_index != (uint64_t)mp_find_int(doc, "base_index")) {
        return cli_fail(c, -ERR_MALFORMED, NULL, "the statement to sign is not what was shown");
    }
    int rc = owner_open(c, &s.cluster_id, NULL, &owner);
    if (rc != CLI_OK) {
        return rc;
    }
    int err = statement_sign(owner.key, &s, &ret->statement);
    rc = err == 0 ? sign_issuer(c, &owner, doc, &ret->issuer)
                  : cli_fail(c, err, NULL, "the statement cannot be signed");
    owner_close(&owner);
    return rc;
}

int cli_consent(struct cli *c, struct blob doc, struct cli_consent *ret)
{
    show_plan(c, doc);
    int rc = cli_confirm(c, "Go on from here, without the others?");
    return rc != CLI_OK ? rc : sign_plan(c, doc, ret);
}

/* --- rap authority recover --- */

int cli_on_plan(void *data, struct blob doc, struct cli_consent *ret)
{
    struct cli_offline *o = data;
    buf_add(&o->doc, doc.data, doc.len);
    o->exit = cli_consent(o->c, doc, ret);
    if (o->exit == CLI_OK && o->c->dry_run) {
        cli_note(o->c, "dry run: nothing was changed");
        return -ERR_CANCELED;
    }
    return o->exit == CLI_OK ? 0 : -ERR_CANCELED;
}

int cli_run_authority_recover(struct cli *c)
{
    struct cli_offline o = {.c = c, .exit = CLI_OK};
    struct errmsg em = ERRMSG_INIT;
    buf_init(&o.doc, 1u << 20);
    struct cli_recover recover = {.data_dir = c->data_dir,
                                  .reason = cli_get(c, "reason"),
                                  .consent = cli_on_plan,
                                  .data = &o};
    int err = c->ops->recover(&recover, &em);
    int rc = o.exit;
    if (err != 0 && err != -ERR_CANCELED) {
        rc = cli_fail_here(c, err, NULL, "recover", &em);
    }
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&o.doc));
        if (err == 0) {
            cli_note(c,
                     "done: start it with `rap agent run`, then remove or bring back the others");
        }
    }
    buf_fini(&o.doc);
    return rc;
}

/* --- rap partition promote --- */

static int post_statement(struct cli *c, struct blob statement)
{
    struct buf path;
    struct buf doc;
    struct util_body body;
    buf_init(&doc, CLIENT_DOC_MAX);
    util_path(&path, "/v1/partitions/promote", NULL, "");
    util_body_begin(&body);
    mp_doc_hex(&body.w, &body.d, "statement", statement);
    int rc = client_act(c, "POST", &path, util_body_end(&body), &doc);
    util_body_fini(&body);
    buf_fini(&path);
    buf_fini(&doc);
    return rc;
}

/* The daemon starts anew in between, so an attempt that finds nobody says nothing. */
static int wait_epoch(struct cli *c, int64_t epoch, struct buf *doc)
{
    int64_t end = (int64_t)clock_mono_ms() + c->timeout_ms;
    for (;;) {
        int64_t left = end - (int64_t)clock_mono_ms();
        if (left <= 0) {
            return cli_fail(c, -ERR_TIMEOUT, "look at the daemon's log and at `rap status`",
                            "the authority is not in epoch %lld after %us", (long long)epoch,
                            c->timeout_ms / 1000);
        }
        buf_clear(doc);
        int rc = client_once(c, "GET", "/v1/status", blob_of(NULL, 0), NULL,
                             left < 2000 ? (uint32_t)left : 2000, doc);
        char state[32] = "";
        if (rc == 0) {
            mp_find_str(buf_blob(doc), "authority_state", state, sizeof state);
        }
        if (rc == 0 && mp_find_int(buf_blob(doc), "epoch") >= epoch &&
            strcmp(state, "healthy") == 0) {
            return CLI_OK;
        }
        struct timespec pause = {.tv_nsec = 100000000};
        (void)nanosleep(&pause, NULL);
    }
}

int cli_run_partition_promote(struct cli *c)
{
    struct buf path;
    struct buf doc;
    struct cli_consent consent;
    struct util_body body;
    buf_init(&doc, CLIENT_DOC_MAX);
    buf_init(&consent.statement, SIGNED_RECOVERY_MAX);
    buf_init(&consent.issuer, CERT_DER_MAX);
    util_path(&path, "/v1/partitions/probe", NULL, "");
    util_body_begin(&body);
    int rc = client_act(c, "POST", &path, util_body_end(&body), &doc);
    util_body_fini(&body);
    int64_t epoch = mp_find_int(buf_blob(&doc), "new_epoch");
    rc = rc != CLI_OK ? rc : cli_consent(c, buf_blob(&doc), &consent);
    if (rc == CLI_OK && c->dry_run) {
        cli_note(c, "dry run: nothing was changed");
        out_doc(c, buf_blob(&doc));
        goto out;
    }
    rc = rc != CLI_OK ? rc : post_statement(c, buf_blob(&consent.statement));
    rc = rc != CLI_OK ? rc : wait_epoch(c, epoch, &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
    }
out:
    buf_fini(&path);
    buf_fini(&doc);
    buf_fini(&consent.statement);
    buf_fini(&consent.issuer);
    return rc;
}

int cli_run_authority_terms(struct cli *c)
{
    static const struct out_col cols[] = {
        {"EPOCH", "epoch", OUT_TEXT},        {"TERM", "term", OUT_TEXT},
        {"LEADER", "leader_name", OUT_TEXT}, {"STARTED", "started_at", OUT_AGE},
        {"ENDED", "ended_at", OUT_AGE},
    };
    struct out_list list = {"/v1/terms", cols, ARRAY_SIZE(cols), false, "nobody has led yet"};
    return out_list(c, &list);
}

/* --- rap partition list, show, divergence, reports, merge --- */

int cli_run_partition_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},
        {"OUT", "member_names", OUT_TEXT},
        {"QUORUM", "has_quorum", OUT_TEXT},
        {"DETECTED", "detected_at", OUT_AGE},
        {"RESOLVED", "resolved_at", OUT_AGE},
        {"RESOLUTION", "resolution", OUT_TEXT},
    };
    struct out_list list = {"/v1/partitions", cols, ARRAY_SIZE(cols), false,
                            "no partition was ever seen"};
    return out_list(c, &list);
}

int cli_run_partition_show(struct cli *c)
{
    return util_show(c, "/v1/partitions/", c->operands[0]);
}

int cli_run_partition_reports(struct cli *c)
{
    static const struct out_col cols[] = {
        {"NODE", "node_name", OUT_TEXT},      {"STATUS", "status", OUT_STATE},
        {"EPOCH", "from_epoch", OUT_TEXT},    {"FENCED BY", "epoch", OUT_TEXT},
        {"COMMON", "common_index", OUT_TEXT}, {"LAST", "last_index", OUT_TEXT},
        {"COMMANDS", "rows_total", OUT_TEXT}, {"REPORTED", "reported_at", OUT_AGE},
    };
    struct out_list list = {"/v1/divergence", cols, ARRAY_SIZE(cols), false,
                            "no authority of an older epoch came back"};
    return out_list(c, &list);
}

int cli_run_partition_divergence(struct cli *c)
{
    static const struct out_col cols[] = {
        {"INDEX", "log_index", OUT_TEXT},     {"TERM", "log_term", OUT_TEXT},
        {"COMMITTED", "committed", OUT_TEXT}, {"COMMAND", "kind", OUT_TEXT},
        {"REQUEST", "request_id", OUT_TEXT},  {"BY", "actor_kind", OUT_TEXT},
        {"ACTOR", "actor_id", OUT_TEXT},      {"SUBJECT", "subject_id", OUT_TEXT},
        {"WHEN", "created_at", OUT_AGE},
    };
    struct buf path;
    if (c->operands[0] == NULL) {
        struct out_list own = {"/v1/divergence/own", cols, ARRAY_SIZE(cols), true,
                               "this authority decided nothing apart"};
        return out_list(c, &own);
    }
    util_path(&path, "/v1/divergence/", c->operands[0], "");
    struct out_list list = {buf_cstr(&path), cols, ARRAY_SIZE(cols), false,
                            "nothing was decided apart, or nothing was reported yet"};
    int rc = out_list(c, &list);
    buf_fini(&path);
    return rc;
}

static struct blob find_report(struct blob list, const char *wanted)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(list, "items"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        char id[64], name[64];
        mp_find_str(item, "node_id", id, sizeof id);
        mp_find_str(item, "node_name", name, sizeof name);
        if (strcmp(name, wanted) == 0 ||
            (strlen(wanted) >= 4 && strncmp(id, wanted, strlen(wanted)) == 0)) {
            return item;
        }
    }
    return blob_of(NULL, 0);
}

static int sign_consent(struct cli *c, struct blob report, uint8_t sig[PKI_SIG_BYTES])
{
    struct owner_root owner;
    char text[64];
    struct merge_consent consent = {.epoch = (uint64_t)mp_find_int(report, "epoch"),
                                    .rows = (uint64_t)mp_find_int(report, "rows_total")};
    mp_find_str(report, "node_id", text, sizeof text);
    if (uuid_parse(text, &consent.node_id) != 0) {
        return cli_fail(c, -ERR_MALFORMED, NULL, "the report has no node");
    }
    int rc = util_own_cluster(c, &consent.cluster_id);
    rc = rc != CLI_OK ? rc : owner_open(c, &consent.cluster_id, NULL, &owner);
    if (rc == CLI_OK) {
        consent_sign(owner.key, &consent, sig);
        owner_close(&owner);
    }
    return rc;
}

int cli_run_partition_merge(struct cli *c)
{
    struct buf list, path;
    struct util_body body;
    uint8_t sig[PKI_SIG_BYTES];
    char id[64] = "", name[64] = "";
    int rc = util_fetch(c, "/v1/divergence", NULL, &list);
    struct blob report = rc == CLI_OK ? find_report(buf_blob(&list), c->operands[0])
                                      : blob_of(NULL, 0);
    if (rc == CLI_OK && report.len == 0) {
        rc = cli_fail(c, -ERR_NOT_FOUND,
                      "see `rap partition reports`; a fenced authority reports by "
                      "itself as soon as it reaches the leader",
                      "no report of %s", c->operands[0]);
    }
    if (rc != CLI_OK) {
        buf_fini(&list);
        return rc;
    }
    mp_find_str(report, "node_id", id, sizeof id);
    mp_find_str(report, "node_name", name, sizeof name);
    cli_note(c,
             "%s gives up %lld commands of epoch %lld after entry %lld (`rap partition divergence "
             "%s` lists them), then catches up and votes again",
             name, (long long)mp_find_int(report, "rows_total"),
             (long long)mp_find_int(report, "from_epoch"),
             (long long)mp_find_int(report, "common_index"), name);
    rc = cli_confirm(c, "Let it come back without them?");
    rc = rc != CLI_OK ? rc : sign_consent(c, report, sig);
    if (rc == CLI_OK) {
        util_path(&path, "/v1/partitions/merge", NULL, "");
        util_body_begin(&body);
        mp_doc_str(&body.w, &body.d, "node", id);
        mp_doc_int(&body.w, &body.d, "epoch", mp_find_int(report, "epoch"));
        mp_doc_int(&body.w, &body.d, "rows", mp_find_int(report, "rows_total"));
        mp_doc_hex(&body.w, &body.d, "signature", blob_of(sig, sizeof sig));
        rc = util_mutate(c, "POST", &path, util_body_end(&body), "it comes back by itself");
        util_body_fini(&body);
        buf_fini(&path);
    }
    buf_fini(&list);
    return rc;
}
