/* `rap mirror migrate`: the schema in PostgreSQL, by an owner's command on an administrator's
 * connection, never by a daemon (SPEC PG-04). Blocks; the command line calls it. */
#include "authority/mirror.h"

#include "base/db.h"

#include <libpq-fe.h>

extern const struct db_migration migrations_postgres[];

#define MIN_WRITER_MARK "-- min_writer: "

struct session {
    PGconn *conn;
    struct errmsg *em;
};

static int fail(struct session *s, const char *what, const char *text)
{
    int rc = errmsg_set(s->em, -ERR_IO, "%s: %s", what, text);
    if (s->em != NULL) {
        s->em->text[strcspn(s->em->text, "\n")] = '\0';
    }
    return rc;
}

/* The first value of the answer as a number, when ret is given. */
static int run(struct session *s, const char *what, const char *sql, const char *param,
               int64_t *ret)
{
    /* Without parameters several statements may stand in one text. */
    PGresult *r = param == NULL ? PQexec(s->conn, sql)
                                : PQexecParams(s->conn, sql, 1, NULL, &param, NULL, NULL, 0);
    int rc = 0;
    ExecStatusType status = PQresultStatus(r);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        const char *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
        rc = fail(s, what, text != NULL ? text : PQerrorMessage(s->conn));
    } else if (ret != NULL) {
        *ret = PQntuples(r) > 0 && !PQgetisnull(r, 0, 0) ? strtoll(PQgetvalue(r, 0, 0), NULL, 10)
                                                         : 0;
    }
    PQclear(r);
    return rc;
}

static int version_now(struct session *s, int64_t *ret)
{
    int64_t there = 0;
    int rc = run(s, "schema version",
                 "SELECT (to_regclass('rap.schema_migrations') IS NOT NULL)::int", NULL, &there);
    *ret = 0;
    if (rc == 0 && there == 1) {
        rc = run(s, "schema version", "SELECT max(version) FROM rap.schema_migrations", NULL, ret);
    }
    return rc;
}

static int run_migration(struct session *s, int number, int64_t *min_writer)
{
    const struct db_migration *m = &migrations_postgres[number - 1];
    const char *mark = strstr(m->sql, MIN_WRITER_MARK);
    if (mark != NULL) {
        *min_writer = strtoll(mark + strlen(MIN_WRITER_MARK), NULL, 10);
    }
    int rc = run(s, m->name, m->sql, NULL, NULL);
    if (rc == 0) {
        char sql[160];
        (void)snprintf(sql, sizeof sql,
                       "INSERT INTO rap.schema_migrations (version, min_writer, name)"
                       " VALUES (%d, %lld, $1)",
                       number, (long long)*min_writer);
        rc = run(s, m->name, sql, m->name, NULL);
    }
    return rc;
}

static int migrate(struct session *s, struct mirror_migrated *ret)
{
    int64_t version = 0;
    int64_t min_writer = 0;
    int known = 0;
    while (migrations_postgres[known].name != NULL) {
        known++;
    }
    int rc = version_now(s, &version);
    if (rc == 0 && version > known) {
        rc = errmsg_set(s->em, -ERR_SCHEMA,
                        "the database has schema %lld, this version knows %d: use the newer "
                        "version of rap that made it",
                        (long long)version, known);
    }
    if (rc == 0 && version > 0) {
        rc = run(s, "schema version", "SELECT max(min_writer) FROM rap.schema_migrations", NULL,
                 &min_writer);
    }
    ret->from = ret->to = (int)version;
    for (int i = (int)version + 1; rc == 0 && i <= known; i++) {
        rc = run_migration(s, i, &min_writer);
        ret->to = i;
    }
    return rc;
}

/* A role that can log in and nothing else; how it proves who it is, is pg_hba.conf's business. */
static int make_role(struct session *s, const char *role, struct mirror_migrated *ret)
{
    int64_t there = 0;
    int rc = run(s, "role", "SELECT count(*) FROM pg_roles WHERE rolname = $1", role, &there);
    if (rc == 0 && there == 0) {
        char *quoted = PQescapeIdentifier(s->conn, role, strlen(role));
        if (quoted == NULL) {
            return fail(s, "role", PQerrorMessage(s->conn));
        }
        char *sql = xasprintf("CREATE ROLE %s LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT",
                              quoted);
        rc = run(s, "role", sql, NULL, NULL);
        ret->role_made = rc == 0;
        free(sql);
        PQfreemem(quoted);
    }
    int64_t power = 0;
    if (rc == 0) {
        rc = run(s, "role",
                 "SELECT (r.rolsuper OR pg_has_role(r.oid, n.nspowner, 'MEMBER'))::int"
                 " FROM pg_roles r, pg_namespace n WHERE r.rolname = $1 AND n.nspname = 'rap'",
                 role, &power);
    }
    if (rc == 0 && power != 0) {
        rc = errmsg_set(s->em, -ERR_DENIED,
                        "role %s may change the schema: the authorities need a role of their own "
                        "(--role NAME)",
                        role);
    }
    return rc != 0 ? rc : run(s, "rights", "SELECT rap.grant_writer($1)", role, NULL);
}

static int bind_role(struct session *s, const struct mirror_migrate *o)
{
    const char *params[] = {o->role, o->cluster_id};
    PGresult *r = PQexecParams(s->conn, "SELECT rap.bind_writer($1, $2)", 2, NULL, params, NULL,
                               NULL, 0);
    int rc = PQresultStatus(r) == PGRES_TUPLES_OK ? 0 : fail(s, "bind", PQerrorMessage(s->conn));
    PQclear(r);
    return rc;
}

int mirror_migrate(const struct mirror_migrate *o, struct mirror_migrated *ret, struct errmsg *em)
{
    const char *keys[] = {"dbname", "application_name", "client_encoding", "connect_timeout", NULL};
    const char *values[] = {o->dsn, "rap-migrate", "UTF8", "10", NULL};
    struct session s = {.conn = PQconnectdbParams(keys, values, 1), .em = em};
    *ret = (struct mirror_migrated){.from = 0};
    int rc = 0;
    if (s.conn == NULL || PQstatus(s.conn) != CONNECTION_OK) {
        rc = fail(&s, "connect", s.conn == NULL ? "out of memory" : PQerrorMessage(s.conn));
        rc = rc == 0 ? 0 : -ERR_UNREACHABLE;
        goto out;
    }
    rc = run(&s, "begin",
             "SET client_min_messages = warning; BEGIN;"
             " SELECT pg_advisory_xact_lock(hashtext('rap mirror migrate'))",
             NULL, NULL);
    if (rc == 0) {
        rc = migrate(&s, ret);
    }
    if (rc == 0) {
        rc = make_role(&s, o->role, ret);
    }
    if (rc == 0 && o->cluster_id != NULL) {
        rc = bind_role(&s, o);
    }
    if (rc == 0) {
        rc = run(&s, "commit", o->dry_run ? "ROLLBACK" : "COMMIT", NULL, NULL);
    }
out:
    PQfinish(s.conn);
    return rc;
}
