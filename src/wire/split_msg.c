#include "wire/split_msg.h"

#include "base/text.h"
#include "wire/cmd.h"

MSG_DEFINE(split_terms, SPLIT_TERMS_FIELDS)
MSG_DEFINE(split_end, SPLIT_END_FIELDS)
MSG_DEFINE(split_report, SPLIT_REPORT_FIELDS)
MSG_DEFINE(split_report_node, SPLIT_REPORT_NODE_FIELDS)
MSG_DEFINE(split_report_role, SPLIT_REPORT_ROLE_FIELDS)
MSG_DEFINE(signed_split_report, SIGNED_SPLIT_REPORT_FIELDS)
MSG_DEFINE(split_begin, SPLIT_BEGIN_FIELDS)
MSG_DEFINE(split_finish, SPLIT_FINISH_FIELDS)
MSG_DEFINE(split_cancel, SPLIT_CANCEL_FIELDS)

static bool is_name(struct blob b)
{
    return text_is_name((const char *)b.data, b.len);
}

int split_terms_decode(struct blob in, struct split_terms *ret)
{
    struct split_terms t;
    struct mp_reader r;
    struct uuid last = UUID_NIL;
    bool seed = false;
    int rc = msg_decode(&split_terms_desc, MSG_STRICT, in, &t);
    if (rc != 0) {
        return rc;
    }
    mp_reader_init(&r, t.nodes.raw);
    for (uint32_t i = 0; i < t.nodes.count; i++) {
        struct uuid id = mp_get_uuid(&r);
        if (r.err != 0 || memcmp(&last, &id, sizeof id) >= 0) {
            return -ERR_MALFORMED;
        }
        seed = seed || uuid_equal(&id, &t.seed_id);
        last = id;
    }
    if (!seed || !is_name(t.name) || uuid_equal(&t.cluster_id, &t.new_cluster_id)) {
        return -ERR_MALFORMED;
    }
    *ret = t;
    return 0;
}

static int node_item(struct mp_reader *r, struct split_report_node *ret)
{
    int rc = msg_decode(&split_report_node_desc, MSG_STRICT, mp_get_bin(r, SPLIT_REPORT_ITEM_MAX),
                        ret);
    return rc == 0 && !is_name(ret->name) ? -ERR_MALFORMED : rc;
}

static int role_item(struct mp_reader *r, struct split_report_role *ret)
{
    return msg_decode(&split_report_role_desc, MSG_STRICT, mp_get_bin(r, SPLIT_REPORT_ITEM_MAX),
                      ret);
}

int split_report_decode(struct blob body, struct split_report *ret)
{
    struct split_report s;
    struct split_report_node node;
    struct split_report_role role;
    struct mp_reader r;
    /* A newer version first: it may have keys that are not known here. */
    int rc = msg_decode(&split_report_desc, MSG_LENIENT, body, &s);
    if (rc == 0 && s.version > SPLIT_REPORT_VERSION) {
        return -ERR_SCHEMA;
    }
    rc = rc != 0 ? rc : msg_decode(&split_report_desc, MSG_STRICT, body, &s);
    if (rc != 0) {
        return rc;
    }
    mp_reader_init(&r, s.nodes.raw);
    for (uint32_t i = 0; rc == 0 && i < s.nodes.count; i++) {
        rc = node_item(&r, &node);
    }
    mp_reader_init(&r, s.roles.raw);
    for (uint32_t i = 0; rc == 0 && i < s.roles.count; i++) {
        rc = role_item(&r, &role);
    }
    bool numbers = s.voters <= AUTHORITIES_MAX && s.voters_in_contact <= s.voters && s.time_ms >= 0;
    bool names = (s.cluster_name.len == 0 || is_name(s.cluster_name)) &&
                 (s.admin_name.len == 0 || is_name(s.admin_name));
    if (rc != 0 || !numbers || !names) {
        return rc != 0 ? rc : -ERR_MALFORMED;
    }
    *ret = s;
    return 0;
}

uint32_t split_report_nodes(const struct split_report *r,
                            struct split_report_node out[SPLIT_NODES_MAX])
{
    struct mp_reader in;
    mp_reader_init(&in, r->nodes.raw);
    for (uint32_t i = 0; i < r->nodes.count; i++) {
        CHECK(node_item(&in, &out[i]) == 0);
    }
    return r->nodes.count;
}

uint64_t split_report_holders(const struct split_report *r, struct blob role)
{
    struct mp_reader in;
    struct split_report_role item;
    mp_reader_init(&in, r->roles.raw);
    for (uint32_t i = 0; i < r->roles.count; i++) {
        CHECK(role_item(&in, &item) == 0);
        if (blob_equal(item.role, role)) {
            return item.holders;
        }
    }
    return 0;
}

void split_report_format(struct blob signed_report, struct buf *out)
{
    buf_add_str(out, SPLIT_REPORT_PREFIX);
    b64url_encode(signed_report, out);
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

int split_report_parse(struct blob text, struct buf *out)
{
    static const char prefix[] = SPLIT_REPORT_PREFIX;
    const size_t skip = sizeof prefix - 1;
    while (text.len > 0 && is_space(text.data[text.len - 1])) {
        text.len--;
    }
    while (text.len > 0 && is_space(text.data[0])) {
        text = blob_of(text.data + 1, text.len - 1);
    }
    if (text.len > SPLIT_REPORT_TEXT_MAX) {
        return -ERR_TOO_LARGE;
    }
    if (text.len <= skip || memcmp(text.data, prefix, skip) != 0 ||
        b64url_decode((const char *)text.data + skip, text.len - skip, out) != 0) {
        return -ERR_MALFORMED;
    }
    return 0;
}
