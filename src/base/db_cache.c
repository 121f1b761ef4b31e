/* SQLite's own cache behind one question of ours.
 *
 * Each commit asks the cache to drop the pages behind the end of the database. There are none, and
 * the cache knows its highest page number; but a b-tree that puts its pages into order parks one for
 * a moment at the number of the pending-byte page (1 GiB into the file, never a page of data), and
 * the cache takes that for its highest from then on. So the commit walks the whole cache, which is
 * the whole database when it lives in memory: a millisecond for 30,000 tokens, at nearly every entry.
 *
 * Here the highest number is kept without the parking place, and a request to drop what is not there
 * ends before it gets to the cache. */
#include "base/db_cache.h"

#include "base/base.h"

#include <sqlite3.h>

#define PENDING_BYTE 0x40000000

struct cache {
    sqlite3_pcache *inner;
    unsigned parking;
    unsigned highest; /* no page of the cache has a higher number, but for `parking` */
};

static sqlite3_pcache_methods2 inner;

static int on_init(void *arg)
{
    (void)arg;
    return inner.xInit(inner.pArg);
}

static void on_shutdown(void *arg)
{
    (void)arg;
    inner.xShutdown(inner.pArg);
}

static sqlite3_pcache *on_create(int page_bytes, int extra_bytes, int purgeable)
{
    sqlite3_pcache *made = inner.xCreate(page_bytes, extra_bytes, purgeable);
    if (made == NULL) {
        return NULL;
    }
    struct cache *c = xcalloc(1, sizeof *c);
    c->inner = made;
    c->parking = PENDING_BYTE / (unsigned)page_bytes + 1;
    return (sqlite3_pcache *)c;
}

static struct cache *from(sqlite3_pcache *p)
{
    return (struct cache *)p;
}

static void on_cachesize(sqlite3_pcache *p, int pages)
{
    inner.xCachesize(from(p)->inner, pages);
}

static int on_pagecount(sqlite3_pcache *p)
{
    return inner.xPagecount(from(p)->inner);
}

static void note(struct cache *c, unsigned number)
{
    if (number > c->highest && number != c->parking) {
        c->highest = number;
    }
}

static sqlite3_pcache_page *on_fetch(sqlite3_pcache *p, unsigned number, int create)
{
    struct cache *c = from(p);
    if (create != 0) {
        note(c, number);
    }
    return inner.xFetch(c->inner, number, create);
}

static void on_unpin(sqlite3_pcache *p, sqlite3_pcache_page *page, int discard)
{
    inner.xUnpin(from(p)->inner, page, discard);
}

static void on_rekey(sqlite3_pcache *p, sqlite3_pcache_page *page, unsigned from_number,
                     unsigned to_number)
{
    struct cache *c = from(p);
    note(c, to_number);
    inner.xRekey(c->inner, page, from_number, to_number);
}

static void on_truncate(sqlite3_pcache *p, unsigned limit)
{
    struct cache *c = from(p);
    if (limit > c->highest) {
        return;
    }
    inner.xTruncate(c->inner, limit);
    c->highest = limit == 0 ? 0 : limit - 1;
}

static void on_destroy(sqlite3_pcache *p)
{
    struct cache *c = from(p);
    inner.xDestroy(c->inner);
    free(c);
}

static void on_shrink(sqlite3_pcache *p)
{
    inner.xShrink(from(p)->inner);
}

void db_cache_install(void)
{
    static const sqlite3_pcache_methods2 ours = {
        .iVersion = 1,
        .xInit = on_init,
        .xShutdown = on_shutdown,
        .xCreate = on_create,
        .xCachesize = on_cachesize,
        .xPagecount = on_pagecount,
        .xFetch = on_fetch,
        .xUnpin = on_unpin,
        .xRekey = on_rekey,
        .xTruncate = on_truncate,
        .xDestroy = on_destroy,
        .xShrink = on_shrink,
    };
    if (sqlite3_config(SQLITE_CONFIG_GETPCACHE2, &inner) == SQLITE_OK) {
        (void)sqlite3_config(SQLITE_CONFIG_PCACHE2, &ours);
    }
}
