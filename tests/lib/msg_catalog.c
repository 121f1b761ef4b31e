#include "lib/msg_catalog.h"

#include "base/crc32c.h"
#include "wire/witness_msg.h"

/* Declared where nobody else sees them; the description is all that is needed here. */
extern const struct msg_desc stream_header_desc; /* fabric */
extern const struct msg_desc raft_frame_desc;    /* authority/raft_msg.c */
extern const struct msg_desc config_schema_desc; /* agent/config.c */

#define STRICT_CMD(NAME, num, name, ...) {&name##_desc, true},

const struct msg_catalog_entry msg_catalog[] = {
    CMD_KINDS(STRICT_CMD){&cmd_entry_desc, true},
    {&cmd_desc, true},
    {&cmd_cert_desc, true},
    {&trust_issuer_desc, true},
    {&heartbeat_sample_desc, true},
    {&mesh_link_seen_desc, true},
    {&mesh_route_seen_desc, true},
    {&trust_root_desc, false},
    {&trust_record_desc, false},
    {&trust_signature_desc, false},
    {&signed_trust_desc, false},
    {&enroll_request_desc, false},
    {&enroll_status_desc, false},
    {&heartbeat_desc, false},
    {&link_sample_desc, false},
    {&route_sample_desc, false},
    {&heartbeat_ack_desc, false},
    {&clock_request_desc, false},
    {&clock_answer_desc, false},
    {&renew_request_desc, false},
    {&renew_answer_desc, false},
    {&config_subscribe_desc, false},
    {&issuer_request_desc, false},
    {&issuer_answer_desc, false},
    {&op_request_desc, false},
    {&snapshot_body_desc, false},
    {&snapshot_authority_desc, false},
    {&snapshot_role_desc, false},
    {&snapshot_peer_desc, false},
    {&snapshot_relay_desc, false},
    {&snapshot_mesh_desc, false},
    {&snapshot_intent_desc, false},
    {&snapshot_qos_desc, false},
    {&snapshot_pool_desc, false},
    {&snapshot_resource_desc, false},
    {&signed_snapshot_desc, false},
    {&snapshot_signature_desc, false},
    {&stream_header_desc, false},
    {&raft_frame_desc, false},
    {&config_schema_desc, false},
    {&witness_statement_desc, false},
    {&witness_signature_desc, false},
    {&authority_set_desc, false},
    {&authority_set_member_desc, false},
    {&signed_set_desc, false},
    {&set_signature_desc, false},
    {&witness_request_desc, false},
    {&witness_answer_desc, false},
    {&node_leaf_desc, false},
    {&leaf_proof_desc, false},
    {&snapshot_witness_desc, false},
    {&forgery_report_desc, false},
    {&split_terms_desc, true},
    {&split_end_desc, true},
    {&split_report_desc, true},
    {&split_report_node_desc, true},
    {&split_report_role_desc, true},
    {&signed_split_report_desc, true},
    {&recovery_statement_desc, false},
    {&recovery_run_desc, false},
    {&signed_recovery_desc, false},
    {&merge_consent_desc, false},
    {&recovery_ask_desc, false},
    {&recovery_answer_desc, false},
    {&divergence_row_desc, false},
    {&divergence_report_desc, false},
    {&fence_note_desc, false},
    {&heal_note_desc, false},
    {&backup_header_desc, false},
    {&signed_backup_desc, false},
    {&synthetic_desc, false},
    {&synthetic_ack_desc, false},
};
const size_t msg_catalog_count = ARRAY_SIZE(msg_catalog);

void msg_arena_free(struct msg_arena *a)
{
    for (size_t i = 0; i < a->count; i++) {
        buf_fini(&a->chunks[i]);
    }
    a->count = 0;
}

static struct buf *chunk(struct msg_arena *a)
{
    CHECK(a->count < ARRAY_SIZE(a->chunks));
    struct buf *b = &a->chunks[a->count++];
    buf_init(b, 8u << 20);
    return b;
}

static struct blob random_bytes(struct prng *p, struct msg_arena *a, size_t len)
{
    struct buf *b = chunk(a);
    uint8_t *to = buf_grow(b, len);
    prng_bytes(p, to, len);
    return buf_blob(b);
}

/* At most max bytes of letters, with some that take two, three and four bytes. */
static struct blob random_text(struct prng *p, struct msg_arena *a, size_t max)
{
    static const char *const pieces[] = {
        "a", "Z", "0", "-", " ", "\"", "\\", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x94\x91"};
    struct buf *b = chunk(a);
    while (b->len < max) {
        const char *s = pieces[prng_below(p, ARRAY_SIZE(pieces))];
        if (b->len + strlen(s) > max) {
            s = "x";
        }
        buf_add_str(b, s);
    }
    return buf_blob(b);
}

static struct mp_list random_list(struct prng *p, struct msg_arena *a, size_t count)
{
    struct buf *b = chunk(a);
    struct mp_writer w;
    mp_writer_init(&w, b);
    for (size_t i = 0; i < count; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "item-%llu", (unsigned long long)prng_below(p, 100000));
        if (prng_below(p, 2) == 0) {
            mp_put_str(&w, text);
        } else {
            mp_put_bin(&w, blob_str(text));
        }
    }
    return (struct mp_list){.raw = buf_blob(b), .count = (uint32_t)count};
}

/* A number of any width, not zero. */
static uint64_t random_number(struct prng *p)
{
    /* Two statements: within one, the compiler chooses which draw comes first. */
    uint64_t shift = prng_below(p, 64);
    uint64_t v = prng_u64(p) >> shift;
    return v == 0 ? 1 : v;
}

static void fill(const struct msg_field *f, struct prng *p, struct msg_arena *a, size_t len,
                 void *at)
{
    switch ((enum msg_type)f->type) {
        case MSG_U64:
            *(uint64_t *)at = random_number(p);
            return;
        case MSG_I64: {
            int64_t v = (int64_t)(random_number(p) >> 1);
            *(int64_t *)at = v == 0 ? -1 : prng_below(p, 4) == 0 ? -v : v;
            return;
        }
        case MSG_FLAG:
            *(bool *)at = true;
            return;
        case MSG_STR:
            *(struct blob *)at = random_text(p, a, len);
            return;
        case MSG_BIN:
            *(struct blob *)at = random_bytes(p, a, len);
            return;
        case MSG_FIX:
            *(struct blob *)at = random_bytes(p, a, f->max);
            return;
        case MSG_ID:
            prng_bytes(p, ((struct uuid *)at)->b, 16);
            return;
        case MSG_LIST:
            *(struct mp_list *)at = random_list(p, a, len);
            return;
    }
    CHECK(false);
}

void msg_sample_fixed(const struct msg_desc *d, struct msg_arena *a, void *msg)
{
    memset(msg, 0, d->size);
    for (size_t i = 0; i < d->count; i++) {
        const struct msg_field *f = &d->fields[i];
        struct prng p;
        prng_seed(&p, (uint64_t)crc32c(0, d->name, strlen(d->name)) << 8 | f->key);
        size_t len = f->type == MSG_LIST ? 2 : 5 + f->key % 7u;
        fill(f, &p, a, len < f->max ? len : f->max, (char *)msg + f->offset);
    }
}

void msg_sample_random(const struct msg_desc *d, struct prng *p, struct msg_arena *a, void *msg)
{
    memset(msg, 0, d->size);
    for (size_t i = 0; i < d->count; i++) {
        const struct msg_field *f = &d->fields[i];
        if ((f->flags & MSG_REQUIRED) == 0 && prng_below(p, 3) == 0) {
            continue;
        }
        /* Mostly short, now and then the very bound of what is bounded tightly. */
        size_t most = f->max < 70000 ? f->max : 70000;
        size_t len = prng_below(p, 4) == 0 ? most : 1 + prng_below(p, most < 40 ? most + 1 : 40);
        fill(f, p, a, len < f->max ? len : f->max, (char *)msg + f->offset);
    }
}
