#include "authority/raft_io.h"

void raft_store_loaded_fini(struct raft_store_loaded *l)
{
    for (size_t i = 0; i < l->entries_count; i++) {
        free((void *)(uintptr_t)l->entries[i].data.data);
    }
    free(l->entries);
    buf_fini(&l->snapshot_conf);
    buf_fini(&l->snapshot_image);
    buf_fini(&l->statement);
    *l = (struct raft_store_loaded){0};
}
