-- What this node has measured of its peers, for the next start (SPEC LST-01 "peer cache"). Who they are
-- and where is in the signed snapshot alone. At most 256 rows, replaced together.
CREATE TABLE peer_facts (
    node_id TEXT PRIMARY KEY NOT NULL,
    latency_us INTEGER NOT NULL,
    loss_permille INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    saved_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
