-- A member that began anew without its log gives no vote before the log reaches this index (docs/decisions/0014);
-- no row: it may.
CREATE TABLE silence (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    until_index INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
