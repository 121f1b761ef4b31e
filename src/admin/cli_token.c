#include "admin/cli_util.h"

#include "base/rng.h"
#include "base/text.h"
#include "pki/pki.h"
#include "wire/token.h"

int cli_run_token_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},
        {"USED", "used_count", OUT_TEXT},
        {"MAX", "max_uses", OUT_TEXT},
        {"EXPIRES", "expires_at", OUT_AGE},
        {"REVOKED", "revoked_at", OUT_AGE},
        {"ROLES", "scope_roles", OUT_TEXT},
        {"FOR", "scope_name", OUT_TEXT},
        {"CREATED", "created_at", OUT_AGE},
    };
    struct out_list list = {"/v1/tokens", cols, ARRAY_SIZE(cols), false,
                            "no tokens yet: make one with `rap token create`"};
    return out_list(c, &list);
}

int cli_run_token_revoke(struct cli *c)
{
    struct buf path;
    util_path(&path, "/v1/tokens/", c->operands[0], "");
    int rc = util_mutate(c, "DELETE", &path, blob_of(NULL, 0), "the token is useless now");
    buf_fini(&path);
    return rc;
}

static int request_body(struct cli *c, const uint8_t secret[32], struct util_body *b)
{
    uint8_t hash[PKI_HASH_BYTES];
    int64_t uses = 1, ttl_ms = 3600000;
    size_t roles = 0;
    int rc = cli_get_count(c, "uses", &uses);
    rc = rc != CLI_OK ? rc : cli_get_duration(c, "ttl", &ttl_ms);
    if (rc != CLI_OK) {
        return rc;
    }
    if (ttl_ms < 1000 || ttl_ms > TOKEN_TTL_MAX_MS) {
        return cli_usage(c, NULL, "--ttl: 1s to 30d");
    }
    pki_sha256(blob_of(secret, 32), hash);
    mp_doc_str(&b->w, &b->d, "ttl", cli_get(c, "ttl") == NULL ? "1h" : cli_get(c, "ttl"));
    mp_doc_int(&b->w, &b->d, "max_uses", uses);
    if (cli_get(c, "name") != NULL) {
        mp_doc_str(&b->w, &b->d, "name", cli_get(c, "name"));
    }
    while (cli_get_nth(c, "role", roles) != NULL) {
        roles++;
    }
    if (roles > 0) {
        mp_doc_key(&b->w, &b->d, "roles");
        mp_put_array(&b->w, (uint32_t)roles);
        for (size_t i = 0; i < roles; i++) {
            mp_put_str(&b->w, cli_get_nth(c, "role", i));
        }
    }
    mp_doc_hex(&b->w, &b->d, "secret_hash", blob_of(hash, sizeof hash));
    return CLI_OK;
}

/* What a token says besides its secret. */
struct token_facts {
    char cluster_id[UUID_TEXT_MAX];
    char fingerprint[65];
    char addresses[TOKEN_ADDRESSES_MAX + 1];
    char pin[SET_PIN_TEXT_MAX]; /* "": a cluster without an authority set */
};

static void add_address(struct buf *out, struct blob authority)
{
    char address[ADDRESS_MAX_BYTES + 1], status[32];
    mp_find_str(authority, "address", address, sizeof address);
    mp_find_str(authority, "status", status, sizeof status);
    if (address[0] != '\0' && strcmp(status, "voter") == 0) {
        buf_addf(out, "%s%s", out->len == 0 ? "" : ",", address);
    }
}

/* The answer to a repeated request is the token's row alone: ask for the rest. */
static int look_up_facts(struct cli *c, struct token_facts *f)
{
    struct buf cluster, authorities, addresses;
    struct mp_reader r;
    int rc = util_fetch(c, "/v1/cluster", NULL, &cluster);
    mp_find_str(buf_blob(&cluster), "id", f->cluster_id, sizeof f->cluster_id);
    mp_find_str(buf_blob(&cluster), "root_id", f->fingerprint, sizeof f->fingerprint);
    buf_fini(&cluster);
    if (rc != CLI_OK) {
        return rc;
    }
    rc = util_fetch(c, "/v1/trust", NULL, &cluster);
    mp_find_str(buf_blob(&cluster), "authority_set_pin", f->pin, sizeof f->pin);
    buf_fini(&cluster);
    if (rc != CLI_OK) {
        return rc;
    }
    rc = util_fetch(c, "/v1/authorities", NULL, &authorities);
    buf_init(&addresses, sizeof f->addresses - 1);
    mp_reader_init(&r, mp_find(buf_blob(&authorities), "items"));
    uint32_t n = rc == CLI_OK ? mp_get_array(&r, UINT32_MAX) : 0;
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        add_address(&addresses, mp_skip(&r));
    }
    (void)snprintf(f->addresses, sizeof f->addresses, "%s", buf_cstr(&addresses));
    buf_fini(&addresses);
    buf_fini(&authorities);
    return rc;
}

/* The token's text, from what the cluster answered and our secret. Exit code. */
static int token_text(struct cli *c, struct blob answer, const uint8_t secret[32], struct buf *out)
{
    struct token_facts f = {.cluster_id = ""};
    struct join_token t = {.pin = {.epoch = 0}};
    mp_find_str(answer, "authority_set_pin", f.pin, sizeof f.pin);
    mp_find_str(answer, "cluster_id", f.cluster_id, sizeof f.cluster_id);
    mp_find_str(answer, "root_fingerprint", f.fingerprint, sizeof f.fingerprint);
    mp_find_str(answer, "addresses", f.addresses, sizeof f.addresses);
    if (f.cluster_id[0] == '\0' || f.fingerprint[0] == '\0' || f.addresses[0] == '\0') {
        int rc = look_up_facts(c, &f);
        if (rc != CLI_OK) {
            return rc;
        }
    }
    if (uuid_parse(f.cluster_id, &t.cluster_id) != 0 ||
        hex_decode(f.fingerprint, t.root_fingerprint, 32) != 0 || f.addresses[0] == '\0' ||
        (f.pin[0] != '\0' && set_pin_parse(f.pin, &t.pin) != 0)) {
        return cli_fail(c, -ERR_MALFORMED, "revoke it (`rap token list`), then check versions",
                        "the daemon did not say how to reach the cluster");
    }
    memcpy(t.secret, secret, sizeof t.secret);
    memcpy(t.addresses, f.addresses, sizeof f.addresses);
    token_format(&t, out);
    explicit_bzero(&t, sizeof t);
    return CLI_OK;
}

static void show(struct cli *c, struct blob answer, struct buf *token)
{
    struct util_body b;
    struct mp_reader r;
    util_body_begin(&b);
    mp_reader_init(&r, answer);
    uint32_t n = mp_get_map(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob key = mp_get_str(&r, SIZE_MAX);
        struct blob value = mp_skip(&r);
        b.d.count++;
        mp_put_strn(&b.w, (const char *)key.data, key.len);
        mp_put_raw(&b.w, value);
        if (i == 0) { /* right after the id */
            mp_doc_str(&b.w, &b.d, "token", buf_cstr(token));
        }
    }
    char *join = xasprintf("rap join --token-file - --listen IP:PORT <<'END'\n%s\nEND",
                           buf_cstr(token));
    bool print_join = cli_get(c, "print-join") != NULL;
    if (print_join && c->json) {
        mp_doc_str(&b.w, &b.d, "join_command", join);
    }
    out_doc(c, util_body_end(&b));
    buf_wipe(&b.bytes);
    if (print_join && !c->json) {
        fprintf(c->out, "\nOn the new host, with its own address and a free UDP port:\n\n%s\n",
                join);
    }
    explicit_bzero(join, strlen(join));
    free(join);
    cli_note(c, "the token is shown once; then watch `rap request list --status pending`");
}

int cli_run_token_create(struct cli *c)
{
    uint8_t secret[32];
    struct util_body body;
    struct buf path, answer, token;
    util_body_begin(&body);
    util_path(&path, "/v1/tokens", NULL, "");
    buf_init(&answer, CLIENT_DOC_MAX);
    buf_init(&token, TOKEN_TEXT_MAX);
    rng_bytes(secret, sizeof secret);
    int rc = request_body(c, secret, &body);
    rc = rc != CLI_OK ? rc : client_send(c, "POST", &path, util_body_end(&body), &answer);
    if (rc != CLI_OK) {
        goto out;
    }
    if (c->dry_run) {
        out_doc(c, buf_blob(&answer));
        cli_note(c, "dry run: no token was made");
        goto out;
    }
    rc = token_text(c, buf_blob(&answer), secret, &token);
    if (rc == CLI_OK) {
        show(c, buf_blob(&answer), &token);
    }
out:
    util_body_fini(&body);
    buf_fini(&path);
    buf_fini(&answer);
    buf_wipe(&token);
    explicit_bzero(secret, sizeof secret);
    return rc;
}
