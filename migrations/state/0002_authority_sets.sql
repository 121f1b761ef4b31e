-- Who signs what is decided (decision 0008): the chain of authority sets, oldest first. statement is
-- what was signed, signed is that with its signatures, as nodes are sent it.
CREATE TABLE authority_sets (
    seq INTEGER PRIMARY KEY NOT NULL,
    cluster_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    members INTEGER NOT NULL,
    statement BLOB NOT NULL,
    signed BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Few rows, and status asks for their number.
CREATE INDEX cluster_audit_events_forgeries ON cluster_audit_events (created_at)
    WHERE event_type = 'forgery_reported';
