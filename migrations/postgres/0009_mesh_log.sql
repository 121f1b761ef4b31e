-- What migrations/state/0012_mesh_log.sql added. Writers of before can live with it.

CREATE TABLE rap.mesh_links (
    "cluster_id" text COLLATE "C" NOT NULL,
    "from_node_id" text COLLATE "C" NOT NULL,
    "to_node_id" text COLLATE "C" NOT NULL,
    "status" text,
    "latency" bigint,
    "loss" bigint,
    "reported_at" bigint,
    PRIMARY KEY ("cluster_id", "from_node_id", "to_node_id")
);
SELECT rap.protect('mesh_links');
CREATE TABLE rap.mesh_routes (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "from_node_id" text,
    "to_node_id" text,
    "intent_id" text,
    "path" text,
    "path_kind" text,
    "score" bigint,
    "health" text,
    "reported_at" bigint,
    "expires_at" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('mesh_routes');
