/* `rap doctor`: this host's own things first, then the ways to its authorities (doctor_path.h). Reads, and
 * changes nothing. */
#include "node/node.h"

#include "agent/agent.h"
#include "agent/member.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "node/doctor_path.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define DISK_WARN_BYTES (200ULL << 20)
#define DISK_FAIL_BYTES (50ULL << 20)

struct doctor {
    const struct cli_doctor *o;
    struct pki_trust *trust; /* NULL: nothing is trusted yet */
    struct uuid cluster_id, node_id;
    struct pki_cert leaf; /* when has_chain */
    bool has_chain;
    struct cli_doctor_authority authority[AUTHORITIES_MAX];
    size_t authorities;
};

static void found(struct doctor *d, const struct cli_check *c)
{
    d->o->found(d->o->data, c);
}

static void advise(struct cli_check *c, const char *text, const char *path)
{
    (void)snprintf(c->next, sizeof c->next, "%s%s", text, path);
}

static void pass(struct doctor *d, const char *check, const char *text)
{
    struct cli_check c = {.check = NULL};
    doctor_check_set(&c, check, CLI_CHECK_PASS, "ok", "%s", text);
    found(d, &c);
}

/* --- disk and files --- */

static void check_disk(struct doctor *d)
{
    struct statvfs fs;
    struct cli_check c = {.check = NULL};
    if (statvfs(d->o->data_dir, &fs) != 0) {
        doctor_check_set(&c, "disk", CLI_CHECK_FAIL, "no_data_dir", "%s cannot be looked at",
                         d->o->data_dir);
        advise(&c, "rap init, or rap join, with --data-dir ", d->o->data_dir);
        found(d, &c);
        return;
    }
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t all = (uint64_t)fs.f_blocks * fs.f_frsize;
    unsigned percent = all == 0 ? 100 : (unsigned)(room * 100 / all);
    bool no_files = fs.f_files > 0 && fs.f_favail < 64;
    if (room < DISK_FAIL_BYTES || no_files) {
        doctor_check_set(&c, "disk", CLI_CHECK_FAIL, "disk_full",
                         no_files ? "the disk of %s has no room for more files (%llu MiB free)"
                                  : "the disk of %s is full: %llu MiB are free",
                         d->o->data_dir, (unsigned long long)(room >> 20));
    } else if (room < DISK_WARN_BYTES || percent < 5) {
        doctor_check_set(&c, "disk", CLI_CHECK_WARN, "disk_nearly_full",
                         "the disk of %s has %llu MiB free, %u %%", d->o->data_dir,
                         (unsigned long long)(room >> 20), percent);
    } else {
        doctor_check_set(&c, "disk", CLI_CHECK_PASS, "ok", "%llu MiB free, %u %%",
                         (unsigned long long)(room >> 20), percent);
    }
    if (c.result != CLI_CHECK_PASS) {
        advise(&c, "make room; an authority that cannot write ends itself: du -xh ",
               d->o->data_dir);
    }
    found(d, &c);
}

/* Counts and names a file that others than its owner can read or change. Takes path. */
static bool check_private(struct doctor *d, char *path, unsigned forbidden)
{
    struct stat st;
    struct cli_check c = {.check = NULL};
    bool bad = stat(path, &st) == 0 && (st.st_mode & forbidden) != 0;
    if (bad) {
        doctor_check_set(&c, "files", CLI_CHECK_FAIL, "file_permissions",
                         "%s has mode %04o: others than its owner can get at it", path,
                         (unsigned)(st.st_mode & 07777));
        advise(&c, S_ISDIR(st.st_mode) ? "chmod 700 " : "chmod 600 ", path);
        found(d, &c);
    }
    free(path);
    return !bad;
}

static bool check_owner_dir(struct doctor *d, const char *owner)
{
    bool good = true;
    DIR *dir = opendir(owner);
    struct dirent *e;
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char *one = path_join(owner, e->d_name);
        char *key = path_join(one, "root.key");
        if (file_exists(key)) {
            struct cli_check c = {.check = NULL};
            doctor_check_set(
                &c, "files", CLI_CHECK_WARN, "owner_key_here",
                "the cluster's root key is on this host: whoever has it owns the cluster");
            advise(&c, "move it offline, and give --owner-dir when a command asks: ", one);
            found(d, &c);
            good = check_private(d, xstrdup(key), 0077) && good;
        }
        free(key);
        free(one);
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return good;
}

static void check_files(struct doctor *d)
{
    static const char *const names[] = {"node.key", "issuer.key", "join.token", "node.db",
                                        "raft.db"};
    char *member = path_join(d->o->data_dir, "member");
    char *owner = path_join(d->o->data_dir, "owner");
    bool good = check_private(d, xstrdup(member), 0077);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        good = check_private(d, path_join(member, names[i]), 0077) && good;
    }
    good = check_owner_dir(d, owner) && good;
    if (good && file_exists(member)) {
        pass(d, "files", "keys and databases are their owner's alone");
    }
    free(member);
    free(owner);
}

/* --- certificates --- */

static void check_certificate(struct doctor *d, const struct pki_cert *cert, const char *what,
                              const char *next)
{
    struct cli_check c = {.check = NULL};
    int64_t now = clock_wall_ms();
    int64_t life = cert->not_after_ms - cert->not_before_ms;
    int64_t left = cert->not_after_ms - now;
    char end[CLOCK_TEXT_MAX];
    clock_format(cert->not_after_ms, end);
    if (left <= 0) {
        doctor_check_set(&c, "certificate", CLI_CHECK_FAIL, "certificate_expired",
                         "the %s certificate ended on %s, or this clock is wrong", what, end);
    } else if (now < cert->not_before_ms) {
        doctor_check_set(&c, "certificate", CLI_CHECK_FAIL, "certificate_not_yet_valid",
                         "the %s certificate is not valid yet: this clock is behind", what);
    } else if (left < life / 4) {
        doctor_check_set(&c, "certificate", CLI_CHECK_WARN, "certificate_expiring",
                         "the %s certificate ends on %s, in %lld hours", what, end,
                         (long long)(left / 3600000));
    } else {
        doctor_check_set(&c, "certificate", CLI_CHECK_PASS, "ok",
                         "the %s certificate is good to %s", what, end);
    }
    if (c.result != CLI_CHECK_PASS) {
        advise(&c, next, "");
    }
    found(d, &c);
}

/* node.crt is a file that can be read beside a running daemon; its databases cannot. */
static int load_chain(struct doctor *d, struct buf chain[3], struct errmsg *em)
{
    struct buf pem;
    size_t count = 0;
    char *member = path_join(d->o->data_dir, "member");
    char *path = path_join(member, "node.crt");
    buf_init(&pem, 16384);
    int rc = file_read(path, &pem, em);
    if (rc == 0) {
        rc = pki_pem_read(buf_blob(&pem), chain, 3, &count, em);
    }
    if (rc == 0 && count != 3) {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s has %zu certificates, not 3", path, count);
    }
    buf_fini(&pem);
    free(path);
    free(member);
    return rc;
}

static int trust_chain(struct doctor *d, const struct buf chain[3], struct errmsg *em)
{
    struct pki_cert issuer;
    int rc = pki_cert_parse(buf_blob(&chain[0]), &d->leaf, em);
    if (rc == 0) {
        rc = pki_cert_parse(buf_blob(&chain[1]), &issuer, em);
    }
    if (rc == 0) {
        d->cluster_id = d->leaf.cluster_id;
        d->node_id = d->leaf.node_id;
        d->trust = pki_trust_new(&d->cluster_id);
        rc = pki_trust_set_root(d->trust, buf_blob(&chain[2]), em);
    }
    if (rc == 0 && d->o->trust_record.len > 0) {
        /* The root may have been rotated since node.crt was written. One who has signed both says so, or
         * it counts for nothing. */
        (void)pki_trust_adopt(d->trust, d->o->trust_record, em);
    }
    if (rc == 0) {
        d->has_chain = true;
        check_certificate(
            d, &d->leaf, "node's own",
            "a node renews itself: the path and clock checks say why it does not; one "
            "that has ended joins again");
        check_certificate(d, &issuer, "issuing CA's",
                          "rap authority renew N --owner-dir DIR, for the authority it belongs to");
    }
    return rc;
}

/* Until the decision the token is kept, for `rap join` to go on with. */
static bool asked_to_join(const struct doctor *d)
{
    char *member = path_join(d->o->data_dir, "member");
    char *token = path_join(member, "join.token");
    bool yes = file_exists(token);
    free(token);
    free(member);
    return yes;
}

static void check_certificates(struct doctor *d)
{
    struct buf chain[3];
    struct errmsg em = ERRMSG_INIT;
    for (int i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
    }
    int rc = load_chain(d, chain, &em);
    if (rc == 0) {
        rc = trust_chain(d, chain, &em);
    }
    if (rc != 0 && d->o->token != NULL) {
        pki_trust_free(d->trust);
        d->trust = pki_trust_new(&d->o->token->cluster_id);
        d->cluster_id = d->o->token->cluster_id;
        pki_trust_set_pin(d->trust, d->o->token->root_fingerprint);
    } else if (rc != 0) {
        struct cli_check c = {.check = NULL};
        bool none = rc == -ERR_NOT_FOUND;
        if (none && asked_to_join(d)) {
            doctor_check_set(&c, "membership", CLI_CHECK_WARN, "join_pending",
                             "this host asked to join and has not been told a decision yet");
            advise(&c, "run the same `rap join` again; an administrator sees `rap request list`",
                   "");
        } else {
            doctor_check_set(&c, "membership", CLI_CHECK_FAIL, none ? "no_membership" : "damaged",
                             none ? "this host has no membership in %s" : "%s: node.crt: %s",
                             d->o->data_dir, em.text);
            advise(&c,
                   none ? "rap join --token-file F; before that, rap doctor --token-file F"
                        : "revoke this node, remove it, and join with an empty data directory",
                   "");
        }
        found(d, &c);
    }
    for (int i = 0; i < 3; i++) {
        buf_fini(&chain[i]);
    }
}

/* --- configuration --- */

static void check_config_age(struct doctor *d, int64_t issued_ms, int64_t expires_ms)
{
    struct cli_check c = {.check = NULL};
    int64_t now = clock_wall_ms();
    if (expires_ms == 0) {
        doctor_check_set(&c, "config", CLI_CHECK_FAIL, "no_config",
                         "this node holds no signed configuration");
    } else if (issued_ms > now + 60000) {
        doctor_check_set(&c, "config", CLI_CHECK_FAIL, "clock_skew",
                         "the signed configuration is from the future: this clock is %lld s behind",
                         (long long)((issued_ms - now) / 1000));
    } else if (expires_ms <= now) {
        doctor_check_set(
            &c, "config", CLI_CHECK_FAIL, "config_expired",
            "the signed configuration ended %lld minutes ago: the node starts nothing new",
            (long long)((now - expires_ms) / 60000));
    } else if (expires_ms - now < (expires_ms - issued_ms) / 4) {
        doctor_check_set(&c, "config", CLI_CHECK_WARN, "config_stale",
                         "the signed configuration was not renewed: it ends in %lld minutes",
                         (long long)((expires_ms - now) / 60000));
    } else {
        doctor_check_set(&c, "config", CLI_CHECK_PASS, "ok",
                         "the signed configuration is good for %lld minutes",
                         (long long)((expires_ms - now) / 60000));
    }
    if (c.result != CLI_CHECK_PASS) {
        advise(&c, "the path checks say why no authority is heard; then rap config verify", "");
    }
    found(d, &c);
}

static void copy(char *out, size_t size, struct blob text)
{
    (void)snprintf(out, size, "%.*s", (int)text.len, (const char *)text.data);
}

static void take_authorities(struct doctor *d, const struct config *cfg)
{
    struct config_iter it;
    struct snapshot_authority row;
    config_iter_init(&it, cfg->body.authorities);
    while (d->authorities < AUTHORITIES_MAX && config_next_authority(&it, &row) == 1) {
        struct cli_doctor_authority *a = &d->authority[d->authorities++];
        a->node_id = row.node_id;
        copy(a->name, sizeof a->name, row.name);
        copy(a->address, sizeof a->address, row.address);
    }
}

/* Of a node that does not run. */
static void read_config(struct doctor *d, struct member *m)
{
    struct buf bytes;
    struct config *cfg = NULL;
    struct errmsg em = ERRMSG_INIT;
    struct witness_set set = {.known = false};
    agent_restore_trust(m, d->trust);
    struct config_expect expect = {.trust = d->trust,
                                   .cluster_id = m->cluster_id,
                                   .node_id = m->node_id,
                                   .again = true,
                                   .allow_expired = true,
                                   .now_ms = clock_wall_ms(),
                                   .set = &set};
    memcpy(expect.fingerprint, d->leaf.fingerprint, sizeof expect.fingerprint);
    buf_init(&bytes, CONFIG_SIGNED_MAX);
    int rc = member_load_snapshot(m, &bytes, &expect.epoch, &expect.version);
    if (rc == -ERR_NOT_FOUND) {
        struct cli_check c = {.check = NULL};
        doctor_check_set(&c, "config", CLI_CHECK_WARN, "no_config",
                         "this node was never told its configuration: that comes when it runs");
        advise(&c, "rap agent run --data-dir ", d->o->data_dir);
        found(d, &c);
    } else {
        rc = rc != 0 ? rc : agent_load_set(m, &set, &em);
        rc = rc != 0 ? rc : config_verify(buf_blob(&bytes), &expect, &cfg, &em);
        if (rc == 0) {
            check_config_age(d, cfg->body.issued_at_ms, cfg->body.expires_at_ms);
            take_authorities(d, cfg);
        } else {
            struct cli_check c = {.check = NULL};
            doctor_check_set(&c, "config", CLI_CHECK_FAIL, "config_refused",
                             "the stored configuration does not verify: %s",
                             em.text[0] != '\0' ? em.text : err_text(rc));
            advise(&c, "start the daemon: it asks for another one", "");
            found(d, &c);
        }
    }
    config_free(cfg);
    buf_fini(&bytes);
}

static void check_daemon(struct doctor *d)
{
    struct cli_check c = {.check = NULL};
    struct errmsg em = ERRMSG_INIT;
    struct member *m = NULL;
    if (d->o->running) {
        pass(d, "daemon", "the daemon answers");
        check_config_age(d, d->o->config_issued_ms, d->o->config_expires_ms);
        d->authorities = d->o->authorities;
        memcpy(d->authority, d->o->authority, sizeof d->authority);
        return;
    }
    int rc = d->has_chain ? member_open(d->o->data_dir, &m, &em) : -ERR_NOT_FOUND;
    if (rc == 0) {
        doctor_check_set(&c, "daemon", CLI_CHECK_WARN, "not_running",
                         "no daemon runs for this membership");
        advise(&c, "rap agent run --data-dir ", d->o->data_dir);
        found(d, &c);
        read_config(d, m);
    } else if (rc != -ERR_NOT_FOUND) {
        doctor_check_set(&c, "daemon", CLI_CHECK_FAIL, rc == -ERR_BUSY ? "daemon_stuck" : "damaged",
                         rc == -ERR_BUSY
                             ? "a process holds this data directory but does not answer: %s"
                             : "the membership cannot be read: %s",
                         em.text);
        advise(&c, "look at the last lines of its log; is it another user's? Run this as that user",
               "");
        found(d, &c);
    }
    member_free(m);
}

/* --- paths --- */

static void token_authorities(struct doctor *d)
{
    const char *p = d->o->token->addresses;
    while (*p != '\0') {
        size_t n = strcspn(p, ",");
        if (n > 0 && n <= ADDRESS_MAX_BYTES && d->authorities < AUTHORITIES_MAX) {
            struct cli_doctor_authority *a = &d->authority[d->authorities++];
            *a = (struct cli_doctor_authority){.name = ""};
            copy(a->address, sizeof a->address, blob_of(p, n));
        }
        p += n;
        p += *p == ',';
    }
}

static void check_path(struct doctor *d, const struct cli_doctor_authority *a)
{
    struct doctor_target t = {.authority = *a, .cluster_id = d->cluster_id, .trust = d->trust};
    struct doctor_path path;
    struct cli_check checks[DOCTOR_PATH_CHECKS];
    t.connected = !uuid_is_nil(&a->node_id) && uuid_equal(&a->node_id, &d->o->connected_to);
    doctor_probe(&t, &path);
    size_t n = doctor_judge(&t, &path, checks);
    for (size_t i = 0; i < n; i++) {
        found(d, &checks[i]);
    }
}

static void check_paths(struct doctor *d)
{
    size_t others = 0;
    if (d->authorities == 0 && d->o->token != NULL) {
        token_authorities(d);
    }
    for (size_t i = 0; d->trust != NULL && i < d->authorities; i++) {
        if (!uuid_equal(&d->authority[i].node_id, &d->node_id) ||
            uuid_is_nil(&d->authority[i].node_id)) {
            check_path(d, &d->authority[i]);
            others++;
        }
    }
    if (others == 0 && d->authorities > 0) {
        pass(d, "path", "this host is the only authority: there is no way to look at");
    }
}

void node_doctor(const struct cli_doctor *o)
{
    struct doctor d = {.o = o};
    log_set_level(LOG_ERROR); /* what matters is said as checks */
    check_disk(&d);
    check_files(&d);
    check_certificates(&d);
    check_daemon(&d);
    check_paths(&d);
    pki_trust_free(d.trust);
}
