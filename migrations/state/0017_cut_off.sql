-- How long the services of a node go on that is cut off from the authority (SPEC AUTH-04). NULL: for as long as they can.
ALTER TABLE mesh_settings ADD COLUMN cut_off_after_ms INTEGER;
