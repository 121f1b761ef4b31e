-- What organizations have behind a node or an egress pool (SPEC RTE-03), and intents about it.
CREATE TABLE organization_resources (
    id TEXT PRIMARY KEY NOT NULL,
    organization_id TEXT NOT NULL, -- whose nodes may use it
    cluster_id TEXT NOT NULL,
    name TEXT NOT NULL,
    protocol TEXT NOT NULL,
    target_ref TEXT,     -- what whoever serves it makes of it
    node_id TEXT,        -- who serves it: this node, or
    egress_pool_id TEXT, -- one of these; neither: nobody does now
    credential_ref TEXT, -- where a secret is kept; never the secret
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (organization_id, name),
    CHECK (node_id IS NULL OR egress_pool_id IS NULL)
) STRICT;
CREATE INDEX organization_resources_by_node ON organization_resources (node_id, id);
CREATE INDEX organization_resources_by_pool ON organization_resources (egress_pool_id, id);

-- Resources are destinations too, and SQLite cannot change a CHECK in place.
ALTER TABLE cluster_route_intents RENAME TO cluster_route_intents_before;
CREATE TABLE cluster_route_intents (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    organization_id TEXT, -- only nodes that serve it obey; NULL: whoever the source is
    service_class TEXT,   -- only streams of it are concerned; NULL: the ways themselves
    source_kind TEXT NOT NULL
        CHECK (source_kind IN ('any', 'node', 'role', 'region', 'organization')),
    source_ref TEXT,
    -- ref: a node id, the id of a pool, of a resource.
    destination_kind TEXT NOT NULL
        CHECK (destination_kind IN ('any', 'node', 'pool', 'resource')),
    destination_ref TEXT,
    policy TEXT NOT NULL CHECK (policy IN ('prefer', 'avoid', 'require', 'deny', 'direct')),
    via_kind TEXT NOT NULL CHECK (via_kind IN ('any', 'direct', 'node', 'region')),
    via_ref TEXT,
    qos_class TEXT,
    status TEXT NOT NULL CHECK (status IN ('active', 'disabled')),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
INSERT INTO cluster_route_intents (id, cluster_id, name, organization_id, service_class, source_kind,
        source_ref, destination_kind, destination_ref, policy, via_kind, via_ref, qos_class, status,
        created_at, updated_at)
    SELECT id, cluster_id, name, organization_id, service_class, source_kind, source_ref,
        destination_kind, destination_ref, policy, via_kind, via_ref, qos_class, status, created_at,
        updated_at
    FROM cluster_route_intents_before ORDER BY id;
DROP TABLE cluster_route_intents_before;
CREATE INDEX cluster_route_intents_by_source
    ON cluster_route_intents (source_kind, source_ref, id);
CREATE INDEX cluster_route_intents_by_destination
    ON cluster_route_intents (destination_kind, destination_ref, id);
