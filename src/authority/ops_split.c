/* Calls about splits. What the owner signed is put together here as it was there; apply checks the
 * signatures, and all of it again. */
#include "authority/ops_impl.h"

#include "authority/split.h"
#include "base/text.h"
#include "pki/statement.h"

static int arg_uuid(struct prepare *p, const char *key, struct uuid *ret)
{
    char text[UUID_TEXT_MAX];
    mp_find_str(p->in->args, key, text, sizeof text);
    return uuid_parse(text, ret) == 0 ? 0 : errmsg_set(p->em, -ERR_INVALID, "%s is not an id", key);
}

/* The elements of a list of text, one after the other. */
static int join_texts(struct prepare *p, const char *key, struct buf *out)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(p->in->args, key));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct blob s = mp_get_str(&r, SIZE_MAX);
        buf_add(out, s.data, s.len);
    }
    int rc = r.err != 0 ? r.err : out->err;
    return rc == 0 ? 0 : errmsg_set(p->em, rc, "%s: %s", key, err_text(rc));
}

/* Ids, separated by commas or as elements. */
static int arg_ids(struct prepare *p, const char *key, struct buf *out, uint32_t *ret_count)
{
    struct mp_reader r;
    struct mp_writer w;
    uint32_t count = 0;
    mp_writer_init(&w, out);
    mp_reader_init(&r, mp_find(p->in->args, key));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct blob s = mp_get_str(&r, SIZE_MAX);
        const char *at = (const char *)s.data;
        const char *end = at + s.len;
        while (at < end) {
            char text[UUID_TEXT_MAX];
            struct uuid id;
            const char *comma = memchr(at, ',', (size_t)(end - at));
            const char *stop = comma == NULL ? end : comma;
            (void)snprintf(text, sizeof text, "%.*s", (int)(stop - at), at);
            if (stop - at != UUID_TEXT_MAX - 1 || uuid_parse(text, &id) != 0) {
                return errmsg_set(p->em, -ERR_INVALID, "%s: \"%.40s\" is not an id", key, text);
            }
            mp_put_uuid(&w, &id);
            count++;
            at = stop + (comma == NULL ? 0 : 1);
        }
    }
    *ret_count = count;
    return 0;
}

static int read_terms(struct prepare *p, struct split_terms *t, struct buf *nodes,
                      uint8_t pin[PKI_HASH_BYTES])
{
    uint32_t count = 0;
    *t = (struct split_terms){.cluster_id = p->a->cfg.cluster_id,
                              .name = op_arg_text(p, "name"),
                              .root_pin = blob_of(pin, PKI_HASH_BYTES)};
    int rc = arg_uuid(p, "id", &t->split_id);
    rc = rc != 0 ? rc : arg_uuid(p, "new_cluster_id", &t->new_cluster_id);
    rc = rc != 0 ? rc : arg_uuid(p, "seed", &t->seed_id);
    rc = rc != 0 ? rc : op_arg_hex(p, "root_pin", pin, PKI_HASH_BYTES);
    rc = rc != 0 ? rc : arg_ids(p, "nodes", nodes, &count);
    t->nodes = (struct mp_list){.raw = buf_blob(nodes), .count = count};
    if (rc == 0 && count > SPLIT_NODES_MAX) {
        rc = errmsg_set(p->em, -ERR_TOO_LARGE,
                        "at most %d nodes leave at once: split in steps, with a seed each",
                        SPLIT_NODES_MAX);
    }
    return rc;
}

int op_split_begin(struct prepare *p)
{
    uint8_t pin[PKI_HASH_BYTES];
    uint8_t signature[PKI_SIG_BYTES];
    struct buf nodes;
    struct buf bytes;
    struct split_terms t;
    int refused = 0;
    buf_init(&nodes, CMD_BODY_MAX);
    buf_init(&bytes, SPLIT_TERMS_MAX);
    int rc = read_terms(p, &t, &nodes, pin);
    rc = rc != 0 ? rc : op_arg_hex(p, "signature", signature, sizeof signature);
    if (rc == 0) {
        msg_encode(&split_terms_desc, &t, &bytes);
        rc = bytes.err != 0 ? bytes.err : split_terms_decode(buf_blob(&bytes), &t);
        rc = rc == 0
                 ? 0
                 : errmsg_set(p->em, -ERR_INVALID,
                              "a split has a name, another cluster's id, and a list of nodes in "
                              "the order of their ids with the seed among them");
    }
    if (rc == 0) {
        char cluster_id[UUID_TEXT_MAX];
        uuid_format(&p->a->cfg.cluster_id, cluster_id);
        rc = split_begin_refusal(state_db(p->a), cluster_id, &t, &refused, p->em);
        rc = rc != 0 ? rc : refused;
        rc = rc != 0 ? rc : split_names_fit(state_db(p->a), &t, p->em);
    }
    if (rc == 0) {
        op_put_body(p, CMD_SPLIT_BEGIN,
                    &(struct split_begin){.terms = buf_blob(&bytes),
                                          .signature = blob_of(signature, sizeof signature)});
    }
    buf_fini(&nodes);
    buf_fini(&bytes);
    return rc;
}

/* The gaps go along with the refusal, each as a document. */
static int refuse_gaps(struct prepare *p, const struct split *s, const struct split_gaps *g)
{
    struct mp_writer w;
    struct mp_doc d;
    mp_writer_init(&w, &p->out->more);
    mp_doc_begin(&w, &d);
    mp_doc_key(&w, &d, "gaps");
    mp_put_array(&w, g->count);
    buf_add(w.out, g->items.data, g->items.len);
    mp_doc_end(&w, &d);
    return errmsg_set(p->em, -ERR_SPLIT_NOT_READY, "the nodes cannot leave for %s yet, %u %s: %s",
                      s->name, g->count, g->count == 1 ? "gap" : "gaps", g->brief);
}

static int check_gaps(struct prepare *p, const struct uuid *id, struct blob report)
{
    struct split s;
    struct split_gaps gaps;
    int rc = split_get(state_db(p->a), id, &s);
    if (rc != 1 || strcmp(s.status, "open") != 0) {
        return rc < 0 ? rc : 0; /* apply says what it is */
    }
    split_gaps_init(&gaps);
    rc = split_gaps_find(state_db(p->a), &s, report, p->now_ms, &gaps, p->em);
    if (rc == 0 && gaps.items.err != 0) {
        rc = gaps.items.err;
    }
    rc = rc == 0 && gaps.count > 0 ? refuse_gaps(p, &s, &gaps) : rc;
    split_gaps_fini(&gaps);
    return rc;
}

int op_split_finish(struct prepare *p)
{
    uint8_t signature[PKI_SIG_BYTES];
    struct buf text;
    struct buf report;
    struct split_finish body = {.signature = blob_of(signature, sizeof signature)};
    buf_init(&text, SPLIT_REPORT_TEXT_MAX);
    buf_init(&report, SIGNED_SPLIT_REPORT_MAX);
    int rc = op_arg_id(p, "splits", &body.split_id);
    rc = rc != 0 ? rc : op_arg_hex(p, "signature", signature, sizeof signature);
    rc = rc != 0 ? rc : join_texts(p, "report", &text);
    if (rc == 0) {
        rc = split_report_parse(buf_blob(&text), &report);
        rc = rc == 0
                 ? 0
                 : errmsg_set(p->em, rc,
                              "this is no report of a new cluster: `rap split report` makes one "
                              "there");
    }
    rc = rc != 0 ? rc : check_gaps(p, &body.split_id, buf_blob(&report));
    if (rc == 0) {
        body.report = buf_blob(&report);
        op_put_body(p, CMD_SPLIT_FINISH, &body);
    }
    buf_fini(&text);
    buf_fini(&report);
    return rc;
}

int op_split_cancel(struct prepare *p)
{
    uint8_t signature[PKI_SIG_BYTES];
    struct split_cancel body = {.reason = op_arg_text(p, "reason"),
                                .signature = blob_of(signature, sizeof signature)};
    int rc = op_arg_id(p, "splits", &body.split_id);
    rc = rc != 0 ? rc : op_arg_hex(p, "signature", signature, sizeof signature);
    if (rc == 0) {
        op_put_body(p, CMD_SPLIT_CANCEL, &body);
    }
    return rc;
}
