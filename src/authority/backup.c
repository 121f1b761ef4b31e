/* Backups: the state at a linearizable index as a signed file, made here and read in pieces.
 *
 *   backup.create ─> (as a read: index confirmed, applied) ─> freeze ─> pack and hash in the pool ─>
 *                    sign ─> answer {id, size, ...}
 *   backup.read   ─> a piece of it, until it has not been read for BACKUP_KEEP_MS
 *
 * One at a time: a second create while one is packed is refused with -ERR_BUSY; one that is finished
 * takes the place of the last. */
#include "authority/call_impl.h"
#include "authority/raft_image.h"
#include "pki/backup.h"

#define BACKUP_KEEP_MS 60000
#define BACKUP_PIECE_BYTES (512u << 10)

struct backup_work {
    uv_work_t req;
    struct pending_call *pc;
    struct authority *a;
    struct db_image *image;
    struct fsm_position pos;
    uint64_t image_bytes;
    unsigned level;
    struct buf packed;
    uint8_t sha256[PKI_HASH_BYTES];
    int rc;
};

static void pack(uv_work_t *req)
{
    struct backup_work *w = container_of(req, struct backup_work, req);
    w->rc = raft_image_pack(w->image, &w->packed);
    if (w->rc == 0) {
        pki_sha256(buf_blob(&w->packed), w->sha256);
    }
}

static int make_file(struct authority *a, const struct backup_work *w, struct backup_header *ret)
{
    static char name[NAME_MAX_BYTES + 1];
    const struct blob chain[3] = {buf_blob(&a->leaf_der), buf_blob(&a->leaf_issuer_der),
                                  buf_blob(&a->root_der)};
    (void)fsm_cluster_name(state_db(a), name);
    *ret = (struct backup_header){
        .version = BACKUP_VERSION,
        .cluster_id = a->cfg.cluster_id,
        .cluster_name = blob_str(name),
        .node_id = a->cfg.node_id,
        .epoch = w->pos.epoch,
        .term = w->pos.term,
        .index = w->pos.index,
        .level = w->level,
        .time_ms = authority_now_ms(a),
        .digest = blob_of(w->pos.digest, sizeof w->pos.digest),
        .audit_seq = w->pos.audit_seq,
        .audit_head = blob_of(w->pos.audit_head, sizeof w->pos.audit_head),
        .image_bytes = w->image_bytes,
        .packed_bytes = w->packed.len,
        .packed_sha256 = blob_of(w->sha256, sizeof w->sha256),
        .rap_version = blob_str(RAP_VERSION),
    };
    buf_fini(&a->backup.file);
    buf_init(&a->backup.file, IMAGE_PACKED_MAX + SIGNED_BACKUP_MAX + BACKUP_PREFIX_BYTES);
    int rc = backup_head(a->cfg.node_key, chain, ret, &a->backup.file);
    if (rc == 0) {
        buf_add(&a->backup.file, w->packed.data, w->packed.len);
        rc = a->backup.file.err;
    }
    a->backup.id = uuid_new();
    a->backup.used_ms = authority_mono_ms();
    return rc;
}

static void answer_created(struct pending_call *pc, const struct backup_header *h)
{
    struct authority *a = pc->a;
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 4096);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_uuid(&w, &d, "id", &a->backup.id);
    mp_doc_uuid(&w, &d, "cluster_id", &h->cluster_id);
    mp_doc_int(&w, &d, "epoch", (int64_t)h->epoch);
    mp_doc_int(&w, &d, "term", (int64_t)h->term);
    mp_doc_int(&w, &d, "index", (int64_t)h->index);
    mp_doc_int(&w, &d, "level", (int64_t)h->level);
    mp_doc_time(&w, &d, "created_at", h->time_ms);
    mp_doc_int(&w, &d, "size_bytes", (int64_t)a->backup.file.len);
    mp_doc_hex(&w, &d, "packed_sha256", h->packed_sha256);
    mp_doc_hex(&w, &d, "state_digest", h->digest);
    mp_doc_int(&w, &d, "audit_seq", (int64_t)h->audit_seq);
    mp_doc_hex(&w, &d, "audit_head", h->audit_head);
    mp_doc_end(&w, &d);
    call_answer(pc, doc.err, buf_blob(&doc));
    buf_fini(&doc);
}

static void packed(uv_work_t *req, int status)
{
    struct backup_work *w = container_of(req, struct backup_work, req);
    struct authority *a = w->a;
    struct pending_call *pc = w->pc;
    struct errmsg em = ERRMSG_INIT;
    struct backup_header h;
    int rc = status != 0 ? -ERR_CANCELED : w->rc;
    db_image_free(w->image);
    a->backup.busy = false;
    if (!call_returned(pc)) {
        if (rc == 0) {
            rc = make_file(a, w, &h);
        }
        if (rc == 0) {
            answer_created(pc, &h);
        } else {
            (void)errmsg_set(&em, rc, "the state cannot be packed: %s", err_text(rc));
            call_answer_text(pc, rc, &em);
        }
    }
    buf_fini(&w->packed);
    free(w);
    authority_release(a);
}

void backup_create(struct pending_call *pc)
{
    struct authority *a = pc->a;
    struct errmsg em = ERRMSG_INIT;
    struct db_image *image = NULL;
    int rc = a->backup.busy ? -ERR_BUSY : fsm_freeze(a->fsm, &image);
    if (rc != 0) {
        (void)errmsg_set(&em, rc, "another image of the state is being made: try again");
        call_answer_text(pc, rc, &em);
        return;
    }
    struct backup_work *w = xcalloc(1, sizeof *w);
    w->pc = pc;
    w->a = a;
    w->image = image;
    w->image_bytes = db_image_bytes(image);
    w->level = fsm_level(a->fsm);
    fsm_position(a->fsm, &w->pos);
    buf_init(&w->packed, IMAGE_PACKED_MAX);
    pc->state = CALL_ASK_NODE;
    pc->outstanding = true;
    a->backup.busy = true;
    authority_hold(a);
    CHECK(uv_queue_work(a->cfg.loop, &w->req, pack, packed) == 0);
}

void backup_read(struct pending_call *pc)
{
    struct authority *a = pc->a;
    struct errmsg em = ERRMSG_INIT;
    struct uuid id;
    char text[64];
    int64_t offset = mp_find_int(buf_blob(&pc->args), "offset");
    mp_find_str(buf_blob(&pc->args), "id", text, sizeof text);
    if (uuid_parse(text, &id) != 0 || !uuid_equal(&id, &a->backup.id) || a->backup.file.len == 0) {
        (void)errmsg_set(&em, -ERR_NOT_FOUND,
                         "this authority does not hold that backup (any more)");
        call_answer_text(pc, -ERR_NOT_FOUND, &em);
        return;
    }
    if (offset < 0 || (uint64_t)offset > a->backup.file.len) {
        (void)errmsg_set(&em, -ERR_INVALID, "offset is beyond the end");
        call_answer_text(pc, -ERR_INVALID, &em);
        return;
    }
    size_t left = a->backup.file.len - (size_t)offset;
    size_t n = left < BACKUP_PIECE_BYTES ? left : BACKUP_PIECE_BYTES;
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    a->backup.used_ms = authority_mono_ms();
    buf_init(&doc, CALL_DOC_MAX);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "offset", offset);
    mp_doc_hex(&w, &d, "data", blob_of(a->backup.file.data + offset, n));
    mp_doc_end(&w, &d);
    call_answer(pc, doc.err, buf_blob(&doc));
    buf_fini(&doc);
}

void backup_tick(struct authority *a, uint64_t now_ms)
{
    if (a->backup.file.len > 0 && now_ms - a->backup.used_ms >= BACKUP_KEEP_MS) {
        buf_fini(&a->backup.file);
    }
}
