-- What the mirror writes (DESIGN D2, D10). Every table of the replicated state (migrations/state) is
-- here under its own name, with cluster_id in front of its key, because clusters may share a database;
-- request_results too, so that a cluster rebuilt from here answers a repeated request as before. Two are
-- kept in another way: authority_applied is the position and the fence below, and the state's one-row
-- fsm_state (stamp and digest at that position) is part of it. Checks are the state's business: here is
-- recorded what was decided. Written by `rap mirror migrate`, append-only; tools/mirror_ddl prints what is
-- missing when the state gets another table or column.

-- min_writer: 1
CREATE SCHEMA rap;
REVOKE ALL ON SCHEMA rap FROM PUBLIC;

-- min_writer: the least schema version a program must know to write here. A file that only adds
-- columns or tables leaves it as it was.
CREATE TABLE rap.schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    min_writer integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- The position: this cluster's rows are the fold of its log up to "index". claim counts writers: each
-- takes the next number, under the (epoch, term) it leads in, and writes only while nobody took another.
CREATE TABLE rap.authority_applied (
    "cluster_id" text COLLATE "C" PRIMARY KEY,
    "epoch" bigint NOT NULL DEFAULT 0,
    "term" bigint NOT NULL DEFAULT 0,
    "index" bigint NOT NULL DEFAULT 0,
    "time_ms" bigint NOT NULL DEFAULT 0,
    "level" bigint NOT NULL DEFAULT 0,
    "digest" text NOT NULL DEFAULT '',
    "writer_epoch" bigint NOT NULL DEFAULT 0,
    "writer_term" bigint NOT NULL DEFAULT 0,
    "writer_node_id" text NOT NULL DEFAULT '',
    "claim" bigint NOT NULL DEFAULT 0,
    "rebuilds" bigint NOT NULL DEFAULT 0,
    "written_at" timestamptz NOT NULL DEFAULT now()
);

-- S13, whatever the program does: nobody goes back. A writer with a lower (epoch, term), a claim that was
-- superseded or an index that is not above the stored one ends its transaction. Only a rebuild, which
-- counts itself, may set a lower index.
CREATE FUNCTION rap.check_position() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.cluster_id <> OLD.cluster_id
        OR (NEW.writer_epoch, NEW.writer_term) < (OLD.writer_epoch, OLD.writer_term)
        OR NEW.claim < OLD.claim OR NEW.rebuilds < OLD.rebuilds
        OR NEW.claim > OLD.claim AND NEW."index" <> OLD."index"
        OR NEW.claim = OLD.claim AND NEW.rebuilds = OLD.rebuilds AND NEW."index" <= OLD."index"
        OR NEW.claim = OLD.claim
            AND (NEW.writer_epoch, NEW.writer_term) <> (OLD.writer_epoch, OLD.writer_term)
    THEN
        RAISE EXCEPTION 'stale writer: (epoch %, term %, claim %, index %) after (%, %, %, %)',
            NEW.writer_epoch, NEW.writer_term, NEW.claim, NEW."index",
            OLD.writer_epoch, OLD.writer_term, OLD.claim, OLD."index"
            USING ERRCODE = 'RAP01';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_position BEFORE UPDATE ON rap.authority_applied
    FOR EACH ROW EXECUTE FUNCTION rap.check_position();

-- Rows change only in a transaction that moves a position: S14, and no edit by accident. An
-- administrator who must edit sets session_replication_role to replica, and `rap mirror verify` tells.
CREATE FUNCTION rap.check_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM rap.authority_applied
                   WHERE xmin = pg_current_xact_id()::xid) THEN
        RAISE EXCEPTION '%.% is written by the mirror only, with its position',
            TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'RAP02';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION rap.protect(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER check_moves BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE'
        ' ON rap.%I FOR EACH STATEMENT EXECUTE FUNCTION rap.check_moves()', name);
END $$;

-- All that a writer needs, and nothing by which it could change the schema, the fence or its past.
CREATE FUNCTION rap.grant_writer(writer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA rap TO %I', writer);
    EXECUTE format('GRANT SELECT ON rap.schema_migrations TO %I', writer);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON rap.authority_applied TO %I', writer);
    FOR t IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'rap' AND c.relkind = 'r'
                 AND c.relname NOT IN ('schema_migrations', 'authority_applied') LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON rap.%I TO %I', t.relname, writer);
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION rap.protect(text), rap.grant_writer(text) FROM PUBLIC;

CREATE TABLE rap.banned_keys (
    "cluster_id" text COLLATE "C" NOT NULL,
    "fingerprint" text COLLATE "C" NOT NULL,
    "reason" text,
    "banned_at" bigint,
    "not_after" bigint,
    PRIMARY KEY ("cluster_id", "fingerprint")
);
SELECT rap.protect('banned_keys');

CREATE TABLE rap.cluster_audit_events (
    "cluster_id" text COLLATE "C" NOT NULL,
    "seq" bigint NOT NULL,
    "id" text,
    "organization_id" text,
    "actor_kind" text,
    "actor_id" text,
    "event_type" text,
    "subject_type" text,
    "subject_id" text,
    "high_risk" bigint,
    "details" text,
    "authority_term" bigint,
    "authority_index" bigint,
    "created_at" bigint,
    "prev_hash" text,
    "hash" text,
    PRIMARY KEY ("cluster_id", "seq")
);
SELECT rap.protect('cluster_audit_events');

CREATE TABLE rap.cluster_authorities (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "address" text,
    "issuer_certificate" bytea,
    "issuer_fingerprint" text,
    "status" text,
    "added_at" bigint,
    "removed_at" bigint,
    PRIMARY KEY ("cluster_id", "node_id")
);
SELECT rap.protect('cluster_authorities');

CREATE TABLE rap.cluster_authority_terms (
    "cluster_id" text COLLATE "C" NOT NULL,
    "epoch" bigint NOT NULL,
    "term" bigint NOT NULL,
    "leader_node_id" text,
    "started_at" bigint,
    "ended_at" bigint,
    PRIMARY KEY ("cluster_id", "epoch", "term")
);
SELECT rap.protect('cluster_authority_terms');

CREATE TABLE rap.cluster_memberships (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "membership_status" text,
    "joined_at" bigint,
    "last_seen_at" bigint,
    "metadata" text,
    "group_id" text,
    PRIMARY KEY ("cluster_id", "node_id")
);
SELECT rap.protect('cluster_memberships');

CREATE TABLE rap.cluster_trust_roots (
    "cluster_id" text COLLATE "C" NOT NULL,
    "root_id" text COLLATE "C" NOT NULL,
    "certificate" bytea,
    "status" text,
    "created_at" bigint,
    "retired_at" bigint,
    PRIMARY KEY ("cluster_id", "root_id")
);
SELECT rap.protect('cluster_trust_roots');

CREATE TABLE rap.clusters (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "name" text,
    "slug" text,
    "status" text,
    "region" text,
    "metadata" text,
    "created_at" bigint,
    "updated_at" bigint,
    "config_version" bigint,
    "test_telemetry" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('clusters');

CREATE TABLE rap.mirror_settings (
    "cluster_id" text COLLATE "C" NOT NULL,
    "mode" text,
    "dsn" text,
    "max_lag_ms" bigint,
    "rebuilds" bigint,
    "alarm" text,
    "alarm_detail" text,
    "alarm_at" bigint,
    "updated_at" bigint,
    PRIMARY KEY ("cluster_id")
);
SELECT rap.protect('mirror_settings');

CREATE TABLE rap.node_capabilities (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "capability" text COLLATE "C" NOT NULL,
    "verified" bigint,
    "reported_at" bigint,
    "verified_at" bigint,
    PRIMARY KEY ("cluster_id", "node_id", "capability")
);
SELECT rap.protect('node_capabilities');

CREATE TABLE rap.node_identities (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text,
    "public_key" bytea,
    "fingerprint" text,
    "certificate_serial" text COLLATE "C" NOT NULL,
    "certificate_not_before" bigint,
    "certificate_not_after" bigint,
    "identity_status" text,
    "issued_at" bigint,
    "rotated_at" bigint,
    "revoked_at" bigint,
    "root_id" text,
    "certificate" bytea,
    "issuer_certificate" bytea,
    PRIMARY KEY ("cluster_id", "certificate_serial")
);
SELECT rap.protect('node_identities');

CREATE TABLE rap.node_join_requests (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "node_name" text,
    "node_fingerprint" text,
    "public_key" bytea,
    "reported_capabilities" text,
    "reported_facts" text,
    "requested_roles" text,
    "status" text,
    "source_address" text,
    "address" text,
    "join_token_id" text,
    "created_at" bigint,
    "expires_at" bigint,
    "reviewed_at" bigint,
    "reviewed_by_user_id" text,
    "approved_node_id" text,
    "rejection_reason" text,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('node_join_requests');

CREATE TABLE rap.node_join_tokens (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "token_hash" text,
    "scope" text,
    "expires_at" bigint,
    "max_uses" bigint,
    "used_count" bigint,
    "created_by_user_id" text,
    "created_at" bigint,
    "revoked_at" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('node_join_tokens');

CREATE TABLE rap.node_latest_state (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "observed_at" bigint,
    "received_at" bigint,
    "health" text,
    "version" text,
    "partition_state" text,
    "config_version" bigint,
    "telemetry" text,
    PRIMARY KEY ("cluster_id", "node_id")
);
SELECT rap.protect('node_latest_state');

CREATE TABLE rap.node_role_assignments (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "node_id" text,
    "role" text,
    "organization_id" text,
    "status" text,
    "assigned_by_user_id" text,
    "assigned_at" bigint,
    "removed_at" bigint,
    "policy" text,
    "authority_index" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('node_role_assignments');

CREATE TABLE rap.nodes (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "name" text,
    "fingerprint" text,
    "enrollment_status" text,
    "health_status" text,
    "identity_state" text,
    "owner_kind" text,
    "organization_id" text,
    "agent_version" text,
    "update_state" text,
    "facts" text,
    "test_telemetry" bigint,
    "address" text,
    "config_index" bigint,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('nodes');

CREATE TABLE rap.request_results (
    "cluster_id" text COLLATE "C" NOT NULL,
    "seq" bigint NOT NULL,
    "request_id" text,
    "request_hash" text,
    "kind" bigint,
    "rc" bigint,
    "doc" bytea,
    "index" bigint,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "seq")
);
SELECT rap.protect('request_results');


CREATE TABLE rap.authority_sets (
    "cluster_id" text COLLATE "C" NOT NULL,
    "seq" bigint NOT NULL,
    "epoch" bigint,
    "members" bigint,
    "statement" bytea,
    "signed" bytea,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "seq")
);
SELECT rap.protect('authority_sets');

CREATE TABLE rap.cluster_partitions (
    "cluster_id" text COLLATE "C" NOT NULL,
    "id" text COLLATE "C" NOT NULL,
    "members" text,
    "reachable" text,
    "has_quorum" bigint,
    "status" text,
    "detected_at" bigint,
    "resolved_at" bigint,
    "resolution" text,
    "resolved_by" text,
    PRIMARY KEY ("cluster_id", "id")
);
SELECT rap.protect('cluster_partitions');
CREATE TABLE rap.cluster_recoveries (
    "cluster_id" text COLLATE "C" NOT NULL,
    "epoch" bigint NOT NULL,
    "kind" text,
    "base_index" bigint,
    "base_term" bigint,
    "base_digest" text,
    "node_id" text,
    "reason" text,
    "statement" bytea,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "epoch")
);
SELECT rap.protect('cluster_recoveries');
CREATE TABLE rap.divergence_entries (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "epoch" bigint NOT NULL,
    "seq" bigint NOT NULL,
    "log_index" bigint,
    "log_term" bigint,
    "committed" bigint,
    "kind" text,
    "request_id" text,
    "actor_kind" text,
    "actor_id" text,
    "subject_id" text,
    "created_at" bigint,
    PRIMARY KEY ("cluster_id", "node_id", "epoch", "seq")
);
SELECT rap.protect('divergence_entries');
CREATE TABLE rap.divergence_reports (
    "cluster_id" text COLLATE "C" NOT NULL,
    "node_id" text COLLATE "C" NOT NULL,
    "epoch" bigint NOT NULL,
    "from_epoch" bigint,
    "common_index" bigint,
    "last_index" bigint,
    "last_term" bigint,
    "commit_index" bigint,
    "rows_total" bigint,
    "rows_stored" bigint,
    "status" text,
    "reported_at" bigint,
    "merged_at" bigint,
    PRIMARY KEY ("cluster_id", "node_id", "epoch")
);
SELECT rap.protect('divergence_reports');
