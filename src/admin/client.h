/* The command line's side of the API: one request over the local socket, and the rules for
 * repeating it. The only file that knows libcurl. */
#ifndef RAP_ADMIN_CLIENT_H
#define RAP_ADMIN_CLIENT_H

#include "admin/cli_priv.h"

#define CLIENT_DOC_MAX (32u << 20)
/* How long a refusal for want of a quorum is doubted: an election takes less. */
#define CLIENT_NO_QUORUM_MS 3000

/* A path under construction: literal parts with buf_add_str, values through these. */
void client_segment(struct buf *path, const char *value);
/* "?key=value" or "&key=value"; nothing when value is NULL. */
void client_query(struct buf *path, const char *key, const char *value);

/* One exchange, never repeated. 0 and the body as a document in doc (initialised by the caller); or
 * -ERR_X, where doc has the problem or is empty when there was no answer. key NULL: none. */
int client_once(struct cli *c, const char *method, const char *path, struct blob body,
                const char *key, uint32_t timeout_ms, struct buf *doc);

/* As the user asked for it: adds stale and dry_run, repeats what may be repeated - a mutation
 * always under the same Idempotency-Key - until --timeout, and prints what finally went wrong. Exit
 * code. */
int client_get(struct cli *c, struct buf *path, struct buf *doc);
int client_send(struct cli *c, const char *method, struct buf *path, struct blob body,
                struct buf *doc);
/* As client_send for what the API does not make exactly-once: repeated only when the answer says
 * that nothing was begun, and without a dry run, which the API does not have for them. */
int client_act(struct cli *c, const char *method, struct buf *path, struct blob body,
               struct buf *doc);

/* Whether an answer is worth the same request again. since_ms: how long this went on. Pure. */
bool client_again(int rc, struct blob problem, bool contacted, int64_t since_ms,
                  int64_t timeout_ms);

#endif
