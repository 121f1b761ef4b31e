/* SQLite ends a write-ahead log at the first frame whose checksum is wrong, and so drops, without a
 * word, every transaction behind a flipped bit: entries that were acknowledged. This looks behind that
 * frame. The last transaction may be torn by a power cut, for it may be unsynced; a frame that follows
 * a whole transaction proves that the one before it was synced, and then it is damage (S22). */
#ifndef RAP_AUTHORITY_RAFT_LOG_WAL_H
#define RAP_AUTHORITY_RAFT_LOG_WAL_H

#include "base/err.h"

/* path: of the database, which the caller has open and locked and has not written to yet.
 * -ERR_CORRUPT, -ERR_IO. Damage of the very last transaction cannot be told from a torn write. */
int raft_log_wal_check(const char *path, struct errmsg *em);

#endif
