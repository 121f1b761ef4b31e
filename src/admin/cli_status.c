#include "admin/cli_util.h"

#include "admin/api.h"

int cli_run_status(struct cli *c)
{
    struct buf doc;
    bool check = cli_get(c, "check") != NULL;
    int rc = util_fetch(c, "/v1/status", NULL, &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
        if (check && !api_status_ready(buf_blob(&doc))) {
            cli_note(c, "not ready: `rap doctor` says why and what to do");
            rc = CLI_DEGRADED;
        }
    }
    buf_fini(&doc);
    return rc;
}

int cli_run_sessions(struct cli *c)
{
    static const struct out_col cols[] = {
        {"NODE", "node_id", OUT_TEXT},      {"PATH", "path", OUT_TEXT},
        {"ADDRESS", "address", OUT_TEXT},   {"AUTHORITY", "authority", OUT_TEXT},
        {"DIALLED", "dialled", OUT_TEXT},   {"RTT_US", "rtt_us", OUT_TEXT},
        {"IN", "bytes_in", OUT_TEXT},       {"OUT", "bytes_out", OUT_TEXT},
        {"LOST", "packets_lost", OUT_TEXT}, {"UP", "up_since_at", OUT_AGE},
    };
    struct out_list list = {"/v1/fabric/sessions", cols, ARRAY_SIZE(cols), true, "no sessions"};
    return out_list(c, &list);
}
