-- Recoveries by the owner, what a leader saw of its group, and what a fenced authority said of the
-- decisions that count no longer (DESIGN section 7). Ids and times as in 0001.

-- One row an epoch above the first.
CREATE TABLE cluster_recoveries (
    cluster_id TEXT NOT NULL,
    epoch INTEGER PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('recover', 'promote', 'restore')),
    base_index INTEGER NOT NULL,
    base_term INTEGER NOT NULL,
    base_digest TEXT NOT NULL,
    node_id TEXT NOT NULL, -- the one voter it went on with
    reason TEXT,
    statement BLOB NOT NULL, -- signed_recovery
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE cluster_partitions (
    id TEXT PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    members TEXT NOT NULL, -- JSON: ids of the authorities out of contact
    reachable TEXT NOT NULL, -- JSON: ids of those in contact, the leader among them
    has_quorum INTEGER NOT NULL CHECK (has_quorum IN (0, 1)),
    status TEXT NOT NULL CHECK (status IN ('open', 'resolved')),
    detected_at INTEGER NOT NULL,
    resolved_at INTEGER,
    resolution TEXT CHECK (resolution IN ('healed', 'removed', 'recovered', 'promoted', 'restored')),
    resolved_by TEXT
) STRICT;
CREATE UNIQUE INDEX cluster_partitions_open ON cluster_partitions (cluster_id) WHERE status = 'open';

-- What an authority of an older epoch handed over before it gave up its log.
CREATE TABLE divergence_reports (
    cluster_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,      -- the epoch that fenced it
    from_epoch INTEGER NOT NULL, -- its own
    common_index INTEGER NOT NULL, -- the last entry both histories share
    last_index INTEGER NOT NULL,
    last_term INTEGER NOT NULL,
    commit_index INTEGER NOT NULL, -- what its side is known to have committed
    rows_total INTEGER NOT NULL,
    rows_stored INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('receiving', 'reported', 'merged')),
    reported_at INTEGER NOT NULL,
    merged_at INTEGER,
    PRIMARY KEY (node_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE divergence_entries (
    node_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    log_index INTEGER NOT NULL,
    log_term INTEGER NOT NULL,
    committed INTEGER NOT NULL CHECK (committed IN (0, 1)),
    kind TEXT NOT NULL,
    request_id TEXT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id TEXT,
    subject_id TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (node_id, epoch, seq)
) STRICT, WITHOUT ROWID;
