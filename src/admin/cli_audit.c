#include "admin/cli_owner.h"
#include "admin/cli_util.h"

#include "admin/json.h"
#include "base/clock.h"
#include "base/text.h"
#include "pki/audit_row.h"
#include "pki/backup.h"

#include <errno.h>

int cli_run_audit_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"SEQ", "seq", OUT_TEXT},
        {"WHEN", "created_at", OUT_AGE},
        {"EVENT", "event_type", OUT_TEXT},
        {"ACTOR", "actor_kind", OUT_TEXT},
        {"BY", "actor_id", OUT_TEXT},
        {"ABOUT", "subject_type", OUT_TEXT},
        {"SUBJECT", "subject_id", OUT_TEXT},
        {"RISK", "high_risk", OUT_TEXT},
    };
    struct buf path;
    util_path(&path, "/v1/audit", NULL, "");
    client_query(&path, "event_type", cli_get(c, "event-type"));
    client_query(&path, "subject_id", cli_get(c, "subject"));
    client_query(&path, "node", cli_get(c, "node"));
    client_query(&path, "category", cli_get(c, "category"));
    struct out_list list = {buf_cstr(&path), cols, ARRAY_SIZE(cols), true, "no such events"};
    int rc = out_list(c, &list);
    buf_fini(&path);
    return rc;
}

/* --- an exported file --- */

struct file_check {
    uint64_t first_seq, rows;
    uint8_t head[PKI_HASH_BYTES];
};

static struct blob text_of(struct blob doc, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, key));
    return mp_peek(&r) == MP_STR ? mp_get_str(&r, JSON_TEXT_MAX) : blob_of(NULL, 0);
}

static bool says_hash(struct blob doc, const char *key, const uint8_t hash[PKI_HASH_BYTES])
{
    char hex[2 * PKI_HASH_BYTES + 1];
    hex_encode(hash, PKI_HASH_BYTES, hex);
    return blob_equal(text_of(doc, key), blob_str(hex));
}

static int check_event(struct file_check *f, struct blob doc, struct errmsg *em)
{
    char created_at[64];
    char id[UUID_TEXT_MAX];
    uint8_t hash[PKI_HASH_BYTES];
    struct audit_row row = {
        .seq = (uint64_t)mp_find_int(doc, "seq"),
        .cluster_id = text_of(doc, "cluster_id"),
        .organization_id = text_of(doc, "organization_id"),
        .actor_kind = text_of(doc, "actor_kind"),
        .actor_id = text_of(doc, "actor_id"),
        .event_type = text_of(doc, "event_type"),
        .subject_type = text_of(doc, "subject_type"),
        .subject_id = text_of(doc, "subject_id"),
        .high_risk = mp_find_bool(doc, "high_risk"),
        .details = text_of(doc, "details"),
        .term = (uint64_t)mp_find_int(doc, "authority_term"),
        .index = (uint64_t)mp_find_int(doc, "authority_index"),
    };
    mp_find_str(doc, "created_at", created_at, sizeof created_at);
    if (row.seq == 0 || clock_parse(created_at, &row.created_at) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "it is no event of an audit");
    }
    if (f->rows == 0) {
        char prev[2 * PKI_HASH_BYTES + 1];
        mp_find_str(doc, "prev_hash", prev, sizeof prev);
        if (row.seq != 1 && hex_decode(prev, f->head, sizeof f->head) != 0) {
            return errmsg_set(em, -ERR_MALFORMED, "it has no hash of the event before");
        }
        f->first_seq = row.seq;
    }
    uint64_t due = f->first_seq + f->rows;
    if (row.seq != due) {
        return errmsg_set(em, -ERR_CORRUPT, "event %llu is missing here", (unsigned long long)due);
    }
    audit_row_hash(f->head, &row, hash);
    struct uuid made = uuid_make(row.created_at, hash);
    uuid_format(&made, id);
    if (!says_hash(doc, "prev_hash", f->head) || !says_hash(doc, "hash", hash) ||
        !blob_equal(text_of(doc, "id"), blob_str(id))) {
        return errmsg_set(em, -ERR_CORRUPT, "event %llu does not match its hash",
                          (unsigned long long)row.seq);
    }
    memcpy(f->head, hash, sizeof f->head);
    f->rows++;
    return 0;
}

static int check_line(struct file_check *f, struct blob line, struct errmsg *em)
{
    struct buf doc;
    buf_init(&doc, CLIENT_DOC_MAX);
    int rc = json_to_doc(line, &doc, em);
    if (rc == 0) {
        rc = check_event(f, buf_blob(&doc), em);
    }
    buf_fini(&doc);
    return rc;
}

static int verify_file(struct cli *c, const char *path)
{
    struct errmsg em = ERRMSG_INIT;
    struct file_check f = {.rows = 0};
    bool named = strcmp(path, "-") != 0;
    FILE *in = named ? fopen(path, "re") : stdin;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    uint64_t number = 0;
    int rc = 0;
    if (in == NULL) {
        return cli_fail(c, -ERR_NOT_FOUND, NULL, "%s: %s", path, strerror(errno));
    }
    while (rc == 0 && (n = getline(&line, &cap, in)) > 0) {
        number++;
        rc = n > (ssize_t)JSON_TEXT_MAX ? errmsg_set(&em, -ERR_TOO_LARGE, "the line is too long")
                                        : check_line(&f, blob_of(line, (size_t)n), &em);
    }
    free(line);
    if (named) {
        (void)fclose(in);
    }
    if (rc != 0) {
        return cli_fail(c, rc, "keep the file as it is, and compare with `rap audit export` anew",
                        "%s line %llu: %s", path, (unsigned long long)number, em.text);
    }
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 1024);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_bool(&w, &d, "ok", true);
    mp_doc_int(&w, &d, "rows", (int64_t)f.rows);
    mp_doc_int(&w, &d, "first_seq", (int64_t)f.first_seq);
    mp_doc_hex(&w, &d, "head", blob_of(f.head, sizeof f.head));
    mp_doc_end(&w, &d);
    out_doc(c, buf_blob(&doc));
    buf_fini(&doc);
    return CLI_OK;
}

static int show_mirror(void *data, const struct backup_file *f, uint64_t rows, struct errmsg *em)
{
    struct cli *c = data;
    struct util_body b;
    (void)em;
    util_body_begin(&b);
    mp_doc_bool(&b.w, &b.d, "ok", true);
    mp_doc_uuid(&b.w, &b.d, "cluster_id", &f->header.cluster_id);
    mp_doc_int(&b.w, &b.d, "rows", (int64_t)f->header.audit_seq);
    mp_doc_hex(&b.w, &b.d, "head", f->header.audit_head);
    mp_doc_int(&b.w, &b.d, "mirror_rows", (int64_t)rows);
    mp_doc_int(&b.w, &b.d, "epoch", (int64_t)f->header.epoch);
    mp_doc_int(&b.w, &b.d, "index", (int64_t)f->header.index);
    mp_doc_uuid(&b.w, &b.d, "sealed_by", &f->header.node_id);
    mp_doc_hex(&b.w, &b.d, "root_fingerprint", blob_of(f->root_fingerprint, PKI_HASH_BYTES));
    out_doc(c, util_body_end(&b));
    util_body_fini(&b);
    if (cli_get(c, "owner-dir") == NULL) {
        cli_note(c, "signed under the root shown: compare its fingerprint, or give --owner-dir");
    }
    return 0;
}

static int verify_mirror(struct cli *c, const char *dsn)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf root;
    int rc = cli_read_root(c, &root, &em);
    rc = rc != 0
             ? rc
             : c->ops->read_mirror(&(struct cli_mirror_read){.dsn = dsn,
                                                             .cluster_id = cli_get(c, "cluster-id"),
                                                             .root_der = buf_blob(&root),
                                                             .use = show_mirror,
                                                             .data = c},
                                   &em);
    buf_fini(&root);
    return rc == 0
               ? CLI_OK
               : cli_fail_here(c, rc,
                               rc == -ERR_CORRUPT
                                   ? "keep a dump as evidence; `rap mirror rebuild` on a living "
                                     "cluster writes it anew"
                                   : NULL,
                               "mirror", &em);
}

int cli_run_audit_verify(struct cli *c)
{
    struct buf doc;
    if (cli_get(c, "file") != NULL) {
        return verify_file(c, cli_get(c, "file"));
    }
    if (cli_get(c, "from-postgres") != NULL) {
        return verify_mirror(c, cli_get(c, "from-postgres"));
    }
    int rc = util_fetch(c, "/v1/audit/verify", NULL, &doc);
    if (rc == CLI_OK) {
        struct mp_reader r;
        out_doc(c, buf_blob(&doc));
        mp_reader_init(&r, mp_find(buf_blob(&doc), "ok"));
        if (mp_peek(&r) == MP_BOOL && !mp_get_bool(&r)) {
            rc = cli_fail(c, -ERR_CORRUPT,
                          "keep this node's files as evidence and verify on another authority",
                          "the audit chain does not hold");
        }
    }
    buf_fini(&doc);
    return rc;
}

/* One line an event; stops at the first that cannot be written. */
static int write_lines(struct cli *c, struct blob items)
{
    struct mp_reader r;
    struct buf line;
    int rc = CLI_OK;
    buf_init(&line, CLIENT_DOC_MAX);
    mp_reader_init(&r, items);
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0 && rc == CLI_OK; i++) {
        buf_clear(&line);
        if (json_from_doc(mp_skip(&r), 0, &line) != 0 ||
            fprintf(c->out, "%s\n", buf_cstr(&line)) < 0) {
            rc = cli_fail(c, -ERR_IO, "check where the output goes", "the export is not complete");
        }
    }
    buf_fini(&line);
    return rc;
}

int cli_run_audit_export(struct cli *c)
{
    struct buf path, doc;
    char cursor[256] = "";
    int rc;
    buf_init(&path, CLI_PATH_MAX);
    buf_init(&doc, CLIENT_DOC_MAX);
    do {
        char before[256];
        (void)snprintf(before, sizeof before, "%s", cursor);
        buf_clear(&path);
        buf_add_str(&path, "/v1/audit?limit=500");
        client_query(&path, "event_type", cli_get(c, "event-type"));
        client_query(&path, "cursor", cursor[0] == '\0' ? NULL : cursor);
        rc = client_get(c, &path, &doc);
        rc = rc != CLI_OK ? rc : write_lines(c, mp_find(buf_blob(&doc), "items"));
        mp_find_str(buf_blob(&doc), "next_cursor", cursor, sizeof cursor);
        if (rc == CLI_OK && cursor[0] != '\0' && strcmp(before, cursor) == 0) {
            rc = cli_fail(c, -ERR_MALFORMED, NULL, "the daemon's list does not make sense");
        }
    } while (rc == CLI_OK && cursor[0] != '\0');
    buf_fini(&path);
    buf_fini(&doc);
    return rc;
}
