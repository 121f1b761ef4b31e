/* An image of the leader's, made into a state off the loop (decision 0012): unpacking and checking hundreds of
 * megabytes takes a second, in which this member would answer nobody.
 *
 *   in_frame -> raft_net_image: a copy -> (pool) unpack, check, new database -> on_prepared:
 *     core_prepared, then the message goes to libraft, which stores it and then asks for the state: there it is
 *
 * One at a time; others that come meanwhile are dropped, as Raft sends again. Meanwhile its sender is not
 * heard at all: each refusal of its entries would have it read the image from its disk once more. What cannot be prepared is
 * received as any other message, which says why and does what is to be done. */
#include "authority/authority_impl.h"
#include "authority/raft_image.h"
#include "authority/raft_msg.h"

#define SMALL_BYTES (256u << 10) /* packed: a few milliseconds */

struct raft_image_work {
    uv_work_t req;
    struct authority *a; /* NULL: it is gone */
    struct fabric_peer peer;
    struct buf frame, packed;
    const struct db_migration *schema;
    struct fsm_prepared *state;
    int rc;
};

static void prepare(uv_work_t *req)
{
    struct raft_image_work *w = container_of(req, struct raft_image_work, req);
    struct blob packed = raft_msg_image(buf_blob(&w->frame));
    struct buf image;
    buf_init(&image, IMAGE_MAX_BYTES);
    w->rc = raft_image_unpack(packed, &image);
    if (w->rc == 0) {
        w->rc = fsm_prepare(w->schema, buf_blob(&image), &w->state, NULL);
    }
    buf_fini(&image);
    if (w->rc == 0) {
        buf_add(&w->packed, packed.data, packed.len);
    }
}

static void on_prepared(uv_work_t *req, int status)
{
    struct raft_image_work *w = container_of(req, struct raft_image_work, req);
    struct authority *a = w->a;
    int rc;
    (void)status;
    if (a != NULL) {
        a->net.preparing = NULL;
    }
    if (a != NULL && !a->closing) {
        bool made = w->rc == 0;
        if (made) {
            core_prepared(a->core, &w->packed, w->state);
            w->state = NULL;
        }
        raft_net_received(a, &w->peer, buf_blob(&w->frame), made, &rc);
    }
    fsm_prepared_free(w->state);
    buf_fini(&w->packed);
    buf_fini(&w->frame);
    free(w);
}

bool raft_net_image(struct authority *a, const struct fabric_peer *peer, struct blob frame)
{
    if (a->net.preparing != NULL &&
        uuid_equal(&a->net.preparing->peer.identity.node_id, &peer->identity.node_id)) {
        return true;
    }
    if (frame.len < SMALL_BYTES || raft_msg_image(frame).len == 0) {
        return false;
    }
    if (a->net.preparing != NULL) {
        return true;
    }
    struct raft_image_work *w = xcalloc(1, sizeof *w);
    w->a = a;
    w->peer = *peer;
    w->schema = fsm_schema(a->fsm);
    buf_init(&w->frame, RAFT_FRAME_MAX);
    buf_init(&w->packed, RAFT_FRAME_MAX);
    buf_add(&w->frame, frame.data, frame.len);
    a->net.preparing = w;
    CHECK(uv_queue_work(a->cfg.loop, &w->req, prepare, on_prepared) == 0);
    return true;
}

void raft_net_image_fini(struct raft_net_fabric *n)
{
    if (n->preparing != NULL) {
        n->preparing->a = NULL;
        n->preparing = NULL;
    }
}
