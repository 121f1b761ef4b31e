-- What migrations/state/0015_splits.sql added. Writers of before can live with it.

CREATE TABLE rap.cluster_split_nodes (
    "cluster_id" text COLLATE "C" NOT NULL,
    "split_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    PRIMARY KEY ("cluster_id", "split_id", "node_id")
);
SELECT rap.protect('cluster_split_nodes');
CREATE TABLE rap.cluster_splits (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "name" text,
    "new_cluster_id" text,
    "root_pin" text,
    "seed_node_id" text,
    "status" text,
    "begun_at" bigint,
    "ended_at" bigint,
    "reason" text,
    "report" bytea,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('cluster_splits');
