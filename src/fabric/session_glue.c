/* What the library calls while it works on a packet: note it, post an event, return. Nothing here
 * calls users, opens or closes sessions. */
#include "fabric/fabric_impl.h"

static void rand_cb(uint8_t *dest, size_t len, const ngtcp2_rand_ctx *ctx)
{
    (void)ctx;
    rng_bytes(dest, len);
}

static int new_cid_cb(ngtcp2_conn *conn, ngtcp2_cid *cid, uint8_t *token, size_t len, void *user)
{
    (void)conn;
    struct session *ss = user;
    uint8_t bytes[NGTCP2_MAX_CIDLEN];
    if (len > sizeof bytes) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    rng_bytes(bytes, len);
    ngtcp2_cid_init(cid, bytes, len);
    if (ngtcp2_crypto_generate_stateless_reset_token(token, ss->f->cfg.reset_secret,
                                                     sizeof ss->f->cfg.reset_secret, cid) != 0) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    endpoint_add_cid(ss, cid);
    return 0;
}

static int remove_cid_cb(ngtcp2_conn *conn, const ngtcp2_cid *cid, void *user)
{
    (void)conn;
    endpoint_del_cid(user, cid);
    return 0;
}

static int dcid_status_cb(ngtcp2_conn *conn, ngtcp2_connection_id_status_type type, uint64_t seq,
                          const ngtcp2_cid *cid, const uint8_t *token, void *user)
{
    (void)conn;
    (void)cid;
    if (type == NGTCP2_CONNECTION_ID_STATUS_TYPE_ACTIVATE) {
        if (token != NULL) {
            endpoint_add_token(user, seq, token);
        }
    } else {
        endpoint_del_token(user, seq);
    }
    return 0;
}

static int crypto_data_cb(ngtcp2_conn *conn, ngtcp2_encryption_level level, uint64_t offset,
                          const uint8_t *data, size_t len, void *user)
{
    struct session *ss = user;
    if (ss->tls == NULL) {
        return 0;
    }
    /* RFC 9000 section 8.1: only who got our Initial can write at this level. */
    ss->proven = ss->proven || level == NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE;
    return ngtcp2_crypto_recv_crypto_data_cb(conn, level, offset, data, len, user);
}

/* The server has judged the client's certificate when its handshake completes. */
static int completed_cb(ngtcp2_conn *conn, void *user)
{
    (void)conn;
    struct session *ss = user;
    if (!ss->dialled) {
        event_post(ss->f, &ss->up_event);
    }
    return 0;
}

/* A client's handshake completes before the server has seen its certificate (RFC 8446 section 2):
 * only the server's confirmation tells that we are in. */
static int confirmed_cb(ngtcp2_conn *conn, void *user)
{
    (void)conn;
    struct session *ss = user;
    if (ss->dialled) {
        event_post(ss->f, &ss->up_event);
    }
    return 0;
}

/* Frames were read, so the packet was the peer's: whoever carried it is on the way to it. (The library
 * accepts what it cannot decrypt in silence.) */
static void genuine(struct session *ss)
{
    ss->path.genuine = true;
}

/* Something of ours has arrived. */
static void progress(struct session *ss)
{
    genuine(ss);
    ss->path.progress_ns = ss->f->now_ns;
}

static int stream_open_cb(ngtcp2_conn *conn, int64_t id, void *user)
{
    (void)conn;
    (void)stream_incoming(user, id);
    return 0;
}

static int stream_data_cb(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t offset,
                          const uint8_t *data, size_t len, void *user, void *stream_user)
{
    (void)conn;
    (void)offset;
    genuine(user);
    ((struct session *)user)->path.active_ns = ((struct session *)user)->f->now_ns;
    struct fabric_stream *s = stream_user != NULL ? stream_user : stream_incoming(user, id);
    stream_on_data(s, blob_of(data, len), (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0);
    return 0;
}

static int acked_cb(ngtcp2_conn *conn, int64_t id, uint64_t offset, uint64_t len, void *user,
                    void *stream_user)
{
    (void)conn;
    (void)id;
    progress(user);
    ((struct session *)user)->path.active_ns = ((struct session *)user)->f->now_ns;
    if (stream_user != NULL) {
        stream_on_acked(stream_user, offset + len);
    }
    return 0;
}

static int stream_close_cb(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t code, void *user,
                           void *stream_user)
{
    struct session *ss = user;
    ss->lost += ngtcp2_conn_get_stream_loss_count(conn, id);
    if (stream_user != NULL) {
        stream_on_gone(stream_user,
                       (flags & NGTCP2_STREAM_CLOSE_FLAG_APP_ERROR_CODE_SET) != 0 ? code : 0);
    } else if (!ngtcp2_conn_is_local_stream(conn, id)) {
        ngtcp2_conn_extend_max_streams_bidi(conn, 1);
    }
    return 0;
}

static int stream_reset_cb(ngtcp2_conn *conn, int64_t id, uint64_t final_size, uint64_t code,
                           void *user, void *stream_user)
{
    (void)conn;
    (void)final_size;
    struct fabric_stream *s = stream_user != NULL ? stream_user : stream_incoming(user, id);
    stream_on_reset(s, code);
    return 0;
}

static int unblock_cb(ngtcp2_conn *conn, int64_t id, uint64_t max, void *user, void *stream_user)
{
    (void)conn;
    (void)id;
    (void)max;
    (void)user;
    if (stream_user != NULL) {
        stream_wake(stream_user);
    }
    return 0;
}

static int more_streams_cb(ngtcp2_conn *conn, uint64_t max, void *user)
{
    (void)conn;
    (void)max;
    session_open_streams(user);
    return 0;
}

static int datagram_cb(ngtcp2_conn *conn, uint32_t flags, const uint8_t *data, size_t len,
                       void *user)
{
    (void)conn;
    (void)flags;
    struct session *ss = user;
    struct fabric *f = ss->f;
    f->counters.datagrams_in++;
    genuine(ss);
    if (ss->unproven) {
        f->counters.dropped_limit++;
        return 0;
    }
    if (len > 0 && data[0] == OVERLAY_SESSION) {
        relay_receive(ss, blob_of(data, len));
        return 0;
    }
    if (!ss->who.authenticated || ss->path.relayed || f->datagram_cb == NULL ||
        f->datagram_count >= DATAGRAMS_QUEUED_MAX) {
        f->counters.dropped_limit++;
        return 0;
    }
    struct datagram *d = xmalloc(sizeof *d + len);
    d->from = ss->who;
    d->len = len;
    if (len > 0) {
        memcpy(d->data, data, len);
    }
    list_add(&f->datagrams, &d->link);
    f->datagram_count++;
    event_post(f, &f->datagram_event);
    return 0;
}

static int datagram_acked_cb(ngtcp2_conn *conn, uint64_t id, void *user)
{
    (void)conn;
    (void)id;
    progress(user);
    return 0;
}

static int path_validation_cb(ngtcp2_conn *conn, uint32_t flags, const ngtcp2_path *path,
                              const ngtcp2_path *old_path, ngtcp2_path_validation_result res,
                              void *user)
{
    (void)conn;
    (void)flags;
    (void)old_path;
    if (res == NGTCP2_PATH_VALIDATION_RESULT_SUCCESS) {
        progress(user); /* our challenge has arrived, and its answer has */
    } else {
        genuine(user);
    }
    path_validated(user, path, res == NGTCP2_PATH_VALIDATION_RESULT_SUCCESS);
    return 0;
}

static int reset_cb(ngtcp2_conn *conn, const ngtcp2_pkt_stateless_reset *sr, void *user)
{
    (void)conn;
    (void)sr;
    ((struct session *)user)->mute_close = true;
    return 0;
}

const ngtcp2_callbacks session_callbacks = {
    .client_initial = ngtcp2_crypto_client_initial_cb,
    .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
    .recv_crypto_data = crypto_data_cb,
    .encrypt = ngtcp2_crypto_encrypt_cb,
    .decrypt = ngtcp2_crypto_decrypt_cb,
    .hp_mask = ngtcp2_crypto_hp_mask_cb,
    .recv_retry = ngtcp2_crypto_recv_retry_cb,
    .rand = rand_cb,
    .get_new_connection_id = new_cid_cb,
    .remove_connection_id = remove_cid_cb,
    .update_key = ngtcp2_crypto_update_key_cb,
    .delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
    .delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
    .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,
    .version_negotiation = ngtcp2_crypto_version_negotiation_cb,
    .dcid_status = dcid_status_cb,
    .handshake_completed = completed_cb,
    .handshake_confirmed = confirmed_cb,
    .stream_open = stream_open_cb,
    .recv_stream_data = stream_data_cb,
    .acked_stream_data_offset = acked_cb,
    .stream_close = stream_close_cb,
    .stream_reset = stream_reset_cb,
    .extend_max_stream_data = unblock_cb,
    .extend_max_local_streams_bidi = more_streams_cb,
    .recv_datagram = datagram_cb,
    .ack_datagram = datagram_acked_cb,
    .path_validation = path_validation_cb,
    .recv_stateless_reset = reset_cb,
};
