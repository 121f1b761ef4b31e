#include "admin/cli_util.h"

#include "admin/json.h"

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

int cli_run_audit_verify(struct cli *c)
{
    struct buf doc;
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
