/* An overlay packet from a neighbour: what decodes encodes to the same bytes. The input is a run of
 * packets, each behind two bytes of length; the guard of a relay sees those that decode, and must never
 * let the same one pass twice. */
#include "fuzz/fuzz.h"

#include "fabric/relay_guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_guard guard = {0};
    static const struct uuid neighbour = {.b = {1}};
    uint64_t now_ns = 1;
    while (size >= 2) {
        size_t len = (size_t)data[0] << 8 | data[1];
        data += 2;
        size -= 2;
        len = len < size ? len : size;
        struct overlay_packet p;
        if (overlay_decode(blob_of(data, len), &p) == 0) {
            uint8_t header[OVERLAY_HEADER_BYTES];
            overlay_put_header(&p, header);
            CHECK(memcmp(header, data, sizeof header) == 0);
            CHECK(p.payload.len > 0 && p.payload.len <= OVERLAY_PAYLOAD_MAX);
            struct relay_flow *flow = relay_guard_pass(&guard, &neighbour, &p, ++now_ns);
            if (flow != NULL) {
                (void)relay_guard_is_control(&guard, flow, p.payload.len, now_ns);
            }
            CHECK(relay_guard_pass(&guard, &neighbour, &p, now_ns) == NULL);
        }
        data += len;
        size -= len;
    }
    relay_guard_fini(&guard);
    return 0;
}
