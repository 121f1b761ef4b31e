/* The cluster as a whole, and the clusters of this host. */
#include "admin/cli_util.h"

#include "base/file.h"
#include "pki/pki.h"

#include <dirent.h>
#include <sys/stat.h>

#define MEMBERSHIPS_DIR "/var/lib/rap"
#define MEMBERSHIPS_MAX 64
#define LOOK_TIMEOUT_MS 2000

int cli_run_cluster_show(struct cli *c)
{
    return util_show(c, "/v1/cluster", NULL);
}

int cli_run_cluster_update(struct cli *c)
{
    static const char *const texts[] = {"name", "region", "metadata"};
    struct buf path;
    struct util_body body;
    const char *telemetry = cli_get(c, "test-telemetry");
    bool any = telemetry != NULL || cli_get(c, "heartbeat-sample") != NULL;
    if (telemetry != NULL && strcmp(telemetry, "on") != 0 && strcmp(telemetry, "off") != 0) {
        return cli_usage(c, NULL, "--test-telemetry is on or off");
    }
    util_path(&path, "/v1/cluster", NULL, "");
    util_body_begin(&body);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (cli_get(c, texts[i]) != NULL) {
            mp_doc_str(&body.w, &body.d, texts[i], cli_get(c, texts[i]));
            any = true;
        }
    }
    if (telemetry != NULL) {
        mp_doc_bool(&body.w, &body.d, "test_telemetry", strcmp(telemetry, "on") == 0);
    }
    if (cli_get(c, "heartbeat-sample") != NULL) {
        mp_doc_str(&body.w, &body.d, "heartbeat_sample", cli_get(c, "heartbeat-sample"));
    }
    int rc = any ? util_mutate(c, "PATCH", &path, util_body_end(&body), "updated")
                 : cli_usage(c, NULL, "say what to change");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

static int put_word(struct cli *c, const char *target, const char *key, const char *off,
                    const char *done)
{
    struct buf path;
    struct util_body body;
    util_path(&path, target, NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, key, c->operands[0]);
    if (cli_get(c, off) != NULL) {
        mp_doc_bool(&body.w, &body.d, off, true);
    }
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), done);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_cluster_require(struct cli *c)
{
    return put_word(c, "/v1/cluster/roles", "role", "not", "noted: `rap cluster show` has gaps");
}

int cli_run_cluster_verify_auto(struct cli *c)
{
    return put_word(c, "/v1/cluster/capabilities", "capability", "manual", "noted");
}

/* --- memberships of this host --- */

/* What node.crt says, for one that does not run. */
static bool read_identity(const char *dir, struct pki_cert *ret)
{
    struct buf pem;
    struct buf der[3];
    size_t count = 0;
    char *path = xasprintf("%s/member/node.crt", dir);
    buf_init(&pem, (size_t)8 * CERT_DER_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(der); i++) {
        buf_init(&der[i], CERT_DER_MAX);
    }
    bool ok = file_read(path, &pem, NULL) == 0 &&
              pki_pem_read(buf_blob(&pem), der, ARRAY_SIZE(der), &count, NULL) == 0 &&
              pki_cert_parse(buf_blob(&der[0]), ret, NULL) == 0;
    for (size_t i = 0; i < ARRAY_SIZE(der); i++) {
        buf_fini(&der[i]);
    }
    buf_fini(&pem);
    free(path);
    return ok;
}

static void copy_text(struct mp_writer *w, struct mp_doc *d, struct blob doc, const char *key)
{
    char text[160];
    mp_find_str(doc, key, text, sizeof text);
    mp_doc_str(w, d, key, text[0] == '\0' ? NULL : text);
}

/* One row, when the directory holds a membership. */
static bool put_membership(struct cli *c, const char *dir, struct mp_writer *w)
{
    struct pki_cert cert;
    struct buf status;
    struct mp_doc d;
    if (!read_identity(dir, &cert)) {
        return false;
    }
    const char *own = c->data_dir;
    buf_init(&status, CLIENT_DOC_MAX);
    c->data_dir = dir;
    bool running = client_once(c, "GET", "/v1/status", blob_of(NULL, 0), NULL, LOOK_TIMEOUT_MS,
                               &status) == 0;
    c->data_dir = own;
    struct blob s = running ? buf_blob(&status) : blob_of(NULL, 0);
    mp_doc_begin(w, &d);
    mp_doc_uuid(w, &d, "cluster_id", &cert.cluster_id);
    copy_text(w, &d, s, "cluster_name");
    mp_doc_uuid(w, &d, "node_id", &cert.node_id);
    copy_text(w, &d, s, "node_name");
    mp_doc_bool(w, &d, "running", running);
    copy_text(w, &d, s, "health");
    copy_text(w, &d, s, "membership_status");
    copy_text(w, &d, s, "authority_state");
    copy_text(w, &d, s, "listen");
    mp_doc_time(w, &d, "certificate_expires_at", cert.not_after_ms);
    mp_doc_str(w, &d, "data_dir", dir);
    mp_doc_end(w, &d);
    buf_fini(&status);
    return true;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The directory itself and those in it, each file system entry once. */
static uint32_t look_under(struct cli *c, const char *base, const char *but, struct mp_writer *w)
{
    struct dirent **list = NULL;
    uint32_t n = 0;
    struct stat skip;
    bool skips = stat(but, &skip) == 0;
    int count = scandir(base, &list, NULL, by_name);
    for (int i = 0; i < count; i++) {
        struct stat st;
        char *dir = xasprintf("%s/%s", base, list[i]->d_name);
        if (n < MEMBERSHIPS_MAX && list[i]->d_name[0] != '.' && stat(dir, &st) == 0 &&
            S_ISDIR(st.st_mode) &&
            !(skips && st.st_ino == skip.st_ino && st.st_dev == skip.st_dev)) {
            n += put_membership(c, dir, w);
        }
        free(dir);
        free(list[i]);
    }
    free(list);
    return n;
}

int cli_run_cluster_memberships(struct cli *c)
{
    static const struct out_col cols[] = {
        {"CLUSTER", "cluster_name", OUT_TEXT}, {"ID", "cluster_id", OUT_TEXT},
        {"NODE", "node_name", OUT_TEXT},       {"RUNNING", "running", OUT_TEXT},
        {"HEALTH", "health", OUT_STATE},       {"AUTHORITY", "authority_state", OUT_STATE},
        {"LISTEN", "listen", OUT_TEXT},        {"DIRECTORY", "data_dir", OUT_TEXT},
    };
    const char *base = c->operands[0] != NULL ? c->operands[0] : MEMBERSHIPS_DIR;
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 1u << 20);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_key(&w, &d, "items");
    size_t at = mp_list_begin(&w);
    uint32_t n = put_membership(c, c->data_dir, &w);
    n += look_under(c, base, c->data_dir, &w);
    mp_list_end(&w, at, n);
    mp_doc_str(&w, &d, "next_cursor", NULL);
    mp_doc_end(&w, &d);
    if (c->json) {
        out_json(c, buf_blob(&doc));
    } else {
        struct mp_reader r;
        mp_reader_init(&r, mp_find(buf_blob(&doc), "items"));
        uint32_t rows = mp_get_array(&r, MEMBERSHIPS_MAX + 1);
        out_table(c, cols, ARRAY_SIZE(cols), blob_of(r.p, (size_t)(r.end - r.p)), rows,
                  "no memberships there: `rap init` or `rap join` make one");
    }
    buf_fini(&doc);
    return CLI_OK;
}
