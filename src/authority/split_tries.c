/* How far an open split is, beside its row: who has still to leave, and what the last attempt to finish it
 * met. The gaps are in no row: they depend on a report that counts for an hour, and the next attempt finds them
 * anew. So each authority remembers what it answered, until it restarts. */
#include "authority/call_impl.h"

#include "authority/split.h"

static struct split_try *find(struct authority *a, const char *id)
{
    for (size_t i = 0; i < SPLIT_TRIES; i++) {
        if (strcmp(a->split_tries.item[i].split_id, id) == 0) {
            return &a->split_tries.item[i];
        }
    }
    return NULL;
}

void split_try_note(struct pending_call *pc, int rc, struct blob doc)
{
    struct errmsg em = ERRMSG_INIT;
    struct split_tries *t = &pc->a->split_tries;
    struct uuid id;
    char text[UUID_TEXT_MAX];
    bool ready = rc == 0 && pc->dry_run;
    if (strcmp(pc->method, "split.finish") != 0 || (!ready && rc != -ERR_SPLIT_NOT_READY)) {
        return;
    }
    char given[128];
    mp_find_str(buf_blob(&pc->args), "id", given, sizeof given);
    if (op_resolve(pc->a, "splits", given, &id, &em) != 0) {
        return;
    }
    uuid_format(&id, text);
    struct split_try *one = find(pc->a, text);
    one = one != NULL ? one : &t->item[t->next++ % SPLIT_TRIES];
    (void)snprintf(one->split_id, sizeof one->split_id, "%s", text);
    one->at_ms = authority_now_ms(pc->a);
    mp_find_str(doc, "detail", one->text, sizeof one->text);
    if (ready) {
        (void)snprintf(one->text, sizeof one->text, "no gap was left");
    }
}

void split_put_progress(struct authority *a, struct blob row, struct mp_writer *w, struct mp_doc *d)
{
    char id[UUID_TEXT_MAX], status[16];
    mp_find_str(row, "id", id, sizeof id);
    mp_find_str(row, "status", status, sizeof status);
    bool open = strcmp(status, "open") == 0;
    const struct split_try *one = open ? find(a, id) : NULL;
    mp_doc_key(w, d, "staying");
    if (!open) {
        mp_put_array(w, 0);
    } else if (split_put_staying(state_db(a), id, w) != 0) {
        w->out->err = w->out->err != 0 ? w->out->err : -ERR_CORRUPT;
    }
    mp_doc_str(w, d, "last_attempt", one == NULL ? NULL : one->text);
    mp_doc_time(w, d, "last_attempt_at", one == NULL ? 0 : one->at_ms);
}
