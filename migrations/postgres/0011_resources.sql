-- What migrations/state/0016_resources.sql added. Writers of before can live with it.

CREATE TABLE rap.organization_resources (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "organization_id" text,
    "name" text,
    "protocol" text,
    "target_ref" text,
    "node_id" text,
    "egress_pool_id" text,
    "credential_ref" text,
    "created_at" bigint,
    "updated_at" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('organization_resources');
