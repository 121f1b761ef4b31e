/* A cache that may not forget (not purgeable) is a database in memory, or a part of one: it is a table of
 * pages by number here. All others are SQLite's own cache behind a pointer.
 *
 * The table also makes commits cheap. Each one asks the cache to drop the pages behind the end of the
 * database; there are none, but SQLite's cache takes the number at which a b-tree parks a page for a moment
 * (that of the pending byte, 1 GiB into the file) for its highest and walks the whole database.
 *
 * Image: db_freeze copies the table. Each page of it is LIVE until one of two has copied it:
 *     the database, in on_fetch:  LIVE -> BUSY, copy kept in the image, -> COPIED
 *     the reader of the image:    LIVE -> BUSY, copy to its buffer,     -> COPIED
 * Whoever finds it BUSY waits for the other to copy one page. SQLite holds no page between transactions,
 * so a page cannot change without a fetch before it; nor be dropped, moved or freed (these look too). */
#include "base/db_pages.h"

#include <sched.h>
#include <stdatomic.h>

#define PENDING_BYTE 0x40000000

/* One allocation: this, SQLite's extra bytes, the page. */
struct page {
    sqlite3_pcache_page base; /* first: it is what SQLite knows of a page */
    uint32_t number;
    uint32_t epoch; /* of the newest image that has it or does not need it */
};

struct cache {
    sqlite3_pcache *inner; /* not NULL: all the rest is unused */
    size_t page_bytes, extra_bytes;
    struct page **table; /* by number */
    uint32_t table_len;
    uint32_t count;
    uint32_t highest; /* no page in the table has a higher number */
    uint32_t parking;
    struct page *parked;
    uint32_t epoch;
    struct db_image *image;
};

enum { LIVE, BUSY, COPIED };

struct db_image {
    struct cache *cache; /* NULL once the database is closed */
    uint32_t count;
    size_t page_bytes;
    struct page **pages; /* by number - 1; NULL: a page nobody ever used, all zero */
    uint8_t **copies;    /* made by the database */
    _Atomic(uint8_t) *states;
    struct page **orphans; /* the closed database's pages */
    uint32_t orphans_len;
};

static sqlite3_pcache_methods2 inner;
static _Thread_local bool probing;
static _Thread_local struct cache *probed;

static struct cache *from(sqlite3_pcache *p)
{
    return (struct cache *)p;
}

/* --- images --- */

/* true: the caller copies the page now. */
static bool claim(struct db_image *im, uint32_t i)
{
    for (;;) {
        uint8_t state = LIVE;
        if (atomic_compare_exchange_strong_explicit(&im->states[i], &state, BUSY,
                                                    memory_order_acquire, memory_order_acquire)) {
            return true;
        }
        if (state == COPIED) {
            return false;
        }
        (void)sched_yield();
    }
}

static void release(struct db_image *im, uint32_t i)
{
    atomic_store_explicit(&im->states[i], COPIED, memory_order_release);
}

/* Before a page of the database changes or goes. */
static void keep_for_image(struct cache *c, struct page *p)
{
    struct db_image *im = c->image;
    p->epoch = c->epoch;
    if (im == NULL || p->number == 0 || p->number > im->count || im->pages[p->number - 1] != p) {
        return;
    }
    uint32_t i = p->number - 1;
    if (claim(im, i)) {
        im->copies[i] = xmalloc(im->page_bytes);
        memcpy(im->copies[i], p->base.pBuf, im->page_bytes);
        release(im, i);
    }
}

static void touch(struct cache *c, struct page *p)
{
    if (p->epoch != c->epoch) {
        keep_for_image(c, p);
    }
}

/* --- the cache --- */

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
    struct cache *c = xcalloc(1, sizeof *c);
    if (purgeable) {
        c->inner = inner.xCreate(page_bytes, extra_bytes, purgeable);
        if (c->inner == NULL) {
            free(c);
            return NULL;
        }
    }
    c->page_bytes = (size_t)page_bytes;
    c->extra_bytes = ((size_t)extra_bytes + 15) & ~(size_t)15;
    c->parking = PENDING_BYTE / (uint32_t)page_bytes + 1;
    return (sqlite3_pcache *)c;
}

static void on_cachesize(sqlite3_pcache *p, int pages)
{
    if (from(p)->inner != NULL) {
        inner.xCachesize(from(p)->inner, pages);
    }
}

static int on_pagecount(sqlite3_pcache *p)
{
    struct cache *c = from(p);
    return c->inner != NULL ? inner.xPagecount(c->inner) : (int)c->count;
}

static void grow(struct cache *c, uint32_t number)
{
    uint32_t len = c->table_len == 0 ? 64 : c->table_len;
    while (len <= number) {
        len *= 2;
    }
    c->table = xrealloc(c->table, len * sizeof(struct page *));
    memset(c->table + c->table_len, 0, (len - c->table_len) * sizeof(struct page *));
    c->table_len = len;
}

static struct page *find(const struct cache *c, uint32_t number)
{
    if (number == c->parking) {
        return c->parked;
    }
    return number < c->table_len ? c->table[number] : NULL;
}

static void put(struct cache *c, uint32_t number, struct page *p)
{
    p->number = number;
    if (number == c->parking) {
        c->parked = p;
        return;
    }
    if (number >= c->table_len) {
        grow(c, number);
    }
    c->table[number] = p;
    if (number > c->highest) {
        c->highest = number;
    }
}

static void take(struct cache *c, const struct page *p)
{
    if (p->number == c->parking) {
        c->parked = NULL;
    } else {
        c->table[p->number] = NULL;
    }
}

static void drop(struct cache *c, struct page *p)
{
    touch(c, p);
    take(c, p);
    free(p);
    c->count--;
}

static sqlite3_pcache_page *on_fetch(sqlite3_pcache *base, unsigned number, int create)
{
    struct cache *c = from(base);
    if (c->inner != NULL) {
        return inner.xFetch(c->inner, number, create);
    }
    struct page *p = find(c, number);
    if (probing) {
        probed = c;
    }
    if (p != NULL) {
        touch(c, p);
        return &p->base;
    }
    if (create == 0) {
        return NULL;
    }
    uint8_t *at = xmalloc(sizeof *p + c->extra_bytes + c->page_bytes);
    p = (struct page *)(void *)at;
    *p = (struct page){.base = {.pExtra = at + sizeof *p, .pBuf = at + sizeof *p + c->extra_bytes},
                       .epoch = c->epoch};
    memset(p->base.pExtra, 0, c->extra_bytes); /* its first word must be */
    put(c, number, p);
    c->count++;
    return &p->base;
}

static void on_unpin(sqlite3_pcache *base, sqlite3_pcache_page *page, int discard)
{
    struct cache *c = from(base);
    if (c->inner != NULL) {
        inner.xUnpin(c->inner, page, discard);
    } else if (discard != 0) {
        drop(c, (struct page *)page);
    }
}

static void on_rekey(sqlite3_pcache *base, sqlite3_pcache_page *page, unsigned from_number,
                     unsigned to_number)
{
    struct cache *c = from(base);
    if (c->inner != NULL) {
        inner.xRekey(c->inner, page, from_number, to_number);
        return;
    }
    struct page *p = (struct page *)page;
    struct page *other = find(c, to_number);
    if (other != NULL) {
        drop(c, other);
    }
    touch(c, p);
    take(c, p);
    put(c, to_number, p);
}

static void on_truncate(sqlite3_pcache *base, unsigned limit)
{
    struct cache *c = from(base);
    if (c->inner != NULL) {
        inner.xTruncate(c->inner, limit);
        return;
    }
    for (uint32_t n = limit; n <= c->highest; n++) {
        if (n < c->table_len && c->table[n] != NULL) {
            drop(c, c->table[n]);
        }
    }
    if (c->parked != NULL && c->parking >= limit) {
        drop(c, c->parked);
    }
    if (limit <= c->highest) {
        c->highest = limit == 0 ? 0 : limit - 1;
    }
}

static void free_table(struct page **table, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        free(table[i]);
    }
    free((void *)table);
}

static void on_destroy(sqlite3_pcache *base)
{
    struct cache *c = from(base);
    free(c->parked);
    if (c->inner != NULL) {
        inner.xDestroy(c->inner);
    } else if (c->image != NULL) {
        /* What the image still reads goes with it. */
        c->image->orphans = c->table;
        c->image->orphans_len = c->table_len;
        c->image->cache = NULL;
    } else {
        free_table(c->table, c->table_len);
    }
    free(c);
}

static void on_shrink(sqlite3_pcache *p)
{
    if (from(p)->inner != NULL) {
        inner.xShrink(from(p)->inner);
    }
}

void db_pages_install(void)
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

/* --- taking and reading --- */

static int64_t one_int(struct db *db, const char *sql)
{
    struct db_stmt *st = db_prepare(db, sql);
    int64_t v = db_step(st) == 1 ? sqlite3_column_int64(db_stmt_handle(st), 0) : -1;
    db_done(st);
    return v;
}

int db_freeze(struct db *db, struct db_image **ret)
{
    CHECK(sqlite3_txn_state(db_handle(db), "main") == SQLITE_TXN_NONE);
    /* The cache of this database is the one that is asked for a page when its header is read. */
    probed = NULL;
    probing = true;
    int64_t count = one_int(db, "PRAGMA page_count");
    int64_t version = one_int(db, "PRAGMA user_version");
    probing = false;
    struct cache *c = probed;
    CHECK(c != NULL);
    if (count < 1 || version < 0) {
        return -ERR_IO;
    }
    if (c->image != NULL) {
        return -ERR_BUSY;
    }
    struct db_image *im = xcalloc(1, sizeof *im);
    size_t n = (size_t)count;
    im->cache = c;
    im->count = (uint32_t)count;
    im->page_bytes = c->page_bytes;
    im->pages = xcalloc(n, sizeof(struct page *));
    im->copies = xcalloc(n, sizeof(uint8_t *));
    im->states = xcalloc(n, sizeof *im->states); /* all LIVE */
    size_t have = c->table_len == 0 ? 0 : c->table_len - 1;
    memcpy((void *)im->pages, (void *)(c->table + 1),
           (have < n ? have : n) * sizeof(struct page *));
    c->image = im;
    c->epoch++;
    *ret = im;
    return 0;
}

uint32_t db_image_pages(const struct db_image *im)
{
    return im->count;
}

size_t db_image_page_bytes(const struct db_image *im)
{
    return im->page_bytes;
}

void db_image_read(struct db_image *im, uint32_t i, uint8_t *out)
{
    if (im->pages[i] == NULL) {
        memset(out, 0, im->page_bytes);
    } else if (claim(im, i)) {
        memcpy(out, im->pages[i]->base.pBuf, im->page_bytes);
        release(im, i);
    } else {
        CHECK(im->copies[i] != NULL); /* read twice otherwise */
        memcpy(out, im->copies[i], im->page_bytes);
    }
}

void db_image_free(struct db_image *im)
{
    if (im == NULL) {
        return;
    }
    if (im->cache != NULL) {
        im->cache->image = NULL;
    }
    for (uint32_t i = 0; i < im->count; i++) {
        free(im->copies[i]);
    }
    free_table(im->orphans, im->orphans_len);
    free((void *)im->pages);
    free((void *)im->copies);
    free(im->states);
    free(im);
}
