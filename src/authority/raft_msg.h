/* What authorities say to each other about the log: libraft's six RPCs as bounded msgpack, each with
 * the digest of the sender's state around it (S15).
 *
 * libraft is built without its asserts, so whatever it assumes of a message is checked here, before
 * it sees one: types, lengths, orders of terms, sizes, configurations. */
#ifndef RAP_AUTHORITY_RAFT_MSG_H
#define RAP_AUTHORITY_RAFT_MSG_H

#include "wire/limits.h"
#include "wire/msg.h"

#include <raft.h>

/* Terms and indexes from a peer: far above what any cluster reaches, far below wrapping. */
#define RAFT_MSG_NUMBER_MAX (1ull << 62)
#define RAFT_MSG_LEVEL_MAX 10000
#define RAFT_MSG_ENTRIES_MAX 4096
#define RAFT_MSG_SERVERS_MAX 16
#define RAFT_MSG_CONF_MAX ((size_t)RAFT_MSG_SERVERS_MAX * (ADDRESS_MAX_BYTES + 32))
/* Entry data: ENTRY_MAX_BYTES and padding to the 8 bytes that libraft wants. */
#define RAFT_MSG_DATA_MAX (ENTRY_MAX_BYTES + 8)
/* A sender starts another message when entries come to this. */
#define RAFT_MSG_APPEND_BYTES (8u << 20)

/* Where a member's state is, and, from a leader, where a majority of voters was seen to agree.
 * An index of 0 means nothing is said. */
struct raft_digest {
    uint64_t applied_index;
    uint8_t applied[32];
    uint64_t agreed_index;
    uint8_t agreed[32];
    /* Which of the owner's recoveries its log belongs to: messages of another one mean nothing here.
     * An epoch of 0 is the first. lineage: statement_lineage, zero in the first. */
    uint64_t epoch;
    uint8_t lineage[32];
    /* Random, one a start of the process, and what its store held then: term and last index, which
     * never fall below what it acknowledged. 0: a version that does not say. */
    uint64_t boot, boot_term, boot_index;
    uint64_t level; /* highest schema level the sender's binary knows; 0: of a version that did not
                       say yet, which knows 1 */
};

/* Appends to out. server_id and server_address are not sent: the receiver takes them from the
 * session. -ERR_UNSUPPORTED (type), -ERR_TOO_LARGE. */
int raft_msg_encode(const struct raft_message *m, const struct raft_digest *d, struct buf *out);
/* The whole of `in` is one message. On success entries (with one batch), conf and image are
 * raft_malloc'ed and the caller's, as libraft's recv wants them. -ERR_MALFORMED, -ERR_TOO_LARGE. */
int raft_msg_decode(struct blob in, struct raft_message *ret, struct raft_digest *ret_digest);
/* The same for one whose image was unpacked before: it is not looked at again. */
int raft_msg_decode_unpacked(struct blob in, struct raft_message *ret,
                             struct raft_digest *ret_digest);
/* The packed image in a message, a view; empty when it has none or does not decode. */
struct blob raft_msg_image(struct blob in);
/* Frees what decode allocated. */
void raft_msg_release(struct raft_message *m);

/* A configuration for raft.db. */
void raft_msg_conf_encode(const struct raft_configuration *c, struct buf *out);
/* At least one server, ids and addresses unique. ret is initialised here, raft_malloc'ed.
 * -ERR_MALFORMED. */
int raft_msg_conf_decode(struct blob in, struct raft_configuration *ret);
/* The data of a RAFT_CHANGE entry is in libraft's own encoding, and its decoder trusts lengths:
 * 0 when it may be handed over, else -ERR_MALFORMED. */
int raft_msg_change_check(struct blob data);
/* The same, as raft_msg_conf_decode. */
int raft_msg_change_decode(struct blob data, struct raft_configuration *ret);
/* An entry may be handed to libraft: its type, its length and what is in it. */
int raft_msg_entry_check(unsigned type, struct blob data);

/* Entry data is one msgpack value and zeros up to a multiple of 8 (libraft refuses other lengths
 * after it has freed the buffer). */
void raft_msg_pad(struct buf *entry);
/* The value without its padding. -ERR_MALFORMED. */
int raft_msg_unpad(struct blob padded, struct blob *ret);

#endif
