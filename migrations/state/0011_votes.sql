-- An authority may be kept without a vote (rap authority demote), and one that never catches up does not stay for
-- ever. waiting_since: since when it is on its way to a vote; NULL: it votes, is not meant to, or waits
-- since before this level.
ALTER TABLE cluster_authorities ADD COLUMN votes INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cluster_authorities ADD COLUMN waiting_since INTEGER;
