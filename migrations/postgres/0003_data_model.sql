-- What migrations/state/0006_data_model.sql added. Writers of before can live with it.

CREATE TABLE rap.certificate_alarms (
    "cluster_id" text COLLATE "C" NOT NULL,
    "subject_kind" text COLLATE "C" NOT NULL,
    "subject_id" text COLLATE "C" NOT NULL,
    "severity" text,
    "not_after" bigint,
    "raised_at" bigint,
    PRIMARY KEY ("cluster_id", "subject_kind", "subject_id")
);
SELECT rap.protect('certificate_alarms');
ALTER TABLE rap.cluster_authorities ADD COLUMN "root_id" text;
ALTER TABLE rap.cluster_authorities ADD COLUMN "previous_issuer" bytea;
ALTER TABLE rap.cluster_authorities ADD COLUMN "previous_root_id" text;
ALTER TABLE rap.cluster_authorities ADD COLUMN "issuer_renewed_at" bigint;
CREATE TABLE rap.cluster_trust_records (
    "cluster_id" text COLLATE "C" NOT NULL,
    "seq" bigint NOT NULL,
    "phase" text,
    "record" bytea,
    "authority_index" bigint,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "seq")
);
SELECT rap.protect('cluster_trust_records');
ALTER TABLE rap.clusters ADD COLUMN "leaf_life_ms" bigint;
