-- What migrations/state/0017_cut_off.sql added. Writers of before can live with it.

ALTER TABLE rap.mesh_settings ADD COLUMN "cut_off_after_ms" bigint;
