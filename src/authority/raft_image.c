#include "authority/raft_image.h"

#include "base/err.h"

#include <zstd.h>

/* Fast: an image is written every few thousand entries and read once. */
#define LEVEL 1
#define SCRATCH_BYTES ((size_t)128 << 10)

struct packer {
    ZSTD_CCtx *z;
    struct buf *out;
    uint8_t *scratch;
};

static int packer_init(struct packer *p, size_t raw_bytes, struct buf *out)
{
    if (raw_bytes == 0 || raw_bytes > IMAGE_MAX_BYTES) {
        return -ERR_TOO_LARGE;
    }
    *p = (struct packer){.z = ZSTD_createCCtx(), .out = out, .scratch = xmalloc(SCRATCH_BYTES)};
    CHECK(p->z != NULL);
    (void)ZSTD_CCtx_setParameter(p->z, ZSTD_c_compressionLevel, LEVEL);
    (void)ZSTD_CCtx_setPledgedSrcSize(p->z, raw_bytes);
    return 0;
}

static int packer_add(struct packer *p, struct blob in, bool last)
{
    ZSTD_inBuffer from = {.src = in.data, .size = in.len};
    size_t left;
    do {
        ZSTD_outBuffer to = {.dst = p->scratch, .size = SCRATCH_BYTES};
        left = ZSTD_compressStream2(p->z, &to, &from, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left)) {
            return -ERR_IO;
        }
        buf_add(p->out, p->scratch, to.pos);
    } while (from.pos < from.size || (last && left > 0));
    return p->out->err;
}

static void packer_fini(struct packer *p)
{
    ZSTD_freeCCtx(p->z);
    free(p->scratch);
}

int raft_image_pack(struct db_image *frozen, struct buf *out)
{
    struct packer p;
    int rc = packer_init(&p, db_image_bytes(frozen), out);
    if (rc != 0) {
        return rc;
    }
    size_t bytes = db_image_page_bytes(frozen);
    uint32_t n = db_image_pages(frozen);
    uint8_t *page = xmalloc(bytes);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        db_image_read(frozen, i, page);
        rc = packer_add(&p, blob_of(page, bytes), i + 1 == n);
    }
    free(page);
    packer_fini(&p);
    return rc;
}

int raft_image_pack_bytes(struct blob raw, struct buf *out)
{
    struct packer p;
    int rc = packer_init(&p, raw.len, out);
    if (rc == 0) {
        rc = packer_add(&p, raw, true);
        packer_fini(&p);
    }
    return rc;
}

int raft_image_size(struct blob packed, size_t *ret)
{
    unsigned long long size = ZSTD_getFrameContentSize(packed.data, packed.len);
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size == 0) {
        return -ERR_MALFORMED;
    }
    if (size > IMAGE_MAX_BYTES) {
        return -ERR_TOO_LARGE;
    }
    *ret = (size_t)size;
    return 0;
}

int raft_image_check(struct blob packed)
{
    size_t size;
    int rc = raft_image_size(packed, &size);
    if (rc != 0) {
        return rc;
    }
    ZSTD_DCtx *z = ZSTD_createDCtx();
    uint8_t *scratch = xmalloc(SCRATCH_BYTES);
    ZSTD_inBuffer in = {.src = packed.data, .size = packed.len};
    size_t total = 0;
    size_t left = 1;
    CHECK(z != NULL);
    while (left > 0 && !ZSTD_isError(left) && total <= size) {
        ZSTD_outBuffer out = {.dst = scratch, .size = SCRATCH_BYTES};
        left = ZSTD_decompressStream(z, &out, &in);
        total += out.pos;
        if (out.pos == 0 && in.pos == in.size && left > 0) {
            break; /* cut off */
        }
    }
    free(scratch);
    ZSTD_freeDCtx(z);
    return left == 0 && total == size && in.pos == in.size ? 0 : -ERR_MALFORMED;
}

int raft_image_unpack(struct blob packed, struct buf *ret)
{
    size_t size;
    int rc = raft_image_size(packed, &size);
    uint8_t *p = rc == 0 ? buf_grow(ret, size) : NULL;
    if (p == NULL) {
        return rc != 0 ? rc : -ERR_TOO_LARGE;
    }
    size_t n = ZSTD_decompress(p, size, packed.data, packed.len);
    return ZSTD_isError(n) || n != size ? -ERR_MALFORMED : 0;
}
