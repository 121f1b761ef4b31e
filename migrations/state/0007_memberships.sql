-- Disabled memberships, groups, verified capabilities, observations, what the cluster asks of itself.

ALTER TABLE cluster_memberships ADD COLUMN disabled_at INTEGER;
ALTER TABLE cluster_memberships ADD COLUMN disabled_reason TEXT;
CREATE INDEX cluster_memberships_by_group ON cluster_memberships (group_id);

-- Nested folders (SPEC GRP). Depth and cycles are checked where they are moved.
CREATE TABLE node_groups (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    parent_group_id TEXT,
    name TEXT NOT NULL,
    kind TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX node_groups_by_name ON node_groups (coalesce(parent_group_id, ''), name);

CREATE TABLE capability_policies (
    capability TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE required_roles (
    role TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last few of each node (HEARTBEATS_KEPT).
CREATE TABLE node_heartbeats (
    cluster_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    observed_at INTEGER,
    received_at INTEGER NOT NULL,
    health TEXT NOT NULL,
    version TEXT,
    partition_state TEXT,
    config_version INTEGER,
    telemetry TEXT,
    PRIMARY KEY (node_id, received_at)
) STRICT, WITHOUT ROWID;

ALTER TABLE clusters ADD COLUMN heartbeat_sample_ms INTEGER;
