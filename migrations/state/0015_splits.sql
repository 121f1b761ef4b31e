-- Nodes that leave for a cluster of their own, and what has to be there before they may (SPEC SEED-01,
-- SEED-02; docs/decisions/0022).
CREATE TABLE cluster_splits (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL, -- the one that is split
    name TEXT NOT NULL,       -- of the new one
    new_cluster_id TEXT NOT NULL,
    root_pin TEXT NOT NULL, -- fingerprint of its root's key
    seed_node_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'finished', 'cancelled')),
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    reason TEXT, -- why it was cancelled
    report BLOB  -- what the new cluster's owner signed, on which it was finished
) STRICT;
CREATE TABLE cluster_split_nodes (
    split_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    PRIMARY KEY (split_id, node_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX cluster_split_nodes_by_node ON cluster_split_nodes (node_id, split_id);
