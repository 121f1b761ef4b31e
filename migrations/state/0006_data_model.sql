-- Certificate life, memberships, groups, capabilities, observations (SPEC section c).

-- A root in rotation has statuses of its own, and SQLite cannot change a CHECK in place.
ALTER TABLE cluster_trust_roots RENAME TO cluster_trust_roots_before;
CREATE TABLE cluster_trust_roots (
    cluster_id TEXT NOT NULL,
    root_id TEXT PRIMARY KEY NOT NULL,
    certificate BLOB NOT NULL,
    status TEXT NOT NULL
        CHECK (status IN ('active', 'prepared', 'retiring', 'retired', 'withdrawn')),
    created_at INTEGER NOT NULL,
    retired_at INTEGER
) STRICT;
INSERT INTO cluster_trust_roots (cluster_id, root_id, certificate, status, created_at, retired_at)
    SELECT cluster_id, root_id, certificate, status, created_at, retired_at
    FROM cluster_trust_roots_before ORDER BY root_id;
DROP TABLE cluster_trust_roots_before;
CREATE UNIQUE INDEX cluster_trust_roots_active ON cluster_trust_roots (cluster_id)
    WHERE status = 'active';

-- What the owner signed at each phase of a rotation; the last one is in force.
CREATE TABLE cluster_trust_records (
    cluster_id TEXT NOT NULL,
    seq INTEGER PRIMARY KEY NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('prepare', 'activate', 'retire', 'rollback')),
    record BLOB NOT NULL,
    authority_index INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

ALTER TABLE cluster_authorities ADD COLUMN root_id TEXT;
-- The certificate of the same CA before the last renewal: what it signed is still in use.
ALTER TABLE cluster_authorities ADD COLUMN previous_issuer BLOB;
ALTER TABLE cluster_authorities ADD COLUMN previous_root_id TEXT;
ALTER TABLE cluster_authorities ADD COLUMN issuer_renewed_at INTEGER;
UPDATE cluster_authorities
    SET root_id = (SELECT root_id FROM cluster_trust_roots WHERE status = 'active');

CREATE TABLE certificate_alarms (
    cluster_id TEXT NOT NULL,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('root', 'issuer', 'node')),
    subject_id TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('warning', 'critical', 'expired')),
    not_after INTEGER NOT NULL,
    raised_at INTEGER NOT NULL,
    PRIMARY KEY (subject_kind, subject_id)
) STRICT, WITHOUT ROWID;

ALTER TABLE clusters ADD COLUMN leaf_life_ms INTEGER;
