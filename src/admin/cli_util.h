/* Short cuts that the command files share. */
#ifndef RAP_ADMIN_CLI_UTIL_H
#define RAP_ADMIN_CLI_UTIL_H

#include "admin/client.h"
#include "admin/out.h"

#define CLI_PATH_MAX 16384

/* A body under construction: util_body_begin, mp_doc_str(&b->w, &b->d, ...), util_body_end. */
struct util_body {
    struct buf bytes;
    struct mp_writer w;
    struct mp_doc d;
};
void util_body_begin(struct util_body *b);
struct blob util_body_end(struct util_body *b);
void util_body_fini(struct util_body *b);
/* "force": true when --force was given. */
void util_put_force(struct cli *c, struct util_body *b);

/* "/v1/nodes/" + value + suffix; suffix may be "". The caller ends path with buf_fini. */
void util_path(struct buf *path, const char *prefix, const char *value, const char *suffix);

/* GET and show a document. */
int util_show(struct cli *c, const char *prefix, const char *value);
/* Sends a mutation and shows its answer; done (may be NULL) is said on stderr afterwards. */
int util_mutate(struct cli *c, const char *method, struct buf *path, struct blob body,
                const char *done);
/* GET into doc (initialised here, ended by the caller, on errors too). */
int util_fetch(struct cli *c, const char *prefix, const char *value, struct buf *doc);
/* The cluster of the daemon that answers. */
int util_own_cluster(struct cli *c, struct uuid *ret);

/* As cli_get_count, but 0 is a number too. */
int util_get_number(struct cli *c, const char *name, int64_t *ret);

#endif
