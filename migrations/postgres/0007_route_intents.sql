-- What migrations/state/0010_route_intents.sql added. Writers of before can live with it.

CREATE TABLE rap.cluster_route_intents (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "name" text,
    "organization_id" text,
    "service_class" text,
    "source_kind" text,
    "source_ref" text,
    "destination_kind" text,
    "destination_ref" text,
    "policy" text,
    "via_kind" text,
    "via_ref" text,
    "qos_class" text,
    "status" text,
    "created_at" bigint,
    "updated_at" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('cluster_route_intents');
CREATE TABLE rap.egress_pool_members (
    "cluster_id" text COLLATE "C" NOT NULL,
    "pool_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "added_at" bigint,
    PRIMARY KEY ("cluster_id", "pool_id", "node_id")
);
SELECT rap.protect('egress_pool_members');
CREATE TABLE rap.egress_pools (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "name" text,
    "organization_id" text,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('egress_pools');
CREATE TABLE rap.qos_policies (
    "cluster_id" text COLLATE "C" NOT NULL,
    "channel_class" text COLLATE "C" NOT NULL,
    "priority" bigint,
    "rate" bigint,
    "droppable" bigint,
    "floor_permille" bigint,
    "limit_kib" bigint,
    "life_ms" bigint,
    "updated_at" bigint,
    PRIMARY KEY ("cluster_id", "channel_class")
);
SELECT rap.protect('qos_policies');
