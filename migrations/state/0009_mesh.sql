-- The overlay is the owner's to configure: for the cluster, and otherwise for single nodes (SPEC RTE-04,
-- PEER-02, PEER-03). One row at most; none: all of it is off.
CREATE TABLE mesh_settings (
    cluster_id TEXT PRIMARY KEY NOT NULL,
    overlay INTEGER NOT NULL,
    synthetic INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- No row: as the cluster says, and nothing is known of its place.
CREATE TABLE node_mesh_settings (
    node_id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    overlay TEXT NOT NULL CHECK (overlay IN ('inherit', 'off', 'on')),
    synthetic TEXT NOT NULL CHECK (synthetic IN ('inherit', 'off', 'on')),
    kind TEXT NOT NULL CHECK (kind IN ('auto', 'thin', 'normal', 'core')),
    region TEXT,
    bandwidth_mbps INTEGER,
    trust INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who is told whose address: those that serve one organization (fsm_peers.c).
CREATE INDEX node_role_assignments_by_organization
    ON node_role_assignments (organization_id, node_id)
    WHERE organization_id IS NOT NULL AND status = 'active';
