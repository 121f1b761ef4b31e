/* Data on stdout: JSON as the API has it, or tables for people (which may change). */
#ifndef RAP_ADMIN_OUT_H
#define RAP_ADMIN_OUT_H

#include "admin/cli_priv.h"

enum out_format {
    OUT_TEXT,
    OUT_AGE,   /* RFC 3339 as "5m ago", "in 2h" */
    OUT_STATE, /* coloured on a terminal */
    OUT_SHORT, /* first 16 characters: fingerprints as people compare them */
};

struct out_col {
    const char *title;
    const char *key;
    enum out_format format;
};

/* rows: encoded values, each a document. An empty list says `empty` on stderr. */
void out_table(struct cli *c, const struct out_col *cols, size_t cols_count, struct blob rows,
               uint32_t rows_count, const char *empty);
/* Every key of one document below the other; times also relative. */
void out_fields(struct cli *c, struct blob doc);
/* The document, indented. */
void out_json(struct cli *c, struct blob doc);
/* As the user chose: out_json or out_fields. */
void out_doc(struct cli *c, struct blob doc);

/* One encoded value as one line of clean text; now_ms for ages. Pure. */
void out_cell(struct blob value, enum out_format format, int64_t now_ms, struct buf *out);

/* GET a list, following its pages (or the one page that --limit and --cursor ask for; with one_page
 * also without them), and show it. Exit code. path is taken as it is. */
struct out_list {
    const char *path;
    const struct out_col *cols;
    size_t cols_count;
    bool one_page;
    const char *empty; /* what to do when there is nothing yet */
};
int out_list(struct cli *c, const struct out_list *list);
/* All pages of a list into rows (initialised by the caller), as encoded documents. Exit code; what went
 * wrong is said. */
int out_fetch(struct cli *c, const char *path, struct buf *rows, uint32_t *ret_count);

#endif
