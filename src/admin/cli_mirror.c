/* PostgreSQL as the system of record. */
#include "admin/cli_util.h"

#include "base/clock.h"

#include <time.h>

#define PATH "/v1/mirror"
#define POLL_MS 200

int cli_run_mirror_migrate(struct cli *c)
{
    const char *role = cli_get(c, "role");
    const char *cluster_id = cli_get(c, "cluster-id");
    struct uuid id;
    if (cluster_id != NULL && uuid_parse(cluster_id, &id) != 0) {
        return cli_usage(c, NULL, "--cluster-id %.64s: `rap status` tells it", cluster_id);
    }
    struct cli_migrate o = {.dsn = cli_get(c, "dsn"),
                            .cluster_id = cluster_id,
                            .role = role == NULL ? "rap_mirror" : role,
                            .dry_run = c->dry_run};
    struct cli_migrated done = {0};
    struct errmsg em = ERRMSG_INIT;
    int rc = c->ops->migrate(&o, &done, &em);
    if (rc != 0) {
        return cli_fail_here(c, rc, "check --dsn with psql, as a role that may create a schema",
                             "migrate", &em);
    }
    struct util_body b;
    util_body_begin(&b);
    mp_doc_int(&b.w, &b.d, "schema_from", done.from);
    mp_doc_int(&b.w, &b.d, "schema_to", done.to);
    mp_doc_str(&b.w, &b.d, "role", o.role);
    mp_doc_bool(&b.w, &b.d, "role_created", done.role_made);
    mp_doc_bool(&b.w, &b.d, "dry_run", o.dry_run);
    out_doc(c, util_body_end(&b));
    util_body_fini(&b);
    if (!o.dry_run) {
        cli_note(c, "next: let %s log in (pg_hba.conf), then `rap mirror enable --dsn ...`",
                 o.role);
    }
    return CLI_OK;
}

/* --- looking --- */

static bool follows(struct blob status, char state[16])
{
    mp_find_str(status, "state", state, 16);
    return strcmp(state, "following") == 0 || strcmp(state, "verifying") == 0;
}

int cli_run_mirror_status(struct cli *c)
{
    struct buf doc;
    char state[16];
    int rc = util_fetch(c, PATH, NULL, &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
        if (!follows(buf_blob(&doc), state) && strcmp(state, "disabled") != 0) {
            cli_note(c, "the mirror does not follow (%s): see last_error and alarm above", state);
            rc = CLI_DEGRADED;
        }
    }
    buf_fini(&doc);
    return rc;
}

/* Until it follows, fails for good, or the time is over. doc: the last status. */
static int wait_following(struct cli *c, int64_t rebuilds, struct buf *doc)
{
    int64_t end = (int64_t)clock_mono_ms() + c->timeout_ms;
    char last[16] = "";
    for (;;) {
        char state[16];
        char error[256];
        struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
        buf_clear(doc);
        int rc = client_once(c, "GET", PATH, blob_of(NULL, 0), NULL, 5000, doc);
        if (rc == 0) {
            bool done = follows(buf_blob(doc), state) &&
                        mp_find_int(buf_blob(doc), "rebuilds") >= rebuilds;
            if (strcmp(state, last) != 0) {
                cli_note(c, "%s", state);
                (void)snprintf(last, sizeof last, "%s", state);
            }
            if (done) {
                return CLI_OK;
            }
        }
        mp_find_str(buf_blob(doc), "last_error", error, sizeof error);
        if (rc == 0 && strcmp(last, "failed") == 0) {
            mp_find_str(buf_blob(doc), "alarm_detail", error, sizeof error);
            return cli_fail(
                c, -ERR_MIRROR_UNAVAILABLE,
                "`rap mirror verify` shows what differs, `rap mirror rebuild` writes it "
                "anew",
                "the mirror is not to be believed: %s", error);
        }
        if ((int64_t)clock_mono_ms() >= end) {
            return cli_fail(c, -ERR_TIMEOUT,
                            "it goes on by itself: watch `rap mirror status`; `rap mirror disable` "
                            "takes it back",
                            "the mirror does not follow yet (%s): %s", last,
                            error[0] == '\0' ? "no error" : error);
        }
        (void)nanosleep(&pause, NULL);
    }
}

/* --- changing --- */

static int wait_and_show(struct cli *c, struct blob answer)
{
    struct buf doc;
    if (cli_get(c, "no-wait") != NULL || c->dry_run) {
        out_doc(c, answer);
        return CLI_OK;
    }
    buf_init(&doc, CLIENT_DOC_MAX);
    int rc = wait_following(c, mp_find_int(answer, "rebuilds"), &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
    }
    buf_fini(&doc);
    return rc;
}

int cli_run_mirror_enable(struct cli *c)
{
    struct buf path;
    struct buf answer;
    struct util_body b;
    util_path(&path, PATH, NULL, "");
    buf_init(&answer, CLIENT_DOC_MAX);
    util_body_begin(&b);
    mp_doc_str(&b.w, &b.d, "dsn", cli_get(c, "dsn"));
    if (cli_get(c, "mode") != NULL) {
        mp_doc_str(&b.w, &b.d, "mode", cli_get(c, "mode"));
    }
    if (cli_get(c, "max-lag") != NULL) {
        mp_doc_str(&b.w, &b.d, "max_lag", cli_get(c, "max-lag"));
    }
    if (cli_get(c, "allow-insecure") != NULL) {
        mp_doc_bool(&b.w, &b.d, "allow_insecure", true);
    }
    int rc = client_send(c, "PUT", &path, util_body_end(&b), &answer);
    if (rc == CLI_OK) {
        rc = wait_and_show(c, buf_blob(&answer));
    }
    util_body_fini(&b);
    buf_fini(&answer);
    buf_fini(&path);
    return rc;
}

int cli_run_mirror_disable(struct cli *c)
{
    struct buf path;
    int rc = cli_confirm(c, "stop recording in PostgreSQL?");
    if (rc != CLI_OK) {
        return rc;
    }
    util_path(&path, PATH, NULL, "");
    rc = util_mutate(c, "DELETE", &path, blob_of(NULL, 0),
                     "disabled; what PostgreSQL has stays there");
    buf_fini(&path);
    return rc;
}

/* --- comparing --- */

static int compare(struct cli *c, bool preview, struct buf *doc)
{
    struct buf path;
    struct util_body b;
    util_path(&path, PATH "/verify", NULL, "");
    util_body_begin(&b);
    mp_doc_bool(&b.w, &b.d, "preview", preview);
    int rc = client_act(c, "POST", &path, util_body_end(&b), doc);
    util_body_fini(&b);
    buf_fini(&path);
    return rc;
}

static void show_list(struct cli *c, struct blob doc, const char *key, const struct out_col *cols,
                      size_t count)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, key));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    if (n > 0) {
        out_table(c, cols, count, blob_of(r.p, (size_t)(r.end - r.p)), n, NULL);
    }
}

static void show_comparison(struct cli *c, struct blob doc)
{
    static const struct out_col tables[] = {
        {"TABLE", "table", OUT_TEXT},
        {"STATE", "state_rows", OUT_TEXT},
        {"MIRROR", "mirror_rows", OUT_TEXT},
        {"DIFFERENT", "differences", OUT_TEXT},
        {"STATE-DIGEST", "state_digest", OUT_SHORT},
        {"MIRROR-DIGEST", "mirror_digest", OUT_SHORT},
    };
    static const struct out_col rows[] = {
        {"TABLE", "table", OUT_TEXT},
        {"ROW", "key", OUT_TEXT},
        {"WHAT", "what", OUT_STATE},
        {"COLUMNS", "columns", OUT_TEXT},
    };
    if (c->json) {
        out_doc(c, doc);
        return;
    }
    show_list(c, doc, "tables", tables, ARRAY_SIZE(tables));
    show_list(c, doc, "rows", rows, ARRAY_SIZE(rows));
    cli_note(c, "state at index %lld, mirror at %lld: %lld rows differ",
             (long long)mp_find_int(doc, "index"), (long long)mp_find_int(doc, "mirror_index"),
             (long long)mp_find_int(doc, "differences"));
}

int cli_run_mirror_verify(struct cli *c)
{
    struct buf doc;
    buf_init(&doc, CLIENT_DOC_MAX);
    int rc = compare(c, false, &doc);
    if (rc == CLI_OK) {
        show_comparison(c, buf_blob(&doc));
        if (mp_find_int(buf_blob(&doc), "differences") > 0) {
            cli_note(c, "the mirror is not to be believed: find out who changed it, then `rap "
                        "mirror rebuild`");
            rc = CLI_DEGRADED;
        }
    }
    buf_fini(&doc);
    return rc;
}

int cli_run_mirror_rebuild(struct cli *c)
{
    struct buf doc;
    struct buf path;
    struct util_body b;
    buf_init(&doc, CLIENT_DOC_MAX);
    util_path(&path, PATH "/rebuild", NULL, "");
    util_body_begin(&b);
    int rc = CLI_OK;
    if (c->dry_run || !c->yes) {
        bool dry_run = c->dry_run;
        rc = compare(c, true, &doc);
        if (rc != CLI_OK || dry_run) {
            if (rc == CLI_OK) {
                show_comparison(c, buf_blob(&doc));
            }
            goto out;
        }
        show_comparison(c, buf_blob(&doc));
    }
    rc = cli_confirm(c, "write these rows in PostgreSQL as the state has them?");
    if (rc != CLI_OK) {
        goto out;
    }
    if (cli_get(c, "reason") != NULL) {
        mp_doc_str(&b.w, &b.d, "reason", cli_get(c, "reason"));
    }
    buf_clear(&doc);
    rc = client_send(c, "POST", &path, util_body_end(&b), &doc);
    if (rc == CLI_OK) {
        rc = wait_and_show(c, buf_blob(&doc));
    }
out:
    util_body_fini(&b);
    buf_fini(&path);
    buf_fini(&doc);
    return rc;
}
