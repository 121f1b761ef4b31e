#include "admin/cli_owner.h"

#include "base/clock.h"
#include "base/text.h"

#include <time.h>

int cli_run_authority_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"NODE", "node_id", OUT_TEXT},    {"NAME", "name", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},  {"SIGNS", "signs", OUT_TEXT},
        {"LEADER", "leader", OUT_TEXT},   {"CONTACT", "in_contact", OUT_TEXT},
        {"ADDRESS", "address", OUT_TEXT}, {"ADDED", "added_at", OUT_AGE},
    };
    struct out_list list = {"/v1/authorities", cols, ARRAY_SIZE(cols), true, "no authorities"};
    return out_list(c, &list);
}

/* --- adding one --- */

/* What prepare answered, and what comes of it. */
struct addition {
    struct buf doc;
    char node_id[UUID_TEXT_MAX];
    struct pki_cert spec;
    struct buf issuer; /* DER */
};

static int prepare(struct cli *c, struct addition *a)
{
    struct buf path, csr;
    struct util_body body;
    struct errmsg em = ERRMSG_INIT;
    char cluster_id[UUID_TEXT_MAX];
    char hex[2 * CSR_DER_MAX + 2];
    util_path(&path, "/v1/authorities/prepare", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "node", c->operands[0]);
    buf_init(&csr, CSR_DER_MAX);
    /* In a dry run too: preparing changes nothing that counts, and its answer is what we show. */
    int rc = client_act(c, "POST", &path, util_body_end(&body), &a->doc);
    if (rc != CLI_OK) {
        goto out;
    }
    mp_find_str(buf_blob(&a->doc), "node_id", a->node_id, sizeof a->node_id);
    mp_find_str(buf_blob(&a->doc), "cluster_id", cluster_id, sizeof cluster_id);
    mp_find_str(buf_blob(&a->doc), "csr", hex, sizeof hex);
    uint8_t *der = strlen(hex) < sizeof hex - 1 ? buf_grow(&csr, strlen(hex) / 2) : NULL;
    if (der == NULL || hex_decode(hex, der, csr.len) != 0 ||
        uuid_parse(a->node_id, &a->spec.node_id) != 0 ||
        uuid_parse(cluster_id, &a->spec.cluster_id) != 0 ||
        pki_csr_parse(buf_blob(&csr), a->spec.public_key, &em) != 0) {
        rc = cli_fail(c, -ERR_BAD_CSR, "check that the node runs the same version, then try again",
                      "the node's certificate request is not acceptable: %s",
                      em.text[0] == '\0' ? "it does not read" : em.text);
    }
out:
    buf_fini(&path);
    buf_fini(&csr);
    util_body_fini(&body);
    return rc;
}

static void show_effect(struct cli *c, struct blob doc, int64_t voters_before, int64_t voters_after)
{
    char name[64], id[64], address[300];
    mp_find_str(doc, "name", name, sizeof name);
    mp_find_str(doc, "node_id", id, sizeof id);
    mp_find_str(doc, "address", address, sizeof address);
    cli_note(c, "node %s (%s) at %s", name[0] == '\0' ? "-" : name, id,
             address[0] == '\0' ? "-" : address);
    cli_note(c, "effect: voters %lld -> %lld, failures survived %lld -> %lld",
             (long long)voters_before, (long long)voters_after,
             (long long)(voters_before > 0 ? (voters_before - 1) / 2 : 0),
             (long long)(voters_after > 0 ? (voters_after - 1) / 2 : 0));
    if (voters_after % 2 == 0 && voters_after > 0) {
        cli_note(c,
                 "an even number of voters survives no more than one fewer would: aim at 3 or 5");
    }
}

static int certify(struct cli *c, struct addition *a)
{
    struct owner_root root;
    int rc = owner_open(c, &a->spec.cluster_id, NULL, &root);
    if (rc == CLI_OK) {
        rc = owner_certify(c, &root, &a->spec, &a->issuer);
    }
    owner_close(&root);
    return rc;
}

static int submit(struct cli *c, const struct addition *a, struct buf *answer)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/authorities", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "node", a->node_id);
    mp_doc_hex(&body.w, &body.d, "issuer", buf_blob(&a->issuer));
    int rc = client_send(c, "POST", &path, util_body_end(&body), answer);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

/* --- renewing its issuing CA --- */

int cli_run_authority_renew(struct cli *c)
{
    struct uuid cluster_id;
    char active[2 * PKI_HASH_BYTES + 1] = "";
    char node_id[UUID_TEXT_MAX];
    struct buf trust, path, issuer;
    struct owner_root root = {.key = NULL};
    struct util_body body;
    struct pki_cert spec;
    buf_init(&issuer, CERT_DER_MAX);
    util_body_begin(&body);
    int rc = util_fetch(c, "/v1/trust", NULL, &trust);
    util_path(&path, "/v1/authorities/", NULL, "");
    if (rc == CLI_OK) {
        rc = owner_read_trust(c, buf_blob(&trust), &cluster_id, active);
    }
    if (rc == CLI_OK) {
        rc = owner_find_issuer(c, buf_blob(&trust), c->operands[0], &spec);
    }
    if (rc == CLI_OK) {
        uuid_format(&spec.node_id, node_id);
        cli_note(c,
                 "effect: the issuing CA of %s is certified anew, with the key it has; what it "
                 "signed before stays valid",
                 c->operands[0]);
        rc = cli_confirm(c, "Renew it?");
    }
    if (rc == CLI_OK) {
        rc = owner_open(c, &cluster_id, active, &root);
    }
    if (rc == CLI_OK) {
        rc = owner_certify(c, &root, &spec, &issuer);
    }
    if (rc == CLI_OK) {
        buf_fini(&path);
        util_path(&path, "/v1/authorities/", node_id, "/renew");
        mp_doc_hex(&body.w, &body.d, "issuer", buf_blob(&issuer));
        rc = util_mutate(c, "POST", &path, util_body_end(&body), "renewed");
    }
    owner_close(&root);
    buf_fini(&trust);
    buf_fini(&path);
    buf_fini(&issuer);
    util_body_fini(&body);
    return rc;
}

/* The item of a list whose "node_id" is this; empty when it is not there. */
static struct blob find_node(struct blob list, const char *node_id)
{
    struct mp_reader r;
    char id[64];
    mp_reader_init(&r, mp_find(list, "items"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        mp_find_str(item, "node_id", id, sizeof id);
        if (strcmp(id, node_id) == 0) {
            return item;
        }
    }
    return blob_of(NULL, 0);
}

/* It votes, and the authority set, whose majority nodes believe, does not have it yet. Until it does, the loss of
 * another one may leave nobody whom nodes believe. */
static bool is_unsigned(struct blob item)
{
    return mp_find(item, "signs").len > 0 && !mp_find_bool(item, "signs");
}

static int wait_voter(struct cli *c, const char *node_id, struct buf *ret_doc)
{
    int64_t end = (int64_t)clock_mono_ms() + c->timeout_ms;
    char last[32] = "";
    struct buf list;
    buf_init(&list, CLIENT_DOC_MAX);
    for (;;) {
        int64_t left = end - (int64_t)clock_mono_ms();
        char status[32] = "";
        if (left <= 0) {
            buf_fini(&list);
            return cli_fail(c, -ERR_TIMEOUT,
                            "it was added and goes on by itself: watch `rap authority list`",
                            "%s is not a voter that nodes believe after %us (%s)", node_id,
                            c->timeout_ms / 1000, last[0] == '\0' ? "unknown" : last);
        }
        int rc = client_once(c, "GET", "/v1/authorities", blob_of(NULL, 0), NULL,
                             left < 5000 ? (uint32_t)left : 5000, &list);
        struct blob item = rc == 0 ? find_node(buf_blob(&list), node_id) : blob_of(NULL, 0);
        mp_find_str(item, "status", status, sizeof status);
        if (strcmp(status, "voter") == 0 && is_unsigned(item)) {
            (void)snprintf(status, sizeof status, "voter, not signing yet");
        }
        if (status[0] != '\0' && strcmp(status, last) != 0) {
            cli_note(c, "%s", status);
            (void)snprintf(last, sizeof last, "%s", status);
        }
        if (strcmp(status, "voter") == 0) {
            buf_clear(ret_doc);
            buf_add(ret_doc, item.data, item.len);
            buf_fini(&list);
            return CLI_OK;
        }
        struct timespec pause = {.tv_nsec = 200000000};
        (void)nanosleep(&pause, NULL);
    }
}

int cli_run_authority_add(struct cli *c)
{
    struct addition a = {.node_id = ""};
    struct buf answer;
    buf_init(&a.doc, CLIENT_DOC_MAX);
    buf_init(&a.issuer, CERT_DER_MAX);
    buf_init(&answer, CLIENT_DOC_MAX);
    int rc = prepare(c, &a);
    if (rc != CLI_OK) {
        goto out;
    }
    int64_t voters = mp_find_int(buf_blob(&a.doc), "voters");
    show_effect(c, buf_blob(&a.doc), voters, voters + 1);
    rc = cli_confirm(c, "Make it an authority?");
    rc = rc != CLI_OK ? rc : certify(c, &a);
    if (rc == CLI_OK && c->dry_run) {
        cli_note(c, "dry run: nothing was changed");
        out_doc(c, buf_blob(&a.doc));
        goto out;
    }
    rc = rc != CLI_OK ? rc : submit(c, &a, &answer);
    if (rc == CLI_OK && cli_get(c, "no-wait") == NULL) {
        rc = wait_voter(c, a.node_id, &answer);
    }
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&answer));
    }
out:
    buf_fini(&a.doc);
    buf_fini(&a.issuer);
    buf_fini(&answer);
    return rc;
}

/* --- removing and handing over --- */

/* By id, unique prefix of an id, or name, as everywhere. */
static bool names(struct blob item, const char *wanted)
{
    char id[64], name[64];
    mp_find_str(item, "node_id", id, sizeof id);
    mp_find_str(item, "name", name, sizeof name);
    return strcmp(name, wanted) == 0 ||
           (strlen(wanted) >= 4 && strncmp(id, wanted, strlen(wanted)) == 0);
}

static struct blob look_up(struct blob list, const char *wanted, int64_t *ret_voters)
{
    struct blob found = blob_of(NULL, 0);
    struct mp_reader r;
    char status[32];
    *ret_voters = 0;
    mp_reader_init(&r, mp_find(list, "items"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        mp_find_str(item, "status", status, sizeof status);
        *ret_voters += strcmp(status, "voter") == 0;
        found = names(item, wanted) ? blob_of(item.data, item.len) : found;
    }
    return found;
}

int cli_run_authority_remove(struct cli *c)
{
    struct buf list, path;
    char status[32];
    int64_t voters;
    int rc = util_fetch(c, "/v1/authorities", NULL, &list);
    if (rc != CLI_OK) {
        buf_fini(&list);
        return rc;
    }
    struct blob item = look_up(buf_blob(&list), c->operands[0], &voters);
    mp_find_str(item, "status", status, sizeof status);
    if (item.len > 0) {
        show_effect(c, item, voters, voters - (strcmp(status, "voter") == 0));
        cli_note(
            c, "its issuing key makes no certificates that count any more; nodes it enrolled stay");
    }
    buf_fini(&list);
    rc = cli_confirm(c, "Remove this authority?");
    if (rc != CLI_OK) {
        return rc;
    }
    util_path(&path, "/v1/authorities/", c->operands[0], "");
    client_query(&path, "reason", cli_get(c, "reason"));
    client_query(&path, "force", cli_get(c, "force") == NULL ? NULL : "true");
    rc = util_mutate(c, "DELETE", &path, blob_of(NULL, 0), "removed");
    buf_fini(&path);
    return rc;
}

int cli_run_authority_demote(struct cli *c)
{
    struct buf list, path;
    struct util_body body;
    char status[32];
    int64_t voters;
    int rc = util_fetch(c, "/v1/authorities", NULL, &list);
    if (rc == CLI_OK) {
        struct blob item = look_up(buf_blob(&list), c->operands[0], &voters);
        mp_find_str(item, "status", status, sizeof status);
        if (item.len > 0) {
            show_effect(c, item, voters, voters - (strcmp(status, "voter") == 0));
        }
        rc = cli_confirm(c, "Take its vote?");
    }
    buf_fini(&list);
    if (rc != CLI_OK) {
        return rc;
    }
    util_path(&path, "/v1/authorities/", c->operands[0], "/demote");
    util_body_begin(&body);
    if (cli_get(c, "reason") != NULL) {
        mp_doc_str(&body.w, &body.d, "reason", cli_get(c, "reason"));
    }
    if (cli_get(c, "force") != NULL) {
        mp_doc_str(&body.w, &body.d, "force", "true");
    }
    rc = util_mutate(c, "POST", &path, util_body_end(&body), "demoted: it follows without a vote");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_authority_promote(struct cli *c)
{
    struct buf path, answer;
    struct util_body body;
    char id[64];
    buf_init(&answer, CLIENT_DOC_MAX);
    util_path(&path, "/v1/authorities/", c->operands[0], "/promote");
    util_body_begin(&body);
    if (cli_get(c, "reason") != NULL) {
        mp_doc_str(&body.w, &body.d, "reason", cli_get(c, "reason"));
    }
    int rc = client_send(c, "POST", &path, util_body_end(&body), &answer);
    mp_find_str(buf_blob(&answer), "node_id", id, sizeof id);
    if (rc == CLI_OK && !c->dry_run && cli_get(c, "no-wait") == NULL) {
        rc = wait_voter(c, id, &answer);
    }
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&answer));
    }
    util_body_fini(&body);
    buf_fini(&path);
    buf_fini(&answer);
    return rc;
}

int cli_run_authority_transfer(struct cli *c)
{
    struct buf path, doc;
    struct util_body body;
    cli_note(c, "effect: another authority leads; requests wait for about one election");
    int rc = cli_confirm(c, "Hand leadership over?");
    if (rc != CLI_OK) {
        return rc;
    }
    if (c->dry_run) {
        cli_note(c, "dry run: nothing was changed");
        return CLI_OK;
    }
    buf_init(&doc, CLIENT_DOC_MAX);
    util_path(&path, "/v1/authorities/transfer", NULL, "");
    util_body_begin(&body);
    if (c->operands[0] != NULL) {
        mp_doc_str(&body.w, &body.d, "node", c->operands[0]);
    }
    rc = client_act(c, "POST", &path, util_body_end(&body), &doc);
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
    }
    util_body_fini(&body);
    buf_fini(&path);
    buf_fini(&doc);
    return rc;
}
