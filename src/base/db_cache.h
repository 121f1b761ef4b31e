/* SQLite's page cache without its habit of searching all of itself at a commit. */
#ifndef RAP_BASE_DB_CACHE_H
#define RAP_BASE_DB_CACHE_H

/* For the whole process; before SQLite's first use. After it nothing happens. */
void db_cache_install(void);

#endif
