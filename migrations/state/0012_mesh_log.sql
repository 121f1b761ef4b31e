-- Links of the overlay and ways that an intent decided, as nodes reported them, when they changed (SPEC RTE-09,
-- SYN-04): bounded for each node, and written at a bounded rate. What is so now is with the leader.
CREATE TABLE mesh_links (
    cluster_id TEXT NOT NULL,
    from_node_id TEXT NOT NULL,
    to_node_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('up', 'suspect', 'trying', 'down')),
    latency INTEGER NOT NULL, -- us, there and back
    loss INTEGER NOT NULL,    -- permille
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (from_node_id, to_node_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX mesh_links_by_end ON mesh_links (to_node_id, from_node_id);

CREATE TABLE mesh_routes (
    id TEXT PRIMARY KEY NOT NULL, -- FROM.TO
    cluster_id TEXT NOT NULL,
    from_node_id TEXT NOT NULL,
    to_node_id TEXT NOT NULL,
    intent_id TEXT NOT NULL,
    path TEXT,      -- the next hop; NULL: none
    path_kind TEXT, -- direct, relayed
    score INTEGER NOT NULL,
    health TEXT NOT NULL, -- usable, or the reason why not
    reported_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX mesh_routes_by_from ON mesh_routes (from_node_id, id);
CREATE INDEX mesh_routes_by_end ON mesh_routes (to_node_id, id);
