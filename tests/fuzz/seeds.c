/* Writes the first inputs of every corpus: `seeds tests/fuzz/corpus`. Keys are new each time, so the
 * files are committed and this is run when a format is added. */
#include "lib/msg_catalog.h"
#include "lib/pki_fixture.h"

#include "base/file.h"
#include "pki/statement.h"
#include "wire/node_msg.h"
#include "wire/token.h"

static const char *root_dir;

static void put(const char *target, const char *name, struct blob content)
{
    struct errmsg em = ERRMSG_INIT;
    char *dir = path_join(root_dir, target);
    char *path = path_join(dir, name);
    if (file_mkdirs(dir, &em) != 0 || file_write_atomic(path, content, 0644, &em) != 0) {
        fatal("%s", em.text);
    }
    free(path);
    free(dir);
}

static void add_sized(struct buf *out, struct blob der)
{
    const uint8_t head[] = {(uint8_t)(der.len >> 8), (uint8_t)der.len};
    buf_add(out, head, sizeof head);
    buf_add(out, der.data, der.len);
}

static void pki_seeds(void)
{
    struct test_ca ca;
    struct buf leaf;
    struct buf out;
    test_ca_init(&ca, 1, 2);
    struct pki_key *k = pki_key_generate();
    struct pki_cert spec = test_leaf_spec(&ca, 2, k);
    spec.authority = true;
    test_issue(&ca, &spec, &leaf);
    buf_init(&out, 65536);

    put("fuzz_pki_cert", "root", buf_blob(&ca.root_der));
    put("fuzz_pki_cert", "issuer", buf_blob(&ca.issuer_der));
    put("fuzz_pki_cert", "leaf", buf_blob(&leaf));
    add_sized(&out, buf_blob(&leaf));
    add_sized(&out, buf_blob(&ca.issuer_der));
    add_sized(&out, buf_blob(&ca.root_der));
    put("fuzz_pki_cert", "chain", buf_blob(&out));

    buf_clear(&out);
    (void)pki_csr_build(k, &out);
    put("fuzz_pki_csr", "good", buf_blob(&out));
    out.data[out.len - 1] ^= 1;
    put("fuzz_pki_csr", "bad_signature", buf_blob(&out));

    buf_clear(&out);
    (void)pki_pem_add(buf_blob(&leaf), &out);
    put("fuzz_pki_pem", "one", buf_blob(&out));
    (void)pki_pem_add(buf_blob(&ca.issuer_der), &out);
    (void)pki_pem_add(buf_blob(&ca.root_der), &out);
    put("fuzz_pki_pem", "chain", buf_blob(&out));

    buf_fini(&out);
    buf_fini(&leaf);
    pki_key_free(k);
    test_ca_fini(&ca);
}

static void add_command(const struct msg_desc *d, uint64_t kind, const void *body,
                        struct mp_writer *w, uint32_t *count)
{
    struct cmd c = {
        .kind = kind, .request_id = {.b = {1}}, .time_ms = 1, .actor_kind = blob_str(ACTOR_SYSTEM)};
    struct buf one;
    buf_init(&one, CMD_BODY_MAX + 1024);
    cmd_encode(&c, body, &one);
    put("fuzz_cmd", d->name, buf_blob(&one));
    mp_put_bin(w, buf_blob(&one));
    (*count)++;
    buf_fini(&one);
}

static void message_seeds(void)
{
    struct buf list;
    struct mp_writer w;
    uint32_t commands = 0;
    buf_init(&list, 1u << 20);
    mp_writer_init(&w, &list);
    for (size_t k = 0; k < msg_catalog_count; k++) {
        const struct msg_desc *d = msg_catalog[k].desc;
        struct msg_arena arena = {.count = 0};
        struct buf out;
        uint8_t which = (uint8_t)k;
        void *msg = xmalloc(d->size);
        buf_init(&out, 1u << 20);
        msg_sample_fixed(d, &arena, msg);
        buf_add(&out, &which, 1);
        msg_encode(d, msg, &out);
        put("fuzz_node_msg", d->name, buf_blob(&out));
        put("fuzz_mp", d->name, blob_of(out.data + 1, out.len - 1));
        for (uint64_t kind = 0; kind < 64; kind++) {
            if (cmd_body_desc(kind) == d) {
                add_command(d, kind, msg, &w, &commands);
            }
        }
        free(msg);
        buf_fini(&out);
        msg_arena_free(&arena);
    }
    const struct cmd_entry entry = {
        .version = CMD_VERSION, .term = 1, .commands = {.raw = buf_blob(&list), .count = commands}};
    struct buf out;
    buf_init(&out, 1u << 20);
    msg_encode(&cmd_entry_desc, &entry, &out);
    put("fuzz_cmd", "entry", buf_blob(&out));
    buf_fini(&out);
    buf_fini(&list);
}

static void token_seeds(void)
{
    struct join_token t = {.cluster_id = {.b = {1}}, .addresses = "10.0.0.1:7400,[::1]:7400"};
    struct buf out;
    buf_init(&out, TOKEN_TEXT_MAX);
    token_format(&t, &out);
    put("fuzz_token", "two_addresses", buf_blob(&out));
    buf_add_str(&out, "\n");
    put("fuzz_token", "newline", buf_blob(&out));
    buf_fini(&out);
}

static void put_kind(const char *name, uint8_t kind, struct blob content)
{
    struct buf out;
    buf_init(&out, SIGNED_SPLIT_REPORT_MAX * 2);
    buf_add(&out, &kind, 1);
    buf_add(&out, content.data, content.len);
    put("fuzz_split", name, buf_blob(&out));
    buf_fini(&out);
}

static void split_report_seeds(void)
{
    struct buf nodes, roles, out;
    uint32_t count = 0;
    const struct split_report_node node = {.name = blob_str("n1"),
                                           .healthy = true,
                                           .votes = true,
                                           .current = true,
                                           .held_version = 42};
    const struct split_report_role role = {.role = blob_str("relay-node"), .holders = 2};
    buf_init(&nodes, 4096);
    buf_init(&roles, 4096);
    buf_init(&out, SPLIT_REPORT_TEXT_MAX);
    msg_list_add(&split_report_node_desc, &node, &nodes, &count);
    struct split_report r = {.version = SPLIT_REPORT_VERSION,
                             .cluster_id = {.b = {1}},
                             .cluster_name = blob_str("site-b"),
                             .time_ms = 1780000000000,
                             .voters = 3,
                             .voters_in_contact = 3,
                             .admin_name = blob_str("n1"),
                             .nodes = {.raw = buf_blob(&nodes), .count = count}};
    count = 0;
    msg_list_add(&split_report_role_desc, &role, &roles, &count);
    r.roles = (struct mp_list){.raw = buf_blob(&roles), .count = count};
    msg_encode(&split_report_desc, &r, &out);
    put_kind("report_good", 2, buf_blob(&out));
    struct pki_key *root = pki_key_generate();
    buf_clear(&out);
    (void)split_report_sign(root, &r, &out);
    put_kind("signed_good", 5, buf_blob(&out));
    buf_clear(&nodes);
    split_report_format(buf_blob(&out), &nodes);
    put_kind("text_good", 0, buf_blob(&nodes));
    pki_key_free(root);
    buf_fini(&nodes);
    buf_fini(&roles);
    buf_fini(&out);
}

static void split_terms_seeds(void)
{
    static const uint8_t pin[PKI_HASH_BYTES] = {7};
    const struct uuid ids[] = {{.b = {4}}, {.b = {5}}};
    struct buf nodes, out;
    struct mp_writer w;
    buf_init(&nodes, 256);
    buf_init(&out, SPLIT_TERMS_MAX);
    mp_writer_init(&w, &nodes);
    mp_put_uuid(&w, &ids[0]);
    mp_put_uuid(&w, &ids[1]);
    const struct split_terms t = {.cluster_id = {.b = {1}},
                                  .split_id = {.b = {2}},
                                  .name = blob_str("site-b"),
                                  .new_cluster_id = {.b = {3}},
                                  .root_pin = blob_of(pin, sizeof pin),
                                  .seed_id = ids[1],
                                  .nodes = {.raw = buf_blob(&nodes), .count = 2}};
    msg_encode(&split_terms_desc, &t, &out);
    put_kind("terms_good", 0, buf_blob(&out));
    buf_fini(&nodes);
    buf_fini(&out);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s CORPUS-ROOT\n", argv[0]);
        return 2;
    }
    root_dir = argv[1];
    pki_seeds();
    message_seeds();
    token_seeds();
    split_report_seeds();
    split_terms_seeds();
    return 0;
}
