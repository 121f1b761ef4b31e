/* `rap authority restore`: a cluster goes on from a backup, on a host without a membership. What
 * needs the root key is done by the caller (cli_consent_cb); the keys made here never leave. */
#include "node/node.h"

#include "agent/member.h"
#include "authority/recover.h"
#include "base/addr.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

#include <unistd.h>

struct restoration {
    const struct cli_restore *o;
    struct recovery_plan *plan;
    struct uuid node_id;
    char name[NAME_MAX_BYTES + 1];
    bool takes_place; /* of an authority that is lost */
    struct member *member;
    struct pki_key *issuer_key, *node_key;
    struct cli_consent consent;
    struct buf leaf;
    struct pki_cert leaf_info;
};

static int open_plan(struct restoration *r, struct errmsg *em)
{
    const struct cli_restore *o = r->o;
    r->node_id = uuid_new();
    int rc = recovery_plan_of_backup(o->backup, &r->node_id, &r->plan, em);
    if (rc != 0) {
        return rc;
    }
    if (o->as != NULL) {
        rc = recovery_plan_find(r->plan, o->as, &r->node_id, r->name);
        if (rc != 0) {
            return errmsg_set(em, rc, "the backup knows no authority \"%s\"", o->as);
        }
        r->takes_place = true;
        recovery_plan_set_node(r->plan, &r->node_id);
        return 0;
    }
    (void)snprintf(r->name, sizeof r->name, "%s", o->name == NULL ? "" : o->name);
    if (!text_is_name(r->name, strlen(r->name))) {
        return errmsg_set(
            em, -ERR_INVALID,
            "give this host a --name (1-63 of a-z, 0-9 and -), or the place of a lost "
            "authority with --as");
    }
    return 0;
}

static int ask(struct restoration *r, struct errmsg *em)
{
    uint8_t key[PKI_KEY_BYTES];
    uint8_t node_key[PKI_KEY_BYTES];
    struct buf doc;
    struct mp_writer w;
    pki_key_public(r->issuer_key, key);
    pki_key_public(r->node_key, node_key);
    const struct recovery_terms terms = {
        .kind = RECOVERY_RESTORE,
        .now_ms = clock_wall_ms(),
        .reason = r->o->reason == NULL ? blob_of(NULL, 0) : blob_str(r->o->reason),
        .epoch = r->o->epoch,
        .address = r->o->advertise != NULL ? r->o->advertise : r->o->listen,
        .issuer_key = blob_of(key, sizeof key),
        .node_key = blob_of(node_key, sizeof node_key),
    };
    buf_init(&doc, 1u << 20);
    mp_writer_init(&w, &doc);
    int rc = recovery_plan_doc(r->plan, &terms, &w);
    if (rc == 0) {
        rc = r->o->consent(r->o->data, buf_blob(&doc), &r->consent);
    } else {
        (void)errmsg_set(em, rc, "the plan does not fit: %s", err_text(rc));
    }
    buf_fini(&doc);
    return rc;
}

static int issue_leaf(struct restoration *r, struct errmsg *em)
{
    int64_t now_ms = clock_wall_ms();
    r->leaf_info = (struct pki_cert){
        .kind = PKI_LEAF,
        .cluster_id = r->o->backup->header.cluster_id,
        .node_id = r->node_id,
        .authority = true,
        .not_before_ms = (now_ms - PKI_BACKDATE_MS) / 1000 * 1000,
        .not_after_ms = (now_ms + PKI_LEAF_LIFE_MS) / 1000 * 1000,
    };
    pki_serial_new(r->leaf_info.serial);
    pki_key_public(r->node_key, r->leaf_info.public_key);
    return pki_cert_issue(&r->leaf_info, r->issuer_key, buf_blob(&r->consent.issuer), &r->leaf, em);
}

static int write_issuer(struct restoration *r, struct errmsg *em)
{
    char *key_path = member_path(r->member, "issuer.key");
    char *crt_path = member_path(r->member, "issuer.crt");
    struct buf pem;
    buf_init(&pem, 4 * CERT_DER_MAX);
    int rc = pki_key_save(r->issuer_key, key_path, NULL, em);
    rc = rc != 0 ? rc : pki_pem_add(buf_blob(&r->consent.issuer), &pem);
    rc = rc != 0 ? rc : file_write_atomic(crt_path, buf_blob(&pem), 0644, em);
    buf_fini(&pem);
    free(key_path);
    free(crt_path);
    return rc;
}

static int write_log(struct restoration *r, struct errmsg *em)
{
    struct buf cert;
    struct pki_cert issuer;
    struct cmd_cert leaf = {
        .der = buf_blob(&r->leaf),
        .serial = blob_of(r->leaf_info.serial, PKI_SERIAL_BYTES),
        .not_before_ms = r->leaf_info.not_before_ms,
        .not_after_ms = r->leaf_info.not_after_ms,
        .public_key = blob_of(r->leaf_info.public_key, PKI_KEY_BYTES),
        .fingerprint = blob_of(r->leaf_info.fingerprint, PKI_HASH_BYTES),
        .issuer_der = buf_blob(&r->consent.issuer),
    };
    buf_init(&cert, CMD_CERT_MAX);
    msg_encode(&cmd_cert_desc, &leaf, &cert);
    int rc = pki_cert_parse(buf_blob(&r->consent.issuer), &issuer, em);
    if (rc == 0) {
        struct epoch_start start = {
            .statement = buf_blob(&r->consent.statement),
            .node_name = r->takes_place ? blob_of(NULL, 0) : blob_str(r->name),
            .address = blob_str(r->member->advertise),
            .cert = buf_blob(&cert),
            .issuer_fingerprint = blob_of(issuer.fingerprint, PKI_HASH_BYTES),
        };
        rc = recovery_plan_apply(r->plan, r->member->dir, &start, em);
    }
    buf_fini(&cert);
    return rc;
}

/* What an attempt that was cut off left: there is no membership, so it counts for nothing. */
static void remove_leftovers(const struct member *m)
{
    static const char *const files[] = {"raft.db", "raft.db-wal", "raft.db-shm", "issuer.key",
                                        "issuer.crt"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        char *path = member_path(m, files[i]);
        (void)unlink(path);
        free(path);
    }
}

static int build(struct restoration *r, struct errmsg *em)
{
    char cluster[NAME_MAX_BYTES + 1];
    const struct backup_header *h = &r->o->backup->header;
    (void)snprintf(cluster, sizeof cluster, "%.*s", (int)h->cluster_name.len,
                   (const char *)h->cluster_name.data);
    remove_leftovers(r->member);
    /* The owner has signed this key into the authority set: not the one that came with the member. */
    char *key_path = member_path(r->member, "node.key");
    int rc = pki_key_save(r->node_key, key_path, NULL, em);
    free(key_path);
    rc = rc != 0 ? rc : issue_leaf(r, em);
    rc = rc != 0 ? rc : write_issuer(r, em);
    rc = rc != 0 ? rc : write_log(r, em);
    if (rc == 0) {
        struct blob chain[3] = {buf_blob(&r->leaf), buf_blob(&r->consent.issuer),
                                r->o->backup->root_der};
        rc = member_save_chain(r->member, chain, em);
    }
    return rc != 0 ? rc : member_set_ids(r->member, &r->node_id, cluster, em);
}

static int restore(struct restoration *r, struct errmsg *em)
{
    struct addr addr;
    char cluster[NAME_MAX_BYTES + 1];
    const struct backup_header *h = &r->o->backup->header;
    int rc = addr_parse(r->o->listen, &addr, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "--listen takes a numeric IP:PORT");
    }
    r->node_key = pki_key_generate();
    rc = open_plan(r, em);
    rc = rc != 0 ? rc : ask(r, em);
    if (rc != 0) {
        return rc;
    }
    (void)snprintf(cluster, sizeof cluster, "%.*s", (int)h->cluster_name.len,
                   (const char *)h->cluster_name.data);
    const struct member_settings settings = {
        .cluster_name = cluster,
        .node_name = r->name,
        .listen = r->o->listen,
        .advertise = r->o->advertise,
        .cluster_id = h->cluster_id,
    };
    rc = member_create(r->o->data_dir, &settings, &r->member, em);
    if (rc != 0) {
        return rc;
    }
    rc = build(r, em);
    if (rc != 0) {
        remove_leftovers(r->member);
        (void)member_discard(r->member, NULL);
        r->member = NULL;
    }
    return rc;
}

int node_restore(const struct cli_restore *o, struct errmsg *em)
{
    struct restoration r = {.o = o, .issuer_key = pki_key_generate()};
    buf_init(&r.consent.statement, SIGNED_RECOVERY_MAX);
    buf_init(&r.consent.issuer, CERT_DER_MAX);
    buf_init(&r.leaf, CERT_DER_MAX);
    int rc = restore(&r, em);
    recovery_plan_free(r.plan);
    member_free(r.member);
    pki_key_free(r.issuer_key);
    pki_key_free(r.node_key);
    buf_fini(&r.consent.statement);
    buf_fini(&r.consent.issuer);
    buf_fini(&r.leaf);
    return rc;
}

int node_check_backup(const struct backup_file *f, struct errmsg *em)
{
    struct recovery_plan *plan = NULL;
    struct uuid nobody = uuid_new();
    int rc = recovery_plan_of_backup(f, &nobody, &plan, em);
    recovery_plan_free(plan);
    return rc;
}
