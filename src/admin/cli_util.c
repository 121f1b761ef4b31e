#include "admin/cli_util.h"

void util_body_begin(struct util_body *b)
{
    buf_init(&b->bytes, 1u << 16);
    mp_writer_init(&b->w, &b->bytes);
    mp_doc_begin(&b->w, &b->d);
}

struct blob util_body_end(struct util_body *b)
{
    mp_doc_end(&b->w, &b->d);
    return buf_blob(&b->bytes);
}

void util_body_fini(struct util_body *b)
{
    buf_fini(&b->bytes);
}

void util_put_force(struct cli *c, struct util_body *b)
{
    if (cli_get(c, "force") != NULL) {
        mp_doc_bool(&b->w, &b->d, "force", true);
    }
}

void util_path(struct buf *path, const char *prefix, const char *value, const char *suffix)
{
    buf_init(path, CLI_PATH_MAX);
    buf_add_str(path, prefix);
    if (value != NULL) {
        client_segment(path, value);
    }
    buf_add_str(path, suffix);
}

int util_fetch(struct cli *c, const char *prefix, const char *value, struct buf *doc)
{
    struct buf path;
    buf_init(doc, CLIENT_DOC_MAX);
    util_path(&path, prefix, value, "");
    int rc = client_get(c, &path, doc);
    buf_fini(&path);
    return rc;
}

int util_show(struct cli *c, const char *prefix, const char *value)
{
    struct buf doc;
    int rc = util_fetch(c, prefix, value, &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
    }
    buf_fini(&doc);
    return rc;
}

int util_mutate(struct cli *c, const char *method, struct buf *path, struct blob body,
                const char *done)
{
    struct buf doc;
    buf_init(&doc, CLIENT_DOC_MAX);
    int rc = client_send(c, method, path, body, &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
        if (c->dry_run) {
            cli_note(c, "dry run: nothing was changed");
        } else if (done != NULL && !c->json) {
            cli_note(c, "%s", done);
        }
    }
    buf_fini(&doc);
    return rc;
}

int util_get_number(struct cli *c, const char *name, int64_t *ret)
{
    const char *text = cli_get(c, name);
    if (text != NULL && strcmp(text, "0") == 0) {
        *ret = 0;
        return 0;
    }
    return cli_get_count(c, name, ret);
}

int util_own_cluster(struct cli *c, struct uuid *ret)
{
    struct buf status;
    char text[64];
    int rc = util_fetch(c, "/v1/status", NULL, &status);
    mp_find_str(buf_blob(&status), "cluster_id", text, sizeof text);
    if (rc == CLI_OK && uuid_parse(text, ret) != 0) {
        rc = cli_fail(c, -ERR_MALFORMED, NULL, "the status has no cluster");
    }
    buf_fini(&status);
    return rc;
}
