-- The replicated state (DESIGN D3). Names are those of SPEC section (c). Ids are UUID text,
-- fingerprints, serials and hashes lower-case hex, *_at milliseconds since 1970, lists JSON arrays.
-- Nothing here is read by rowid: what a replica answers depends on the rows alone.

CREATE TABLE clusters (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    slug TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('forming', 'active', 'degraded', 'partitioned', 'retired')),
    region TEXT,
    metadata TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    config_version INTEGER NOT NULL,
    test_telemetry INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE cluster_trust_roots (
    cluster_id TEXT NOT NULL,
    root_id TEXT PRIMARY KEY NOT NULL,
    certificate BLOB NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'retired')),
    created_at INTEGER NOT NULL,
    retired_at INTEGER
) STRICT;

CREATE TABLE nodes (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL UNIQUE,
    enrollment_status TEXT NOT NULL CHECK (enrollment_status IN ('enrolled', 'revoked')),
    health_status TEXT NOT NULL
        CHECK (health_status IN ('unknown', 'healthy', 'degraded', 'unhealthy', 'stale')),
    identity_state TEXT NOT NULL CHECK (identity_state IN ('active', 'revoked')),
    owner_kind TEXT,
    organization_id TEXT,
    agent_version TEXT,
    update_state TEXT,
    facts TEXT,
    test_telemetry INTEGER NOT NULL DEFAULT 0,
    address TEXT,
    -- The last index that changed what this node's own signed snapshot says.
    config_index INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX nodes_by_config_index ON nodes (config_index);
-- A revoked node keeps its name in the list; another may take it over.
CREATE UNIQUE INDEX nodes_by_name ON nodes (name) WHERE enrollment_status = 'enrolled';
CREATE INDEX nodes_by_any_name ON nodes (name);

CREATE TABLE cluster_memberships (
    cluster_id TEXT NOT NULL,
    node_id TEXT PRIMARY KEY NOT NULL,
    membership_status TEXT NOT NULL
        CHECK (membership_status IN ('pending', 'active', 'disabled', 'revoked')),
    joined_at INTEGER NOT NULL,
    last_seen_at INTEGER,
    metadata TEXT,
    group_id TEXT
) STRICT;

CREATE TABLE node_identities (
    cluster_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    public_key BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    certificate_serial TEXT PRIMARY KEY NOT NULL,
    certificate_not_before INTEGER NOT NULL,
    certificate_not_after INTEGER NOT NULL,
    identity_status TEXT NOT NULL
        CHECK (identity_status IN ('active', 'rotating', 'revoked', 'expired')),
    issued_at INTEGER NOT NULL,
    rotated_at INTEGER,
    revoked_at INTEGER,
    root_id TEXT NOT NULL,
    certificate BLOB NOT NULL,
    issuer_certificate BLOB NOT NULL
) STRICT;
CREATE INDEX node_identities_by_node ON node_identities (node_id);
-- S8: one active identity per node.
CREATE UNIQUE INDEX node_identities_active ON node_identities (node_id)
    WHERE identity_status = 'active';

CREATE TABLE node_join_tokens (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    max_uses INTEGER NOT NULL,
    used_count INTEGER NOT NULL CHECK (used_count <= max_uses),
    created_by_user_id TEXT,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE node_join_requests (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    node_name TEXT NOT NULL,
    node_fingerprint TEXT NOT NULL,
    public_key BLOB NOT NULL,
    reported_capabilities TEXT NOT NULL,
    reported_facts TEXT,
    requested_roles TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'expired')),
    source_address TEXT,
    address TEXT,
    join_token_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    reviewed_at INTEGER,
    reviewed_by_user_id TEXT,
    approved_node_id TEXT,
    rejection_reason TEXT
) STRICT;
CREATE INDEX node_join_requests_by_status ON node_join_requests (status, id);
CREATE INDEX node_join_requests_by_name ON node_join_requests (node_name);
CREATE INDEX node_join_requests_by_token ON node_join_requests (join_token_id);
CREATE INDEX node_join_requests_ending ON node_join_requests (expires_at, id)
    WHERE status = 'pending';
CREATE UNIQUE INDEX node_join_requests_pending_key ON node_join_requests (node_fingerprint)
    WHERE status = 'pending';
CREATE UNIQUE INDEX node_join_requests_pending_name ON node_join_requests (node_name)
    WHERE status = 'pending';

CREATE TABLE node_capabilities (
    node_id TEXT NOT NULL,
    capability TEXT NOT NULL,
    verified INTEGER NOT NULL DEFAULT 0,
    reported_at INTEGER NOT NULL,
    verified_at INTEGER,
    PRIMARY KEY (node_id, capability)
) STRICT, WITHOUT ROWID;

CREATE TABLE node_role_assignments (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    role TEXT NOT NULL,
    organization_id TEXT,
    status TEXT NOT NULL CHECK (status IN ('active', 'disabled', 'removed')),
    assigned_by_user_id TEXT,
    assigned_at INTEGER NOT NULL,
    removed_at INTEGER,
    policy TEXT,
    authority_index INTEGER NOT NULL
) STRICT;
CREATE INDEX node_role_assignments_by_node ON node_role_assignments (node_id, role);
CREATE UNIQUE INDEX node_role_assignments_live
    ON node_role_assignments (node_id, role, coalesce(organization_id, ''))
    WHERE status <> 'removed';

CREATE TABLE cluster_authorities (
    cluster_id TEXT NOT NULL,
    node_id TEXT PRIMARY KEY NOT NULL,
    address TEXT NOT NULL,
    issuer_certificate BLOB NOT NULL,
    issuer_fingerprint TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('joining', 'standby', 'voter', 'removed')),
    added_at INTEGER NOT NULL,
    removed_at INTEGER
) STRICT;

CREATE TABLE banned_keys (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    reason TEXT NOT NULL,
    banned_at INTEGER NOT NULL,
    not_after INTEGER -- when the last certificate for it ends; NULL: not known
) STRICT, WITHOUT ROWID;

CREATE TABLE node_latest_state (
    cluster_id TEXT NOT NULL,
    node_id TEXT PRIMARY KEY NOT NULL,
    observed_at INTEGER,
    received_at INTEGER NOT NULL,
    health TEXT NOT NULL,
    version TEXT,
    partition_state TEXT,
    config_version INTEGER,
    telemetry TEXT
) STRICT;

-- S16: seq has no gaps; hash = SHA-256 over prev_hash and the row.
CREATE TABLE cluster_audit_events (
    seq INTEGER PRIMARY KEY NOT NULL,
    id TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    organization_id TEXT,
    actor_kind TEXT NOT NULL,
    actor_id TEXT,
    event_type TEXT NOT NULL,
    subject_type TEXT NOT NULL,
    subject_id TEXT,
    high_risk INTEGER NOT NULL CHECK (high_risk IN (0, 1)),
    details TEXT NOT NULL,
    authority_term INTEGER NOT NULL,
    authority_index INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX cluster_audit_events_by_subject ON cluster_audit_events (subject_id, seq);

CREATE TABLE cluster_authority_terms (
    cluster_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    term INTEGER NOT NULL,
    leader_node_id TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    PRIMARY KEY (epoch, term)
) STRICT, WITHOUT ROWID;

CREATE TABLE authority_applied (
    cluster_id TEXT PRIMARY KEY NOT NULL,
    epoch INTEGER NOT NULL,
    term INTEGER NOT NULL,
    "index" INTEGER NOT NULL
) STRICT;

-- S4: the first answer to each request id, for a day. seq rises with created_at.
CREATE TABLE request_results (
    seq INTEGER PRIMARY KEY NOT NULL,
    request_id TEXT NOT NULL UNIQUE,
    request_hash TEXT NOT NULL,
    kind INTEGER NOT NULL,
    rc INTEGER NOT NULL,
    doc BLOB NOT NULL,
    "index" INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- What the engine itself must carry over a restore. Written only when an image is made; not part
-- of the digest, which it contains.
CREATE TABLE fsm_state (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    term INTEGER NOT NULL,
    "index" INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;
