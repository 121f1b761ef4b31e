-- What Raft must not forget (DESIGN D3). Every row carries a checksum over all its columns.
CREATE TABLE hard_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    term INTEGER NOT NULL,
    vote INTEGER NOT NULL,        -- raft id, 0 = none in this term
    first_index INTEGER NOT NULL, -- the log is exactly first_index..last_index;
    last_index INTEGER NOT NULL,  -- first_index = last_index + 1 when it is empty
    crc INTEGER NOT NULL
) STRICT;
INSERT INTO hard_state (id, term, vote, first_index, last_index, crc)
VALUES (1, 0, 0, 1, 0, 2023570260);

CREATE TABLE log_entries (
    log_index INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    type INTEGER NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

CREATE TABLE snapshots (
    log_index INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    conf_index INTEGER NOT NULL,
    conf BLOB NOT NULL,
    image_size INTEGER NOT NULL, -- before compression
    image BLOB NOT NULL,         -- zstd
    sha256 BLOB NOT NULL         -- over all other columns
) STRICT;
