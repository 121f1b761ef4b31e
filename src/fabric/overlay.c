#include "fabric/overlay.h"

enum at { AT_TYPE, AT_CLASS, AT_HOPS, AT_PATH, AT_SEQUENCE, AT_TO = 12, AT_FROM = 28 };

void overlay_put_header(const struct overlay_packet *p, uint8_t out[OVERLAY_HEADER_BYTES])
{
    out[AT_TYPE] = OVERLAY_SESSION;
    out[AT_CLASS] = (uint8_t)(OVERLAY_VERSION << 4 | p->class);
    out[AT_HOPS] = p->hops;
    out[AT_PATH] = p->path;
    for (int i = 0; i < 8; i++) {
        out[AT_SEQUENCE + i] = (uint8_t)(p->sequence >> (56 - 8 * i));
    }
    memcpy(out + AT_TO, p->to.b, sizeof p->to.b);
    memcpy(out + AT_FROM, p->from.b, sizeof p->from.b);
}

int overlay_decode(struct blob in, struct overlay_packet *ret)
{
    if (in.len <= OVERLAY_HEADER_BYTES || in.len > OVERLAY_HEADER_BYTES + OVERLAY_PAYLOAD_MAX ||
        in.data[AT_TYPE] != OVERLAY_SESSION) {
        return -ERR_MALFORMED;
    }
    if (in.data[AT_CLASS] >> 4 != OVERLAY_VERSION) {
        return -ERR_UNSUPPORTED;
    }
    unsigned class = in.data[AT_CLASS] & 0x0f;
    if (class >= OVERLAY_CLASSES || in.data[AT_HOPS] == 0) {
        return -ERR_MALFORMED;
    }
    struct overlay_packet p = {
        .class = (enum overlay_class) class,
        .hops = in.data[AT_HOPS],
        .path = in.data[AT_PATH],
        .payload = blob_of(in.data + OVERLAY_HEADER_BYTES, in.len - OVERLAY_HEADER_BYTES)};
    for (int i = 0; i < 8; i++) {
        p.sequence = p.sequence << 8 | in.data[AT_SEQUENCE + i];
    }
    memcpy(p.to.b, in.data + AT_TO, sizeof p.to.b);
    memcpy(p.from.b, in.data + AT_FROM, sizeof p.from.b);
    if (uuid_is_nil(&p.to) || uuid_is_nil(&p.from) || uuid_equal(&p.to, &p.from)) {
        return -ERR_MALFORMED;
    }
    *ret = p;
    return 0;
}

const char *overlay_class_name(enum overlay_class class)
{
    static const char *const names[] = {"control", "interactive", "reliable", "bulk", "droppable"};
    return (unsigned)class < ARRAY_SIZE(names) ? names[class] : "?";
}

void overlay_qos_default(struct overlay_qos ret[OVERLAY_CLASSES])
{
    static const struct overlay_qos own[OVERLAY_CLASSES] = {
        [OVERLAY_CONTROL] = {0, 62, 0, 64u << 10, 1000, false},
        [OVERLAY_INTERACTIVE] = {1, 62, 0, 512u << 10, 500, true},
        [OVERLAY_RELIABLE] = {2, 62, 0, 2u << 20, 2000, true},
        [OVERLAY_BULK] = {3, 62, 0, 4u << 20, 2000, true},
        [OVERLAY_DROPPABLE] = {4, 62, 0, 256u << 10, 100, false},
    };
    memcpy(ret, own, sizeof own);
}
