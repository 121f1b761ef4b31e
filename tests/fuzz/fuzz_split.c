/* What a new cluster reports and what an owner signs of a split. What decodes must encode again to the
 * same; a report that decodes is read to its end. */
#include "fuzz/fuzz.h"

#include "pki/statement.h"

static const struct msg_desc *const descs[] = {
    &split_terms_desc,       &split_end_desc,         &split_report_desc,
    &split_report_node_desc, &split_report_role_desc, &signed_split_report_desc,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[PKI_KEY_BYTES] = {1};
    uint8_t pin[PKI_HASH_BYTES];
    struct split_terms terms;
    struct split_report report;
    struct split_report_node nodes[SPLIT_NODES_MAX];
    struct buf bytes;
    if (size == 0) {
        return 0;
    }
    struct blob in = blob_of(data + 1, size - 1);
    fuzz_round_trip(descs[data[0] % ARRAY_SIZE(descs)], MSG_STRICT, in);
    if (split_report_decode(in, &report) == 0) {
        uint32_t n = split_report_nodes(&report, nodes);
        CHECK(n <= SPLIT_NODES_MAX);
        (void)split_report_holders(&report, blob_str("relay-node"));
    }
    if (split_terms_decode(in, &terms) == 0) {
        CHECK(terms.nodes.count >= 1 && terms.nodes.count <= SPLIT_NODES_MAX);
    }
    CHECK(split_terms_verify(in, in, key, &terms) != 0);
    (void)split_report_verify(in, &report, pin, NULL);
    buf_init(&bytes, SIGNED_SPLIT_REPORT_MAX);
    (void)split_report_parse(in, &bytes);
    buf_fini(&bytes);
    return 0;
}
