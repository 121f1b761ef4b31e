/* Overlay datagrams of a neighbour. What decodes must encode to the same bytes. */
#include "fuzz/fuzz.h"

#include "wire/mesh_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mesh_routes routes;
    static struct mesh_requests requests;
    struct mesh_probe probe;
    struct mesh_routes_ack ack;
    uint8_t out[MESH_MSG_MAX];
    size_t len = 0;
    struct blob in = blob_of(data, size);
    if (mesh_probe_decode(in, &probe) == 0) {
        len = mesh_probe_encode(&probe, out);
    } else if (mesh_routes_decode(in, &routes) == 0) {
        len = mesh_routes_encode(&routes, out);
    } else if (mesh_routes_ack_decode(in, &ack) == 0) {
        len = mesh_routes_ack_encode(&ack, out);
    } else if (mesh_requests_decode(in, &requests) == 0) {
        len = mesh_requests_encode(&requests, out);
    }
    CHECK(len == 0 || blob_equal(in, blob_of(out, len)));
    return 0;
}
