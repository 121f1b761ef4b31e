/* What recoveries say (DESIGN section 7, docs/decisions/0007): the owner's signed statement that
 * the authority goes on from a point of the log, what a fenced authority asks and reports, and the
 * head of a backup file. Signed and checked by pki/statement.h.
 *
 *   service "recovery"  rpc, authority -> authority: recovery_ask -> recovery_answer
 */
#ifndef RAP_WIRE_RECOVERY_MSG_H
#define RAP_WIRE_RECOVERY_MSG_H

#include "wire/limits.h"
#include "wire/msg.h"

/* Epochs count recoveries; a cluster starts in the first. */
#define EPOCH_FIRST 1
#define EPOCH_MAX (1ull << 62)

enum recovery_kind { RECOVERY_RECOVER = 1, RECOVERY_PROMOTE = 2, RECOVERY_RESTORE = 3 };

/* Signed with the root key. `trail` lets an authority of the older epoch find the last entry that
 * both histories share: two logs with an entry of one index and term are equal up to it (Raft
 * section 5.3, Log Matching). */
#define RECOVERY_STATEMENT_VERSION 1
#define RECOVERY_TRAIL_MAX 32
#define RECOVERY_SET_MAX 256 /* of one member */
#define RECOVERY_STATEMENT_FIELDS(X, T)                                                    \
    X(T, 1, U64, version, 0, MSG_REQUIRED)                                                 \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                               \
    X(T, 3, U64, epoch, 0, MSG_REQUIRED) /* the new one */                                 \
    X(T, 4, U64, kind, 0, MSG_REQUIRED)  /* enum recovery_kind */                          \
    X(T, 5, U64, base_index, 0, MSG_REQUIRED) /* the last entry of before */               \
    X(T, 6, U64, base_term, 0, MSG_REQUIRED)                                               \
    X(T, 7, FIX, base_digest, 32, MSG_REQUIRED) /* of the state there */                   \
    X(T, 8, LIST, voters, AUTHORITIES_MAX, MSG_REQUIRED) /* of id: who goes on */          \
    X(T, 9, I64, time_ms, 0, MSG_REQUIRED)                                                 \
    X(T, 10, LIST, trail, RECOVERY_TRAIL_MAX, 0) /* of bin: recovery_run, newest last */   \
    X(T, 11, STR, reason, REASON_MAX_BYTES, 0)                                             \
    X(T, 12, BIN, authority_set, RECOVERY_SET_MAX, 0) /* wire/witness_msg.h: who signs from \
                                                         here on */
MSG_DECLARE(recovery_statement, RECOVERY_STATEMENT_FIELDS)

/* Entries of one term, from first_index to the next run or to base_index. */
#define RECOVERY_RUN_FIELDS(X, T)       \
    X(T, 1, U64, term, 0, MSG_REQUIRED) \
    X(T, 2, U64, first_index, 0, MSG_REQUIRED)
MSG_DECLARE(recovery_run, RECOVERY_RUN_FIELDS)

#define RECOVERY_BODY_MAX 1536 /* its hex is one value of the API */
#define SIGNED_RECOVERY_MAX (RECOVERY_BODY_MAX + 128)
#define SIGNED_RECOVERY_FIELDS(X, T)                    \
    X(T, 1, BIN, body, RECOVERY_BODY_MAX, MSG_REQUIRED) \
    X(T, 2, FIX, signature, 64, MSG_REQUIRED)
MSG_DECLARE(signed_recovery, SIGNED_RECOVERY_FIELDS)

/* The owner has seen what an authority of an older epoch reported and lets it come back without. */
#define MERGE_CONSENT_FIELDS(X, T)           \
    X(T, 1, ID, cluster_id, 0, MSG_REQUIRED) \
    X(T, 2, ID, node_id, 0, MSG_REQUIRED)    \
    X(T, 3, U64, epoch, 0, MSG_REQUIRED)     \
    X(T, 4, U64, rows, 0, 0) /* as many as were shown */
MSG_DECLARE(merge_consent, MERGE_CONSENT_FIELDS)

/* --- between authorities --- */
enum recovery_step {
    RECOVERY_HELLO = 1,  /* which epoch are you in, what do you see? */
    RECOVERY_REPORT = 2, /* a part of the divergence report of the sender */
    RECOVERY_RETURN = 3, /* may the sender give up its log and come back? */
    RECOVERY_HEAL = 4,   /* the sender's log is damaged: may it begin anew, without its vote? */
};
#define RECOVERY_ASK_FIELDS(X, T)                                                            \
    X(T, 1, U64, step, 0, MSG_REQUIRED)                                                      \
    X(T, 2, U64, epoch, 0, MSG_REQUIRED)                                                     \
    X(T, 3, BIN, statement, SIGNED_RECOVERY_MAX, 0) /* of that epoch; none in the first */   \
    X(T, 4, BIN, report, CMD_BODY_MAX, 0) /* REPORT: divergence_report */                    \
    X(T, 5, STR, why, LOG_DAMAGE_MAX, 0)  /* HEAL: what does not verify */
MSG_DECLARE(recovery_ask, RECOVERY_ASK_FIELDS)

enum recovery_verdict {
    RECOVERY_SAYS_NOTHING = 0,
    RECOVERY_SAYS_REPORT = 1, /* RETURN: send (the rest of) the report */
    RECOVERY_SAYS_WAIT = 2,   /* the owner has not consented yet */
    RECOVERY_SAYS_COME = 3,   /* nothing of yours counts here any more: come back empty */
};
#define RECOVERY_ANSWER_FIELDS(X, T)                                                  \
    X(T, 1, U64, epoch, 0, MSG_REQUIRED)                                              \
    X(T, 2, BIN, statement, SIGNED_RECOVERY_MAX, 0)                                   \
    X(T, 3, U64, verdict, 0, 0)                                                       \
    X(T, 4, U64, term, 0, 0)                                                          \
    X(T, 5, U64, last_index, 0, 0) /* of its log */                                   \
    X(T, 6, U64, last_term, 0, 0)                                                     \
    X(T, 7, FLAG, quorum, 0, 0)    /* it leads, or follows, with a majority */        \
    X(T, 8, U64, rows, 0, 0)       /* RETURN: rows of the report that are stored */   \
    X(T, 9, FLAG, damaged, 0, 0)   /* it has no log itself */                         \
    X(T, 10, U64, commit_index, 0, 0) /* HEAL, COME */
MSG_DECLARE(recovery_answer, RECOVERY_ANSWER_FIELDS)

/* --- what a fenced authority's side decided after the histories parted --- */
#define DIVERGENCE_ROWS_MAX 16384 /* of one report; more are counted, not sent */
#define DIVERGENCE_PART_ROWS 64
#define DIVERGENCE_ROW_FIELDS(X, T)                                        \
    X(T, 1, U64, log_index, 0, MSG_REQUIRED)                               \
    X(T, 2, U64, log_term, 0, MSG_REQUIRED)                                \
    X(T, 3, FLAG, committed, 0, 0) /* known to have been committed there */ \
    X(T, 4, STR, kind, 32, MSG_REQUIRED)                                   \
    X(T, 5, ID, request_id, 0, MSG_REQUIRED)                               \
    X(T, 6, STR, actor_kind, 16, 0)                                        \
    X(T, 7, STR, actor_id, 128, 0)                                         \
    X(T, 8, ID, subject_id, 0, 0)                                          \
    X(T, 9, I64, time_ms, 0, 0)
MSG_DECLARE(divergence_row, DIVERGENCE_ROW_FIELDS)

/* A part: rows [first_row, first_row + count) of rows_total. Every part repeats the head. */
#define DIVERGENCE_REPORT_FIELDS(X, T)                                     \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                                  \
    X(T, 2, U64, epoch, 0, MSG_REQUIRED)      /* that fenced it */         \
    X(T, 3, U64, from_epoch, 0, MSG_REQUIRED) /* its own */                \
    X(T, 4, U64, common_index, 0, 0)                                       \
    X(T, 5, U64, last_index, 0, 0)                                         \
    X(T, 6, U64, last_term, 0, 0)                                          \
    X(T, 7, U64, commit_index, 0, 0)                                       \
    X(T, 8, U64, rows_total, 0, 0)                                         \
    X(T, 9, U64, first_row, 0, 0)                                          \
    X(T, 10, LIST, rows, DIVERGENCE_PART_ROWS, 0) /* of bin: divergence_row */
MSG_DECLARE(divergence_report, DIVERGENCE_REPORT_FIELDS)

/* Kept beside raft.db by an authority that a higher epoch fenced. */
#define FENCE_NOTE_FIELDS(X, T)                                            \
    X(T, 1, BIN, statement, SIGNED_RECOVERY_MAX, MSG_REQUIRED)             \
    X(T, 2, U64, commit_index, 0, 0) /* known when it was fenced */        \
    X(T, 3, FLAG, give_up, 0, 0)     /* empty the log at the next start */ \
    X(T, 4, I64, time_ms, 0, 0)
MSG_DECLARE(fence_note, FENCE_NOTE_FIELDS)
#define FENCE_NOTE_MAX (SIGNED_RECOVERY_MAX + 64)

/* Kept beside a raft.db that is damaged: it may begin anew (authority/heal.h). */
#define HEAL_NOTE_FIELDS(X, T)                                               \
    X(T, 1, U64, epoch, 0, MSG_REQUIRED)                                     \
    X(T, 2, BIN, statement, SIGNED_RECOVERY_MAX, 0) /* none in the first */  \
    X(T, 3, U64, term, 0, MSG_REQUIRED)   /* of the leader that said so, */  \
    X(T, 4, U64, leader, 0, MSG_REQUIRED) /* its raft id, */                 \
    X(T, 5, U64, index, 0, MSG_REQUIRED)  /* and its commit index then */    \
    X(T, 6, I64, time_ms, 0, MSG_REQUIRED)
MSG_DECLARE(heal_note, HEAL_NOTE_FIELDS)
#define HEAL_NOTE_MAX (SIGNED_RECOVERY_MAX + 128)

/* --- a backup file: magic, length of signed_backup (4 bytes, big-endian), signed_backup, image; and the
 * seal of a mirror: a signed_backup without image (pki/backup.h) --- */
#define BACKUP_MAGIC "RAPBAK1\n"
#define BACKUP_MAGIC_BYTES 8
#define BACKUP_VERSION 1
#define BACKUP_HEADER_FIELDS(X, T)                                                    \
    X(T, 1, U64, version, 0, MSG_REQUIRED)                                            \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                          \
    X(T, 3, STR, cluster_name, NAME_MAX_BYTES, 0)                                     \
    X(T, 4, ID, node_id, 0, MSG_REQUIRED) /* the authority that made it */            \
    X(T, 5, U64, epoch, 0, MSG_REQUIRED)                                              \
    X(T, 6, U64, term, 0, MSG_REQUIRED)                                               \
    X(T, 7, U64, index, 0, MSG_REQUIRED)                                              \
    X(T, 8, U64, level, 0, MSG_REQUIRED) /* of the state's schema */                  \
    X(T, 9, I64, time_ms, 0, MSG_REQUIRED)                                            \
    X(T, 10, FIX, digest, 32, MSG_REQUIRED) /* of the state */                        \
    X(T, 11, U64, audit_seq, 0, 0)                                                    \
    X(T, 12, FIX, audit_head, 32, 0)                                                  \
    X(T, 13, U64, image_bytes, 0, 0) /* before compression */                         \
    X(T, 14, U64, packed_bytes, 0, 0)                                                 \
    X(T, 15, FIX, packed_sha256, 32, MSG_REQUIRED) /* seal: of the rows */            \
    X(T, 16, STR, rap_version, 32, 0)
MSG_DECLARE(backup_header, BACKUP_HEADER_FIELDS)

#define BACKUP_HEADER_MAX 1024
#define SIGNED_BACKUP_MAX (BACKUP_HEADER_MAX + 3 * CERT_DER_MAX + 128)
#define SIGNED_BACKUP_FIELDS(X, T)                            \
    X(T, 1, BIN, header, BACKUP_HEADER_MAX, MSG_REQUIRED)     \
    X(T, 2, FIX, signature, 64, MSG_REQUIRED)                 \
    X(T, 3, BIN, leaf, CERT_DER_MAX, MSG_REQUIRED)            \
    X(T, 4, BIN, issuer, CERT_DER_MAX, MSG_REQUIRED)          \
    X(T, 5, BIN, root, CERT_DER_MAX, MSG_REQUIRED)
MSG_DECLARE(signed_backup, SIGNED_BACKUP_FIELDS)

const char *recovery_kind_name(uint64_t kind); /* "recover"; NULL when there is none */

/* Decodes the body and checks what can be checked of one statement alone: version, kind, numbers,
 * that every voter and run decodes and runs rise. -ERR_MALFORMED, -ERR_SCHEMA (a newer version). */
int recovery_statement_decode(struct blob body, struct recovery_statement *ret);
/* The nth voter. */
bool recovery_voter(const struct recovery_statement *s, uint32_t nth, struct uuid *ret);
/* Term of the entry at index in the history the statement goes on from; 0 when the trail does not
 * reach there. */
uint64_t recovery_trail_term(const struct recovery_statement *s, uint64_t index);

#endif
