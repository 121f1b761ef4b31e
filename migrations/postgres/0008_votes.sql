-- What migrations/state/0011_votes.sql added. Writers of before can live with it.

ALTER TABLE rap.cluster_authorities ADD COLUMN "votes" bigint;
ALTER TABLE rap.cluster_authorities ADD COLUMN "waiting_since" bigint;
