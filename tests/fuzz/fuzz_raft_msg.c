/* Bytes of a peer that says it is an authority. What decodes must encode again. */
#include "fuzz/fuzz.h"

#include "authority/raft_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct raft_message m;
    struct raft_digest d;
    struct raft_configuration conf;
    struct blob value;
    struct blob in = blob_of(data, size);
    if (raft_msg_decode(in, &m, &d) == 0) {
        struct buf out;
        struct raft_message again;
        buf_init(&out, RAFT_FRAME_MAX);
        CHECK(raft_msg_encode(&m, &d, &out) == 0);
        CHECK(raft_msg_decode(buf_blob(&out), &again, &d) == 0);
        CHECK(again.type == m.type);
        raft_msg_release(&again);
        raft_msg_release(&m);
        buf_fini(&out);
    }
    /* The two other decoders of bytes we did not write ourselves. */
    if (raft_msg_conf_decode(in, &conf) == 0) {
        raft_configuration_close(&conf);
    }
    if (size % 8 == 0 && raft_msg_change_check(in) == 0) {
        struct raft_buffer b = {.base = (void *)(uintptr_t)data, .len = size};
        CHECK(raft_configuration_decode(&b, &conf) == 0);
        raft_configuration_close(&conf);
    }
    (void)raft_msg_unpad(in, &value);
    return 0;
}
