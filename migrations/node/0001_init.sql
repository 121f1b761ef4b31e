-- What one node keeps for one membership (SPEC LST-01). Peers, routes and service assignments are
-- not tables of their own: they are read from the signed snapshot, the only copy there is.

CREATE TABLE settings (
    key TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- At most one row: the last snapshot that was accepted. epoch and config_version repeat what the
-- signed bytes say, so that what was accepted still cannot be rolled back when they are damaged.
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    epoch INTEGER NOT NULL,
    config_version INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    signed BLOB NOT NULL
) STRICT;
