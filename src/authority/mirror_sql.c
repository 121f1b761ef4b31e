/* The statements around the rows: checks, claim and fence. Numbers go over as text. */
#include "authority/mirror_impl.h"

/* The newest version of migrations/postgres: a schema with a higher min_writer is not for us. */
extern const struct db_migration migrations_postgres[];

static int schema_version(void)
{
    int n = 0;
    while (migrations_postgres[n].name != NULL) {
        n++;
    }
    return n;
}

struct number {
    char text[24];
};

static const char *u64(struct number *n, uint64_t v)
{
    (void)snprintf(n->text, sizeof n->text, "%llu", (unsigned long long)v);
    return n->text;
}

static const char *i64(struct number *n, int64_t v)
{
    (void)snprintf(n->text, sizeof n->text, "%lld", (long long)v);
    return n->text;
}

/* A frozen client must not hold the fence for ever, and a commit that was acknowledged must be on
 * disk; what a server demands beyond that (synchronous standbys) stays. Every row is found by its
 * primary key: without statistics the planner would sort a table for each page of it. */
static const char sql_session[] =
    "SELECT set_config('idle_in_transaction_session_timeout', '15s', false),"
    " set_config('lock_timeout', '5s', false), set_config('statement_timeout', '60s', false),"
    " set_config('search_path', 'pg_catalog', false),"
    " set_config('bytea_output', 'hex', false), set_config('enable_sort', 'off', false),"
    " set_config('jit', 'off', false),"
    " set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    "   WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

static const char sql_version[] = "SELECT max(version), max(min_writer) FROM rap.schema_migrations";

static const char sql_lacks[] =
    "SELECT w FROM unnest($1::text[]) AS w WHERE w NOT IN (SELECT c.relname || '.' || a.attname"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'rap' AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped)"
    " ORDER BY w LIMIT 1";

/* Whoever had the mirror before us and hangs in a transaction holds the fence. */
static const char sql_end_others[] =
    "SELECT pg_terminate_backend(p.pid) FROM pg_stat_activity p"
    " WHERE p.application_name = $1 AND p.usename = current_user"
    " AND p.datname = current_database() AND p.pid <> pg_backend_pid()"
    " AND NOT EXISTS (SELECT FROM rap.authority_applied WHERE \"cluster_id\" = $2"
    "   AND (\"writer_epoch\", \"writer_term\") > ($3::bigint, $4::bigint))";

static const char sql_first[] = "INSERT INTO rap.authority_applied (\"cluster_id\") VALUES ($1)"
                                " ON CONFLICT DO NOTHING";

static const char sql_claim[] =
    "UPDATE rap.authority_applied SET \"writer_epoch\" = $2::bigint, \"writer_term\" = $3::bigint,"
    " \"writer_node_id\" = $4, \"claim\" = \"claim\" + 1 WHERE \"cluster_id\" = $1"
    " AND (\"writer_epoch\", \"writer_term\") <= ($2::bigint, $3::bigint)"
    " RETURNING \"claim\", \"index\", \"digest\", \"rebuilds\"";

static const char sql_holder[] =
    "SELECT \"writer_node_id\", \"writer_epoch\", \"writer_term\", \"index\", \"digest\","
    " \"rebuilds\" FROM rap.authority_applied WHERE \"cluster_id\" = $1";

/* Division by zero, and with it the end of the transaction, when the row is not as we left it. Without
 * "index" = $11 the groups after a failed one would go through. */
static const char sql_fence[] =
    "WITH f AS (UPDATE rap.authority_applied SET \"epoch\" = $2::bigint, \"term\" = $3::bigint,"
    " \"index\" = $4::bigint, \"time_ms\" = $5::bigint, \"level\" = $6::bigint, \"digest\" = $7,"
    " \"rebuilds\" = $12::bigint, \"written_at\" = clock_timestamp()"
    " WHERE \"cluster_id\" = $1 AND \"claim\" = $8::bigint"
    " AND (\"writer_epoch\", \"writer_term\") <= ($9::bigint, $10::bigint)"
    " AND \"index\" = $11::bigint RETURNING 1) SELECT 1 / count(*) FROM f";

static const char sql_seal[] = "SELECT \"seal\" FROM rap.mirror_seals WHERE \"cluster_id\" = $1";

void mirror_sql_schema(struct mirror *m)
{
    struct buf list;
    buf_init(&list, 1u << 20);
    buf_add(&list, "{", 1);
    for (size_t i = 0; i < m->tables.count; i++) {
        const struct mirror_table *t = &m->tables.list[i];
        for (size_t k = 0; k < t->count; k++) {
            buf_addf(&list, "%s\"%s.%s\"", list.len == 1 ? "" : ",", t->name, t->columns[k].name);
        }
    }
    buf_add_str(&list, ",\"mirror_sums.sum\",\"mirror_seals.seal\"");
    buf_add(&list, "}", 1);
    const char *params[] = {buf_cstr(&list)};
    pg_query(m->link, MIRROR_TAG_SETUP, sql_session, 0, NULL);
    pg_query(m->link, MIRROR_TAG_SCHEMA, sql_version, 0, NULL);
    pg_query(m->link, MIRROR_TAG_LACKS, sql_lacks, 1, params);
    pg_sync(m->link, MIRROR_TAG_SCHEMA);
    buf_fini(&list);
}

void mirror_sql_claim(struct mirror *m)
{
    struct number epoch = {.text = ""};
    struct number term = {.text = ""};
    char name[MIRROR_NAME_MAX];
    (void)snprintf(name, sizeof name, "rap-mirror-%s", m->cluster_id);
    const char *others[] = {name, m->cluster_id, u64(&epoch, m->core.epoch),
                            u64(&term, m->core.term)};
    const char *claim[] = {m->cluster_id, epoch.text, term.text, m->node_id_text};
    mirror_tables_prepare(&m->tables, m->link, MIRROR_TAG_SETUP);
    pg_prepare(m->link, MIRROR_TAG_SETUP, "fence", sql_fence);
    pg_query(m->link, MIRROR_TAG_SETUP, sql_end_others, 4, others);
    pg_query(m->link, MIRROR_TAG_SETUP, sql_first, 1, claim);
    pg_query(m->link, MIRROR_TAG_CLAIM, sql_claim, 4, claim);
    pg_query(m->link, MIRROR_TAG_HOLDER, sql_holder, 1, claim);
    pg_query(m->link, MIRROR_TAG_SEAL, sql_seal, 1, claim);
    pg_query(m->link, MIRROR_TAG_SUMS, MIRROR_SUMS_SELECT, 1, claim);
    pg_sync(m->link, MIRROR_TAG_READY);
}

void mirror_sql_look(struct mirror *m)
{
    const char *params[] = {m->cluster_id};
    pg_query(m->link, MIRROR_TAG_HOLDER, sql_holder, 1, params);
    pg_sync(m->link, MIRROR_TAG_READY);
}

void mirror_sql_fence(struct mirror *m, const struct fsm_position *to, unsigned level,
                      uint64_t prev, uint64_t rebuilds)
{
    struct number n[9] = {{.text = ""}};
    char digest[2 * PKI_HASH_BYTES + 1];
    hex_encode(to->digest, sizeof to->digest, digest);
    const char *params[] = {
        m->cluster_id,
        u64(&n[0], to->epoch),
        u64(&n[1], to->term),
        u64(&n[2], to->index),
        i64(&n[3], to->time_ms),
        u64(&n[4], level),
        digest,
        u64(&n[5], m->claim),
        u64(&n[6], m->core.epoch),
        u64(&n[7], m->core.term),
        u64(&n[8], prev),
        NULL,
    };
    struct number r = {.text = ""};
    params[11] = u64(&r, rebuilds);
    pg_run(m->link, MIRROR_TAG_FENCE, "fence", 12, params);
}

bool mirror_sql_unfit_version(const struct pg_answer *a, char *out, size_t size)
{
    long long version = a->rows == 1 ? pg_int(a, 0, 0) : 0;
    long long writer = a->rows == 1 ? pg_int(a, 0, 1) : 0;
    if (version == 0) {
        (void)snprintf(out, size, "the database has no schema yet: run `rap mirror migrate`");
        return true;
    }
    if (writer > schema_version()) {
        (void)snprintf(out, size,
                       "the database's schema %lld is for newer versions than this one, which "
                       "knows %d: install what ran `rap mirror migrate` on every authority",
                       version, schema_version());
        return true;
    }
    return false;
}

const char *mirror_sql_advice(const char *sqlstate)
{
    static const struct {
        const char *sqlstate;
        const char *advice;
    } list[] = {
        {"3F000", "run `rap mirror migrate` with an administrator's connection"},
        {"42P01", "run `rap mirror migrate` with an administrator's connection"},
        {"42501", "give this role its rights: `rap mirror migrate --role NAME`"},
        {"22012", "another writer took over: the position is read again"},
        {"RAP01", "another writer took over: the position is read again"},
        {"25006", "this server only reads: name the primary, or add "
                  "target_session_attrs=read-write"},
        {"28P01", "check passfile= and the role's password"},
        {"28000", "check pg_hba.conf for this role and host"},
        {"53100", "PostgreSQL's disk is full"},
        {"53300", "PostgreSQL has no connection left"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
        if (strcmp(list[i].sqlstate, sqlstate) == 0) {
            return list[i].advice;
        }
    }
    return NULL;
}
