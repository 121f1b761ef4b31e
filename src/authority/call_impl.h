/* One call on its way: shared by call.c, which answers it, and authority_ops.c, which first asks a
 * node. */
#ifndef RAP_AUTHORITY_CALL_IMPL_H
#define RAP_AUTHORITY_CALL_IMPL_H

#include "authority/authority_impl.h"

/*            call_begin
 *                │ read ────────────> CALL_READ_INDEX ──> CALL_WAIT_APPLIED ──> answer
 *                │ mutation, leader ─> CALL_ASK_NODE ──> CALL_PROPOSED ──────> answer
 *                │                     (authority.* only)  └ refused by prepare: CALL_CONFIRM
 *                │                                           (is the refusal current?) ──> answer
 *                └ other, leader known ─> CALL_FORWARDED ──────────────────────> answer
 *
 *   CALL_PROPOSED, CALL_FORWARDED, begin ── leader lost or unknown ──> CALL_WAIT_LEADER
 *   CALL_WAIT_LEADER ── a leader within three election timeouts ──> begin, else no_quorum
 *
 * Trying again is safe: the request id goes along, and its first result is the answer (DESIGN D14).
 * At most one operation is outstanding; the call is freed when it is answered and none is. */
enum call_state {
    CALL_NEW,
    CALL_READ_INDEX,
    CALL_WAIT_APPLIED,
    CALL_ASK_NODE,
    CALL_PROPOSED,
    CALL_CONFIRM,
    CALL_FORWARDED,
    CALL_WAIT_LEADER,
    CALL_DONE,
};

struct pending_call {
    struct authority *a;
    enum call_state state;
    char method[48];
    char actor_kind[16];
    char actor_id[128];
    struct buf args;
    struct uuid request_id;
    uint8_t request_hash[PKI_HASH_BYTES];
    struct fabric_peer via; /* the authority that passed it on; not authenticated: it came to us */
    bool stale, dry_run;
    bool confirmed;  /* a refusal was made by a leader known to be one */
    bool maybe_done; /* a leader we lost may have decided it */
    bool answered;
    bool outstanding;      /* exactly one of the three below is under way */
    uint64_t deadline_ms;  /* monotonic */
    uint64_t leader_by_ms; /* CALL_WAIT_LEADER: give up then */
    raft_id sent_to;       /* CALL_FORWARDED */
    authority_call_cb cb;
    void *data;
    struct core_proposal proposal;
    struct core_read read;
    struct fabric_call rpc;
    struct op_prepared prep;
    struct uuid node_id; /* authority.*: the node asked */
    LIST_ENTRY(pending_call) link;
};

#define CALL_DOC_MAX (4u << 20)

bool call_is_read(const char *method);
/* From the state as it is applied here, now. */
void call_answer_read(struct pending_call *pc);

/* promote.c: what this authority does itself, whoever leads. */
bool call_is_local(const char *method);
void call_local(struct pending_call *pc);
/* Answered by the leader alone, or by whoever is asked with `stale` (call_mirror.c). */
bool call_is_mirror(const char *method);
void call_answer_mirror(struct pending_call *pc);

/* split_report.c: answered by a leader with a majority. */
bool call_is_split_report(const char *method);
void call_answer_split_report(struct pending_call *pc);

/* split_tries.c */
void split_try_note(struct pending_call *pc, int rc, struct blob doc);
/* "staying", "last_attempt" and "last_attempt_at" of a split, for an answer about it. */
void split_put_progress(struct authority *a, struct blob row, struct mp_writer *w,
                        struct mp_doc *d);

/* backup.c: create is a read that answers later; read is local. */
void backup_create(struct pending_call *pc);
void backup_read(struct pending_call *pc);

void call_answer(struct pending_call *pc, int rc, struct blob doc);
/* An error with a text for people. */
void call_answer_text(struct pending_call *pc, int rc, const struct errmsg *em);
/* What make writes, or its refusal. */
void call_answer_made(struct pending_call *pc,
                      int (*make)(struct pending_call *pc, struct buf *out, struct errmsg *em));
/* Prepares the method with these arguments (NULL: the call's own) and proposes. */
void call_execute(struct pending_call *pc, const char *method, const struct blob *args);
/* Proposes a command that was prepared and checked elsewhere. */
void call_propose(struct pending_call *pc, uint64_t kind, const void *body);
/* The first answer to this request id, if there is one. */
bool call_answer_again(struct pending_call *pc);
/* Sends an rpc whose answer goes to cb; pc is rpc->data. */
int call_rpc(struct pending_call *pc, const struct uuid *to, const char *service, struct blob body,
             fabric_call_cb cb);
/* True, and pc may be gone, when the call was answered meanwhile (deadline, close). Every callback
 * of an operation begins with it. */
bool call_returned(struct pending_call *pc);
/* Answers with a refusal. It is an answer about the state, so it comes from a leader that still is one:
 * that is confirmed first, and the call begins anew. */
void call_refuse(struct pending_call *pc, int rc, const struct errmsg *em);

#endif
