-- A role may be bound to one cluster: it then sees and writes that cluster's rows and no others, whatever
-- its SQL says. A role that is not named here is bound to none and may write for all (one owner, several
-- clusters). The subquery runs once a statement. Writers of before need not know.

CREATE TABLE rap.writers (
    "role_name" text PRIMARY KEY,
    "cluster_id" text COLLATE "C" NOT NULL
);

CREATE FUNCTION rap.isolate(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE rap.%I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY own_cluster ON rap.%I USING (cluster_id = coalesce('
        '(SELECT w.cluster_id FROM rap.writers w WHERE w.role_name = current_user), cluster_id))', name);
END $$;

CREATE OR REPLACE FUNCTION rap.protect(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER check_moves BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE'
        ' ON rap.%I FOR EACH STATEMENT EXECUTE FUNCTION rap.check_moves()', name);
    PERFORM rap.isolate(name);
END $$;

CREATE OR REPLACE FUNCTION rap.grant_writer(writer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA rap TO %I', writer);
    EXECUTE format('GRANT SELECT ON rap.schema_migrations, rap.writers TO %I', writer);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON rap.authority_applied TO %I', writer);
    FOR t IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'rap' AND c.relkind = 'r'
                 AND c.relname NOT IN ('schema_migrations', 'writers', 'authority_applied') LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON rap.%I TO %I', t.relname, writer);
    END LOOP;
END $$;

CREATE FUNCTION rap.bind_writer(writer text, cluster text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO rap.writers (role_name, cluster_id) VALUES (writer, cluster)
        ON CONFLICT (role_name) DO UPDATE SET cluster_id = EXCLUDED.cluster_id;
$$;
REVOKE ALL ON FUNCTION rap.isolate(text), rap.bind_writer(text, text) FROM PUBLIC;

SELECT rap.isolate(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'rap' AND c.relkind = 'r' AND c.relname NOT IN ('schema_migrations', 'writers');
