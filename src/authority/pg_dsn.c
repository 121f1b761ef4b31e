/* What may be in a connection string that every authority holds and the log keeps for ever. */
#include "authority/pg_hosts.h"
#include "authority/pg_link.h"
#include "wire/limits.h"

#include <libpq-fe.h>

/* A list of what is allowed, not of what is not: libpq grows, and some of its parameters hold secrets
 * (password, sslpassword), read others' files for them (service), or change what a commit means
 * (options). */
static const char *const allowed[] = {
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "passfile",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "channel_binding",
    "require_auth",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "target_session_attrs",
    "load_balance_hosts",
};

static bool is_allowed(const char *keyword)
{
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
        if (strcmp(allowed[i], keyword) == 0) {
            return true;
        }
    }
    return false;
}

static const char *value_of(const PQconninfoOption *list, const char *keyword)
{
    for (; list->keyword != NULL; list++) {
        if (strcmp(list->keyword, keyword) == 0) {
            return list->val;
        }
    }
    return NULL;
}

/* libpq's quoting, always. */
static void put(struct buf *out, const char *keyword, const char *value)
{
    buf_addf(out, "%s%s='", out->len == 0 ? "" : " ", keyword);
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\') {
            buf_add(out, "\\", 1);
        }
        buf_add(out, value, 1);
    }
    buf_add(out, "'", 1);
}

static bool is_local(const char *host, size_t len)
{
    char text[256];
    (void)snprintf(text, sizeof text, "%.*s", (int)(len < 255 ? len : 255), host);
    return text[0] == '/' || text[0] == '@' || text[0] == '\0' || strcmp(text, "localhost") == 0 ||
           strcmp(text, "::1") == 0 || strncmp(text, "127.", 4) == 0;
}

static bool all_local(const char *hosts)
{
    for (;;) {
        size_t len = strcspn(hosts, ",");
        if (!is_local(hosts, len)) {
            return false;
        }
        if (hosts[len] == '\0') {
            return true;
        }
        hosts += len + 1;
    }
}

static int check_secrets(const PQconninfoOption *list, struct errmsg *em)
{
    for (; list->keyword != NULL; list++) {
        if (list->val == NULL || is_allowed(list->keyword)) {
            continue;
        }
        if (strstr(list->keyword, "password") != NULL) {
            return errmsg_set(em, -ERR_DENIED,
                              "a connection string with %s would put a secret into the log: use "
                              "passfile=FILE (mode 0600, on each authority), sslcert=/sslkey=, or "
                              "peer authentication on a socket",
                              list->keyword);
        }
        return errmsg_set(em, -ERR_INVALID, "%s= is not allowed in a mirror's connection string",
                          list->keyword);
    }
    return 0;
}

static int check_transport(const PQconninfoOption *list, bool allow_insecure, struct errmsg *em)
{
    const char *host = value_of(list, "host");
    const char *hostaddr = value_of(list, "hostaddr");
    const char *sslmode = value_of(list, "sslmode");
    if (host == NULL && hostaddr == NULL) {
        return errmsg_set(em, -ERR_INVALID,
                          "say where PostgreSQL is: host=NAME, or host=/DIRECTORY for its socket");
    }
    if (value_of(list, "dbname") == NULL || value_of(list, "user") == NULL) {
        return errmsg_set(em, -ERR_INVALID,
                          "dbname= and user= are required: each authority must "
                          "reach the same database as the same role");
    }
    bool local = (host == NULL || all_local(host)) && (hostaddr == NULL || all_local(hostaddr));
    bool verified = sslmode != NULL && strcmp(sslmode, "verify-full") == 0;
    if (!local && !verified && !allow_insecure) {
        return errmsg_set(em, -ERR_DENIED,
                          "the server is on another host: add sslmode=verify-full (and "
                          "sslrootcert=FILE); --allow-insecure to do without");
    }
    return 0;
}

static int split_hosts(const PQconninfoOption *list, struct pg_hosts *ret, struct errmsg *em)
{
    return pg_hosts_split(value_of(list, "host"), value_of(list, "hostaddr"),
                          value_of(list, "port"), ret, em);
}

/* To be freed by PQconninfoFree; NULL with the reason in em. */
static PQconninfoOption *parse(const char *dsn, struct errmsg *em)
{
    char *why = NULL;
    PQconninfoOption *list = PQconninfoParse(dsn, &why);
    if (list == NULL) {
        (void)errmsg_set(em, -ERR_INVALID, "connection string: %s", why == NULL ? "?" : why);
        em->text[strcspn(em->text, "\n")] = '\0';
        PQfreemem(why);
    }
    return list;
}

int pg_dsn_hosts(const char *dsn, struct pg_hosts *ret, struct errmsg *em)
{
    PQconninfoOption *list = parse(dsn, em);
    int rc = list == NULL ? -ERR_INVALID : split_hosts(list, ret, em);
    PQconninfoFree(list);
    return rc;
}

int pg_dsn_check(const char *dsn, bool allow_insecure, struct buf *out, struct errmsg *em)
{
    struct pg_hosts hosts;
    PQconninfoOption *list = parse(dsn, em);
    if (list == NULL) {
        return -ERR_INVALID;
    }
    int rc = check_secrets(list, em);
    if (rc == 0) {
        rc = check_transport(list, allow_insecure, em);
    }
    if (rc == 0) {
        rc = split_hosts(list, &hosts, em);
    }
    if (rc == 0) {
        for (const PQconninfoOption *o = list; o->keyword != NULL; o++) {
            if (o->val != NULL) {
                put(out, o->keyword, o->val);
            }
        }
        if (out->err != 0 || out->len > MIRROR_DSN_MAX) {
            rc = errmsg_set(em, -ERR_TOO_LARGE, "a connection string has at most %d bytes",
                            MIRROR_DSN_MAX);
        }
    }
    PQconninfoFree(list);
    return rc;
}
