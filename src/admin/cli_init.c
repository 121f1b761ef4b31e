/* init, agent run, version: what works on this host itself. */
#include "admin/cli_util.h"
#include "admin/listen.h"

#include "base/log.h"
#include "wire/limits.h"

int cli_run_version(struct cli *c)
{
    if (c->json) {
        fprintf(c->out, "{\"version\": \"%s\"}\n", RAP_VERSION);
    } else {
        fprintf(c->out, "rap %s\n", RAP_VERSION);
    }
    return CLI_OK;
}

static void show_init(struct cli *c, const struct cli_init_result *r)
{
    const char *dir = c->data_dir;
    char *next[] = {xasprintf("rap agent run --data-dir %s", dir),
                    xasprintf("rap status --check --data-dir %s", dir),
                    xasprintf("rap token create --print-join --data-dir %s", dir)};
    struct util_body b;
    util_body_begin(&b);
    mp_doc_uuid(&b.w, &b.d, "cluster_id", &r->cluster_id);
    mp_doc_uuid(&b.w, &b.d, "node_id", &r->node_id);
    mp_doc_str(&b.w, &b.d, "root_fingerprint", r->root_fingerprint);
    mp_doc_str(&b.w, &b.d, "owner_dir", r->owner_dir);
    if (c->json) {
        mp_doc_key(&b.w, &b.d, "next");
        mp_put_array(&b.w, ARRAY_SIZE(next));
        for (size_t i = 0; i < ARRAY_SIZE(next); i++) {
            mp_put_str(&b.w, next[i]);
        }
    }
    out_doc(c, util_body_end(&b));
    util_body_fini(&b);
    for (size_t i = 0; i < ARRAY_SIZE(next); i++) {
        if (!c->json) {
            fprintf(c->out, "%s%s\n", i == 0 ? "\nNext:\n  " : "  ", next[i]);
        }
        free(next[i]);
    }
    cli_note(c, "move %s offline: whoever has the root key owns the cluster", r->owner_dir);
}

int cli_run_init(struct cli *c)
{
    struct cli_init_result r = {0};
    struct errmsg em = ERRMSG_INIT;
    struct buf passphrase;
    int rc = cli_passphrase(c, false, &passphrase);
    if (rc != CLI_OK) {
        return rc;
    }
    struct cli_init o = {
        .data_dir = c->data_dir,
        .cluster = cli_get(c, "cluster"),
        .name = cli_get(c, "name"),
        .listen = cli_get(c, "listen"),
        .advertise = cli_get(c, "advertise"),
        .owner_dir = cli_get(c, "owner-dir"),
        .passphrase = passphrase.len == 0 ? NULL : buf_cstr(&passphrase),
    };
    int err = c->ops->init(&o, &r, &em);
    buf_wipe(&passphrase);
    if (err != 0) {
        return cli_fail_here(c, err,
                             err == -ERR_EXISTS ? "use another --data-dir, or `rap agent run` to "
                                                  "start what is there"
                                                : NULL,
                             "init", &em);
    }
    show_init(c, &r);
    return CLI_OK;
}

static int log_options(struct cli *c)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    const char *format = cli_get(c, "log-format");
    const char *level = cli_get(c, "log-level");
    if (format != NULL && strcmp(format, "json") != 0 && strcmp(format, "logfmt") != 0) {
        return cli_usage(c, NULL, "--log-format %.32s: logfmt or json", format);
    }
    size_t i = LOG_INFO;
    for (i = level == NULL ? LOG_INFO : 0; level != NULL && i < ARRAY_SIZE(levels); i++) {
        if (strcmp(level, levels[i]) == 0) {
            break;
        }
    }
    if (i == ARRAY_SIZE(levels)) {
        return cli_usage(c, NULL, "--log-level %.32s: error, warn, info or debug", level);
    }
    log_set_format(format != NULL && strcmp(format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
    log_set_level((enum log_level)i);
    return CLI_OK;
}

/* A duration option as milliseconds of 32 bits; 0 when absent. */
static int interval(struct cli *c, const char *name, uint32_t *ret)
{
    int64_t ms = 0;
    int rc = cli_get_duration(c, name, &ms);
    if (rc == CLI_OK && cli_get(c, name) != NULL && (ms < 1 || ms > 3600000)) {
        return cli_usage(c, NULL, "--%s: 1ms to 1h", name);
    }
    *ret = (uint32_t)ms;
    return rc;
}

int cli_run_agent(struct cli *c)
{
    struct cli_run o = {.data_dir = c->data_dir};
    struct errmsg em = ERRMSG_INIT;
    int rc = log_options(c);
    rc = rc != CLI_OK ? rc : interval(c, "heartbeat", &o.heartbeat_ms);
    rc = rc != CLI_OK ? rc : interval(c, "election", &o.election_ms);
    rc = rc != CLI_OK ? rc : interval(c, "agent-heartbeat", &o.agent_heartbeat_ms);
    rc = rc != CLI_OK ? rc : interval(c, "mirror-check", &o.mirror_check_ms);
    int64_t rate = 0;
    rc = rc != CLI_OK ? rc : cli_get_count(c, "enroll-rate", &rate);
    if (rc == CLI_OK && rate > ENROLL_RATE_MAX) {
        return cli_usage(c, NULL, "--enroll-rate: 1 to %d", ENROLL_RATE_MAX);
    }
    o.enroll_per_second = (uint32_t)rate;
    o.metrics = cli_get(c, "metrics");
    struct addr at;
    if (rc == CLI_OK && o.metrics != NULL && listen_parse_loopback(o.metrics, &at, &em) != 0) {
        return cli_usage(c, "for example --metrics 127.0.0.1:9464", "--metrics: %s", em.text);
    }
    o.listen = cli_get(c, "listen");
    o.advertise = cli_get(c, "advertise");
    o.overlay = cli_get(c, "overlay") != NULL;
    o.synthetic = cli_get(c, "synthetic") != NULL;
    if (rc != CLI_OK) {
        return rc;
    }
    int err = c->ops->run(&o, &em);
    if (err == 0) {
        return CLI_OK;
    }
    return cli_fail_here(c, err,
                         err == -ERR_NOT_FOUND
                             ? "make a cluster with `rap init`, or join one with `rap join`"
                             : NULL,
                         "agent", &em);
}
