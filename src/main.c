#include "admin/cli.h"
#include "agent/join.h"
#include "authority/mirror.h"
#include "authority/mirror_read.h"
#include "base/base.h"
#include "node/node.h"

static void progress(void *data, enum join_event ev, const char *fingerprint_hex,
                     const char *join_id, const char *detail)
{
    const struct cli_join *o = data;
    if (o->progress != NULL) {
        o->progress(o->data, (int)ev, fingerprint_hex, join_id, detail);
    }
}

static int migrate(const struct cli_migrate *o, struct cli_migrated *ret, struct errmsg *em)
{
    struct mirror_migrated done;
    int rc = mirror_migrate(
        &(struct mirror_migrate){
            .dsn = o->dsn, .role = o->role, .cluster_id = o->cluster_id, .dry_run = o->dry_run},
        &done, em);
    *ret = (struct cli_migrated){.from = done.from, .to = done.to, .role_made = done.role_made};
    return rc;
}

static int read_mirror(const struct cli_mirror_read *o, struct errmsg *em)
{
    struct mirror_copy *c;
    int rc = mirror_read(
        &(struct mirror_read){.dsn = o->dsn, .cluster_id = o->cluster_id, .root_der = o->root_der},
        &c, em);
    if (rc == 0) {
        rc = o->use(o->data, &c->backup, c->rows, em);
        mirror_copy_free(c);
    }
    return rc;
}

static int join(const struct cli_join *o, bool *ret_pending, struct uuid *ret_node_id,
                struct errmsg *em)
{
    struct join_options options = {
        .data_dir = o->data_dir,
        .token = o->token,
        .token_len = o->token_len,
        .listen = o->listen,
        .advertise = o->advertise,
        .name = o->name,
        .roles = o->roles,
        .wait = o->wait,
        .timeout_ms = o->timeout_ms,
        .data = (void *)o,
        .progress = progress,
    };
    return join_run(&options, ret_pending, ret_node_id, em);
}

int main(int argc, char **argv)
{
    static const struct cli_ops ops = {
        .init = node_init,
        .migrate = migrate,
        .run = node_run,
        .join = join,
        .recover = node_recover,
        .restore = node_restore,
        .read_mirror = read_mirror,
        .doctor = node_doctor,
        .check_backup = node_check_backup,
    };
    process_keep_memory_private();
    return cli_main(argc, argv, &ops);
}
