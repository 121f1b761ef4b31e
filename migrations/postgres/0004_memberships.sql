-- What migrations/state/0007_memberships.sql added. Writers of before can live with it.

CREATE TABLE rap.capability_policies (
    "cluster_id" text COLLATE "C" NOT NULL,
    "capability" text COLLATE "C" NOT NULL,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "capability")
);
SELECT rap.protect('capability_policies');
ALTER TABLE rap.cluster_memberships ADD COLUMN "disabled_at" bigint;
ALTER TABLE rap.cluster_memberships ADD COLUMN "disabled_reason" text;
ALTER TABLE rap.clusters ADD COLUMN "heartbeat_sample_ms" bigint;
CREATE TABLE rap.node_groups (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "parent_group_id" text,
    "name" text,
    "kind" text,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('node_groups');
CREATE TABLE rap.node_heartbeats (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "observed_at" bigint,
    "received_at" bigint NOT NULL,
    "health" text,
    "version" text,
    "partition_state" text,
    "config_version" bigint,
    "telemetry" text,
    PRIMARY KEY ("cluster_id", "node_id", "received_at")
);
SELECT rap.protect('node_heartbeats');
CREATE TABLE rap.required_roles (
    "cluster_id" text COLLATE "C" NOT NULL,
    "role" text COLLATE "C" NOT NULL,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "role")
);
SELECT rap.protect('required_roles');
