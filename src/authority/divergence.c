#include "authority/divergence.h"

#include "wire/cmd.h"
#include "wire/node_msg.h"

/* Raft section 5.3, Log Matching: one entry of equal index and term, and all before it is equal. */
static uint64_t find_common(const struct raft_store_loaded *log, const struct recovery_statement *s)
{
    for (size_t i = log->entries_count; i > 0; i--) {
        const struct raft_store_entry *e = &log->entries[i - 1];
        if (recovery_trail_term(s, e->index) == e->term) {
            return e->index;
        }
    }
    if (log->has_snapshot && recovery_trail_term(s, log->snapshot_index) == log->snapshot_term) {
        return log->snapshot_index;
    }
    return 0;
}

/* The thing a command is about: its node, else the first id in it. */
static struct uuid subject_of(const struct cmd *cmd)
{
    struct uuid ret = UUID_NIL;
    const struct msg_desc *desc = cmd_body_desc(cmd->kind);
    if (desc == NULL) {
        return ret;
    }
    void *body = xcalloc(1, desc->size);
    if (msg_decode(desc, MSG_LENIENT, cmd->body, body) == 0) {
        for (size_t i = 0; i < desc->count; i++) {
            const struct msg_field *f = &desc->fields[i];
            if (f->type == MSG_ID && (uuid_is_nil(&ret) || strcmp(f->name, "node_id") == 0)) {
                memcpy(&ret, (const uint8_t *)body + f->offset, sizeof ret);
            }
        }
    }
    free(body);
    return ret;
}

static void add_row(struct divergence *d, const struct raft_store_entry *e, const struct cmd *cmd)
{
    if (d->rows_total++ >= DIVERGENCE_ROWS_MAX) {
        return;
    }
    const char *kind = cmd_kind_name(cmd->kind);
    struct divergence_row row = {
        .log_index = e->index,
        .log_term = e->term,
        .committed = e->index <= d->commit_index,
        .kind = blob_str(kind == NULL ? "unknown" : kind),
        .request_id = cmd->request_id,
        .actor_kind = cmd->actor_kind,
        .actor_id = cmd->actor_id,
        .subject_id = subject_of(cmd),
        .time_ms = cmd->time_ms,
    };
    uint32_t count = 0;
    msg_list_add(&divergence_row_desc, &row, &d->rows, &count);
}

static void add_entry(struct divergence *d, const struct raft_store_entry *e)
{
    struct blob bytes;
    struct cmd_entry entry;
    struct mp_reader r;
    if (e->type != RAFT_COMMAND || raft_msg_unpad(e->data, &bytes) != 0 ||
        msg_decode(&cmd_entry_desc, MSG_LENIENT, bytes, &entry) != 0) {
        return;
    }
    mp_reader_init(&r, entry.commands.raw);
    for (uint32_t i = 0; i < entry.commands.count; i++) {
        struct cmd cmd;
        if (msg_decode(&cmd_desc, MSG_LENIENT, mp_get_bin(&r, ENTRY_MAX_BYTES), &cmd) == 0) {
            add_row(d, e, &cmd);
        }
    }
}

void divergence_find(const struct raft_store_loaded *log, const struct recovery_statement *s,
                     uint64_t commit_index, struct divergence *ret)
{
    size_t n = log->entries_count;
    *ret = (struct divergence){.common_index = find_common(log, s)};
    buf_init(&ret->rows, (size_t)DIVERGENCE_ROWS_MAX * 512);
    ret->last_index = n > 0 ? log->entries[n - 1].index : log->snapshot_index;
    ret->last_term = n > 0 ? log->entries[n - 1].term : log->snapshot_term;
    ret->commit_index = commit_index < ret->last_index ? commit_index : ret->last_index;
    for (size_t i = 0; i < n; i++) {
        if (log->entries[i].index > ret->common_index + PLANTED("divergence_row_missing")) {
            add_entry(ret, &log->entries[i]);
        }
    }
}

void divergence_fini(struct divergence *d)
{
    buf_fini(&d->rows);
}

uint32_t divergence_part(const struct divergence *d, uint64_t first, uint32_t most, struct buf *raw)
{
    struct mp_reader r;
    uint32_t count = 0;
    uint64_t stored = d->rows_total < DIVERGENCE_ROWS_MAX ? d->rows_total : DIVERGENCE_ROWS_MAX;
    mp_reader_init(&r, buf_blob(&d->rows));
    for (uint64_t i = 0; i < stored && count < most; i++) {
        struct blob row = mp_skip(&r);
        if (i >= first) {
            buf_add(raw, row.data, row.len);
            count++;
        }
    }
    return count;
}

void divergence_put(const struct divergence *d, struct divergence_report *r, struct buf *rows,
                    struct buf *out)
{
    r->common_index = d->common_index;
    r->last_index = d->last_index;
    r->last_term = d->last_term;
    r->commit_index = d->commit_index;
    r->rows_total = d->rows_total;
    r->rows.count = divergence_part(d, r->first_row, DIVERGENCE_PART_ROWS, rows);
    r->rows.raw = buf_blob(rows);
    msg_encode(&divergence_report_desc, r, out);
}
