/* Calls about the overlay's configuration. Apply checks all of it. */
#include "authority/ops_impl.h"

int op_mesh_set(struct prepare *p)
{
    const struct mesh_set body = {.overlay = op_arg_switch(p, "overlay"),
                                  .synthetic = op_arg_switch(p, "synthetic")};
    op_put_body(p, CMD_MESH_SET, &body);
    return 0;
}

/* A node's row as it is; the command says all of it. */
struct node_mesh_row {
    char overlay[16], synthetic[16], kind[16], region[NAME_MAX_BYTES + 1];
    uint64_t bandwidth_mbps, trust;
};

static void read_node_mesh(struct prepare *p, const struct uuid *node_id, struct node_mesh_row *ret)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    *ret = (struct node_mesh_row){
        .overlay = "inherit", .synthetic = "inherit", .kind = "auto", .trust = TRUST_LEVEL_MAX};
    struct db_stmt *st = db_prepare(
        state_db(p->a), "SELECT overlay, synthetic, kind, coalesce(region, '') AS region,"
                        " coalesce(bandwidth_mbps, 0) AS bandwidth_mbps, trust"
                        " FROM node_mesh_settings WHERE node_id = ?");
    db_bind_text(st, id);
    if (db_step(st) == 1) {
        (void)snprintf(ret->overlay, sizeof ret->overlay, "%s", db_col_text(st, "overlay"));
        (void)snprintf(ret->synthetic, sizeof ret->synthetic, "%s", db_col_text(st, "synthetic"));
        (void)snprintf(ret->kind, sizeof ret->kind, "%s", db_col_text(st, "kind"));
        (void)snprintf(ret->region, sizeof ret->region, "%s", db_col_text(st, "region"));
        ret->bandwidth_mbps = (uint64_t)db_col_int(st, "bandwidth_mbps");
        ret->trust = (uint64_t)db_col_int(st, "trust");
    }
    db_done(st);
}

static struct blob text_or(struct prepare *p, const char *key, const char *held)
{
    struct blob v = op_arg_text(p, key);
    return v.len > 0 ? v : blob_str(held);
}

static uint64_t uint_or(struct prepare *p, const char *key, uint64_t held)
{
    return mp_find(p->in->args, key).len > 0 ? (uint64_t)mp_find_int(p->in->args, key) : held;
}

int op_node_mesh(struct prepare *p)
{
    struct node_mesh_row row;
    struct node_mesh_set body;
    int rc = op_arg_id(p, "nodes", &body.node_id);
    if (rc != 0) {
        return rc;
    }
    read_node_mesh(p, &body.node_id, &row);
    body.overlay = text_or(p, "overlay", row.overlay);
    body.synthetic = text_or(p, "synthetic", row.synthetic);
    body.kind = text_or(p, "kind", row.kind);
    body.region = text_or(p, "region", row.region);
    body.bandwidth_mbps = uint_or(p, "bandwidth_mbps", row.bandwidth_mbps);
    body.trust = uint_or(p, "trust", row.trust);
    if (blob_equal(body.region, blob_str("none"))) {
        body.region = blob_of(NULL, 0);
    }
    op_put_body(p, CMD_NODE_MESH_SET, &body);
    return p->out->body.err == 0
               ? 0
               : errmsg_set(p->em, -ERR_TOO_LARGE, "a value is longer than it may be");
}
