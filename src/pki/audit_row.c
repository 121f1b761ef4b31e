#include "pki/audit_row.h"

#include "wire/mp.h"

static void put_opt(struct mp_writer *w, struct blob s)
{
    if (s.len == 0) {
        mp_put_nil(w);
    } else {
        mp_put_strn(w, (const char *)s.data, s.len);
    }
}

static void put_text(struct mp_writer *w, struct blob s)
{
    mp_put_strn(w, s.len == 0 ? "" : (const char *)s.data, s.len);
}

void audit_row_hash(const uint8_t prev[PKI_HASH_BYTES], const struct audit_row *row,
                    uint8_t ret[PKI_HASH_BYTES])
{
    struct buf bytes;
    struct mp_writer w;
    buf_init(&bytes, row->details.len + 65536);
    mp_writer_init(&w, &bytes);
    mp_put_array(&w, 13);
    mp_put_u64(&w, row->seq);
    put_text(&w, row->cluster_id);
    put_opt(&w, row->organization_id);
    put_opt(&w, row->actor_kind);
    put_opt(&w, row->actor_id);
    put_text(&w, row->event_type);
    put_text(&w, row->subject_type);
    put_opt(&w, row->subject_id);
    mp_put_bool(&w, row->high_risk);
    put_opt(&w, row->details);
    mp_put_u64(&w, row->term);
    mp_put_u64(&w, row->index);
    mp_put_i64(&w, row->created_at);
    /* A row read from a file may say anything: what does not fit is no row of ours. */
    const struct blob parts[] = {blob_of(prev, PKI_HASH_BYTES),
                                 bytes.err == 0 ? buf_blob(&bytes) : blob_of(NULL, 0)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
    buf_fini(&bytes);
}
