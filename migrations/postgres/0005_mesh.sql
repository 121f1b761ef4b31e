-- What migrations/state/0009_mesh.sql added. Writers of before can live with it.

CREATE TABLE rap.mesh_settings (
    "cluster_id" text COLLATE "C" NOT NULL,
    "overlay" bigint,
    "synthetic" bigint,
    "updated_at" bigint,
    PRIMARY KEY ("cluster_id")
);
SELECT rap.protect('mesh_settings');
CREATE TABLE rap.node_mesh_settings (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "overlay" text,
    "synthetic" text,
    "kind" text,
    "region" text,
    "bandwidth_mbps" bigint,
    "trust" bigint,
    "updated_at" bigint,
    PRIMARY KEY ("cluster_id", "node_id")
);
SELECT rap.protect('node_mesh_settings');
