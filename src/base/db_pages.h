/* The pages of memory databases, and images of them that another thread may read.
 *
 * SQLite keeps a database in memory in its page cache and nowhere else, and takes every page it reads or
 * writes from there (sqlite3_pcache_methods2, https://www.sqlite.org/c3ref/pcache_methods2.html). The
 * cache is ours, so a copy of a whole database costs a copy of its page table: a page is copied when the
 * database next touches it, if the reader of the image has not come to it by then. */
#ifndef RAP_BASE_DB_PAGES_H
#define RAP_BASE_DB_PAGES_H

#include "base/db.h"

/* For the whole process; before SQLite's first use. After it nothing happens. */
void db_pages_install(void);

/* A memory database as it was at one moment, as bytes of a database file. */
struct db_image;

/* Of a DB_MEMORY without an open transaction or a statement under way. Takes a moment for any size.
 * -ERR_BUSY: an earlier image of this database is still alive. The image outlives the database. */
int db_freeze(struct db *db, struct db_image **ret);
uint32_t db_image_pages(const struct db_image *im);
size_t db_image_page_bytes(const struct db_image *im);
static inline size_t db_image_bytes(const struct db_image *im)
{
    return db_image_pages(im) * db_image_page_bytes(im);
}
/* Copies page i (from 0). Each page once, in any order, from one thread at a time, which need not be
 * that of the database. */
void db_image_read(struct db_image *im, uint32_t i, uint8_t *out);
/* On the thread of the database, when no other one reads any more. NULL-safe. */
void db_image_free(struct db_image *im);

#endif
