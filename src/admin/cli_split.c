/* rap split: nodes leave for a cluster of their own (docs/decisions/0022, OPERATIONS "Splitting a
 * cluster"). begin, finish and cancel are signed here with this cluster's root key; report, in the new
 * cluster, with that cluster's. */
#include "admin/cli_owner.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "pki/statement.h"
#include "wire/node_msg.h"

/* --- lists --- */

int cli_run_split_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},          {"NAME", "name", OUT_TEXT},
        {"STATUS", "status", OUT_STATE}, {"NEW CLUSTER", "new_cluster_id", OUT_TEXT},
        {"SEED", "seed_name", OUT_TEXT}, {"BEGUN", "begun_at", OUT_AGE},
        {"ENDED", "ended_at", OUT_AGE},
    };
    struct out_list list = {"/v1/splits", cols, ARRAY_SIZE(cols), false, "nothing was ever split"};
    return out_list(c, &list);
}

/* What comes next, for the one who took over from the one who began. */
static void say_next(struct cli *c, struct blob split)
{
    char name[NAME_MAX_BYTES + 1], status[16];
    mp_find_str(split, "name", name, sizeof name);
    mp_find_str(split, "status", status, sizeof status);
    if (strcmp(status, "open") == 0) {
        cli_note(c,
                 "next: in %s, on an authority that is not the seed: `rap split report --out F`; "
                 "then here "
                 "`rap split finish %s --report F --dry-run`, which lists what is missing",
                 name, name);
    } else if (strcmp(status, "finished") == 0) {
        cli_note(
            c, "next: end the old agents on their hosts; `rap node revoke N` bans a key for ever, "
               "`rap node enable N` gives a node back");
    }
}

int cli_run_split_show(struct cli *c)
{
    struct buf doc;
    int rc = util_fetch(c, "/v1/splits/", c->operands[0], &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
        say_next(c, buf_blob(&doc));
    }
    buf_fini(&doc);
    return rc;
}

/* --- begin --- */

struct terms {
    struct split_terms t;
    struct uuid ids[SPLIT_NODES_MAX];
    uint32_t count;
    uint8_t pin[PKI_HASH_BYTES];
    struct buf nodes; /* their ids, encoded */
    struct buf bytes; /* what is signed */
};

/* The new cluster, by its root certificate or by what is read to the owner. */
static int new_cluster(struct cli *c, struct terms *x)
{
    const char *file = cli_get(c, "new-root");
    const char *id = cli_get(c, "cluster-id");
    const char *pin = cli_get(c, "root-pin");
    if ((file != NULL) == (id != NULL && pin != NULL)) {
        return cli_usage(c, "give --new-root F, the root.crt of the new cluster's owner directory",
                         "which cluster? --new-root, or both --cluster-id and --root-pin");
    }
    x->t.root_pin = blob_of(x->pin, sizeof x->pin);
    if (file == NULL) {
        return uuid_parse(id, &x->t.new_cluster_id) == 0 &&
                       hex_decode(pin, x->pin, sizeof x->pin) == 0
                   ? CLI_OK
                   : cli_usage(c, "`rap status` and `rap trust show` of the new cluster print them",
                               "--cluster-id is an id, --root-pin 64 hex digits");
    }
    struct errmsg em = ERRMSG_INIT;
    struct pki_cert root;
    struct buf der;
    buf_init(&der, CERT_DER_MAX);
    int err = owner_read_cert(file, &der, &root, &em);
    if (err == 0 && root.kind != PKI_ROOT) {
        err = errmsg_set(&em, -ERR_BAD_CERT, "this is not the certificate of a root");
    }
    buf_fini(&der);
    if (err != 0) {
        return cli_fail(c, err, "name root.crt of the new cluster's owner directory", "%s: %s",
                        file, em.text);
    }
    x->t.new_cluster_id = root.cluster_id;
    memcpy(x->pin, root.fingerprint, sizeof x->pin);
    return CLI_OK;
}

static int add_node(struct cli *c, struct terms *x, const char *name, struct uuid *ret)
{
    struct buf doc;
    char text[64];
    int rc = util_fetch(c, "/v1/nodes/", name, &doc);
    mp_find_str(buf_blob(&doc), "id", text, sizeof text);
    if (rc == CLI_OK && uuid_parse(text, ret) != 0) {
        rc = cli_fail(c, -ERR_MALFORMED, NULL, "the answer names no node");
    }
    buf_fini(&doc);
    for (uint32_t i = 0; rc == CLI_OK && i < x->count; i++) {
        if (uuid_equal(&x->ids[i], ret)) {
            return CLI_OK; /* named twice */
        }
    }
    if (rc == CLI_OK && x->count == SPLIT_NODES_MAX) {
        return cli_fail(c, -ERR_TOO_LARGE, "split in steps, with a seed each",
                        "at most %d nodes leave at once", SPLIT_NODES_MAX);
    }
    if (rc == CLI_OK) {
        x->ids[x->count++] = *ret;
    }
    return rc;
}

/* --node a,b --node c */
static int add_nodes(struct cli *c, struct terms *x)
{
    struct uuid id;
    int rc = add_node(c, x, cli_get(c, "seed"), &x->t.seed_id);
    const char *given;
    for (size_t k = 0; rc == CLI_OK && (given = cli_get_nth(c, "node", k)) != NULL; k++) {
        while (rc == CLI_OK && *given != '\0') {
            size_t len = strcspn(given, ",");
            char *name = xasprintf("%.*s", (int)len, given);
            rc = add_node(c, x, name, &id);
            free(name);
            given += len + (given[len] == ',' ? 1 : 0);
        }
    }
    return rc;
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct uuid));
}

static int encode_terms(struct cli *c, struct terms *x)
{
    struct mp_writer w;
    x->t.name = blob_str(cli_get(c, "name"));
    qsort(x->ids, x->count, sizeof x->ids[0], by_bytes);
    mp_writer_init(&w, &x->nodes);
    for (uint32_t i = 0; i < x->count; i++) {
        mp_put_uuid(&w, &x->ids[i]);
    }
    x->t.nodes = (struct mp_list){.raw = buf_blob(&x->nodes), .count = x->count};
    msg_encode(&split_terms_desc, &x->t, &x->bytes);
    struct split_terms again;
    return split_terms_decode(buf_blob(&x->bytes), &again) == 0
               ? CLI_OK
               : cli_usage(c, "the new cluster is another one than this, made with `rap init`",
                           "--name is 1-63 of a-z, 0-9 and -, and the new cluster's id is not "
                           "this one's");
}

static int post_begin(struct cli *c, const struct terms *x, const uint8_t sig[PKI_SIG_BYTES])
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/splits", NULL, "");
    util_body_begin(&body);
    mp_doc_uuid(&body.w, &body.d, "id", &x->t.split_id);
    mp_doc_str(&body.w, &body.d, "name", cli_get(c, "name"));
    mp_doc_uuid(&body.w, &body.d, "cluster_id", &x->t.new_cluster_id);
    mp_doc_hex(&body.w, &body.d, "root_pin", x->t.root_pin);
    mp_doc_uuid(&body.w, &body.d, "seed", &x->t.seed_id);
    mp_doc_key(&body.w, &body.d, "nodes");
    /* A list of the API has at most 64 elements; each may hold many ids. */
    enum { EACH = 64 };
    mp_put_array(&body.w, (x->count + EACH - 1) / EACH);
    for (uint32_t i = 0; i < x->count; i += EACH) {
        char text[EACH * UUID_TEXT_MAX];
        size_t at = 0;
        for (uint32_t k = i; k < x->count && k < i + EACH; k++) {
            at += k == i ? 0 : 1;
            uuid_format(&x->ids[k], text + at);
            at += UUID_TEXT_MAX - 1;
            text[at] = ',';
        }
        mp_put_strn(&body.w, text, at);
    }
    mp_doc_hex(&body.w, &body.d, "signature", blob_of(sig, PKI_SIG_BYTES));
    int rc = util_mutate(c, "POST", &path, util_body_end(&body),
                         "begun; let the nodes join the new cluster; `rap split show` says how far "
                         "it is and what is next");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_split_begin(struct cli *c)
{
    uint8_t sig[PKI_SIG_BYTES];
    struct owner_root owner = {.key = NULL};
    struct terms *x = xcalloc(1, sizeof *x);
    x->t.split_id = uuid_new();
    buf_init(&x->nodes, SPLIT_TERMS_MAX);
    buf_init(&x->bytes, SPLIT_TERMS_MAX);
    int rc = new_cluster(c, x);
    rc = rc != CLI_OK ? rc : util_own_cluster(c, &x->t.cluster_id);
    rc = rc != CLI_OK ? rc : add_nodes(c, x);
    rc = rc != CLI_OK ? rc : encode_terms(c, x);
    if (rc == CLI_OK) {
        char id[UUID_TEXT_MAX];
        char pin[2 * PKI_HASH_BYTES + 1];
        uuid_format(&x->t.new_cluster_id, id);
        hex_encode(x->pin, sizeof x->pin, pin);
        cli_note(c,
                 "effect: %u %s will leave for cluster %s (%s, root %.16s); they stay members here "
                 "until `rap split finish`, and %s cannot be removed before",
                 x->count, x->count == 1 ? "node" : "nodes", cli_get(c, "name"), id, pin,
                 cli_get(c, "seed"));
        rc = cli_confirm(c, "Begin the split?");
    }
    rc = rc != CLI_OK ? rc : owner_open(c, &x->t.cluster_id, NULL, &owner);
    if (rc == CLI_OK) {
        split_terms_sign(owner.key, buf_blob(&x->bytes), sig);
        owner_close(&owner);
        rc = post_begin(c, x, sig);
    }
    buf_fini(&x->nodes);
    buf_fini(&x->bytes);
    free(x);
    return rc;
}

/* --- report, in the new cluster --- */

static struct blob doc_text(struct blob doc, const char *key, char *out, size_t size)
{
    mp_find_str(doc, key, out, size);
    return blob_str(out);
}

static uint32_t report_nodes(struct blob doc, struct buf *out)
{
    struct mp_reader r;
    uint32_t count = 0;
    mp_reader_init(&r, mp_find(doc, "nodes"));
    uint32_t n = mp_get_array(&r, SPLIT_NODES_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        char name[NAME_MAX_BYTES + 1];
        struct blob item = mp_skip(&r);
        const struct split_report_node row = {
            .name = doc_text(item, "name", name, sizeof name),
            .healthy = mp_find_bool(item, "healthy"),
            .votes = mp_find_bool(item, "votes"),
            .current = mp_find_bool(item, "snapshot_current"),
            .held_version = (uint64_t)mp_find_int(item, "snapshot_version"),
        };
        msg_list_add(&split_report_node_desc, &row, out, &count);
    }
    return count;
}

static uint32_t report_roles(struct blob doc, struct buf *out)
{
    struct mp_reader r;
    uint32_t count = 0;
    mp_reader_init(&r, mp_find(doc, "roles"));
    uint32_t n = mp_get_array(&r, ROLES_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        char role[ROLE_MAX_BYTES + 1];
        struct blob item = mp_skip(&r);
        const struct split_report_role row = {
            .role = doc_text(item, "role", role, sizeof role),
            .holders = (uint64_t)mp_find_int(item, "holders"),
        };
        msg_list_add(&split_report_role_desc, &row, out, &count);
    }
    return count;
}

/* Signs what the leader said, as of now. */
static int sign_report(struct cli *c, struct blob doc, struct buf *out)
{
    char name[NAME_MAX_BYTES + 1], admin[NAME_MAX_BYTES + 1], id[64];
    struct buf nodes, roles;
    struct owner_root owner = {.key = NULL};
    struct split_report r = {
        .version = SPLIT_REPORT_VERSION,
        .cluster_name = doc_text(doc, "cluster_name", name, sizeof name),
        .time_ms = clock_wall_ms(),
        .epoch = (uint64_t)mp_find_int(doc, "epoch"),
        .config_version = (uint64_t)mp_find_int(doc, "config_version"),
        .voters = (uint64_t)mp_find_int(doc, "voters"),
        .voters_in_contact = (uint64_t)mp_find_int(doc, "voters_in_contact"),
        .admin_name = doc_text(doc, "admin_name", admin, sizeof admin),
    };
    buf_init(&nodes, SPLIT_REPORT_BODY_MAX);
    buf_init(&roles, SPLIT_REPORT_BODY_MAX);
    r.nodes.count = report_nodes(doc, &nodes);
    r.nodes.raw = buf_blob(&nodes);
    r.roles.count = report_roles(doc, &roles);
    r.roles.raw = buf_blob(&roles);
    mp_find_str(doc, "cluster_id", id, sizeof id);
    int rc = uuid_parse(id, &r.cluster_id) == 0
                 ? owner_open(c, &r.cluster_id, NULL, &owner)
                 : cli_fail(c, -ERR_MALFORMED, NULL, "the answer names no cluster");
    if (rc == CLI_OK) {
        int err = nodes.err != 0 ? nodes.err : split_report_sign(owner.key, &r, out);
        rc = err == 0 ? CLI_OK
                      : cli_fail(c, err, "name only the nodes that came, with --node",
                                 "the report does not fit: %s", err_text(err));
    }
    owner_close(&owner);
    buf_fini(&nodes);
    buf_fini(&roles);
    return rc;
}

static void join_names(struct cli *c, struct buf *out)
{
    const char *given;
    for (size_t k = 0; (given = cli_get_nth(c, "node", k)) != NULL; k++) {
        buf_addf(out, "%s%s", k == 0 ? "" : ",", given);
    }
}

static int write_report(struct cli *c, struct blob doc, struct blob signed_report)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf text;
    const char *path = cli_get(c, "out");
    buf_init(&text, SPLIT_REPORT_TEXT_MAX + 1);
    split_report_format(signed_report, &text);
    buf_add_str(&text, "\n");
    int rc = CLI_OK;
    if (strcmp(path, "-") == 0) {
        fputs(buf_cstr(&text), c->out);
    } else {
        int err = file_write_atomic(path, buf_blob(&text), 0644, &em);
        rc = err == 0 ? CLI_OK
                      : cli_fail_here(c, err, "name another file with --out", "report", &em);
        if (rc == CLI_OK) {
            out_doc(c, doc);
            cli_note(c,
                     "written to %s; it counts for %d minutes: `rap split finish NAME --report %s` "
                     "in the old cluster",
                     path, (int)(SPLIT_REPORT_LIFE_MS / 60000), path);
        }
    }
    buf_fini(&text);
    return rc;
}

int cli_run_split_report(struct cli *c)
{
    struct buf path, doc, names, report;
    buf_init(&doc, CLIENT_DOC_MAX);
    buf_init(&names, 3840); /* they are part of the request's target */
    buf_init(&report, SIGNED_SPLIT_REPORT_MAX);
    util_path(&path, "/v1/split-report", NULL, "");
    join_names(c, &names);
    client_query(&path, "nodes", names.len == 0 ? NULL : buf_cstr(&names));
    int rc = names.err == 0
                 ? client_get(c, &path, &doc)
                 : cli_usage(c, "split in steps, with a seed each, or give the hosts shorter names",
                             "--node: too many names for one report");
    rc = rc != CLI_OK ? rc : sign_report(c, buf_blob(&doc), &report);
    rc = rc != CLI_OK ? rc : write_report(c, buf_blob(&doc), buf_blob(&report));
    buf_fini(&path);
    buf_fini(&doc);
    buf_fini(&names);
    buf_fini(&report);
    return rc;
}

/* --- finish, cancel --- */

static int sign_end(struct cli *c, struct blob split, struct split_end *e,
                    uint8_t sig[PKI_SIG_BYTES])
{
    struct owner_root owner = {.key = NULL};
    char id[64];
    mp_find_str(split, "id", id, sizeof id);
    int rc = uuid_parse(id, &e->split_id) == 0
                 ? util_own_cluster(c, &e->cluster_id)
                 : cli_fail(c, -ERR_MALFORMED, NULL, "the answer names no split");
    rc = rc != CLI_OK ? rc : owner_open(c, &e->cluster_id, NULL, &owner);
    if (rc == CLI_OK) {
        split_end_sign(owner.key, e, sig);
        owner_close(&owner);
    }
    return rc;
}

static void say_report(struct cli *c, const struct split_report *r)
{
    char made[32];
    clock_format(r->time_ms, made);
    cli_note(c,
             "the report: cluster %.*s at %s, %u nodes, %u of %u authorities in contact, asked "
             "through %.*s",
             (int)r->cluster_name.len, (const char *)r->cluster_name.data, made, r->nodes.count,
             (unsigned)r->voters_in_contact, (unsigned)r->voters, (int)r->admin_name.len,
             (const char *)r->admin_name.data);
}

static int read_report(struct cli *c, struct buf *ret_text, struct buf *ret_report)
{
    struct errmsg em = ERRMSG_INIT;
    struct split_report r;
    uint8_t pin[PKI_HASH_BYTES];
    int rc = cli_read_secret(c, cli_get(c, "report"), SPLIT_REPORT_TEXT_MAX + 64, ret_text);
    if (rc != CLI_OK) {
        return rc;
    }
    int err = split_report_parse(buf_blob(ret_text), ret_report);
    err = err != 0 ? errmsg_set(&em, err, "this is no report: %s", err_text(err))
                   : split_report_verify(buf_blob(ret_report), &r, pin, &em);
    if (err != 0) {
        return cli_fail(c, err, "make it with `rap split report --out F` in the new cluster", "%s",
                        em.text);
    }
    say_report(c, &r);
    return CLI_OK;
}

static int post_end(struct cli *c, struct blob split, const char *verb, struct blob report_text,
                    const uint8_t sig[PKI_SIG_BYTES], const char *done)
{
    struct buf path;
    struct util_body body;
    char id[64];
    mp_find_str(split, "id", id, sizeof id);
    util_path(&path, "/v1/splits/", id, verb);
    util_body_begin(&body);
    if (report_text.len > 0) {
        enum { PIECE = 4000 };
        uint32_t n = (uint32_t)((report_text.len + PIECE - 1) / PIECE);
        mp_doc_key(&body.w, &body.d, "report");
        mp_put_array(&body.w, n);
        for (size_t at = 0; at < report_text.len; at += PIECE) {
            size_t left = report_text.len - at;
            mp_put_strn(&body.w, (const char *)report_text.data + at, left < PIECE ? left : PIECE);
        }
    }
    if (cli_get(c, "reason") != NULL) {
        mp_doc_str(&body.w, &body.d, "reason", cli_get(c, "reason"));
    }
    mp_doc_hex(&body.w, &body.d, "signature", blob_of(sig, PKI_SIG_BYTES));
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), done);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_split_finish(struct cli *c)
{
    uint8_t sig[PKI_SIG_BYTES];
    uint8_t hash[PKI_HASH_BYTES];
    char name[NAME_MAX_BYTES + 1];
    struct buf split, text, report;
    struct split_end e = {.outcome = SPLIT_FINISHED, .report_hash = blob_of(hash, sizeof hash)};
    buf_init(&text, 1);
    buf_init(&report, SIGNED_SPLIT_REPORT_MAX);
    int rc = util_fetch(c, "/v1/splits/", c->operands[0], &split);
    rc = rc != CLI_OK ? rc : read_report(c, &text, &report);
    if (rc == CLI_OK) {
        mp_find_str(buf_blob(&split), "name", name, sizeof name);
        cli_note(
            c,
            "effect: the memberships of all its nodes are disabled here, the seed's last; they "
            "go on in %s alone (`rap node enable` gives one back)",
            name);
        rc = cli_confirm(c, "Let them leave?");
    }
    if (rc == CLI_OK) {
        pki_sha256(buf_blob(&report), hash);
        rc = sign_end(c, buf_blob(&split), &e, sig);
    }
    rc = rc != CLI_OK
             ? rc
             : post_end(c, buf_blob(&split), "/finish", buf_blob(&text), sig,
                        "they have left; end their old agents, and `rap node revoke N` when "
                        "no node is to come back");
    buf_fini(&split);
    buf_fini(&text);
    buf_fini(&report);
    return rc;
}

int cli_run_split_cancel(struct cli *c)
{
    uint8_t sig[PKI_SIG_BYTES];
    struct buf split;
    struct split_end e = {.outcome = SPLIT_CANCELLED};
    int rc = util_fetch(c, "/v1/splits/", c->operands[0], &split);
    if (rc == CLI_OK) {
        cli_note(c, "effect: its nodes stay members here, as they are; what joined the new cluster "
                    "stays there too");
        rc = cli_confirm(c, "Cancel the split?");
    }
    rc = rc != CLI_OK ? rc : sign_end(c, buf_blob(&split), &e, sig);
    rc = rc != CLI_OK
             ? rc
             : post_end(c, buf_blob(&split), "/cancel", blob_of(NULL, 0), sig, "cancelled");
    buf_fini(&split);
    return rc;
}
