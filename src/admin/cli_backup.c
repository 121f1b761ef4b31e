/* Backups of the authority: fetched in pieces, checked, and given their name when they are whole. */
#include "admin/cli_owner.h"
#include "admin/cli_util.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "pki/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- files --- */

struct mapped {
    void *base;
    size_t len;
};

static int map_file(const char *path, struct mapped *ret, struct errmsg *em)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int rc = errmsg_set(em, errno == ENOENT ? -ERR_NOT_FOUND : -ERR_IO, "%s: %s", path,
                            strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
        }
        return rc;
    }
    *ret = (struct mapped){.len = (size_t)st.st_size};
    int rc = 0;
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s is no backup of an authority", path);
    } else {
        ret->base = mmap(NULL, ret->len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (ret->base == MAP_FAILED) {
            rc = errmsg_set(em, -ERR_IO, "%s: %s", path, strerror(errno));
        }
    }
    (void)close(fd);
    return rc;
}

int cli_read_root(struct cli *c, struct buf *out, struct errmsg *em)
{
    const char *dir = cli_get(c, "owner-dir");
    buf_init(out, CERT_DER_MAX);
    if (dir == NULL) {
        return 0;
    }
    struct buf pem;
    size_t count;
    char *path = path_join(dir, "root.crt");
    buf_init(&pem, 16384);
    int rc = file_read(path, &pem, em);
    rc = rc != 0 ? rc : pki_pem_read(buf_blob(&pem), out, 1, &count, em);
    buf_fini(&pem);
    free(path);
    return rc;
}

static void put_backup(struct util_body *b, const struct backup_file *f)
{
    char name[NAME_MAX_BYTES + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)f->header.cluster_name.len,
                   (const char *)f->header.cluster_name.data);
    mp_doc_uuid(&b->w, &b->d, "cluster_id", &f->header.cluster_id);
    mp_doc_str(&b->w, &b->d, "cluster_name", name);
    mp_doc_hex(&b->w, &b->d, "root_fingerprint", blob_of(f->root_fingerprint, PKI_HASH_BYTES));
    mp_doc_uuid(&b->w, &b->d, "made_by", &f->header.node_id);
    mp_doc_time(&b->w, &b->d, "created_at", f->header.time_ms);
    mp_doc_int(&b->w, &b->d, "epoch", (int64_t)f->header.epoch);
    mp_doc_int(&b->w, &b->d, "term", (int64_t)f->header.term);
    mp_doc_int(&b->w, &b->d, "index", (int64_t)f->header.index);
    mp_doc_int(&b->w, &b->d, "level", (int64_t)f->header.level);
    mp_doc_int(&b->w, &b->d, "image_bytes", (int64_t)f->header.image_bytes);
    mp_doc_hex(&b->w, &b->d, "state_digest", f->header.digest);
    mp_doc_int(&b->w, &b->d, "audit_seq", (int64_t)f->header.audit_seq);
    mp_doc_hex(&b->w, &b->d, "audit_head", f->header.audit_head);
}

/* Signature, hash and what is in it. */
static int check_file(struct cli *c, const char *path, struct util_body *b, struct errmsg *em)
{
    struct mapped m = {.base = NULL};
    struct backup_file f;
    struct buf root;
    int rc = cli_read_root(c, &root, em);
    rc = rc != 0 ? rc : map_file(path, &m, em);
    if (rc == 0) {
        struct blob bytes = blob_of(m.base, m.len);
        rc = backup_open(bytes, buf_blob(&root), &f, em);
        rc = rc != 0 ? rc : c->ops->check_backup(&f, em);
        if (rc == 0) {
            put_backup(b, &f);
        }
        (void)munmap(m.base, m.len);
    }
    buf_fini(&root);
    return rc;
}

int cli_run_authority_verify(struct cli *c)
{
    struct errmsg em = ERRMSG_INIT;
    struct util_body b;
    util_body_begin(&b);
    int rc = check_file(c, c->operands[0], &b, &em);
    if (rc != 0) {
        rc = cli_fail(c, rc, "take another backup; this one is not to be restored", "%s: %s",
                      c->operands[0], em.text);
    } else {
        mp_doc_bool(&b.w, &b.d, "ok", true);
        out_doc(c, util_body_end(&b));
        if (cli_get(c, "owner-dir") == NULL) {
            cli_note(c, "whole, and signed under the root shown: compare its fingerprint, or give "
                        "--owner-dir");
        }
    }
    util_body_fini(&b);
    return rc;
}

/* --- rap authority backup --- */

static int fetch_piece(struct cli *c, const char *id, uint64_t offset, int fd, size_t *ret_len)
{
    struct buf doc;
    struct buf path;
    struct buf piece;
    struct mp_reader r;
    buf_init(&path, 256);
    buf_init(&piece, 1u << 20);
    buf_init(&doc, CLIENT_DOC_MAX);
    buf_addf(&path, "/v1/backups/%s?offset=%llu", id, (unsigned long long)offset);
    int rc = client_get(c, &path, &doc);
    if (rc == CLI_OK) {
        mp_reader_init(&r, mp_find(buf_blob(&doc), "data"));
        struct blob hex = mp_peek(&r) == MP_STR ? mp_get_str(&r, 2u << 20) : blob_of(NULL, 0);
        uint8_t *p = buf_grow(&piece, hex.len / 2);
        char *text = xmalloc(hex.len + 1);
        if (hex.len > 0) {
            memcpy(text, hex.data, hex.len);
        }
        text[hex.len] = '\0';
        if (hex.len == 0 || p == NULL || hex_decode(text, p, hex.len / 2) != 0) {
            rc = cli_fail(c, -ERR_MALFORMED, NULL, "a piece of the backup does not read");
        } else if (write(fd, piece.data, piece.len) != (ssize_t)piece.len) {
            rc = cli_fail(c, -ERR_IO, "make room, or name another file", "writing: %s",
                          strerror(errno));
        }
        free(text);
    }
    *ret_len = piece.len;
    buf_fini(&path);
    buf_fini(&piece);
    buf_fini(&doc);
    return rc;
}

static int fetch(struct cli *c, struct blob made, const char *part)
{
    char id[64];
    mp_find_str(made, "id", id, sizeof id);
    uint64_t size = (uint64_t)mp_find_int(made, "size_bytes");
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fchmod(fd, 0600) != 0) {
        int rc = cli_fail(c, -ERR_IO, "name a file in a directory that can be written", "%s: %s",
                          part, strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
        }
        return rc;
    }
    int rc = CLI_OK;
    for (uint64_t at = 0; rc == CLI_OK && at < size;) {
        size_t n = 0;
        rc = fetch_piece(c, id, at, fd, &n);
        at += n;
    }
    if (rc == CLI_OK && fsync(fd) != 0) {
        rc = cli_fail(c, -ERR_IO, NULL, "%s: %s", part, strerror(errno));
    }
    (void)close(fd);
    return rc;
}

static int finish(struct cli *c, const char *part, const char *path)
{
    struct errmsg em = ERRMSG_INIT;
    struct util_body b;
    util_body_begin(&b);
    int err = check_file(c, part, &b, &em);
    if (err == 0 && rename(part, path) != 0) {
        err = errmsg_set(&em, -ERR_IO, "%s: %s", path, strerror(errno));
    }
    int rc = CLI_OK;
    if (err != 0) {
        rc = cli_fail(c, err, "try again", "the backup that came is not good: %s", em.text);
    } else {
        mp_doc_str(&b.w, &b.d, "file", path);
        out_doc(c, util_body_end(&b));
    }
    util_body_fini(&b);
    return rc;
}

int cli_run_authority_backup(struct cli *c)
{
    const char *path = c->operands[0];
    struct buf doc;
    struct buf url;
    struct util_body body;
    if (file_exists(path)) {
        return cli_fail(c, -ERR_EXISTS, "name another file, or remove this one first", "%s exists",
                        path);
    }
    buf_init(&doc, CLIENT_DOC_MAX);
    util_path(&url, "/v1/backups", NULL, "");
    util_body_begin(&body);
    int rc = client_act(c, "POST", &url, util_body_end(&body), &doc);
    util_body_fini(&body);
    buf_fini(&url);
    char *part = xasprintf("%s.part", path);
    rc = rc != CLI_OK ? rc : fetch(c, buf_blob(&doc), part);
    rc = rc != CLI_OK ? rc : finish(c, part, path);
    if (rc != CLI_OK) {
        (void)unlink(part);
    }
    free(part);
    buf_fini(&doc);
    return rc;
}

/* --- rap authority restore --- */

struct restoring {
    struct cli *c;
    struct cli_offline offline;
    uint64_t epoch;
};

static int restore_from(void *data, const struct backup_file *f, uint64_t rows, struct errmsg *em)
{
    struct restoring *r = data;
    struct cli *c = r->c;
    if (rows > 0) {
        cli_note(c, "read from PostgreSQL: %llu rows at index %llu, as the authority signed them",
                 (unsigned long long)rows, (unsigned long long)f->header.index);
    }
    const struct cli_restore restore = {.data_dir = c->data_dir,
                                        .listen = cli_get(c, "listen"),
                                        .advertise = cli_get(c, "advertise"),
                                        .name = cli_get(c, "name"),
                                        .as = cli_get(c, "as"),
                                        .reason = cli_get(c, "reason"),
                                        .epoch = r->epoch,
                                        .backup = f,
                                        .consent = cli_on_plan,
                                        .data = &r->offline};
    return c->ops->restore(&restore, em);
}

static int restore_from_file(struct restoring *r, struct blob root, struct errmsg *em)
{
    struct mapped m = {.base = NULL};
    struct backup_file f;
    int rc = map_file(r->c->operands[0], &m, em);
    if (rc == 0) {
        rc = backup_open(blob_of(m.base, m.len), root, &f, em);
        rc = rc != 0 ? rc : restore_from(r, &f, 0, em);
        (void)munmap(m.base, m.len);
    }
    return rc;
}

int cli_run_authority_restore(struct cli *c)
{
    struct restoring r = {.c = c, .offline = {.c = c, .exit = CLI_OK}};
    struct errmsg em = ERRMSG_INIT;
    struct buf root;
    const char *dsn = cli_get(c, "from-postgres");
    int64_t epoch = 0;
    int rc = cli_get_count(c, "epoch", &epoch);
    if (rc == CLI_OK && (dsn == NULL) == (c->operands[0] == NULL)) {
        rc = cli_usage(c, NULL, "give either FILE or --from-postgres DSN");
    }
    if (rc != CLI_OK) {
        return rc;
    }
    r.epoch = (uint64_t)epoch;
    buf_init(&r.offline.doc, 1u << 20);
    int err = cli_read_root(c, &root, &em);
    if (err == 0 && dsn == NULL) {
        err = restore_from_file(&r, buf_blob(&root), &em);
    } else if (err == 0) {
        err = c->ops->read_mirror(&(struct cli_mirror_read){.dsn = dsn,
                                                            .cluster_id = cli_get(c, "cluster-id"),
                                                            .root_der = buf_blob(&root),
                                                            .use = restore_from,
                                                            .data = &r},
                                  &em);
    }
    rc = r.offline.exit;
    if (err != 0 && err != -ERR_CANCELED) {
        rc = cli_fail_here(c, err, err == -ERR_EXISTS ? "restore into an empty --data-dir" : NULL,
                           "restore", &em);
    }
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&r.offline.doc));
        if (err == 0) {
            cli_note(c, "done: start it with `rap agent run`");
        }
    }
    buf_fini(&r.offline.doc);
    buf_fini(&root);
    return rc;
}
