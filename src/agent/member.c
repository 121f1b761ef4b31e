/* The membership directory. What makes a data directory a member is one row, `cluster_id`, written
 * with all other settings in one transaction after the key is safe on disk; what makes it complete
 * is the node id, written after node.crt is. Everything before either point counts for nothing. */
#include "agent/member.h"

#include "base/addr.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"
#include "wire/node_msg.h"

#include <errno.h>
#include <unistd.h>

extern const struct db_migration migrations_node[];

void (*member_fault)(int step);

static void fault(int step)
{
    if (member_fault != NULL) {
        member_fault(step);
    }
}

static struct member *member_alloc(const char *data_dir)
{
    struct member *m = xcalloc(1, sizeof *m);
    m->data_dir = xstrdup(data_dir);
    m->dir = path_join(data_dir, "member");
    m->lock_fd = -1;
    return m;
}

void member_free(struct member *m)
{
    if (m == NULL) {
        return;
    }
    db_close(m->db);
    if (m->lock_fd >= 0) {
        (void)close(m->lock_fd);
    }
    explicit_bzero(m->reset_secret, sizeof m->reset_secret);
    free(m->dir);
    free(m->data_dir);
    free(m);
}

char *member_path(const struct member *m, const char *name)
{
    return path_join(m->dir, name);
}

static bool member_has(const struct member *m, const char *name)
{
    char *path = member_path(m, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

static int member_lock(struct member *m, struct errmsg *em)
{
    char *path = path_join(m->data_dir, "lock");
    int rc = file_lock(path, &m->lock_fd, em);
    if (rc == -ERR_BUSY) {
        rc = errmsg_set(em, rc, "data directory %s is in use by another rap process", m->data_dir);
    }
    free(path);
    return rc;
}

static int db_error(struct member *m, int rc, struct errmsg *em)
{
    return rc == 0 ? 0 : errmsg_set(em, rc, "%s/node.db: %s", m->dir, db_errmsg(m->db));
}

static int open_db(struct member *m, struct errmsg *em)
{
    char *path = member_path(m, "node.db");
    int rc = db_open(path, DB_DURABLE, &m->db, em);
    if (rc == 0) {
        rc = db_migrate(m->db, migrations_node, em);
    }
    if (rc != 0) {
        errmsg_wrap(em, rc, "%s", path);
    }
    free(path);
    return rc;
}

/* --- settings --- */

static int put_str(struct member *m, const char *key, const char *value, struct errmsg *em)
{
    return member_put(m, key, blob_str(value), em);
}

static int get_fixed(struct member *m, const char *key, void *out, size_t len)
{
    struct buf b;
    buf_init(&b, len);
    int rc = member_get(m, key, &b);
    if (rc == 0 && b.len != len) {
        rc = -ERR_CORRUPT;
    }
    if (rc == 0) {
        memcpy(out, b.data, len);
    }
    buf_wipe(&b);
    return rc == -ERR_TOO_LARGE ? -ERR_CORRUPT : rc;
}

static int get_text(struct member *m, const char *key, char *out, size_t size)
{
    struct buf b;
    buf_init(&b, size - 1);
    int rc = member_get(m, key, &b);
    if (rc == 0 && !text_is_clean((const char *)b.data, b.len)) {
        rc = -ERR_CORRUPT;
    }
    if (rc == 0) {
        (void)snprintf(out, size, "%s", buf_cstr(&b));
    }
    buf_fini(&b);
    return rc == -ERR_TOO_LARGE ? -ERR_CORRUPT : rc;
}

static int no_membership(const struct member *m, struct errmsg *em)
{
    return errmsg_set(
        em, -ERR_NOT_FOUND,
        "%s holds no membership: run `rap init` for a new cluster or `rap join` with a "
        "token",
        m->data_dir);
}

static int load_settings(struct member *m, struct errmsg *em)
{
    int rc = get_fixed(m, "cluster_id", m->cluster_id.b, sizeof m->cluster_id.b);
    if (rc == -ERR_NOT_FOUND) {
        return no_membership(m, em);
    }
    const struct {
        const char *key;
        void *out;
        size_t size;
        bool text;
    } all[] = {
        {"node_id", m->node_id.b, sizeof m->node_id.b, false},
        {"reset_secret", m->reset_secret, sizeof m->reset_secret, false},
        {"cluster_name", m->cluster_name, sizeof m->cluster_name, true},
        {"node_name", m->node_name, sizeof m->node_name, true},
        {"listen", m->listen, sizeof m->listen, true},
        {"advertise", m->advertise, sizeof m->advertise, true},
    };
    const char *what = "cluster_id";
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(all); i++) {
        what = all[i].key;
        rc = all[i].text ? get_text(m, what, all[i].out, all[i].size)
                         : get_fixed(m, what, all[i].out, all[i].size);
    }
    if (rc != 0) {
        return errmsg_set(em, rc == -ERR_IO ? rc : -ERR_CORRUPT,
                          "%s/node.db: setting %s is missing or damaged", m->dir, what);
    }
    return 0;
}

/* --- create, open, discard --- */

/* A certificate is what a membership leaves when its store is gone, be it removed or emptied. Nothing may
 * take the place of the one or the other. */
static int refuse_orphan(const struct member *m, struct errmsg *em)
{
    return errmsg_set(em, -ERR_CORRUPT,
                      "%s/node.db is missing or empty, but node.crt beside it says that this host "
                      "is a member",
                      m->dir);
}

static int check_address(const char *what, const char *text, struct errmsg *em)
{
    const char *colon = strrchr(text, ':');
    if (strlen(text) > ADDRESS_MAX_BYTES || !text_is_clean(text, strlen(text)) || colon == NULL ||
        colon == text || colon[1] == '\0') {
        return errmsg_set(em, -ERR_INVALID, "%s address \"%.64s\" is not HOST:PORT", what, text);
    }
    return 0;
}

static int check_addresses(const char *listen, const char *advertise, struct errmsg *em)
{
    struct addr a;
    int rc = check_address("listen", listen, em);
    if (rc == 0 && addr_parse(listen, &a, em) != 0) {
        rc = errmsg_set(em, -ERR_INVALID, "listen address \"%.64s\" is not a numeric IP:PORT",
                        listen);
    }
    if (rc == 0 && advertise != NULL) {
        rc = check_address("advertised", advertise, em);
    }
    return rc;
}

static int check_node_name(const char *name, struct errmsg *em)
{
    return text_is_name(name, strlen(name))
               ? 0
               : errmsg_set(em, -ERR_INVALID,
                            "node name \"%.64s\" must be 1-63 of a-z, 0-9 and inner dashes", name);
}

static int check_cluster_name(const char *name, struct errmsg *em)
{
    return name[0] == '\0' || text_is_name(name, strlen(name))
               ? 0
               : errmsg_set(em, -ERR_INVALID,
                            "cluster name \"%.64s\" must be 1-63 of a-z, 0-9 and inner dashes",
                            name);
}

static int check_settings(const struct member_settings *s, struct errmsg *em)
{
    int rc = check_node_name(s->node_name, em);
    if (rc == 0 && s->cluster_name != NULL) {
        rc = check_cluster_name(s->cluster_name, em);
    }
    if (rc == 0) {
        rc = check_addresses(s->listen, s->advertise, em);
    }
    return rc;
}

static int write_settings(struct member *m, const struct member_settings *s, struct errmsg *em)
{
    uint8_t secret[32];
    rng_bytes(secret, sizeof secret);
    int rc = db_error(m, db_begin(m->db), em);
    if (rc != 0) {
        return rc;
    }
    const struct {
        const char *key;
        struct blob value;
    } all[] = {
        {"node_id", blob_of(s->node_id.b, sizeof s->node_id.b)},
        {"reset_secret", blob_of(secret, sizeof secret)},
        {"cluster_name", blob_str(s->cluster_name == NULL ? "" : s->cluster_name)},
        {"node_name", blob_str(s->node_name)},
        {"listen", blob_str(s->listen)},
        {"advertise", blob_str(s->advertise == NULL ? s->listen : s->advertise)},
        {"cluster_id", blob_of(s->cluster_id.b, sizeof s->cluster_id.b)},
    };
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(all); i++) {
        rc = member_put(m, all[i].key, all[i].value, em);
    }
    fault(4);
    if (rc == 0) {
        rc = db_error(m, db_commit(m->db), em);
    }
    if (rc != 0) {
        db_rollback(m->db);
    }
    explicit_bzero(secret, sizeof secret);
    fault(5);
    return rc != 0 ? rc : file_sync_dir(m->dir, em);
}

static int write_key(struct member *m, struct errmsg *em)
{
    struct pki_key *key = pki_key_generate();
    char *path = member_path(m, "node.key");
    int rc = pki_key_save(key, path, NULL, em);
    free(path);
    pki_key_free(key);
    return rc;
}

int member_create(const char *data_dir, const struct member_settings *s, struct member **ret,
                  struct errmsg *em)
{
    struct member *m = member_alloc(data_dir);
    int rc = check_settings(s, em);
    if (rc == 0) {
        fault(1);
        rc = file_mkdirs(m->dir, em);
    }
    if (rc == 0) {
        rc = member_lock(m, em);
        if (rc == -ERR_BUSY && member_has(m, "node.crt")) { /* a running member's */
            rc = errmsg_set(em, -ERR_EXISTS, "%s already holds a membership", data_dir);
        }
    }
    if (rc != 0) {
        goto out;
    }
    if (member_has(m, "node.crt") && !member_has(m, "node.db")) {
        rc = errmsg_runbook(em, refuse_orphan(m, em), MEMBER_RUNBOOK);
        goto out;
    }
    if (member_has(m, "node.db")) {
        struct uuid held;
        rc = open_db(m, em);
        if (rc != 0) {
            goto out;
        }
        rc = get_fixed(m, "cluster_id", held.b, sizeof held.b);
        if (rc != -ERR_NOT_FOUND) {
            rc = errmsg_set(em, -ERR_EXISTS, "%s already holds a membership", data_dir);
            goto out;
        }
        if (member_has(m, "node.crt")) {
            rc = errmsg_runbook(em, refuse_orphan(m, em), MEMBER_RUNBOOK);
            goto out;
        }
    }
    fault(2);
    rc = write_key(m, em);
    fault(3);
    if (rc == 0 && m->db == NULL) {
        rc = open_db(m, em);
    }
    if (rc == 0) {
        rc = write_settings(m, s, em);
    }
    if (rc == 0) {
        rc = load_settings(m, em);
    }
    if (rc == 0) {
        *ret = m;
        m = NULL;
    }
out:
    member_free(m);
    return rc;
}

/* The last step of an approval may have been cut off: the token has done its work. */
static void drop_stale_token(struct member *m)
{
    char *path = member_path(m, "join.token");
    if (unlink(path) == 0) {
        (void)file_sync_dir(m->dir, NULL);
    }
    free(path);
}

int member_open(const char *data_dir, struct member **ret, struct errmsg *em)
{
    struct member *m = member_alloc(data_dir);
    int rc;
    if (!member_has(m, "node.db")) {
        rc = member_has(m, "node.crt") ? errmsg_runbook(em, refuse_orphan(m, em), MEMBER_RUNBOOK)
                                       : no_membership(m, em);
        goto out;
    }
    rc = member_lock(m, em);
    if (rc == 0) {
        rc = open_db(m, em);
    }
    if (rc == 0) {
        rc = load_settings(m, em);
    }
    if (rc == -ERR_NOT_FOUND && member_has(m, "node.crt")) {
        rc = refuse_orphan(m, em);
    }
    (void)errmsg_runbook(em, rc, MEMBER_RUNBOOK);
    if (rc == 0 && !member_has(m, "node.key")) {
        rc = errmsg_set(em, -ERR_CORRUPT,
                        "%s/node.key is missing: restore it, or remove %s and join again", m->dir,
                        m->dir);
    }
    if (rc != 0) {
        goto out;
    }
    if (!member_is_pending(m)) {
        drop_stale_token(m);
    }
    *ret = m;
    m = NULL;
out:
    member_free(m);
    return rc;
}

bool member_is_pending(const struct member *m)
{
    return uuid_is_nil(&m->node_id) || !member_has(m, "node.crt");
}

static int drop_file(const struct member *m, const char *name, struct errmsg *em)
{
    char *path = member_path(m, name);
    int rc = unlink(path) == 0 || errno == ENOENT
                 ? 0
                 : errmsg_set(em, -ERR_IO, "unlink %s: %s", path, strerror(errno));
    free(path);
    return rc;
}

int member_discard(struct member *m, struct errmsg *em)
{
    static const char *const files[] = {"node.db", "node.db-wal", "node.db-journal", "join.token",
                                        "node.key"};
    int rc = 0;
    if (!member_is_pending(m)) {
        rc = errmsg_set(em, -ERR_CONFLICT, "the membership in %s is not a pending one",
                        m->data_dir);
        goto out;
    }
    /* First: without a store it would say that there is a membership. A pending one has none, or one of no use. */
    rc = drop_file(m, "node.crt", em);
    if (rc == 0) {
        rc = file_sync_dir(m->dir, em);
    }
    if (rc != 0) {
        goto out;
    }
    /* From here on there is no membership; the files are only tidied away. */
    rc = db_exec(m->db, "BEGIN IMMEDIATE; DELETE FROM snapshot; DELETE FROM settings; COMMIT", em);
    if (rc != 0) {
        db_rollback(m->db);
        goto out;
    }
    db_close(m->db);
    m->db = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        int dropped = drop_file(m, files[i], rc == 0 ? em : NULL);
        rc = rc == 0 ? dropped : rc;
    }
    if (rc == 0) {
        rc = file_sync_dir(m->dir, em);
    }
out:
    member_free(m);
    return rc;
}

/* --- key, chain --- */

int member_key(const struct member *m, struct pki_key **ret, struct errmsg *em)
{
    char *path = member_path(m, "node.key");
    int rc = pki_key_load(path, NULL, ret, em);
    free(path);
    return rc;
}

int member_save_chain(struct member *m, const struct blob chain[3], struct errmsg *em)
{
    struct buf pem;
    buf_init(&pem, (size_t)6 * CERT_DER_MAX);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < 3; i++) {
        rc = pki_pem_add(chain[i], &pem);
    }
    if (rc == 0) {
        rc = pem.err;
    }
    if (rc != 0) {
        rc = errmsg_set(em, rc, "certificate chain: %s", err_text(rc));
    } else {
        char *path = member_path(m, "node.crt");
        fault(6);
        rc = file_write_atomic(path, buf_blob(&pem), 0644, em);
        free(path);
    }
    buf_fini(&pem);
    return rc;
}

int member_load_chain(const struct member *m, struct buf ret_chain[3], struct errmsg *em)
{
    char *path = member_path(m, "node.crt");
    struct buf pem;
    buf_init(&pem, (size_t)6 * CERT_DER_MAX);
    size_t count = 0;
    int rc = file_read(path, &pem, em);
    if (rc == 0) {
        rc = pki_pem_read(buf_blob(&pem), ret_chain, 3, &count, em);
    }
    if (rc == 0 && count != 3) {
        rc = errmsg_set(em, -ERR_CORRUPT, "%s holds %zu certificates, not 3", path, count);
    }
    buf_fini(&pem);
    free(path);
    return rc;
}

/* --- approval --- */

static int put_ids(struct member *m, const struct uuid *node_id, const char *cluster_name,
                   struct errmsg *em)
{
    int rc = put_str(m, "cluster_name", cluster_name, em);
    if (rc == 0) {
        rc = member_put(m, "node_id", blob_of(node_id->b, sizeof node_id->b), em);
    }
    return rc;
}

static int finish(struct member *m, int rc, struct errmsg *em)
{
    if (rc == 0) {
        rc = db_error(m, db_commit(m->db), em);
    }
    if (rc != 0) {
        db_rollback(m->db);
    }
    return rc;
}

static void keep_ids(struct member *m, const struct uuid *node_id, const char *cluster_name)
{
    m->node_id = *node_id;
    (void)snprintf(m->cluster_name, sizeof m->cluster_name, "%s", cluster_name);
}

int member_set_ids(struct member *m, const struct uuid *node_id, const char *cluster_name,
                   struct errmsg *em)
{
    int rc = check_cluster_name(cluster_name, em);
    if (rc == 0) {
        rc = db_error(m, db_begin(m->db), em);
    }
    if (rc != 0) {
        return rc;
    }
    rc = finish(m, put_ids(m, node_id, cluster_name, em), em);
    if (rc == 0) {
        keep_ids(m, node_id, cluster_name);
    }
    return rc;
}

int member_set_addresses(struct member *m, const char *listen, const char *advertise,
                         struct errmsg *em)
{
    int rc = check_addresses(listen, advertise, em);
    if (rc == 0) {
        rc = db_error(m, db_begin(m->db), em);
    }
    if (rc != 0) {
        return rc;
    }
    advertise = advertise == NULL ? listen : advertise;
    rc = put_str(m, "listen", listen, em);
    if (rc == 0) {
        rc = put_str(m, "advertise", advertise, em);
    }
    rc = finish(m, rc, em);
    if (rc == 0) {
        (void)snprintf(m->listen, sizeof m->listen, "%s", listen);
        (void)snprintf(m->advertise, sizeof m->advertise, "%s", advertise);
    }
    return rc;
}

int member_set_node_name(struct member *m, const char *node_name, struct errmsg *em)
{
    int rc = check_node_name(node_name, em);
    if (rc == 0) {
        rc = put_str(m, "node_name", node_name, em);
    }
    if (rc == 0) {
        (void)snprintf(m->node_name, sizeof m->node_name, "%s", node_name);
    }
    return rc;
}

int member_approve(struct member *m, const struct member_approval *ap, struct errmsg *em)
{
    int rc = check_cluster_name(ap->cluster_name, em);
    if (rc == 0) {
        rc = member_save_chain(m, ap->chain, em);
    }
    if (rc == 0) {
        fault(7);
        rc = db_error(m, db_begin(m->db), em);
    }
    if (rc != 0) {
        return rc;
    }
    rc = member_save_snapshot(m, ap->snapshot, ap->epoch, ap->config_version, ap->now_ms, em);
    if (rc == 0 && ap->authority_set.len > 0) {
        rc = member_put(m, MEMBER_AUTHORITY_SET, ap->authority_set, em);
    }
    if (rc == 0) {
        rc = put_ids(m, &ap->node_id, ap->cluster_name, em);
    }
    if (rc == 0) {
        rc = db_exec(m->db, "DELETE FROM settings WHERE key GLOB 'join_*'", em);
    }
    fault(8);
    rc = finish(m, rc, em);
    fault(9);
    if (rc == 0) {
        keep_ids(m, &ap->node_id, ap->cluster_name);
        drop_stale_token(m);
    }
    return rc;
}
