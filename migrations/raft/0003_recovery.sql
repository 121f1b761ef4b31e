-- Which of the owner's recoveries this log belongs to; no row: none, epoch 1.
CREATE TABLE recovery (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    statement BLOB NOT NULL, -- signed_recovery
    crc INTEGER NOT NULL
) STRICT;
