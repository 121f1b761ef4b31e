-- What the rows of a cluster add up to, table by table, and an authority's signature over it for the
-- position (docs/decisions/0013). Who cannot write here (a program of before) leaves a seal of an older
-- index behind; the next one that can writes the whole anew.

CREATE TABLE rap.mirror_sums (
    "cluster_id" text COLLATE "C" NOT NULL,
    "table_name" text COLLATE "C" NOT NULL,
    "rows" bigint NOT NULL,
    "sum" bytea NOT NULL,
    PRIMARY KEY ("cluster_id", "table_name")
);
ALTER TABLE rap.mirror_sums ALTER COLUMN "sum" SET STORAGE PLAIN;
SELECT rap.protect('mirror_sums');

CREATE TABLE rap.mirror_seals (
    "cluster_id" text COLLATE "C" PRIMARY KEY,
    "seal" bytea NOT NULL
);
SELECT rap.protect('mirror_seals');
