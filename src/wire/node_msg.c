#include "wire/node_msg.h"

MSG_DEFINE(enroll_request, ENROLL_REQUEST_FIELDS)
MSG_DEFINE(enroll_status, ENROLL_STATUS_FIELDS)
MSG_DEFINE(clock_request, CLOCK_REQUEST_FIELDS)
MSG_DEFINE(clock_answer, CLOCK_ANSWER_FIELDS)
MSG_DEFINE(heartbeat, HEARTBEAT_FIELDS)
MSG_DEFINE(link_sample, LINK_SAMPLE_FIELDS)
MSG_DEFINE(route_sample, ROUTE_SAMPLE_FIELDS)
MSG_DEFINE(heartbeat_ack, HEARTBEAT_ACK_FIELDS)
MSG_DEFINE(renew_request, RENEW_REQUEST_FIELDS)
MSG_DEFINE(renew_answer, RENEW_ANSWER_FIELDS)
MSG_DEFINE(config_subscribe, CONFIG_SUBSCRIBE_FIELDS)
MSG_DEFINE(issuer_request, ISSUER_REQUEST_FIELDS)
MSG_DEFINE(issuer_answer, ISSUER_ANSWER_FIELDS)
MSG_DEFINE(op_request, OP_REQUEST_FIELDS)
MSG_DEFINE(snapshot_body, SNAPSHOT_BODY_FIELDS)
MSG_DEFINE(snapshot_authority, SNAPSHOT_AUTHORITY_FIELDS)
MSG_DEFINE(snapshot_role, SNAPSHOT_ROLE_FIELDS)
MSG_DEFINE(snapshot_peer, SNAPSHOT_PEER_FIELDS)
MSG_DEFINE(snapshot_relay, SNAPSHOT_RELAY_FIELDS)
MSG_DEFINE(snapshot_mesh, SNAPSHOT_MESH_FIELDS)
MSG_DEFINE(snapshot_intent, SNAPSHOT_INTENT_FIELDS)
MSG_DEFINE(snapshot_qos, SNAPSHOT_QOS_FIELDS)
MSG_DEFINE(snapshot_pool, SNAPSHOT_POOL_FIELDS)
MSG_DEFINE(snapshot_resource, SNAPSHOT_RESOURCE_FIELDS)
MSG_DEFINE(synthetic, SYNTHETIC_FIELDS)
MSG_DEFINE(synthetic_ack, SYNTHETIC_ACK_FIELDS)
MSG_DEFINE(signed_snapshot, SIGNED_SNAPSHOT_FIELDS)
MSG_DEFINE(snapshot_signature, SNAPSHOT_SIGNATURE_FIELDS)

void msg_list_add(const struct msg_desc *d, const void *msg, struct buf *raw, uint32_t *count)
{
    struct buf one;
    buf_init(&one, raw->max);
    msg_encode(d, msg, &one);
    struct mp_writer w;
    mp_writer_init(&w, raw);
    if (one.err != 0) {
        raw->err = one.err;
    } else {
        mp_put_bin(&w, buf_blob(&one));
        (*count)++;
    }
    buf_fini(&one);
}
