/* The seal (decision 0013): an authority's signature over a position and over what the rows in PostgreSQL
 * add up to there, in the transaction that moved them. A leader goes on from sums that it finds only
 * under a seal that holds; so one signed by it never covers a row that somebody else put in. */
#include "authority/mirror_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "pki/backup.h"

static const char sql_put[] = "INSERT INTO rap.mirror_seals (\"cluster_id\", \"seal\")"
                              " VALUES ($1, $2::bytea)"
                              " ON CONFLICT (\"cluster_id\") DO UPDATE SET \"seal\" ="
                              " EXCLUDED.\"seal\"";

int mirror_seal_send(struct mirror *m, const struct fsm_position *to, unsigned level,
                     struct errmsg *em)
{
    uint8_t sums[PKI_HASH_BYTES];
    struct buf seal;
    mirror_sums_send(&m->sums, m->link, MIRROR_TAG_ROWS, m->cluster_id);
    mirror_sums_hash(&m->sums, sums);
    struct backup_header h = {
        .version = BACKUP_VERSION,
        .epoch = to->epoch,
        .term = to->term,
        .index = to->index,
        .level = level,
        .time_ms = to->time_ms,
        .digest = blob_of(to->digest, sizeof to->digest),
        .audit_seq = to->audit_seq,
        .audit_head = blob_of(to->audit_head, sizeof to->audit_head),
        .packed_sha256 = blob_of(sums, sizeof sums),
        .rap_version = blob_str(RAP_VERSION),
    };
    CHECK(uuid_parse(m->cluster_id, &h.cluster_id) == 0);
    buf_init(&seal, SIGNED_BACKUP_MAX);
    int rc = m->env.seal(m->env.data, &h, &seal);
    if (rc == 0) {
        char *hex = xmalloc(2 * seal.len + 3);
        hex[0] = '\\';
        hex[1] = 'x';
        hex_encode(seal.data, seal.len, hex + 2);
        const char *params[] = {m->cluster_id, hex};
        pg_query(m->link, MIRROR_TAG_ROWS, sql_put, 2, params);
        free(hex);
    } else {
        (void)errmsg_set(em, rc, "the position cannot be signed: %s", err_text(rc));
    }
    buf_fini(&seal);
    return rc;
}

/* Any root this cluster ever had: the seal of a leader that is gone may be older than a rotation. */
static bool is_our_root(struct mirror *m, struct blob der)
{
    struct db_stmt *st = db_prepare(fsm_db(m->fsm),
                                    "SELECT 1 FROM cluster_trust_roots WHERE certificate = ?");
    db_bind_blob(st, der);
    bool ours = db_step(st) == 1;
    db_done(st);
    return ours;
}

static const char *why_not(struct mirror *m, struct blob bytes, struct backup_file *f)
{
    uint8_t sums[PKI_HASH_BYTES];
    char id[UUID_TEXT_MAX];
    if (seal_open(bytes, blob_of(NULL, 0), f, NULL) != 0 || !is_our_root(m, f->root_der)) {
        return "it is not signed by an authority of this cluster";
    }
    uuid_format(&f->header.cluster_id, id);
    if (strcmp(id, m->cluster_id) != 0) {
        return "it is another cluster's";
    }
    if (f->header.index != m->found.index) {
        return NULL; /* who wrote last did not seal */
    }
    mirror_sums_hash(&m->sums, sums);
    if (m->sums_damaged || !blob_equal(f->header.packed_sha256, blob_of(sums, sizeof sums))) {
        return "rap.mirror_sums is not what was signed";
    }
    return NULL;
}

void mirror_seal_check(struct mirror *m)
{
    struct buf bytes;
    struct backup_file f = {.header.index = 0};
    size_t len = m->seal.len < 2 ? 0 : (m->seal.len - 2) / 2;
    m->found.sealed = m->found.forged = false;
    if (len == 0) {
        return; /* a mirror of before, or an empty one: written as a whole, it gets one */
    }
    buf_init(&bytes, SIGNED_BACKUP_MAX);
    uint8_t *to = buf_grow(&bytes, len);
    bool reads = to != NULL && hex_decode(buf_cstr(&m->seal) + 2, to, len) == 0;
    const char *bad = reads ? why_not(m, buf_blob(&bytes), &f) : "it does not read";
    if (bad != NULL) {
        m->found.forged = true;
        (void)snprintf(m->alarm_detail, sizeof m->alarm_detail,
                       "the seal at index %llu is not true: %s", (unsigned long long)m->found.index,
                       bad);
    } else {
        m->found.sealed = f.header.index == m->found.index;
    }
    buf_fini(&bytes);
}

const char *mirror_followed(const struct mirror *m)
{
    return m->core.state == MIRROR_FOLLOWING ? m->dsn : NULL;
}

int mirror_checked(struct mirror *m, int rc, struct blob root_der, const char *detail)
{
    if (rc == 0 && !is_our_root(m, root_der)) {
        rc = -ERR_BAD_SIGNATURE;
        detail = "the seal stands on a root that is not this cluster's";
    }
    switch (-rc) {
        case 0:
            m->verified_at_ms = clock_wall_ms();
            break;
        case ERR_CORRUPT:
        case ERR_MALFORMED:
        case ERR_BAD_SIGNATURE:
        case ERR_BAD_CERT:
        case ERR_NOT_AUTHORITY:
            (void)snprintf(m->alarm_detail, sizeof m->alarm_detail, "%s", detail);
            mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_FORGED});
            break;
        default: /* it could not be read now: no word against it */
            log_info(LOG_AUTHORITY, "mirror not checked", "error=%s next=\"tried again\"",
                     err_slug(rc));
            break;
    }
    return rc;
}
