/* The file format is https://www.sqlite.org/fileformat2.html, section 4. */
#include "authority/raft_log_wal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define HEADER_BYTES 32
#define FRAME_HEADER_BYTES 24
#define MAGIC 0x377f0682u /* the last bit tells the byte order of the checksums */
#define VERSION 3007000u
#define PAGE_MIN 512u
#define PAGE_MAX_BYTES 65536u

struct wal {
    int fd;
    bool big_endian;
    uint32_t page_size;
    uint8_t salt[8];
    uint32_t sum[2]; /* running, over header and frames */
};

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t little_endian(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static void add_to_sum(const struct wal *w, uint32_t sum[2], const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        sum[0] += (w->big_endian ? big_endian(p + i) : little_endian(p + i)) + sum[1];
        sum[1] += (w->big_endian ? big_endian(p + i + 4) : little_endian(p + i + 4)) + sum[0];
    }
}

/* 1 when all of len was read, 0 at the end of the file (or in the middle of it), or an error. */
static int read_full(int fd, uint8_t *out, size_t len, struct errmsg *em)
{
    while (len > 0) {
        ssize_t n = read(fd, out, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errmsg_set(em, -ERR_IO, "read write-ahead log: %s", strerror(errno));
        }
        if (n == 0) {
            return 0;
        }
        out += n;
        len -= (size_t)n;
    }
    return 1;
}

static bool take_header(struct wal *w, const uint8_t h[HEADER_BYTES])
{
    uint32_t magic = big_endian(h);
    w->big_endian = (magic & 1) != 0;
    w->page_size = big_endian(h + 8);
    memcpy(w->salt, h + 16, sizeof w->salt);
    add_to_sum(w, w->sum, h, HEADER_BYTES - 8);
    return (magic & ~1u) == MAGIC && big_endian(h + 4) == VERSION && w->page_size >= PAGE_MIN &&
           w->page_size <= PAGE_MAX_BYTES && (w->page_size & (w->page_size - 1)) == 0 &&
           w->sum[0] == big_endian(h + 24) && w->sum[1] == big_endian(h + 28);
}

/* Whether this frame continues the chain of checksums; if so, the chain goes on from it. */
static bool continues(struct wal *w, const uint8_t *frame)
{
    uint32_t sum[2] = {w->sum[0], w->sum[1]};
    add_to_sum(w, sum, frame, 8);
    add_to_sum(w, sum, frame + FRAME_HEADER_BYTES, w->page_size);
    if (sum[0] != big_endian(frame + 16) || sum[1] != big_endian(frame + 20)) {
        return false;
    }
    memcpy(w->sum, sum, sizeof sum);
    return true;
}

static int check_frames(struct wal *w, struct errmsg *em)
{
    size_t len = FRAME_HEADER_BYTES + w->page_size;
    uint8_t *frame = xmalloc(len);
    bool whole = true;        /* so far every frame continues the chain */
    bool commit_seen = false; /* behind the break */
    uint64_t number = 0;
    uint64_t broken_at = 0;
    int rc;
    while ((rc = read_full(w->fd, frame, len, em)) == 1) {
        number++;
        bool ours = memcmp(frame + 8, w->salt, sizeof w->salt) == 0;
        if (whole && ours && continues(w, frame)) {
            continue;
        }
        if (whole) {
            whole = false;
            broken_at = number;
        }
        if (!ours) {
            continue; /* left from before the log was last started anew */
        }
        if (commit_seen) {
            rc = errmsg_set(em, -ERR_CORRUPT,
                            "write-ahead log: frame %llu is damaged and frame %llu came after it",
                            (unsigned long long)broken_at, (unsigned long long)number);
            break;
        }
        commit_seen = big_endian(frame + 4) != 0; /* size of the database: only in commits */
    }
    free(frame);
    return rc;
}

int raft_log_wal_check(const char *path, struct errmsg *em)
{
    struct wal w = {0};
    uint8_t header[HEADER_BYTES];
    uint8_t more;
    int rc = 0;
    char *name = xasprintf("%s-wal", path);
    w.fd = open(name, O_RDONLY | O_CLOEXEC);
    if (w.fd < 0) {
        rc = errno == ENOENT ? 0 : errmsg_set(em, -ERR_IO, "open %s: %s", name, strerror(errno));
        goto out;
    }
    rc = read_full(w.fd, header, sizeof header, em);
    if (rc <= 0) {
        goto out;
    }
    if (take_header(&w, header)) {
        rc = check_frames(&w, em);
    } else {
        /* The header is synced before the first frame is written. */
        rc = read_full(w.fd, &more, 1, em);
        rc = rc == 1 ? errmsg_set(em, -ERR_CORRUPT, "write-ahead log: header is damaged") : rc;
    }
out:
    if (w.fd >= 0) {
        (void)close(w.fd);
    }
    free(name);
    return rc;
}
