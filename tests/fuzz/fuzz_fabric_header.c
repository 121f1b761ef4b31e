/* What a peer writes into a stream: frames, the first of them a header. However the bytes are cut,
 * the same frames come out. */
#include "fuzz/fuzz.h"

#include "fabric/fabric_impl.h"

#define FRAME_MAX 300

struct seen {
    size_t frames, bytes;
    uint32_t sum;
    int rc;
};

static void feed(struct seen *seen, const uint8_t *data, size_t size, size_t step)
{
    struct frame_reader r;
    frame_reader_init(&r, FRAME_MAX);
    *seen = (struct seen){0};
    for (size_t at = 0; at < size && seen->rc == 0; at += step) {
        frame_reader_add(&r, blob_of(data + at, size - at < step ? size - at : step));
        struct blob frame;
        int rv;
        while ((rv = frame_reader_next(&r, &frame)) == 1) {
            CHECK(frame.len <= FRAME_MAX);
            seen->frames++;
            seen->bytes += frame.len;
            for (size_t i = 0; i < frame.len; i++) {
                seen->sum = seen->sum * 31 + frame.data[i];
            }
        }
        seen->rc = rv;
        CHECK(frame_reader_left(&r) <= 4 + FRAME_MAX || rv < 0);
    }
    frame_reader_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stream_header h;
    if (size <= HEADER_FRAME_MAX &&
        msg_decode(&stream_header_desc, MSG_LENIENT, blob_of(data, size), &h) == 0) {
        struct buf out;
        buf_init(&out, HEADER_FRAME_MAX);
        msg_encode(&stream_header_desc, &h, &out);
        struct stream_header again;
        CHECK(out.err == 0 &&
              msg_decode(&stream_header_desc, MSG_STRICT, buf_blob(&out), &again) == 0 &&
              msg_equal(&stream_header_desc, &h, &again));
        buf_fini(&out);
    }
    struct seen whole;
    struct seen bytewise;
    feed(&whole, data, size, size + 1);
    feed(&bytewise, data, size, 1);
    CHECK(whole.frames == bytewise.frames && whole.bytes == bytewise.bytes &&
          whole.sum == bytewise.sum && whole.rc == bytewise.rc);
    return 0;
}
