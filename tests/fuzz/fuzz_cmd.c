/* A log entry, its commands and their bodies, as apply reads them. */
#include "fuzz/fuzz.h"

#include "wire/cmd.h"

union any_body {
#define MEMBER(NAME, num, name, ...) struct name name;
    CMD_KINDS(MEMBER)
};

/* What was decoded encodes to what decodes to the same. */
static void check_round_trip(const struct msg_desc *d, const void *msg, size_t bound)
{
    struct buf out;
    union {
        union any_body body;
        struct cmd cmd;
        struct cmd_entry entry;
        struct cmd_cert cert;
    } again;
    buf_init(&out, bound + 16);
    msg_encode(d, msg, &out);
    CHECK(out.err == 0); /* never longer than what it was decoded from */
    CHECK(msg_decode(d, MSG_STRICT, buf_blob(&out), &again) == 0);
    CHECK(msg_equal(d, msg, &again));
    buf_fini(&out);
}

static void command(struct blob in)
{
    struct cmd c;
    union any_body body;
    if (msg_decode(&cmd_desc, MSG_STRICT, in, &c) != 0) {
        return;
    }
    check_round_trip(&cmd_desc, &c, in.len);
    const struct msg_desc *d = cmd_body_desc(c.kind);
    CHECK((d == NULL) == (cmd_kind_name(c.kind) == NULL));
    if (d != NULL && msg_decode(d, MSG_STRICT, c.body, &body) == 0) {
        check_round_trip(d, &body, c.body.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blob in = blob_of(data, size);
    struct cmd_entry entry;
    struct cmd_cert cert;
    if (msg_decode(&cmd_entry_desc, MSG_STRICT, in, &entry) == 0) {
        check_round_trip(&cmd_entry_desc, &entry, size);
        struct mp_reader r;
        mp_reader_init(&r, entry.commands.raw);
        for (uint32_t i = 0; i < entry.commands.count && r.err == 0; i++) {
            command(mp_get_bin(&r, ENTRY_MAX_BYTES));
        }
    }
    command(in);
    if (msg_decode(&cmd_cert_desc, MSG_STRICT, in, &cert) == 0) {
        check_round_trip(&cmd_cert_desc, &cert, size);
    }
    return 0;
}
