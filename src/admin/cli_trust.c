/* Roots and what runs out; rotating the root. */
#include "admin/cli_owner.h"

#include "base/clock.h"
#include "base/text.h"
#include "pki/witness.h"
#include "wire/node_msg.h"

static void table(struct cli *c, struct blob doc, const char *key, const struct out_col *cols,
                  size_t count, const char *empty)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, key));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    out_table(c, cols, count, blob_of(r.p, (size_t)(r.end - r.p)), r.err != 0 ? 0 : n, empty);
}

int cli_run_trust_show(struct cli *c)
{
    static const struct out_col roots[] = {
        {"ROOT", "root_id", OUT_SHORT},     {"STATUS", "status", OUT_STATE},
        {"NODES", "nodes_count", OUT_TEXT}, {"EXPIRES", "expires_at", OUT_AGE},
        {"CREATED", "created_at", OUT_AGE},
    };
    static const struct out_col issuers[] = {
        {"AUTHORITY", "name", OUT_TEXT},     {"CA", "issuer_fingerprint", OUT_SHORT},
        {"ROOT", "root_id", OUT_SHORT},      {"EXPIRES", "expires_at", OUT_AGE},
        {"SEVERITY", "severity", OUT_STATE},
    };
    static const struct out_col retired[] = {
        {"RETIRED CA OF", "name", OUT_TEXT},
        {"CA", "issuer_fingerprint", OUT_SHORT},
        {"NODES LEFT", "nodes_count", OUT_TEXT},
        {"REMOVED", "removed_at", OUT_AGE},
    };
    static const struct out_col alarms[] = {
        {"CERTIFICATE OF", "certificate_of", OUT_TEXT},
        {"NAME", "name", OUT_TEXT},
        {"ID", "subject_id", OUT_SHORT},
        {"SEVERITY", "severity", OUT_STATE},
        {"EXPIRES", "expires_at", OUT_AGE},
    };
    struct buf doc;
    int rc = util_fetch(c, "/v1/trust", NULL, &doc);
    struct blob d = buf_blob(&doc);
    if (rc == CLI_OK && c->json) {
        out_json(c, d);
    } else if (rc == CLI_OK) {
        char phase[16];
        table(c, d, "roots", roots, ARRAY_SIZE(roots), "no roots");
        fputc('\n', c->out);
        table(c, d, "issuers", issuers, ARRAY_SIZE(issuers), "no issuing CAs");
        fputc('\n', c->out);
        table(c, d, "retired_issuers", retired, ARRAY_SIZE(retired), "no retired CAs");
        fputc('\n', c->out);
        table(c, d, "alarms", alarms, ARRAY_SIZE(alarms), "nothing is about to run out");
        mp_find_str(d, "last_phase", phase, sizeof phase);
        int64_t waiting = mp_find_int(d, "nodes_not_under_active_root_count");
        if (waiting > 0) {
            cli_note(c, "%lld active nodes hold no certificate under the active root",
                     (long long)waiting);
        }
        if (strcmp(phase, "none") != 0) {
            cli_note(c, "last step of a rotation: %s", phase);
        }
    }
    buf_fini(&doc);
    return rc;
}

int cli_run_trust_policy(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/trust", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "leaf_lifetime", cli_get(c, "leaf-lifetime"));
    int rc = util_mutate(c, "PATCH", &path, util_body_end(&body),
                         "changed; each node's next certificate is of this length");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

/* --- rotation --- */

struct rotation {
    struct buf trust; /* document */
    struct uuid cluster_id;
    char active[2 * PKI_HASH_BYTES + 1];
    char other[2 * PKI_HASH_BYTES + 1]; /* "": none */
    bool retiring;                      /* the other one; else it is prepared */
    /* What becomes of it: roots in the new record, and who signs them. */
    struct owner_root roots[TRUST_ROOTS_MAX];
    enum trust_root_status statuses[TRUST_ROOTS_MAX];
    size_t count;
    size_t issue_under; /* CAs are certified anew under this one; SIZE_MAX: not */
    struct buf record;
};

static int read_state(struct cli *c, struct rotation *ro)
{
    struct mp_reader r;
    struct blob doc = buf_blob(&ro->trust);
    int rc = owner_read_trust(c, doc, &ro->cluster_id, ro->active);
    mp_reader_init(&r, mp_find(doc, "roots"));
    uint32_t n = rc == CLI_OK ? mp_get_array(&r, UINT32_MAX) : 0;
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        char status[16];
        mp_find_str(item, "status", status, sizeof status);
        if (strcmp(status, "prepared") == 0 || strcmp(status, "retiring") == 0) {
            mp_find_str(item, "root_id", ro->other, sizeof ro->other);
            ro->retiring = strcmp(status, "retiring") == 0;
        }
    }
    return rc;
}

static int add_root(struct cli *c, struct rotation *ro, const char *fingerprint,
                    enum trust_root_status status)
{
    ro->statuses[ro->count] = status;
    return owner_open(c, &ro->cluster_id, fingerprint, &ro->roots[ro->count++]);
}

static int wrong_phase(struct cli *c, const char *next)
{
    return cli_fail(c, -ERR_CONFLICT, next, "the rotation is not where this step begins");
}

static int plan_prepare(struct cli *c, struct rotation *ro)
{
    if (ro->other[0] != '\0') {
        return wrong_phase(c, ro->retiring ? "finish the one under way: `rap trust rotate retire`"
                                           : "go on with `rap trust rotate activate`");
    }
    cli_note(c,
             "effect: a new root key in %s; every node trusts both roots; no certificate changes",
             cli_get(c, "owner-dir") != NULL ? cli_get(c, "owner-dir") : "the owner directory");
    int rc = add_root(c, ro, ro->active, TRUST_ROOT_ACTIVE);
    if (rc != CLI_OK || c->dry_run) {
        return rc;
    }
    ro->statuses[ro->count] = TRUST_ROOT_PREPARED;
    return owner_create(c, &ro->cluster_id, &ro->roots[ro->count++]);
}

/* Both change places, forth or back. */
static int plan_switch(struct cli *c, struct rotation *ro, enum trust_root_status old_status)
{
    cli_note(c,
             "effect: every authority's CA is certified under root %.16s, and every node gets a "
             "certificate under it over its live session; both roots stay trusted",
             ro->other);
    ro->issue_under = 0;
    int rc = add_root(c, ro, ro->other, TRUST_ROOT_ACTIVE);
    return rc != CLI_OK ? rc : add_root(c, ro, ro->active, old_status);
}

static int plan_activate(struct cli *c, struct rotation *ro)
{
    if (ro->other[0] == '\0' || ro->retiring) {
        return wrong_phase(c, ro->retiring ? "go on with `rap trust rotate retire`"
                                           : "begin with `rap trust rotate prepare`");
    }
    return plan_switch(c, ro, TRUST_ROOT_RETIRING);
}

static int plan_retire(struct cli *c, struct rotation *ro)
{
    if (!ro->retiring) {
        return wrong_phase(c, "see `rap trust show`: nothing is retiring");
    }
    cli_note(c,
             "effect: root %.16s counts no more, nor does what stands under it; there is no way "
             "back",
             ro->other);
    return add_root(c, ro, ro->active, TRUST_ROOT_ACTIVE);
}

static int plan_rollback(struct cli *c, struct rotation *ro)
{
    if (ro->other[0] == '\0') {
        return wrong_phase(c, "no rotation is under way");
    }
    if (ro->retiring) {
        return plan_switch(c, ro, TRUST_ROOT_PREPARED);
    }
    cli_note(c, "effect: root %.16s is withdrawn, for good", ro->other);
    return add_root(c, ro, ro->active, TRUST_ROOT_ACTIVE);
}

static int sign(struct cli *c, struct rotation *ro)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf list;
    uint32_t count = 0;
    const struct pki_key *keys[TRUST_ROOTS_MAX];
    struct trust_record record = {.seq = (uint64_t)mp_find_int(buf_blob(&ro->trust), "seq") + 1,
                                  .cluster_id = ro->cluster_id,
                                  .epoch = (uint64_t)mp_find_int(buf_blob(&ro->trust), "epoch"),
                                  .issued_at_ms = clock_wall_ms()};
    buf_init(&list, TRUST_RECORD_MAX);
    for (size_t i = 0; i < ro->count; i++) {
        const struct trust_root item = {.der = buf_blob(&ro->roots[i].der),
                                        .status = ro->statuses[i]};
        msg_list_add(&trust_root_desc, &item, &list, &count);
        keys[i] = ro->roots[i].key;
    }
    record.roots = (struct mp_list){.raw = buf_blob(&list), .count = count};
    int err = pki_trust_record_sign(&record, keys, ro->count, &ro->record, &em);
    buf_fini(&list);
    return err == 0 ? CLI_OK : cli_fail(c, err, NULL, "signing: %s", em.text);
}

/* Every authority's CA, certified by the root that becomes the active one. */
static int put_issuers(struct cli *c, struct rotation *ro, struct util_body *body)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(buf_blob(&ro->trust), "issuers"));
    uint32_t n = mp_get_array(&r, AUTHORITIES_MAX);
    mp_doc_key(&body->w, &body->d, "issuers");
    mp_put_array(&body->w, n);
    for (uint32_t i = 0; i < n; i++) {
        struct pki_cert spec;
        struct buf der;
        char hex[2 * CERT_DER_MAX + 1];
        if (owner_parse_hex(mp_find(mp_skip(&r), "certificate"), &spec) != 0) {
            return cli_fail(c, -ERR_BAD_CERT, NULL, "an authority's CA certificate does not read");
        }
        buf_init(&der, CERT_DER_MAX);
        int rc = owner_certify(c, &ro->roots[ro->issue_under], &spec, &der);
        if (rc == CLI_OK) {
            hex_encode(der.data, der.len, hex);
            mp_put_str(&body->w, hex);
        }
        buf_fini(&der);
        if (rc != CLI_OK) {
            return rc;
        }
    }
    return CLI_OK;
}

/* Who the authority is, by the word of the root that becomes active: nodes that join later know no
 * other. The members stay. */
static int put_set(struct cli *c, struct rotation *ro, struct util_body *body)
{
    char hex[2 * AUTHORITY_SET_MAX + 1];
    uint8_t bytes[AUTHORITY_SET_MAX];
    struct witness_set held;
    struct buf statement;
    struct buf signed_set;
    mp_find_str(buf_blob(&ro->trust), "authority_set", hex, sizeof hex);
    size_t n = strlen(hex) / 2;
    if (n == 0) {
        return CLI_OK; /* the cluster is older than authority sets */
    }
    if (hex_decode(hex, bytes, n) != 0 || witness_set_read(blob_of(bytes, n), &held, NULL) != 0) {
        return cli_fail(c, -ERR_BAD_SET, NULL, "the authority set does not read");
    }
    buf_init(&statement, AUTHORITY_SET_MAX);
    buf_init(&signed_set, SIGNED_SET_MAX);
    witness_set_build(&held, &ro->cluster_id, held.epoch, held.members, held.count, &statement);
    witness_set_sign_root(ro->roots[ro->issue_under].key, buf_blob(&statement), &signed_set);
    mp_doc_hex(&body->w, &body->d, "authority_set", buf_blob(&signed_set));
    buf_fini(&statement);
    buf_fini(&signed_set);
    return CLI_OK;
}

/* --- the chain of authority sets --- */

static struct blob name_of(struct blob trust, const struct uuid *node_id)
{
    char id[UUID_TEXT_MAX];
    char text[64];
    struct mp_reader r;
    uuid_format(node_id, id);
    mp_reader_init(&r, mp_find(trust, "issuers"));
    uint32_t n = mp_peek(&r) == MP_ARRAY ? mp_get_array(&r, UINT32_MAX) : 0;
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        mp_find_str(item, "node_id", text, sizeof text);
        if (strcmp(text, id) == 0) {
            struct mp_reader name;
            mp_reader_init(&name, mp_find(item, "name"));
            return mp_peek(&name) == MP_STR ? mp_get_str(&name, SIZE_MAX) : blob_of(NULL, 0);
        }
    }
    return blob_of(NULL, 0);
}

/* What the cluster proposes is shown, for it is the owner who vouches. */
static int show_set(struct cli *c, struct blob trust, struct blob statement)
{
    struct witness_set set;
    if (statement.len == 0 || witness_set_read(statement, &set, NULL) != 0) {
        return cli_fail(c, -ERR_UNSUPPORTED, NULL,
                        "the cluster proposes no authority set: upgrade all authorities first");
    }
    cli_note(c, "effect: nodes ask for the signatures of a majority of these %zu authorities:",
             set.count);
    for (size_t i = 0; i < set.count; i++) {
        char hex[2 * PKI_HASH_BYTES + 1];
        struct blob name = name_of(trust, &set.members[i].node_id);
        hex_encode(set.members[i].fingerprint, PKI_HASH_BYTES, hex);
        cli_note(c, "  %.*s  key %s", (int)name.len, (const char *)name.data, hex);
    }
    return CLI_OK;
}

int cli_run_authority_anchor(struct cli *c)
{
    struct uuid cluster_id;
    char active[2 * PKI_HASH_BYTES + 1] = "";
    char hex[2 * AUTHORITY_SET_MAX + 1];
    uint8_t bytes[AUTHORITY_SET_MAX];
    struct buf trust, path, signed_set;
    struct owner_root root = {.key = NULL};
    struct util_body body;
    struct blob statement = blob_of(bytes, 0);
    buf_init(&signed_set, SIGNED_SET_MAX);
    util_body_begin(&body);
    util_path(&path, "/v1/trust/authority-set", NULL, "");
    int rc = util_fetch(c, "/v1/trust", NULL, &trust);
    if (rc == CLI_OK) {
        rc = owner_read_trust(c, buf_blob(&trust), &cluster_id, active);
    }
    if (rc == CLI_OK) {
        mp_find_str(buf_blob(&trust), "authority_set_next", hex, sizeof hex);
        statement.len = strlen(hex) / 2;
        if (hex_decode(hex, bytes, statement.len) != 0) {
            statement.len = 0;
        }
        rc = show_set(c, buf_blob(&trust), statement);
    }
    if (rc == CLI_OK) {
        rc = cli_confirm(c, "Vouch for them?");
    }
    if (rc == CLI_OK) {
        rc = owner_open(c, &cluster_id, active, &root);
    }
    if (rc == CLI_OK) {
        witness_set_sign_root(root.key, statement, &signed_set);
        mp_doc_hex(&body.w, &body.d, "authority_set", buf_blob(&signed_set));
        rc = util_mutate(c, "POST", &path, util_body_end(&body), "vouched");
    }
    owner_close(&root);
    buf_fini(&trust);
    buf_fini(&path);
    buf_fini(&signed_set);
    util_body_fini(&body);
    return rc;
}

/* --- a rotation, sent --- */

static int submit(struct cli *c, struct rotation *ro, const char *done)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/trust/rotate", NULL, "");
    util_body_begin(&body);
    mp_doc_hex(&body.w, &body.d, "record", buf_blob(&ro->record));
    util_put_force(c, &body);
    int rc = ro->issue_under == SIZE_MAX ? CLI_OK : put_issuers(c, ro, &body);
    if (rc == CLI_OK && ro->issue_under != SIZE_MAX) {
        rc = put_set(c, ro, &body);
    }
    if (rc == CLI_OK) {
        rc = util_mutate(c, "POST", &path, util_body_end(&body), done);
    }
    if (rc == CLI_OK && ro->issue_under != SIZE_MAX && !c->dry_run) {
        rc = owner_set_active(c, &ro->roots[ro->issue_under]);
    }
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_trust_rotate(struct cli *c)
{
    static const struct {
        const char *phase;
        int (*plan)(struct cli *c, struct rotation *ro);
        const char *done;
    } phases[] = {{"prepare", plan_prepare,
                   "nodes learn of the new root; next: `rap trust rotate activate`, which names "
                   "those that have not yet"},
                  {"activate", plan_activate,
                   "nodes get new certificates; next: `rap trust rotate retire`, when `rap trust "
                   "show` has no node under "
                   "the old root"},
                  {"retire", plan_retire,
                   "the rotation is over; next: `rap authority backup FILE`, for a backup under "
                   "the new root"},
                  {"rollback", plan_rollback, "one step back: see `rap trust show`"}};
    struct rotation ro = {.issue_under = SIZE_MAX};
    size_t p = 0;
    while (p < ARRAY_SIZE(phases) && strcmp(phases[p].phase, c->operands[0]) != 0) {
        p++;
    }
    if (p == ARRAY_SIZE(phases)) {
        return cli_usage(c, NULL, "a phase is prepare, activate, retire or rollback");
    }
    buf_init(&ro.record, TRUST_SIGNED_MAX);
    int rc = util_fetch(c, "/v1/trust", NULL, &ro.trust);
    rc = rc != CLI_OK ? rc : read_state(c, &ro);
    rc = rc != CLI_OK ? rc : phases[p].plan(c, &ro);
    if (rc == CLI_OK && c->dry_run && p == 0) {
        cli_note(c, "dry run: nothing was changed");
        goto out;
    }
    rc = rc != CLI_OK ? rc : cli_confirm(c, "Go on?");
    rc = rc != CLI_OK ? rc : sign(c, &ro);
    rc = rc != CLI_OK ? rc : submit(c, &ro, phases[p].done);
out:
    for (size_t i = 0; i < ro.count; i++) {
        owner_close(&ro.roots[i]);
    }
    buf_fini(&ro.trust);
    buf_fini(&ro.record);
    return rc;
}
