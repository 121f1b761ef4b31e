#include "authority/raft_log.h"

#include "authority/raft_log_db.h"
#include "wire/limits.h"

static int encode_first_configuration(const struct raft_log_bootstrap *b, struct raft_buffer *ret)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    int rv = raft_configuration_add(&conf, b->id, b->address, RAFT_VOTER);
    if (rv == 0) {
        rv = raft_configuration_encode(&conf, ret);
    }
    raft_configuration_close(&conf);
    return rv == 0 ? 0 : -ERR_INVALID;
}

static int write_first_entries(struct raft_log_db *d, struct blob conf, struct blob command)
{
    const struct raft_store_entry entries[] = {
        {.index = 1, .term = 1, .type = RAFT_CHANGE, .data = conf},
        {.index = 2, .term = 1, .type = RAFT_COMMAND, .data = command},
    };
    const struct raft_log_state state = {.term = 1, .first = 1};
    int rc = db_begin(d->db);
    if (rc == 0) {
        rc = raft_log_db_set_state(d, &state);
    }
    if (rc == 0) {
        rc = raft_log_db_append(d, entries, ARRAY_SIZE(entries));
    }
    if (rc == 0) {
        rc = db_commit(d->db);
    }
    if (rc != 0) {
        db_rollback(d->db);
    }
    return rc;
}

int raft_log_bootstrap(const char *path, const struct raft_log_bootstrap *b, struct errmsg *em)
{
    static const uint8_t zeros[8];
    struct raft_log_db d = {0};
    struct raft_store_loaded have = {0};
    struct raft_buffer conf = {0};
    struct buf command;
    buf_init(&command, ENTRY_MAX_BYTES);
    buf_add(&command, b->command.data, b->command.len);
    buf_add(&command, zeros, (8 - b->command.len % 8) % 8);
    int rc = command.err != 0 ? errmsg_set(em, command.err, "first command is too large")
                              : raft_log_db_open(&d, path, em);
    if (rc != 0) {
        goto out;
    }
    rc = raft_log_db_load(&d, &have, em);
    if (rc != 0) {
        goto out;
    }
    if (have.term != 0 || have.has_snapshot || have.entries_count != 0) {
        rc = errmsg_set(em, -ERR_EXISTS, "%s already holds a log", path);
        goto out;
    }
    rc = encode_first_configuration(b, &conf);
    if (rc != 0) {
        rc = errmsg_set(em, rc, "bad raft id or address");
        goto out;
    }
    rc = write_first_entries(&d, blob_of(conf.base, conf.len), buf_blob(&command));
    if (rc != 0) {
        rc = errmsg_set(em, rc, "%s: %s", path, db_errmsg(d.db));
    }
out:
    raft_free(conf.base);
    raft_store_loaded_fini(&have);
    raft_log_db_close(&d);
    buf_fini(&command);
    return rc;
}
