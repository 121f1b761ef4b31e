-- What the owner wants of routes and queues (SPEC RTE-09, QOS-01), and who leaves for whom (RTE-03).
CREATE TABLE cluster_route_intents (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    organization_id TEXT,
    service_class TEXT,
    -- Who obeys it. ref: a node id, a role, a region, an organization.
    source_kind TEXT NOT NULL
        CHECK (source_kind IN ('any', 'node', 'role', 'region', 'organization')),
    source_ref TEXT,
    -- On the way to whom. ref: a node id, the id of a pool.
    destination_kind TEXT NOT NULL CHECK (destination_kind IN ('any', 'node', 'pool')),
    destination_ref TEXT,
    policy TEXT NOT NULL CHECK (policy IN ('prefer', 'avoid', 'require', 'deny', 'direct')),
    -- Which ways it is about. ref: a node id, a region.
    via_kind TEXT NOT NULL CHECK (via_kind IN ('any', 'direct', 'node', 'region')),
    via_ref TEXT,
    qos_class TEXT,
    status TEXT NOT NULL CHECK (status IN ('active', 'disabled')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX cluster_route_intents_by_source
    ON cluster_route_intents (source_kind, source_ref, id);
CREATE INDEX cluster_route_intents_by_destination
    ON cluster_route_intents (destination_kind, destination_ref, id);

-- A class without a row is treated as the program treats it (fabric/relay_queue.c).
CREATE TABLE qos_policies (
    channel_class TEXT PRIMARY KEY NOT NULL
        CHECK (channel_class IN ('control', 'interactive', 'reliable', 'bulk', 'droppable')),
    cluster_id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    rate INTEGER, -- kbit/s for each next hop; NULL: as much as there is
    droppable INTEGER NOT NULL,
    floor_permille INTEGER NOT NULL,
    limit_kib INTEGER NOT NULL,
    life_ms INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE egress_pools (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    organization_id TEXT, -- whose nodes may use it; NULL: everybody's
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE egress_pool_members (
    pool_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (pool_id, node_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX egress_pool_members_by_node ON egress_pool_members (node_id, pool_id);
