-- The packed image of a snapshot in rows of a few hundred KiB, which are written and deleted between batches
-- of the log instead of in its way. snapshots.image is empty where there are parts; snapshots.sha256 is over
-- both, one after the other. Parts of any other index are left from an older snapshot or one that was not
-- finished, and go.
CREATE TABLE snapshot_parts (
    snapshot_index INTEGER NOT NULL,
    part INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (snapshot_index, part)
) STRICT, WITHOUT ROWID;
