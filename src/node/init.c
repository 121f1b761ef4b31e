/* `rap init`: makes a cluster out of an empty directory (SPEC AUTH-10). The root key is born here,
 * signs one issuing CA, and is not used again by anything but the owner's commands. */
#include "node/node.h"

#include "agent/agent.h"
#include "agent/member.h"
#include "authority/core.h"
#include "authority/raft_log.h"
#include "base/addr.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "pki/witness.h"
#include "wire/cmd.h"

#include <unistd.h>

struct birth {
    const struct cli_init *o;
    int64_t now_ms;
    struct uuid cluster_id, node_id;
    char *owner_dir;
    char node_name[NAME_MAX_BYTES + 1];
    struct pki_key *root_key, *issuer_key, *node_key;
    struct pki_cert root, issuer, leaf;
    struct buf root_der, issuer_der, leaf_der;
    struct member *member;
};

static int issue(struct birth *b, struct pki_cert *spec, enum pki_cert_kind kind, int64_t life_ms,
                 const struct pki_key *subject, const struct pki_key *signer, struct blob issuer,
                 struct buf *out, struct errmsg *em)
{
    spec->kind = kind;
    spec->cluster_id = b->cluster_id;
    if (kind != PKI_ROOT) {
        spec->node_id = b->node_id;
    }
    spec->authority = kind == PKI_LEAF;
    spec->not_before_ms = (b->now_ms - PKI_BACKDATE_MS) / 1000 * 1000;
    spec->not_after_ms = (b->now_ms + life_ms) / 1000 * 1000;
    pki_serial_new(spec->serial);
    pki_key_public(subject, spec->public_key);
    return pki_cert_issue(spec, signer, issuer, out, em);
}

static int make_certificates(struct birth *b, struct errmsg *em)
{
    b->root_key = pki_key_generate();
    b->issuer_key = pki_key_generate();
    int rc = member_key(b->member, &b->node_key, em);
    if (rc == 0) {
        rc = issue(b, &b->root, PKI_ROOT, PKI_ROOT_LIFE_MS, b->root_key, b->root_key,
                   blob_of(NULL, 0), &b->root_der, em);
    }
    if (rc == 0) {
        rc = issue(b, &b->issuer, PKI_ISSUER, PKI_ISSUER_LIFE_MS, b->issuer_key, b->root_key,
                   buf_blob(&b->root_der), &b->issuer_der, em);
    }
    if (rc == 0) {
        rc = issue(b, &b->leaf, PKI_LEAF, PKI_LEAF_LIFE_MS, b->node_key, b->issuer_key,
                   buf_blob(&b->issuer_der), &b->leaf_der, em);
    }
    return rc;
}

static int write_pem(const char *dir, const char *name, struct blob der, struct errmsg *em)
{
    struct buf pem;
    char *path = path_join(dir, name);
    buf_init(&pem, 4 * CERT_DER_MAX);
    int rc = pki_pem_add(der, &pem);
    if (rc == 0) {
        rc = file_write_atomic(path, buf_blob(&pem), 0644, em);
    }
    buf_fini(&pem);
    free(path);
    return rc;
}

static int write_owner(struct birth *b, struct errmsg *em)
{
    char *key_path = path_join(b->owner_dir, "root.key");
    int rc = file_mkdirs(b->owner_dir, em);
    if (rc == 0 && file_exists(key_path)) {
        rc = errmsg_set(em, -ERR_EXISTS, "%s exists: it is another cluster's root key", key_path);
    }
    if (rc == 0) {
        rc = pki_key_save(b->root_key, key_path, b->o->passphrase, em);
    }
    if (rc == 0) {
        rc = write_pem(b->owner_dir, "root.crt", buf_blob(&b->root_der), em);
    }
    free(key_path);
    return rc;
}

static int write_issuer(struct birth *b, struct errmsg *em)
{
    char *path = member_path(b->member, "issuer.key");
    int rc = pki_key_save(b->issuer_key, path, NULL, em);
    if (rc == 0) {
        rc = write_pem(b->member->dir, "issuer.crt", buf_blob(&b->issuer_der), em);
    }
    free(path);
    return rc;
}

static void put_command(struct birth *b, uint64_t kind, const char *actor, const void *body,
                        struct mp_writer *list)
{
    struct buf bytes;
    buf_init(&bytes, CMD_BODY_MAX + 1024);
    struct cmd cmd = {
        .kind = kind,
        .request_id = uuid_new(),
        .time_ms = b->now_ms,
        .actor_kind = blob_str(actor),
        .actor_id = blob_str("init"),
    };
    cmd_encode(&cmd, body, &bytes);
    CHECK(bytes.err == 0);
    mp_put_bin(list, buf_blob(&bytes));
    buf_fini(&bytes);
}

static void put_cluster_init(struct birth *b, struct mp_writer *list)
{
    struct buf cert;
    struct buf caps;
    uint32_t caps_count = 0;
    buf_init(&cert, CMD_CERT_MAX);
    buf_init(&caps, 4096);
    agent_capabilities(&caps, &caps_count);
    struct cmd_cert leaf = {
        .der = buf_blob(&b->leaf_der),
        .serial = blob_of(b->leaf.serial, PKI_SERIAL_BYTES),
        .not_before_ms = b->leaf.not_before_ms,
        .not_after_ms = b->leaf.not_after_ms,
        .public_key = blob_of(b->leaf.public_key, PKI_KEY_BYTES),
        .fingerprint = blob_of(b->leaf.fingerprint, PKI_HASH_BYTES),
        .issuer_der = buf_blob(&b->issuer_der),
    };
    msg_encode(&cmd_cert_desc, &leaf, &cert);
    struct cluster_init body = {
        .cluster_id = b->cluster_id,
        .name = blob_str(b->o->cluster),
        .root_der = buf_blob(&b->root_der),
        .root_fingerprint = blob_of(b->root.fingerprint, PKI_HASH_BYTES),
        .node_id = b->node_id,
        .node_name = blob_str(b->node_name),
        .address = blob_str(b->member->advertise),
        .cert = buf_blob(&cert),
        .capabilities = {.raw = buf_blob(&caps), .count = caps_count},
    };
    put_command(b, CMD_CLUSTER_INIT, ACTOR_OWNER, &body, list);
    buf_fini(&cert);
    buf_fini(&caps);
}

/* The chain of authority sets begins with the root's word (docs/decisions/0008). */
static void put_authority_set(struct birth *b, struct mp_writer *list)
{
    struct witness_set none = {.known = false};
    struct witness_member self = {.node_id = b->node_id};
    struct buf statement;
    struct buf signed_set;
    memcpy(self.public_key, b->leaf.public_key, PKI_KEY_BYTES);
    buf_init(&statement, AUTHORITY_SET_MAX);
    buf_init(&signed_set, SIGNED_SET_MAX);
    witness_set_build(&none, &b->cluster_id, 1, &self, 1, &statement);
    witness_set_sign_root(b->root_key, buf_blob(&statement), &signed_set);
    CHECK(signed_set.err == 0);
    put_command(b, CMD_AUTHORITY_SET_NEXT, ACTOR_OWNER,
                &(struct authority_set_next){.signed_set = buf_blob(&signed_set)}, list);
    buf_fini(&statement);
    buf_fini(&signed_set);
}

/* Log entry 2: the cluster as commands like any other, so that a replica needs nothing but the log. */
static void first_entry(struct birth *b, struct buf *out)
{
    struct buf list;
    struct mp_writer w;
    buf_init(&list, 4 * CMD_BODY_MAX);
    mp_writer_init(&w, &list);
    put_cluster_init(b, &w);
    put_command(b, CMD_LEVEL_RAISE, ACTOR_SYSTEM, &(struct level_raise){.level = LEVEL_WITNESS},
                &w);
    put_authority_set(b, &w);
    CHECK(list.err == 0);
    struct cmd_entry entry = {
        .version = CMD_VERSION,
        .term = 1,
        .commands = {.raw = buf_blob(&list), .count = 3},
    };
    msg_encode(&cmd_entry_desc, &entry, out);
    buf_fini(&list);
}

static int write_log(struct birth *b, struct errmsg *em)
{
    struct buf entry;
    char address[UUID_TEXT_MAX];
    char *path = member_path(b->member, "raft.db");
    buf_init(&entry, ENTRY_MAX_BYTES);
    uuid_format(&b->node_id, address);
    first_entry(b, &entry);
    struct raft_log_bootstrap log = {
        .id = core_raft_id(&b->node_id),
        .address = address,
        .command = buf_blob(&entry),
    };
    int rc = entry.err != 0 ? errmsg_set(em, entry.err, "the first entry does not fit")
                            : raft_log_bootstrap(path, &log, em);
    buf_fini(&entry);
    free(path);
    return rc;
}

/* A host name is what people expect; what does not fit a node name is left out. */
static void default_name(char out[NAME_MAX_BYTES + 1])
{
    char host[256] = "";
    size_t n = 0;
    (void)gethostname(host, sizeof host - 1);
    for (const char *p = host; *p != '\0' && *p != '.' && n < NAME_MAX_BYTES; p++) {
        char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '-' && n > 0)) {
            out[n++] = c;
        }
    }
    while (n > 0 && out[n - 1] == '-') {
        n--;
    }
    out[n] = '\0';
    if (n == 0) {
        (void)snprintf(out, NAME_MAX_BYTES + 1, "seed");
    }
}

static int check_options(struct birth *b, struct errmsg *em)
{
    struct addr addr;
    const struct cli_init *o = b->o;
    if (!text_is_name(o->cluster, strlen(o->cluster))) {
        return errmsg_set(em, -ERR_INVALID,
                          "\"%s\" is no cluster name: 1-63 of a-z, 0-9 and -, no - at either end",
                          o->cluster);
    }
    if (o->name != NULL) {
        if (!text_is_name(o->name, strlen(o->name))) {
            return errmsg_set(em, -ERR_INVALID,
                              "\"%s\" is no node name: 1-63 of a-z, 0-9 and -, no - at either end",
                              o->name);
        }
        (void)snprintf(b->node_name, sizeof b->node_name, "%s", o->name);
    } else {
        default_name(b->node_name);
    }
    int rc = addr_parse(o->listen, &addr, em);
    return rc == 0 ? 0 : errmsg_wrap(em, rc, "--listen takes a numeric IP:PORT");
}

int node_init(const struct cli_init *o, struct cli_init_result *ret, struct errmsg *em)
{
    struct birth b = {.o = o, .now_ms = clock_wall_ms()};
    char id[UUID_TEXT_MAX];
    buf_init(&b.root_der, CERT_DER_MAX);
    buf_init(&b.issuer_der, CERT_DER_MAX);
    buf_init(&b.leaf_der, CERT_DER_MAX);
    b.cluster_id = uuid_new();
    b.node_id = uuid_new();
    uuid_format(&b.cluster_id, id);
    b.owner_dir = o->owner_dir != NULL ? xasprintf("%s", o->owner_dir)
                                       : xasprintf("%s/owner/%s", o->data_dir, id);
    int rc = check_options(&b, em);
    if (rc != 0) {
        goto out;
    }
    /* Pending (nil node id) until everything below is on disk: an init that was cut off starts over
     * cleanly, and member_create refuses a directory that is in use. */
    struct member_settings settings = {
        .cluster_name = o->cluster,
        .node_name = b.node_name,
        .listen = o->listen,
        .advertise = o->advertise,
        .cluster_id = b.cluster_id,
    };
    rc = member_create(o->data_dir, &settings, &b.member, em);
    if (rc == 0) {
        rc = make_certificates(&b, em);
    }
    if (rc == 0) {
        rc = write_owner(&b, em);
    }
    if (rc == 0) {
        rc = write_issuer(&b, em);
    }
    if (rc == 0) {
        rc = write_log(&b, em);
    }
    if (rc == 0) {
        struct blob chain[3] = {buf_blob(&b.leaf_der), buf_blob(&b.issuer_der),
                                buf_blob(&b.root_der)};
        rc = member_save_chain(b.member, chain, em);
    }
    if (rc == 0) {
        rc = member_set_ids(b.member, &b.node_id, o->cluster, em);
    }
    if (rc != 0) {
        if (b.member != NULL) {
            (void)member_discard(b.member, NULL); /* a second try starts from nothing */
            b.member = NULL;
        }
        goto out;
    }
    ret->cluster_id = b.cluster_id;
    ret->node_id = b.node_id;
    hex_encode(b.root.fingerprint, PKI_HASH_BYTES, ret->root_fingerprint);
    (void)snprintf(ret->owner_dir, sizeof ret->owner_dir, "%s", b.owner_dir);
out:
    buf_fini(&b.root_der);
    buf_fini(&b.issuer_der);
    buf_fini(&b.leaf_der);
    pki_key_free(b.root_key);
    pki_key_free(b.issuer_key);
    pki_key_free(b.node_key);
    member_free(b.member);
    free(b.owner_dir);
    return rc;
}
