/* Calls about PostgreSQL that only the leader can answer, for it alone is connected. */
#include "authority/call_impl.h"
#include "authority/mirror.h"

bool call_is_mirror(const char *method)
{
    return strcmp(method, "mirror.status") == 0 || strcmp(method, "mirror.verify") == 0;
}

static void answer_status(struct pending_call *pc)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    struct core_status s;
    core_status_brief(pc->a->core, &s);
    buf_init(&doc, CALL_DOC_MAX);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mirror_status_doc(pc->a->mirror, &w, &d);
    mp_doc_int(&w, &d, "_index", (int64_t)s.applied_index);
    mp_doc_int(&w, &d, "_last_contact_ms", pc->stale ? (int64_t)s.leader_contact_ms : 0);
    mp_doc_end(&w, &d);
    call_answer(pc, doc.err, buf_blob(&doc));
    buf_fini(&doc);
}

static void verified(void *data, int rc, struct blob doc)
{
    struct pending_call *pc = data;
    if (!call_returned(pc)) {
        call_answer(pc, rc, doc);
    }
}

void call_answer_mirror(struct pending_call *pc)
{
    if (strcmp(pc->method, "mirror.status") == 0) {
        answer_status(pc);
        return;
    }
    pc->outstanding = true;
    mirror_verify(pc->a->mirror, mp_find_int(buf_blob(&pc->args), "preview") != 0, verified, pc);
}
